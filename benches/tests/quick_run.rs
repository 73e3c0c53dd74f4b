// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program as people and CI call it. What it measures is not looked at here, only that it says
//! it properly.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn benches(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kennel-benches"));
    program.args(arguments).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("it was written")
}

#[test]
fn a_quick_run_gives_figures_verdicts_and_a_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let (json, page, results) = (path("run.json"), path("run.html"), path("results"));
    let names = [&json, &page, &results].map(|path| path.to_str().expect("UTF-8"));
    let [json_name, page_name, results_name] = names;
    let run = benches(&[
        "run",
        "--quick",
        "--only",
        "T2,T4,S2",
        "--json",
        json_name,
        "--html",
        page_name,
        "--results",
        results_name,
    ]);
    assert!(run.status.success(), "{}", text(&run.stderr));

    let report: Value = serde_json::from_str(&read(&json)).expect("JSON");
    let metrics = report["metrics"].as_array().expect("metrics");
    let ids: Vec<&str> = metrics
        .iter()
        .filter_map(|one| one["id"].as_str())
        .collect();
    assert_eq!(ids, ["T2", "T4", "S2"]);
    for metric in metrics {
        assert!(!metric["series"].as_array().expect("series").is_empty());
        let verdicts = metric["verdicts"].as_array().expect("verdicts");
        assert!(!verdicts.is_empty());
        for verdict in verdicts {
            let outcome = verdict["outcome"].as_str().expect("an outcome");
            assert!(["met", "missed", "unclear", "absent"].contains(&outcome));
            assert_eq!(verdict["value"].is_null(), outcome == "absent", "{verdict}");
        }
    }
    // What is counted is the same on every machine.
    let early = &metrics[0]["verdicts"];
    assert!(
        early
            .as_array()
            .expect("verdicts")
            .iter()
            .all(|one| one["outcome"] == "met")
    );

    let page = read(&page);
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for word in ["http:", "https:", "<script", "src=", "NaN"] {
        let found = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(word), "{word} in the page");
    }
    assert!(page.contains("id=\"T4\"") && page.contains("<svg"));
    let figures = read(&results.join("figures.csv"));
    assert!(figures.starts_with("metric,unit,series") && figures.contains("\nT4,"));
    assert!(read(&results.join("t4.svg")).starts_with("<svg"));

    let same = benches(&["compare", json_name, json_name]);
    assert!(same.status.success());
    assert!(text(&same.stdout).contains("T4: One ping"));
}

#[test]
fn an_unknown_metric_and_a_foreign_file_are_refused_with_what_to_do() {
    let run = benches(&["run", "--only", "T99"]);
    assert!(!run.status.success());
    let said = text(&run.stderr);
    assert!(
        said.contains("no metric T99") && said.contains("T1, T2"),
        "{said}"
    );
    let missing = text(&benches(&["run", "--only", "V5"]).stderr);
    assert!(missing.contains("no metric V5 ("), "{missing}");

    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "{}").expect("written");
    let draw = benches(&["draw", file.path().to_str().expect("UTF-8")]);
    assert!(!draw.status.success());
    assert!(text(&draw.stderr).contains("run --json"));
}

#[test]
fn the_list_names_what_is_measured_and_what_is_missing() {
    let list = text(&benches(&["list"]).stdout);
    assert!(list.contains("T1: Lateness of a bite") && list.contains("target:"));
    assert!(list.contains("Missing:") && list.contains("V5"));
}

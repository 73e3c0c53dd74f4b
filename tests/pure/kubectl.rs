// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of what kubectl makes of scalars, against the kubectl that is installed. No cluster is
//! asked: `kubectl annotate --local` only converts.

use std::path::Path;
use std::process::Command;

use kennel_tests::tier::{Obstacle, test_if_able};
use libtest_mimic::Trial;
use serde_json::Value;

/// Not the pure tier: a machine without kubectl need not have it.
const TIER: &str = "kubectl";
const TABLE: &str = include_str!("../../harness/src/spec/tests/scalars.tsv");

pub(crate) fn tests() -> Vec<Trial> {
    vec![test_if_able(
        TIER,
        "kubectl_gives_the_scalars_of_the_table",
        scalars,
    )]
}

fn scalars() -> Result<(), Obstacle> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("vm.yaml");
    if convert(&file, "a: 1")?.is_none() {
        return Err(Obstacle("kubectl converts no document".to_owned()));
    }
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let (mut all, mut expected) = (String::new(), Vec::new());
    for line in lines {
        let columns: Vec<_> = line.split('\t').collect();
        let [kind, written, json] = columns[..] else {
            unreachable!("{line:?}")
        };
        let entry = match kind {
            "value" => format!("v: {written}"),
            _ => format!("{written}: x"),
        };
        if json == "refused" {
            assert_eq!(convert(&file, &entry)?, None, "{line}");
            continue;
        }
        // One conversion for all that are taken: each starts a process.
        all.push_str(&format!("- {entry}\n  "));
        let value = serde_json::from_str::<Value>(json).expect(line);
        expected.push((
            line,
            if kind == "value" {
                ("v".to_owned(), value)
            } else {
                keyed(&value)
            },
        ));
    }
    let list = convert(&file, &format!("list:\n  {all}"))?.expect("all of them are taken");
    let list = list["list"].as_array().expect("a list");
    assert_eq!(list.len(), expected.len());
    for (given, (line, (key, value))) in list.iter().zip(&expected) {
        assert_eq!(given.get(key), Some(value), "{line}: {given}");
    }
    Ok(())
}

fn keyed(key: &Value) -> (String, Value) {
    (
        key.as_str().unwrap_or_default().to_owned(),
        Value::from("x"),
    )
}

/// The spec with `entry` in it as kubectl converts it; none if it refuses the document.
fn convert(file: &Path, entry: &str) -> Result<Option<Value>, Obstacle> {
    let head =
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {name: a}\nspec:";
    std::fs::write(file, format!("{head}\n  {entry}\n")).expect("writes");
    let output = Command::new("kubectl")
        .args(["annotate", "--local", "a=b", "-o", "json", "-f"])
        .arg(file)
        .output()
        .map_err(|error| Obstacle(format!("no kubectl: {}", error.kind())))?;
    let said = output.status.success().then_some(output.stdout);
    Ok(said.map(|json| {
        let document: Value = serde_json::from_slice(&json).expect("JSON");
        document["spec"].clone()
    }))
}

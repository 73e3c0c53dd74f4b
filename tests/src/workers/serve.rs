// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A worker's own side: reads names of cases, runs each in a process of its own, and says how it ended.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use super::answer::{Answer, Outcome};
use super::case::{CASE, ENVIRONMENT_OF_CASE};

/// Set for a process that is to be a worker.
pub(super) const SERVE: &str = "KENNEL_TEST_SERVE";

/// Serves as a worker until standard input ends and every case with it, if this process was started for that; `prepare`
/// gives the cases more environment.
#[must_use]
pub fn serve_asked(
    prepare: impl FnOnce() -> Result<Vec<(&'static str, PathBuf)>, String>,
) -> Option<ExitCode> {
    std::env::var_os(SERVE)?;
    Some(match prepare().and_then(|more| serve(&more)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("a worker for tests: {why}");
            ExitCode::FAILURE
        }
    })
}

fn serve(more: &[(&'static str, PathBuf)]) -> Result<(), String> {
    say(&Answer::Ready)?;
    thread::scope(|scope| {
        for case in io::stdin().lock().lines() {
            let case = case.map_err(|error| format!("cannot read what to run: {error}"))?;
            scope.spawn(move || {
                let outcome = run(&case, more);
                let outcome = outcome
                    .unwrap_or_else(|error| Outcome::Failed(format!("cannot run it: {error}")));
                // Without a reader there is nobody to tell that to either.
                let _told = say(&Answer::Ended(case, outcome));
            });
        }
        Ok(())
    })
}

/// Writes a whole line at once.
fn say(answer: &Answer) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let line = format!("{}\n", answer.line());
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| format!("cannot answer: {error}"))
}

/// Runs this program for one case. Its output goes to a file: whatever it leaves running may hold a pipe for long.
fn run(case: &str, more: &[(&'static str, PathBuf)]) -> io::Result<Outcome> {
    let place = std::env::var_os(ENVIRONMENT_OF_CASE).map(PathBuf::from);
    let place = tempfile::tempdir_in(place.unwrap_or_else(std::env::temp_dir))?;
    let sockets = place.path().join("run");
    fs::create_dir(&sockets)?;
    fs::set_permissions(&sockets, Permissions::from_mode(0o700))?;
    let at = place.path().join("output");
    let output = File::create(&at)?;
    let status = Command::new(std::env::current_exe()?)
        .env_remove(SERVE)
        .env(CASE, case)
        .env(ENVIRONMENT_OF_CASE, &sockets)
        .envs(more.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()?;
    let output = String::from_utf8_lossy(&fs::read(at)?).into_owned();
    Ok(Outcome::of(status, output))
}

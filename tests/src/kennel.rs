// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel` as a user starts it, under observation: what it says, how it ends, what it leaves.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::tier;

/// Longer than any failure takes to tell, on any machine.
const BOUND: Duration = Duration::from_secs(120);
/// Marks every process that comes of one call.
const MARK: &str = "KENNEL_TEST_CALL";
/// The reason of the event that a stall was forgiven.
const STALL: &str = "StallForgiven";
/// What a person should never read.
const NEVER: [&str; 5] = [
    "panicked",
    "RUST_BACKTRACE",
    "stack backtrace",
    "os error",
    "Os {",
];

/// A call of `kennel` with a home of its own.
#[derive(Debug)]
pub struct Call {
    wrapper: Vec<OsString>,
    args: Vec<OsString>,
    folder: Option<OsString>,
    path: Option<OsString>,
    stops: bool,
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "status {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

impl Call {
    /// A call with these arguments.
    #[must_use]
    pub fn new<A: AsRef<OsStr>>(args: &[A]) -> Self {
        Self {
            wrapper: vec![],
            args: args.iter().map(|arg| arg.as_ref().to_owned()).collect(),
            folder: None,
            path: None,
            stops: false,
        }
    }

    /// The test stops its processes: a stall that is forgiven is no failure.
    #[must_use]
    pub const fn with_stops(mut self) -> Self {
        self.stops = true;
        self
    }

    /// The events that the call writes into a file.
    fn events(&self) -> Option<PathBuf> {
        let mut args = self.args.iter();
        args.find(|arg| *arg == "--events")?;
        let name = Path::new(args.next()?);
        Some(match &self.folder {
            Some(folder) => Path::new(folder).join(name),
            None => name.to_owned(),
        })
    }

    /// Through another program, which ends by running its last arguments.
    #[must_use]
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// With this working directory.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// With this search path.
    #[must_use]
    pub fn with_path(mut self, path: &Path) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    ///
    /// It doesn't end by itself, leaves a file in its home or a process behind, or forgives a stall that the test did not
    /// make.
    #[must_use]
    pub fn run(self) -> Ended {
        self.run_while(|_| {})
    }

    /// The same, and meanwhile does something to the process, whose ID it is given.
    ///
    /// # Panics
    ///
    /// As for [`Self::run`].
    #[must_use]
    pub fn run_while(self, act: impl FnOnce(Pid)) -> Ended {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mark = home.path().as_os_str().to_owned();
        let (events, stops) = (self.events(), self.stops);
        let output = bounded(self.command(home.path()), act);
        let left: Vec<_> = fs::read_dir(home.path()).expect("still there").collect();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 text");
        let ended = Ended {
            status: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        assert!(left.is_empty(), "left behind: {left:?}; {ended}");
        let running = processes_with(&mark);
        assert!(running.is_empty(), "still running: {running:?}; {ended}");
        // A device such as /dev/full can be read without end.
        let events = events.filter(|events| events.is_file());
        let told = events.and_then(|events| fs::read_to_string(events).ok());
        let stalled = told
            .iter()
            .chain([&ended.stderr])
            .any(|told| told.contains(STALL));
        assert!(
            stops || !stalled,
            "a stall in a test without stops: {told:?}; {ended}"
        );
        ended
    }

    fn command(self, home: &Path) -> Command {
        let this = std::env::current_exe().expect("this program has a file");
        let mut words = self.wrapper.into_iter();
        let mut command = match words.next() {
            Some(wrapper) => {
                let mut command = Command::new(wrapper);
                command.args(words).arg(&this);
                command
            }
            None => Command::new(&this),
        };
        if let Some(folder) = self.folder {
            command.current_dir(folder);
        }
        if let Some(path) = self.path {
            command.env("PATH", path);
        }
        for variable in ["HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"] {
            command.env(variable, home);
        }
        command
            .args(self.args)
            .env(MARK, home)
            .env(tier::ACT_AS_KENNEL, "1")
            .env_remove("KENNEL_LOG")
            // Whatever the surroundings ask for, people get no backtrace.
            .env("RUST_BACKTRACE", "1")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Waits for the end of the command and of everything that holds its output.
fn bounded(mut command: Command, act: impl FnOnce(Pid)) -> Output {
    let child = command.spawn().expect("a program that starts");
    let pid = child.id();
    act(Pid::from_child(&child));
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    if let Ok(output) = receiver.recv_timeout(BOUND) {
        return output.expect("a child that can be waited for");
    }
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let killed = group.map(|group| kill_process_group(group, Signal::KILL));
    let output = receiver.recv().expect("an end").expect("its output");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(killed.is_none(), "no end within {BOUND:?}: {stderr}");
    output
}

/// Processes that a call with this mark has left running.
fn processes_with(mark: &OsStr) -> Vec<String> {
    let wanted = [MARK.as_bytes(), b"=", mark.as_encoded_bytes()].concat();
    let mut found = vec![];
    for process in fs::read_dir("/proc").expect("procfs").flatten() {
        // Gone meanwhile, or another user's: not ours.
        let Ok(environment) = fs::read(process.path().join("environ")) else {
            continue;
        };
        if environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted)
        {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

impl Ended {
    /// Ended with `status` and one line, which has all of `parts`; no output.
    ///
    /// # Panics
    ///
    /// It is otherwise.
    pub fn is_one_message(&self, status: i32, parts: &[&str]) {
        self.is_messages(status, &[parts]);
    }

    /// Ended with `status` and a line for each of `messages`, in their order; no output.
    ///
    /// # Panics
    ///
    /// It is otherwise.
    pub fn is_messages(&self, status: i32, messages: &[&[&str]]) {
        self.failed_clearly(status);
        let lines: Vec<_> = self.stderr.lines().collect();
        assert_eq!(lines.len(), messages.len(), "lines of {self}");
        for (line, parts) in lines.iter().zip(messages) {
            assert!(line.starts_with("kennel: "), "{line:?} of {self}");
            for part in *parts {
                assert!(line.contains(part), "no {part:?} in {line:?} of {self}");
            }
        }
    }

    /// Refused by the command line: one error with all of `parts`, and the way to the help.
    ///
    /// # Panics
    ///
    /// It is otherwise.
    pub fn is_bad_usage(&self, parts: &[&str]) {
        self.failed_clearly(2);
        let errors = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "errors of {self}");
        for part in parts.iter().chain(&["--help"]) {
            assert!(self.stderr.contains(part), "no {part:?} in {self}");
        }
    }

    /// Ended with `status`, and said nothing that is not for people.
    ///
    /// # Panics
    ///
    /// It is otherwise.
    pub fn failed_clearly(&self, status: i32) {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.stdout, "", "results of {self}");
        for never in NEVER {
            assert!(!self.stderr.contains(never), "{never:?} in {self}");
        }
    }
}

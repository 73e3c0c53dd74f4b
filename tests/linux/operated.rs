// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run whose guest does what is typed on its console, with its events as they come, and `kennel
//! probe` beside it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use kennel_tests::tier::ACT_AS_KENNEL;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::Image;
use crate::guest::{Prepared, Spec, kennel};
use crate::process::only_child;

/// Longer than anything a test waits for, on any machine.
pub(crate) const BOUND: Duration = Duration::from_secs(180);
/// Ends runs whose test has lost them.
const LONGEST: &str = "1800s";
/// The guest's half.
pub(crate) const OBEY: &str = "exec 3</dev/console\nstty -echo <&3\necho ready to obey\n\
    while read -r line <&3; do eval \"$line\"; done";

/// The run.
pub(crate) struct Operated {
    _prepared: Prepared,
    /// Of its agent's socket.
    place: TempDir,
    child: Child,
    input: ChildStdin,
    console: Receiver<String>,
    told: Receiver<String>,
    /// Everything that came, for whoever looks into a failure.
    log: Vec<String>,
    typed: u32,
    /// Events that came while something else was waited for.
    unread: VecDeque<Value>,
}

/// What came of a `kennel probe`.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) status: Option<i32>,
    pub(crate) output: Vec<u8>,
    pub(crate) errors: String,
}

impl Operated {
    /// Starts it; `spec` has no script of its own. Its guest obeys once [`Self::ready`] returns.
    pub(crate) fn start(image: &Image, spec: &Spec) -> Self {
        let spec = Spec {
            script: OBEY,
            ..spec.clone()
        };
        Self::of(spec.prepare(image))
    }

    /// Starts what was prepared; its guest's script ends with [`OBEY`].
    pub(crate) fn of(mut prepared: Prepared) -> Self {
        // A place for sockets, which not every folder is in a box.
        let place = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let place = tempfile::tempdir_in(place.unwrap_or_else(std::env::temp_dir));
        let place = place.expect("a folder");
        prepared
            .command
            .args(["--console", "-", "--timeout", LONGEST])
            // Events come where the table of instances does: on standard error.
            .args(["--events", "/proc/self/fd/2"])
            .env("XDG_RUNTIME_DIR", place.path())
            .stdin(Stdio::piped());
        let mut child = prepared.spawn();
        Self {
            input: child.stdin.take().expect("piped"),
            console: lines(child.stdout.take().expect("piped")),
            told: lines(child.stderr.take().expect("piped")),
            _prepared: prepared,
            place,
            child,
            log: vec![],
            typed: 0,
            unread: VecDeque::new(),
        }
    }

    /// Waits until a guest, the first or another, obeys.
    pub(crate) fn ready(&mut self) {
        self.line("ready to obey");
    }

    /// Waits for a line on the console that ends with `text`; what came before it.
    pub(crate) fn line(&mut self, text: &str) -> Vec<String> {
        let mut before = vec![];
        loop {
            let Ok(line) = self.console.recv_timeout(BOUND) else {
                panic!("no {text:?} on the console: {self}");
            };
            self.log.push(line.clone());
            if line.ends_with(text) {
                return before;
            }
            before.push(line);
        }
    }

    /// Has the guest begin with `commands`, one line of shell.
    pub(crate) fn begin(&mut self, commands: &str) {
        self.typed += 1;
        let number = self.typed;
        self.log.push(format!("# {commands}"));
        writeln!(self.input, "{commands}\necho over {number}").expect("the run listens");
    }

    /// Waits for the end of what was begun last, and gives what it printed.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        let end = format!("over {}", self.typed);
        self.line(&end)
    }

    /// Has the guest do `commands`, one line of shell; what they printed.
    pub(crate) fn shell(&mut self, commands: &str) -> Vec<String> {
        self.begin(commands);
        self.finish()
    }

    /// Waits for an event that `pick` wants; those before it are passed over.
    pub(crate) fn event(&mut self, what: &str, pick: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + BOUND;
        loop {
            let event = match self.unread.pop_front() {
                Some(event) => event,
                None => match self.hear(end) {
                    Some(line) => serde_json::from_str(&line).unwrap_or_default(),
                    None => panic!("no event {what}: {self}"),
                },
            };
            if pick(&event) {
                return event;
            }
        }
    }

    /// The next line on standard error, if it comes until then.
    fn hear(&mut self, end: Instant) -> Option<String> {
        let left = end.saturating_duration_since(Instant::now());
        let line = self.told.recv_timeout(left).ok()?;
        self.log.push(line.clone());
        Some(line)
    }

    /// Waits for an event with this reason.
    pub(crate) fn reason(&mut self, reason: &str) -> Value {
        self.event(reason, |event| event["reason"] == reason)
    }

    /// The reasons of all events that were waited for or passed over.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let events = self
            .log
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        let reason = |event: Value| Some(event.get("reason")?.as_str()?.to_owned());
        events.filter_map(reason).collect()
    }

    /// Waits for a row of the table of instances that has all of `words`; no event is passed over.
    pub(crate) fn table_row(&mut self, words: &[&str]) {
        let end = Instant::now() + BOUND;
        loop {
            let Some(line) = self.hear(end) else {
                panic!("no row with {words:?}: {self}");
            };
            if let Ok(event) = serde_json::from_str(&line) {
                self.unread.push_back(event);
            } else if words.iter().all(|word| line.contains(word)) {
                return;
            }
        }
    }

    /// The guest agent's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.place.path().join("kennel/default_test.agent")
    }

    /// `kennel probe` with these arguments, on this machine's socket.
    pub(crate) fn probe(&self, args: &[&str]) -> Probed {
        let socket = self.socket();
        let mut command = kennel();
        command.env(ACT_AS_KENNEL, "1").args(["probe", "--agent"]);
        let output = command.arg(socket).args(args).output();
        let output = output.expect("this program runs");
        Probed {
            status: output.status.code(),
            output: output.stdout,
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The VM process: the supervisor's only child.
    pub(crate) fn vm(&self) -> Pid {
        only_child(Pid::from_child(&self.child))
    }

    /// Waits for the end of the run; its exit status.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let end = Instant::now() + BOUND;
        while self.hear(end).is_some() {}
        assert!(Instant::now() < end, "no end: {self}");
        self.child.wait().expect("a child").code()
    }

    /// Has the guest power off; the run must have been about one that Succeeded.
    pub(crate) fn power_off(mut self) {
        writeln!(self.input, "poweroff -f").expect("the run listens");
        self.reason("Stopped");
        let status = self.child.wait().expect("a child");
        assert_eq!(status.code(), Some(0), "{self}");
        assert!(!self.socket().exists(), "the socket is left behind");
    }
}

impl Drop for Operated {
    fn drop(&mut self) {
        // One that has ended by itself needs neither.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _told = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _status = self.child.wait();
        }
    }
}

impl std::fmt::Display for Operated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let late = self.console.try_iter().chain(self.told.try_iter());
        let late: Vec<_> = late.collect();
        let all = self.log.iter().chain(&late);
        writeln!(f, "this came:")?;
        all.into_iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

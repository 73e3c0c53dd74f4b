// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Starts VM processes from a thread that lives as long as this process. The kernel sends a child its
//! parent-death signal when the *thread* that started it ends; a VM process must outlive the thread
//! that happens to want it, and no process that does.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// A program to start, and where its process goes.
type Order = (Command, Sender<io::Result<Child>>);

static SPAWNER: Mutex<Option<Sender<Order>>> = Mutex::new(None);

/// Starts `program`. What it held for the child is closed when this returns.
pub(super) fn spawn(program: Command) -> io::Result<Child> {
    let (answer, answered) = channel();
    orders()?.send((program, answer)).map_err(|_| has_ended())?;
    answered.recv().map_err(|_| has_ended())?
}

fn orders() -> io::Result<Sender<Order>> {
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(orders) = &*spawner {
        return Ok(orders.clone());
    }
    let (orders, ordered) = channel();
    std::thread::Builder::new()
        .name("spawner".into())
        .spawn(move || start_each(&ordered))?;
    Ok(spawner.insert(orders).clone())
}

fn start_each(ordered: &Receiver<Order>) {
    for (mut program, answer) in ordered {
        let started = program.spawn();
        // Our copy of the child's end would keep its socket open after its death.
        drop(program);
        // Who asked waits for it.
        let _answered = answer.send(started);
    }
}

fn has_ended() -> io::Error {
    io::Error::other("the thread that starts VM processes has ended")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    use std::thread;

    use super::*;

    #[test]
    fn child_outlives_the_thread_that_wanted_it() {
        let (child, mut input, mut output) = thread::spawn(|| {
            let mut program = Command::new("setpriv");
            program
                .args(["--pdeathsig", "KILL", "cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut child = spawn(program).expect("util-linux has setpriv");
            let mut input = child.stdin.take().expect("a pipe");
            let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
            // It answers once it has asked for the signal.
            assert_eq!(echo(&mut input, &mut output), "x\n");
            (child, input, output)
        })
        .join()
        .expect("a child");
        assert_eq!(echo(&mut input, &mut output), "x\n");
        drop(input);
        let mut child = child;
        let status = child.wait().expect("its status");
        assert!(status.success(), "{status}");
    }

    fn echo(input: &mut impl Write, output: &mut impl BufRead) -> String {
        let mut line = String::new();
        // A child that is gone takes nothing and says nothing.
        let _written = input.write_all(b"x\n");
        output.read_line(&mut line).expect("a pipe");
        line
    }
}

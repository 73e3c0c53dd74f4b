// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The starter's side of workers: has them run, gives them cases, and tells what became of both.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kennel::host::{self, BoxCommand, BoxExit, BoxStdio, BoxStep};

use super::answer::{Answer, Outcome};
use super::case::Need;
use super::dispatch::{Dispatch, Step};
use super::serve::SERVE;
use crate::tier::Obstacle;

/// Where workers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This machine, which may itself be a box.
    Here,
    /// A box for each worker, with so much memory beside its cases', in MiB.
    Boxes(u32),
}

/// The workers to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tier, for messages.
    pub tier: &'static str,
    /// Where they are.
    pub place: Place,
    /// What each has room for.
    pub rooms: Vec<Need>,
    /// What they have in their environment beside this program's.
    pub env: Vec<(OsString, OsString)>,
}

/// Workers, each started when there is work for it.
#[derive(Clone, Debug)]
pub struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    plan: Plan,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    dispatch: Dispatch<Sender<Outcome>>,
    /// Where each worker reads what to run.
    inputs: Vec<Option<PipeWriter>>,
    threads: Vec<JoinHandle<()>>,
    started: usize,
    /// What went wrong with workers.
    faults: Vec<String>,
    /// What cases that passed have written.
    notes: Vec<(String, String)>,
    /// No more cases come.
    closing: bool,
}

impl Workers {
    /// Workers after this plan.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let state = State {
            dispatch: Dispatch::new(&plan.rooms),
            inputs: plan.rooms.iter().map(|_| None).collect(),
            threads: vec![],
            started: 0,
            faults: vec![],
            notes: vec![],
            closing: false,
        };
        Self(Arc::new(Shared {
            plan,
            state: Mutex::new(state),
        }))
    }

    /// Runs a case when a worker has room for it; of several that need as much, the one of the lowest rank is first. Gives
    /// the obstacle if it cannot run here.
    ///
    /// # Errors
    ///
    /// It failed; everything that it wrote.
    pub fn run(&self, case: &str, rank: usize, need: Need) -> Result<Option<Obstacle>, String> {
        let (ticket, outcome) = channel();
        let mut state = self.0.lock();
        state.dispatch.submit(case, rank, need, ticket);
        self.0.go_on(&mut state);
        drop(state);
        match outcome.recv() {
            Ok(Outcome::Passed(output)) => {
                if !output.trim().is_empty() {
                    self.0.lock().notes.push((case.to_owned(), output));
                }
                Ok(None)
            }
            Ok(Outcome::CannotRun(why)) => Ok(Some(Obstacle(why))),
            Ok(Outcome::Failed(why)) => Err(why),
            Err(_) => Err("nobody ran it".to_owned()),
        }
    }

    /// Where cases have run, for the last line.
    #[must_use]
    pub fn place(&self) -> String {
        match (self.0.plan.place, self.0.lock().started) {
            (Place::Here, _) if !host::inside_box() => "on this machine's hardware KVM".to_owned(),
            (Place::Here, _) | (Place::Boxes(_), 0 | 1) => "in a box".to_owned(),
            (Place::Boxes(_), boxes) => format!("in {boxes} boxes"),
        }
    }

    /// Ends the workers; what cases that passed wrote, by their names, and what went wrong with workers.
    #[must_use]
    pub fn end(&self) -> (Vec<(String, String)>, Vec<String>) {
        let mut state = self.0.lock();
        state.closing = true;
        state.inputs.fill_with(|| None);
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        for thread in threads {
            if thread.join().is_err() {
                self.0
                    .lock()
                    .faults
                    .push("a worker's thread panicked".to_owned());
            }
        }
        let mut state = self.0.lock();
        let mut notes = std::mem::take(&mut state.notes);
        notes.sort();
        (notes, std::mem::take(&mut state.faults))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what can be done now.
    fn go_on(self: &Arc<Self>, state: &mut State) {
        for step in state.dispatch.steps() {
            match step {
                Step::Start(worker) => {
                    let shared = Arc::clone(self);
                    let thread = thread::spawn(move || shared.worker(worker));
                    state.threads.push(thread);
                    state.started += 1;
                }
                Step::Run(worker, case) => {
                    let input = state.inputs.get_mut(worker).and_then(Option::as_mut);
                    // One that does not read any more is about to end, and gives its cases back.
                    let _written = input.map(|input| writeln!(input, "{case}"));
                }
                Step::Refuse(_, need, ticket) => {
                    let _awaited = ticket.send(self.refusal(need));
                }
            }
        }
    }

    /// Why a case will never run.
    fn refusal(&self, need: Need) -> Outcome {
        let most = self.plan.rooms.iter().map(|room| room.memory_mib).max();
        if most.is_some_and(|most| need.memory_mib <= most) {
            return Outcome::Failed("every worker that has room for it has ended".to_owned());
        }
        let beside = match self.plan.place {
            Place::Here => String::new(),
            Place::Boxes(own) => format!(" beside a box's own {own} MiB"),
        };
        Outcome::CannotRun(format!(
            "it needs {} MiB of memory{beside}, and this machine has not so much free",
            need.memory_mib
        ))
    }

    /// A worker from its start to its end.
    fn worker(self: &Arc<Self>, worker: usize) {
        let ended = self.serve(worker);
        let mut state = self.lock();
        let held = state.dispatch.lost(worker);
        let name = self.name(worker);
        let fault = match ended {
            Ok(()) if held.is_empty() && state.closing => None,
            Ok(()) => Some(format!("{name} ended too early")),
            Err(why) => Some(format!("{name}: {why}")),
        };
        if let Some(fault) = &fault {
            let cases: Vec<_> = held.iter().map(|(case, _)| case.as_str()).collect();
            let cases = match cases.as_slice() {
                [] => "no test".to_owned(),
                cases => cases.join(", "),
            };
            state.faults.push(format!("{fault}; it held {cases}"));
        }
        for (_, ticket) in held {
            let why = fault.clone().unwrap_or_default();
            let _awaited = ticket.send(Outcome::Failed(format!("its worker ended: {why}")));
        }
        self.go_on(&mut state);
    }

    /// Has a worker run, and takes its answers until it has ended.
    fn serve(self: &Arc<Self>, worker: usize) -> Result<(), String> {
        let no_pipe = |error: io::Error| format!("no pipe: {error}");
        let (input, to_it) = io::pipe().map_err(no_pipe)?;
        let (from_it, output) = io::pipe().map_err(no_pipe)?;
        {
            let mut state = self.lock();
            // One that comes too late for everything reads the end at once.
            let to_it = (!state.closing).then_some(to_it);
            if let Some(place) = state.inputs.get_mut(worker) {
                *place = to_it;
            }
        }
        let shared = Arc::clone(self);
        let reader = thread::spawn(move || {
            for line in BufReader::new(from_it).lines().map_while(Result::ok) {
                shared.answered(worker, &line);
            }
        });
        let ended = match self.plan.place {
            Place::Here => self.here(input, output),
            Place::Boxes(own) => self.in_box(worker, own, input, output),
        };
        reader
            .join()
            .map_err(|_| "its reader panicked".to_owned())?;
        ended
    }

    fn answered(self: &Arc<Self>, worker: usize, line: &str) {
        let mut state = self.lock();
        match Answer::read(line) {
            Some(Answer::Ready) => state.dispatch.ready(worker),
            Some(Answer::Ended(case, outcome)) => {
                if let Some(ticket) = state.dispatch.ended(&case) {
                    let _awaited = ticket.send(outcome);
                }
            }
            None => state
                .faults
                .push(format!("{} said {line:?}", self.name(worker))),
        }
        self.go_on(&mut state);
    }

    fn here(&self, input: io::PipeReader, output: PipeWriter) -> Result<(), String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command
            .env(SERVE, "1")
            .envs(self.plan.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output));
        let status = command.status();
        // It holds the output open.
        drop(command);
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("it ended with {status}")),
            Err(error) => Err(format!("cannot start it: {error}")),
        }
    }

    fn in_box(
        &self,
        worker: usize,
        own_mib: u32,
        input: io::PipeReader,
        output: PipeWriter,
    ) -> Result<(), String> {
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = BoxCommand::new(program).map_err(|error| error.to_string())?;
        let room = self
            .plan
            .rooms
            .get(worker)
            .map_or(0, |room| room.memory_mib);
        command.memory_mib = room.saturating_add(own_mib);
        command.stdio = BoxStdio {
            stdin: input.into(),
            stdout: output.into(),
            stderr: stderr.map_err(|error| format!("no standard error: {error}"))?,
        };
        command.env.extend(self.plan.env.iter().cloned());
        command.env.push((SERVE.into(), "1".into()));
        let told = |step: &BoxStep| {
            let line = format!("tier {}: {}: {step}\n", self.plan.tier, self.name(worker));
            let _shown = io::stderr().write_all(line.as_bytes());
        };
        match host::run_in_box(&command, &told) {
            Ok(BoxExit::Code(0)) => Ok(()),
            Ok(BoxExit::Code(code)) => Err(format!("it ended with status {code}")),
            Ok(BoxExit::Signal(number)) => Err(format!("it ended by signal {number}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn name(&self, worker: usize) -> String {
        match self.plan.place {
            Place::Here => "this machine".to_owned(),
            Place::Boxes(_) => format!("box {}", worker + 1),
        }
    }
}

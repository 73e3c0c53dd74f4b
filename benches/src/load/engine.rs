// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many probes of one guest: Kennel's worker decides when each is attempted, and its runner makes
//! the attempts, in a thread for each probe, as the supervisor has it. One thread schedules and
//! waits in a channel, as the supervisor's does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kennel::moment::Moment;
use kennel::probe::network::NetworkRunner;
use kennel::probe::worker::{Attempt, ProbeResult, Timing, Worker};
use kennel::probe::{Outcome, ProbeKind};
use kennel::spec::{Handler, IpFamily};

use super::accounts;
use crate::Trouble;

/// Of a probe's thread, as the supervisor has it.
const STACK: usize = 2 << 20;
/// What is kept of what failures say.
const SAID: usize = 5;
/// Threads that make attempts have this name, and a number.
pub(crate) const THREADS: &str = "probe-";
/// The thread that schedules.
pub(crate) const SCHEDULER: &str = "schedules";

/// When the probes' first attempts are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Each at a random time of the first period.
    Spread,
    /// All at once.
    Together,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) handlers: Vec<Handler>,
    pub(crate) timing: Timing,
    pub(crate) phase: Phase,
    pub(crate) lasts: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) attempts: u64,
    /// Failures and errors that were not made good by another try.
    pub(crate) failures: u64,
    /// What the first of them said.
    pub(crate) said: Vec<String>,
    /// Ticks at which an attempt of before was still under way.
    pub(crate) skipped: u64,
    /// ns from when an attempt was due to its beginning.
    pub(crate) jitter: Vec<u64>,
    /// ns from an attempt's beginning to its end.
    pub(crate) took: Vec<u64>,
    /// Bytes that the probes added to the process, a period after they began.
    pub(crate) resident: u64,
    /// ns of CPU of the probes' threads and of the one that schedules; and of that one alone.
    pub(crate) cpu: u64,
    pub(crate) scheduler: u64,
    /// When its time began.
    pub(crate) began: Option<Instant>,
    /// Probes that succeeded and then failed.
    pub(crate) failed: Vec<Failed>,
}

/// When a probe's word about the guest became a failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    /// When the first of the failures was due that made it so.
    pub(crate) since: Moment,
    pub(crate) at: Moment,
}

struct Ask {
    attempt: Attempt,
    deadline: Instant,
    due: Moment,
}

struct Answer {
    probe: usize,
    attempt: Attempt,
    due: Moment,
    begun: Instant,
    ended: Instant,
    outcome: Outcome,
}

struct Probe {
    worker: Worker,
    asks: Sender<Ask>,
    /// The last tick that was attempted.
    tick: Option<Moment>,
    /// When the first attempt was due of those that failed in a row.
    failing: Option<Moment>,
}

/// The probes, their threads and their scheduler's state.
struct Engine {
    began: Instant,
    period: Duration,
    probes: Vec<Probe>,
    threads: Vec<JoinHandle<()>>,
    answers: Receiver<Answer>,
    queue: BinaryHeap<Reverse<(Moment, usize)>>,
    under_way: usize,
    record: Record,
}

/// Probes the guest behind `socket`, in a thread of its own.
pub(crate) fn run(socket: &Path, orders: &Orders) -> Result<Record, Trouble> {
    std::thread::scope(|scope| {
        let named = std::thread::Builder::new().name(SCHEDULER.into());
        let thread = named
            .spawn_scoped(scope, || Engine::new(socket, orders)?.run(orders.lasts))
            .map_err(Trouble::new)?;
        let record = thread.join();
        record.map_err(|_| Trouble::new("the scheduler panicked"))?
    })
}

impl Engine {
    fn new(socket: &Path, orders: &Orders) -> Result<Self, Trouble> {
        let (sender, answers) = channel();
        let mut engine = Self {
            began: Instant::now(),
            period: orders.timing.period,
            probes: vec![],
            threads: vec![],
            answers,
            queue: BinaryHeap::new(),
            under_way: 0,
            record: Record::default(),
        };
        for (number, handler) in orders.handlers.iter().enumerate() {
            let runner = NetworkRunner::new(
                handler.clone(),
                orders.timing.timeout,
                IpFamily::Ipv4,
                socket,
            );
            let (asks, asked) = channel();
            let sender = sender.clone();
            let thread = std::thread::Builder::new()
                .name(format!("{THREADS}{number}"))
                .stack_size(STACK)
                .spawn(move || attempts(number, runner, &asked, &sender))
                .map_err(|error| Trouble::new(format!("thread {number}: {error}")))?;
            engine.threads.push(thread);
            engine.probes.push(Probe {
                worker: Worker::new(ProbeKind::Readiness, orders.timing),
                asks,
                tick: None,
                failing: None,
            });
        }
        engine.start(orders.phase);
        Ok(engine)
    }

    fn start(&mut self, phase: Phase) {
        let mut rng = fastrand::Rng::with_seed(1);
        let period = u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX);
        self.began = Instant::now();
        self.record.began = Some(self.began);
        for (number, probe) in self.probes.iter_mut().enumerate() {
            let wait = match phase {
                Phase::Spread => rng.u64(0..period),
                Phase::Together => 0,
            };
            probe.worker.started(Moment::from_nanos(wait));
            let due = probe.worker.next_due();
            self.queue.extend(due.map(|due| Reverse((due, number))));
        }
    }

    fn now(&self) -> Moment {
        Moment::ZERO.after(self.began.elapsed())
    }

    fn instant(&self, at: Moment) -> Instant {
        let instant = self.began.checked_add(at.since(Moment::ZERO));
        instant.unwrap_or(self.began)
    }

    fn run(mut self, lasts: Duration) -> Result<Record, Trouble> {
        let pid = std::process::id();
        let names = [THREADS, SCHEDULER];
        let (end, weighed) = (
            Moment::ZERO.after(lasts),
            Moment::ZERO.after(self.period * 2),
        );
        let before = accounts::cpu_ns(pid, &names);
        let scheduler = accounts::cpu_ns(pid, &[SCHEDULER]);
        while self.now() < end {
            self.begin_due(end)?;
            if self.record.resident == 0 && self.now() >= weighed {
                self.record.resident = accounts::resident(pid);
            }
            let next = self.queue.peek().map_or(end, |Reverse((due, _))| *due);
            self.wait(next.min(end));
        }
        while self.under_way > 0 {
            let beyond = self.now().after(self.period);
            self.wait(beyond);
        }
        self.record.cpu = accounts::cpu_ns(pid, &names).saturating_sub(before);
        self.record.scheduler = accounts::cpu_ns(pid, &[SCHEDULER]).saturating_sub(scheduler);
        self.probes.clear();
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| Trouble::new("a probe's thread panicked"))?;
        }
        Ok(self.record)
    }

    /// Has attempts made that are due.
    fn begin_due(&mut self, end: Moment) -> Result<(), Trouble> {
        while let Some(Reverse((due, number))) = self.queue.peek().copied() {
            let now = self.now();
            if due > now || due >= end {
                break;
            }
            self.queue.pop();
            let period = self.period.as_nanos().max(1);
            let Some(probe) = self.probes.get_mut(number) else {
                continue;
            };
            let Some(attempt) = probe.worker.due(now) else {
                continue;
            };
            if let Some(last) = probe.tick.replace(due) {
                let ticks = due.since(last).as_nanos() / period;
                self.record.skipped += u64::try_from(ticks).unwrap_or(0).saturating_sub(1);
            }
            self.ask(number, attempt, due)?;
        }
        Ok(())
    }

    fn ask(&mut self, number: usize, attempt: Attempt, due: Moment) -> Result<(), Trouble> {
        let deadline = self.instant(attempt.deadline);
        let asks = self.probes.get(number).map(|probe| &probe.asks);
        let ask = Ask {
            attempt,
            deadline,
            due,
        };
        let sent = asks.is_some_and(|asks| asks.send(ask).is_ok());
        self.under_way += 1;
        sent.then_some(())
            .ok_or_else(|| Trouble::new("a probe's thread is gone"))
    }

    /// For an answer, and those that have come with it.
    fn wait(&mut self, until: Moment) {
        let wait = self
            .instant(until)
            .saturating_duration_since(Instant::now());
        let mut answer = self.answers.recv_timeout(wait).ok();
        while let Some(one) = answer {
            self.hear(one);
            answer = self.answers.try_recv().ok();
        }
    }

    fn hear(&mut self, answer: Answer) {
        self.under_way -= 1;
        let now = self.now();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let due = self.instant(answer.due);
        let Some(probe) = self.probes.get_mut(answer.probe) else {
            return;
        };
        let said = match &answer.outcome {
            Outcome::Success => None,
            Outcome::Warning(why) | Outcome::Failure(why) | Outcome::Error(why) => {
                Some(why.clone())
            }
        };
        let number = answer.attempt.number;
        probe.failing = match &said {
            Some(_) => probe.failing.or(Some(answer.due)),
            None => None,
        };
        let before = probe.worker.result();
        let finished = probe.worker.finished(now, number, answer.outcome);
        if before == ProbeResult::Success && probe.worker.result() == ProbeResult::Failure {
            let since = probe.failing.unwrap_or(answer.due);
            self.record.failed.push(Failed { since, at: now });
        }
        if let Some(again) = finished.again
            && self.ask(answer.probe, again, answer.due).is_ok()
        {
            return;
        }
        self.record.attempts += 1;
        self.record
            .jitter
            .push(nanos(answer.begun.saturating_duration_since(due)));
        self.record.took.push(nanos(answer.ended - answer.begun));
        if let Some(said) = said {
            self.record.failures += 1;
            if self.record.said.len() < SAID {
                self.record.said.push(said);
            }
        }
        let due = self.probes.get(answer.probe);
        let due = due.and_then(|probe| probe.worker.next_due());
        self.queue
            .extend(due.map(|due| Reverse((due, answer.probe))));
    }
}

/// A probe's thread.
fn attempts(
    probe: usize,
    mut runner: NetworkRunner,
    asks: &Receiver<Ask>,
    answers: &Sender<Answer>,
) {
    for ask in asks {
        let begun = Instant::now();
        let outcome = runner.attempt(ask.deadline);
        let answer = Answer {
            probe,
            attempt: ask.attempt,
            due: ask.due,
            begun,
            ended: Instant::now(),
            outcome,
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

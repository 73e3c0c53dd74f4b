// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Asks guests without holding up the supervisor: a thread for each probe of an instance, as a probe
//! has one attempt at a time, and one for a shutdown.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Arrival;
use super::controller::{Happening, InstanceId, Options};
use crate::agent::Connection;
use crate::probe::network::NetworkRunner;
use crate::probe::runner::AgentRunner;
use crate::probe::{Outcome, ProbeKind};
use crate::spec::{Document, Handler, IpFamily, Probe};

/// An answer of 127 brackets, the deepest that is read, exceeds 256 KiB in an unoptimized build;
/// under 2 MiB, the kernel gives no stack a huge page.
pub(crate) const STACK: usize = 1 << 20;

/// How the guests of a document are asked.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    liveness: Option<Probe>,
    readiness: Option<Probe>,
    family: IpFamily,
}

/// Where one instance's guest is reached, as far as it can be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sockets<'a> {
    /// Its agent's.
    pub(super) agent: Option<&'a Path>,
    /// The one through which its ports are dialled.
    pub(super) dial: Option<&'a Path>,
}

/// One attempt to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) number: u64,
    pub(super) deadline: Instant,
    /// Frozen file systems are no excuse.
    pub(super) freeze_counts: bool,
}

impl Asking {
    /// By the document's probes, as these options read them.
    #[must_use]
    pub fn of(document: &Document, options: Options) -> Self {
        Self {
            liveness: options.probe(document, ProbeKind::Liveness),
            readiness: options.probe(document, ProbeKind::Readiness),
            family: document.vmi.probe_ip_family,
        }
    }

    /// Not at all: for machines without probes.
    #[must_use]
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Whether there is anything to ask a guest.
    pub(super) const fn needs_sockets(&self) -> bool {
        self.liveness.is_some() || self.readiness.is_some()
    }

    /// A line to the guest behind `sockets`, for one probe.
    pub(super) fn line(
        &self,
        instance: InstanceId,
        probe: ProbeKind,
        sockets: Sockets<'_>,
        sender: Sender<Arrival>,
    ) -> Line {
        let (asks, asked) = mpsc::channel();
        let wanted = match probe {
            ProbeKind::Liveness => &self.liveness,
            ProbeKind::Readiness => &self.readiness,
        };
        let pause = wanted.as_ref().map_or(Duration::ZERO, |wanted| {
            wanted.period.saturating_sub(wanted.timeout)
        });
        let runner = wanted
            .as_ref()
            .and_then(|wanted| self.runner(wanted, sockets));
        let started = runner.is_some_and(|runner| {
            let answer = move |number, outcome| {
                let probed = probed(instance, probe, number, outcome);
                sender.send(Arrival::Answer(probed)).is_ok()
            };
            thread::Builder::new()
                .name(format!("{}-probe", probe.name().to_lowercase()))
                .stack_size(STACK)
                .spawn(move || run(runner, pause, &asked, answer))
                .is_ok()
        });
        Line {
            instance,
            probe,
            asks: started.then_some(asks),
        }
    }

    /// Whoever makes the probe's attempts; nobody if its socket is not there.
    fn runner(&self, wanted: &Probe, sockets: Sockets<'_>) -> Option<Runner> {
        let (handler, timeout) = (wanted.handler.clone(), wanted.timeout);
        Some(match handler {
            Handler::Exec { .. } | Handler::GuestAgentPing => {
                let runner = AgentRunner::new(handler, timeout, sockets.agent?);
                Runner::Agent(Box::new(runner))
            }
            Handler::HttpGet(_) | Handler::TcpSocket(_) => {
                let dial = sockets.dial?;
                Runner::Network(NetworkRunner::new(handler, timeout, self.family, dial))
            }
        })
    }
}

/// Whoever makes a probe's attempts.
#[derive(Debug)]
enum Runner {
    Agent(Box<AgentRunner>),
    Network(NetworkRunner),
}

impl Runner {
    fn attempt(&mut self, ask: Ask) -> Outcome {
        match self {
            Self::Agent(runner) => runner.attempt(ask.deadline, ask.freeze_counts),
            Self::Network(runner) => runner.attempt(ask.deadline),
        }
    }

    /// Once the outcome has been passed on, and before the next attempt is due.
    fn clean_up(&mut self, next: Option<Instant>) {
        match self {
            Self::Agent(runner) => runner.clean_up(next),
            Self::Network(_) => {}
        }
    }
}

fn probed(instance: InstanceId, probe: ProbeKind, number: u64, outcome: Outcome) -> Happening {
    Happening::Probed {
        instance,
        probe,
        number,
        outcome,
    }
}

/// Attempts as they are asked for, until nobody asks or listens any more. The next is due so long
/// after the last one's deadline as `pause` says.
fn run(
    mut runner: Runner,
    pause: Duration,
    asks: &Receiver<Ask>,
    answer: impl Fn(u64, Outcome) -> bool,
) {
    for ask in asks {
        let outcome = runner.attempt(ask);
        if !answer(ask.number, outcome) {
            return;
        }
        runner.clean_up(ask.deadline.checked_add(pause));
    }
}

/// A line to one guest, for one probe. Its thread ends with it, once its last attempt is over.
#[derive(Debug)]
pub(super) struct Line {
    instance: InstanceId,
    probe: ProbeKind,
    asks: Option<Sender<Ask>>,
}

impl Line {
    /// Has an attempt made; an answer at once if nobody can make it.
    pub(super) fn attempt(&self, ask: Ask) -> Option<Happening> {
        let asked = self.asks.as_ref().map(|asks| asks.send(ask));
        if matches!(asked, Some(Ok(()))) {
            return None;
        }
        let why = "the probe cannot be asked: no socket of its machine, or no thread for it";
        let outcome = Outcome::Error(why.to_owned());
        Some(probed(self.instance, self.probe, ask.number, outcome))
    }
}

/// Asks the agent behind `socket` to shut its guest down; an answer at once if it cannot be asked.
pub(super) fn shut_down(
    instance: InstanceId,
    socket: Option<&Path>,
    by: Instant,
    sender: Sender<Arrival>,
) -> Option<Happening> {
    let answered = move |answer| Happening::ShutdownAnswered { instance, answer };
    let Some(socket) = socket.map(Path::to_owned) else {
        return Some(answered(
            Err("the machine has no agent's socket".to_owned()),
        ));
    };
    let started = thread::Builder::new()
        .name("agent-shutdown".into())
        .stack_size(STACK)
        .spawn(move || {
            let asked = Connection::open(&socket).and_then(|mut agent| {
                agent.call("guest-shutdown", &json!({ "mode": "powerdown" }), by)
            });
            let answer = asked.map(drop).map_err(|error| error.to_string());
            // Nobody listens any more once the run is over.
            let _heard = sender.send(Arrival::Answer(answered(answer)));
        });
    let failed = started.err()?;
    Some(answered(Err(failed.to_string())))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::spec;

    const DOCUMENT: &str = "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, \
        metadata: {name: a}, spec: {readinessProbe: {tcpSocket: {port: 80}}, \
        domain: {devices: {}, resources: {requests: {memory: 64M}}}}}";

    #[test]
    fn a_port_is_asked_over_the_dial_socket_and_not_the_agents() {
        let document = spec::parse(DOCUMENT, "a.yaml").unwrap();
        let asking = Asking::of(&document, Options::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dial");
        let listener = UnixListener::bind(&path).unwrap();
        let guest = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(b"OK 10.0.2.2 80\n").unwrap();
        });

        let ask = Ask {
            number: 7,
            deadline: Instant::now() + Duration::from_secs(3600),
            freeze_counts: false,
        };
        let instance = InstanceId(1);
        let (sender, arrivals) = mpsc::channel();
        let line = |sockets| asking.line(instance, ProbeKind::Readiness, sockets, sender.clone());
        let dialled = line(Sockets {
            agent: None,
            dial: Some(&path),
        });
        assert!(dialled.attempt(ask).is_none());
        let Ok(Arrival::Answer(Happening::Probed { outcome, .. })) = arrivals.recv() else {
            panic!("no answer came");
        };
        assert_eq!(outcome, Outcome::Success);
        guest.join().unwrap();

        let undialled = line(Sockets {
            agent: Some(&path),
            dial: None,
        });
        let Some(Happening::Probed { outcome, .. }) = undialled.attempt(ask) else {
            panic!("it was asked");
        };
        assert!(matches!(outcome, Outcome::Error(why) if why.contains("no socket")));
    }
}

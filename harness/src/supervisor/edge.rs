// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Carries out what the controller wants, in real time: the only clock of a run.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use kennel_vmm::config::{MachineConfig, NetworkConfig};
use kennel_vmm::dial::Target;
use kennel_vmm::protocol::{Command, Notice};
use signal_hook::consts::SIGCONT;

use super::asking::Ask;
use super::controller::{Act, Endpoint, Happening, InstanceId, Restart};
use super::events::Said;
use super::hosted::Hosted;
use super::publish::Backend;
use super::sockets::{Claim, Claims};
use super::verdict::{Cause, Verdict};
use super::vm_process::Word;
use super::{Arrival, Order, Run, Watcher};
use crate::moment::Moment;

/// A run in progress.
pub(super) struct Edge<'a> {
    run: Run,
    watcher: &'a mut dyn Watcher,
    sender: Sender<Arrival>,
    /// The supervisor's time begins here.
    began: Instant,
    /// What each instance is called, `namespace/name`, until its end is told: also one that this
    /// host could not start.
    objects: BTreeMap<InstanceId, String>,
    hosted: BTreeMap<InstanceId, Hosted>,
    /// Behind those who have them.
    claims: Option<Claims>,
    /// What published ports lead to.
    endpoints: Vec<Endpoint>,
    /// What the watcher wants done about events.
    orders: Vec<Order>,
    /// What a watcher wants told later.
    later: Vec<(Moment, Command)>,
    verdict: Option<Verdict>,
    table_changed: bool,
}

/// When an instance's events happened, as far as its VM process told: real time and VM time in ns.
type Stamp = Option<(InstanceId, u64, u64)>;

impl<'a> Edge<'a> {
    pub(super) fn new(mut run: Run, watcher: &'a mut dyn Watcher, sender: Sender<Arrival>) -> Self {
        Self {
            claims: run.runtime_dir.take().map(Claims::new),
            endpoints: vec![],
            run,
            watcher,
            sender,
            began: Instant::now(),
            objects: BTreeMap::new(),
            hosted: BTreeMap::new(),
            orders: vec![],
            later: vec![],
            verdict: None,
            table_changed: false,
        }
    }

    /// To the verdict.
    pub(super) fn run(mut self, arrivals: &Receiver<Arrival>) -> Verdict {
        // A timeout beyond the end of time is none.
        let mut deadline = self.run.timeout.map(|timeout| Moment::ZERO.after(timeout));
        self.happen(Happening::TimePassed, None);
        loop {
            let now = self.now();
            if deadline.take_if(|at| *at <= now).is_some() {
                self.happen(Happening::Stop(Cause::Timeout), None);
            }
            self.tell_due(now);
            if let Some(verdict) = self.verdict.take() {
                self.too_late(arrivals);
                return verdict;
            }
            match self.wait(arrivals, deadline) {
                Some(arrival) => self.arrived(arrival),
                None => self.happen(Happening::TimePassed, None),
            }
        }
    }

    fn now(&self) -> Moment {
        Moment::ZERO.after(self.began.elapsed())
    }

    /// The next arrival; none if something is due before.
    fn wait(&self, arrivals: &Receiver<Arrival>, deadline: Option<Moment>) -> Option<Arrival> {
        let due = self.run.controller.next_due();
        let later = self.later.iter().map(|(at, _)| *at);
        let wake = later.chain(due).chain(deadline).min();
        let wake = wake.and_then(|at| self.began.checked_add(at.since(Moment::ZERO)));
        match wake {
            // This end holds a sender: an error is the time that passed.
            Some(at) => {
                let wait = at.saturating_duration_since(Instant::now());
                arrivals.recv_timeout(wait).ok()
            }
            None => arrivals.recv().ok(),
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            // Goes on after a pause, as a stopped job does; a running machine takes no notice.
            Arrival::Signal(SIGCONT) => self.happen(Happening::Resume, None),
            Arrival::Signal(signal) => self.happen(Happening::Stop(Cause::Signal(signal)), None),
            Arrival::ConsoleLine(line) => {
                let orders = self.watcher.console_line(&line);
                self.obey(orders);
            }
            Arrival::Answer(happening) => self.happen(happening, None),
            Arrival::Word(instance, Word::Notice(notice)) => self.notice(instance, &notice),
            Arrival::Word(instance, Word::Gone) => {
                let how = self.hosted.get_mut(&instance).map(Hosted::gone);
                let how = how.unwrap_or_default();
                self.happen(Happening::Gone { instance, how }, None);
            }
        }
    }

    fn notice(&mut self, instance: InstanceId, notice: &Notice) {
        let now = self.now();
        let mut notice = notice.clone();
        if let Some(hosted) = self.hosted.get_mut(&instance) {
            notice.uptime_ns = hosted.uptime.hear(now, notice.uptime_ns, &notice.news);
        }
        let happening = Happening::News {
            instance,
            news: notice.news.clone(),
        };
        let stamp = (instance, notice.realtime_ns, notice.uptime_ns);
        self.happen(happening, Some(stamp));
        let orders = self.watcher.news(&notice);
        self.obey(orders);
    }

    fn obey(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Now(command) => self.tell_all(&command),
                Order::After(wait, command) => self.later.push((self.now().after(wait), command)),
                Order::Finish => self.happen(Happening::Stop(Cause::Done), None),
            }
        }
    }

    fn tell_due(&mut self, now: Moment) {
        let (due, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<_> = due;
        for (_, command) in due {
            self.tell_all(&command);
        }
    }

    fn tell_all(&mut self, command: &Command) {
        self.hosted
            .values_mut()
            .for_each(|hosted| hosted.tell(command));
    }

    /// Something happened, and so does all that comes of it at once.
    fn happen(&mut self, happening: Happening, stamp: Stamp) {
        let mut happenings = VecDeque::from([happening]);
        while let Some(happening) = happenings.pop_front() {
            let now = self.now();
            let over = match &happening {
                Happening::Gone { instance, .. } | Happening::CreateFailed { instance, .. } => {
                    Some(*instance)
                }
                _ => None,
            };
            let acts = self.run.controller.happened(now, happening);
            // Its replacement wants the same sockets; a machine that goes on has them still.
            let goes_on = acts.iter().any(|act| matches!(act, Act::Recreate { .. }));
            if let Some(hosted) = over
                .and_then(|it| self.hosted.get_mut(&it))
                .filter(|_| !goes_on)
            {
                hosted.release_sockets();
            }
            // Whoever hears that a guest is Ready finds its ports open.
            self.publish(now, stamp);
            for act in acts {
                happenings.extend(self.act(now, act, stamp));
            }
            if let Some(instance) = over.filter(|_| !goes_on) {
                self.hosted.remove(&instance);
                self.objects.remove(&instance);
            }
        }
        // Of what passes within an instant, nobody need see more than the end.
        if std::mem::take(&mut self.table_changed) {
            let table = self.run.controller.table();
            self.watcher.table(&table, self.now());
        }
        let orders = std::mem::take(&mut self.orders);
        self.obey(orders);
    }

    /// Does it; with what has come of it already.
    fn act(&mut self, now: Moment, act: Act, stamp: Stamp) -> Option<Happening> {
        match act {
            Act::Create { instance, name } => return Some(self.create(instance, &name)),
            Act::Event { instance, said } => self.say(now, instance, said, stamp),
            Act::ShowTable => self.table_changed = true,
            Act::Finish(verdict) => self.verdict = Some(verdict),
            Act::Tell { instance, command } => {
                if let Some(hosted) = self.hosted.get_mut(&instance) {
                    hosted.tell(&command);
                }
            }
            Act::Kill { instance } => {
                if let Some(hosted) = self.hosted.get(&instance) {
                    hosted.kill();
                }
            }
            Act::Look { instance } => {
                let answers = self.hosted.get(&instance)?.take_pulse();
                return Some(Happening::Looked { instance, answers });
            }
            Act::AskForLife {
                instance,
                questions,
            } => {
                if let Some(hosted) = self.hosted.get_mut(&instance) {
                    hosted.ask_pulse(questions);
                }
            }
            Act::Recreate { instance, start } => return self.recreate(now, instance, start),
            Act::Attempt {
                instance,
                probe,
                number,
                deadline,
                freeze_counts,
            } => {
                let ask = Ask {
                    number,
                    deadline: self.instant(deadline),
                    freeze_counts,
                };
                let hosted = self.hosted.get_mut(&instance)?;
                return hosted.attempt(&self.run.asking, instance, probe, ask);
            }
            Act::AskShutdown { instance, deadline } => {
                let by = self.instant(deadline);
                return self
                    .hosted
                    .get(&instance)?
                    .ask_shutdown(instance, by, &self.sender);
            }
        }
        None
    }

    /// Opens and closes published ports, as far as guests have come and gone.
    fn publish(&mut self, now: Moment, stamp: Stamp) {
        if self.run.ports.is_empty() {
            return;
        }
        let endpoints = self.run.controller.endpoints();
        if endpoints == self.endpoints {
            return;
        }
        let backend = |endpoint: &Endpoint| {
            let hosted = self.hosted.get(&endpoint.instance)?;
            Some(Backend {
                instance: endpoint.instance,
                ready: endpoint.ready,
                socket: hosted.sockets().dial?.to_owned(),
                target: match endpoint.ip {
                    Some(IpAddr::V6(_)) => Target::GuestIpv6,
                    _ => Target::GuestIpv4,
                },
            })
        };
        let guests: Vec<_> = endpoints.iter().filter_map(backend).collect();
        self.endpoints = endpoints;
        for (instance, said) in self.run.ports.lead_to(&guests) {
            self.say(now, instance, said, stamp);
        }
    }

    fn instant(&self, at: Moment) -> Instant {
        let instant = self.began.checked_add(at.since(Moment::ZERO));
        instant.unwrap_or(self.began)
    }

    fn create(&mut self, instance: InstanceId, name: &str) -> Happening {
        let object = format!("{}/{name}", self.run.namespace);
        self.objects.insert(instance, object);
        let claim = match self.claim(name) {
            Ok(claim) => claim,
            Err(message) => return Happening::CreateFailed { instance, message },
        };
        let config = self.config(claim.as_ref());
        let console = &self.run.console;
        let started = Hosted::start(config, name, console, claim, instance, &self.sender);
        match started {
            Ok(hosted) => {
                let pid = Some(hosted.pid());
                self.hosted.insert(instance, hosted);
                Happening::Created { instance, pid }
            }
            Err(error) => Happening::CreateFailed {
                instance,
                message: error.to_string(),
            },
        }
    }

    /// Its machine, with these sockets.
    fn config(&self, claim: Option<&Claim>) -> MachineConfig {
        let mut config = self.run.config.clone();
        config.agent_socket = claim.map(|claim| claim.agent().to_owned());
        let uplink = self.run.uplink.clone();
        config.network = uplink.zip(claim).map(|(uplink, claim)| {
            let dial_socket = claim.dial().to_owned();
            NetworkConfig {
                uplink,
                dial_socket,
            }
        });
        config
    }

    /// Starts the machine of `instance` in a new process, the old one being gone.
    fn recreate(&mut self, now: Moment, instance: InstanceId, start: Restart) -> Option<Happening> {
        let claim = self.hosted.get(&instance)?.claim();
        let mut config = self.config(claim);
        config.resets = start.resets;
        if let Some(watchdog) = &mut config.watchdog {
            watchdog.timed_out = start.timed_out;
        }
        let name = self.objects.get(&instance)?.rsplit('/').next()?.to_owned();
        let hosted = self.hosted.get_mut(&instance)?;
        Some(
            match hosted.renew(now, config, &name, &self.run.console, instance) {
                Ok(()) => Happening::Created {
                    instance,
                    pid: Some(hosted.pid()),
                },
                Err(error) => Happening::CreateFailed {
                    instance,
                    message: error.to_string(),
                },
            },
        )
    }

    /// Sockets for it. Without probes and published ports that need them, it may do without.
    fn claim(&mut self, name: &str) -> Result<Option<Claim>, String> {
        let Some(claims) = &mut self.claims else {
            return Ok(None);
        };
        let needed = self.run.asking.needs_sockets() || !self.run.ports.is_empty();
        match claims.claim(&self.run.namespace, name) {
            Ok(claim) => Ok(Some(claim)),
            Err(error) if needed => Err(error.to_string()),
            Err(error) => {
                let without = match self.run.uplink {
                    Some(_) => "no socket for its guest agent, and no network",
                    None => "no socket for its guest agent",
                };
                log::warn!("{name} has {without}: {error}");
                Ok(None)
            }
        }
    }

    fn say(&mut self, now: Moment, instance: InstanceId, said: Said, stamp: Stamp) {
        let Some(object) = self.objects.get(&instance) else {
            log::error!("an instance without a name says {said:?}");
            return;
        };
        let hosted = self.hosted.get(&instance);
        let (realtime_ns, uptime_ns) = match stamp {
            Some((of, realtime_ns, uptime_ns)) if of == instance => (realtime_ns, uptime_ns),
            _ => (
                kennel_vmm::clock::realtime_ns(),
                hosted.map_or(0, |hosted| hosted.uptime.ns(now)),
            ),
        };
        let event = said.at(object, realtime_ns, uptime_ns);
        let orders = self.watcher.event(&event);
        self.orders.extend(orders);
    }

    /// What comes after the verdict is heard, and changes nothing.
    fn too_late(&mut self, arrivals: &Receiver<Arrival>) {
        for arrival in arrivals.try_iter() {
            if let Arrival::ConsoleLine(line) = arrival {
                let _orders = self.watcher.console_line(&line);
            }
        }
    }
}

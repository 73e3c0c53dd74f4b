// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes a probe's attempts, over the guest's network. The edge: it reads the clock and waits.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kennel_vmm::dial::Target;

use super::door::{Door, Place};
use super::http::Http;
use super::resolve::Resolver;
use super::{Limit, Outcome, tcp};
use crate::socket::cause;
use crate::spec::{Handler, IpFamily};

/// Asks one guest for one probe, one attempt at a time.
#[derive(Debug)]
pub struct NetworkRunner {
    question: Question,
    timeout: Duration,
    family: IpFamily,
    resolver: Resolver,
}

impl NetworkRunner {
    /// The probe `handler` of the guest behind `dial_socket`, at its addresses of `family`; what
    /// runs out of time says that it took `timeout`. Nothing is connected yet.
    #[must_use]
    pub fn new(handler: Handler, timeout: Duration, family: IpFamily, dial_socket: &Path) -> Self {
        Self {
            question: Question {
                handler,
                dial_socket: dial_socket.to_owned(),
            },
            timeout,
            family,
            resolver: Resolver::default(),
        }
    }

    /// One attempt, over by `deadline`.
    pub fn attempt(&mut self, deadline: Instant) -> Outcome {
        if deadline <= Instant::now() {
            let why = "the attempt could not begin in time, as this host was busy";
            return Outcome::Error(why.into());
        }
        let limit = Limit {
            deadline,
            timeout: self.timeout,
        };
        let made = catch_unwind(AssertUnwindSafe(|| self.make(limit)));
        made.unwrap_or_else(|_| defect())
    }

    fn make(&mut self, limit: Limit) -> Outcome {
        let question = &self.question;
        let host = match &question.handler {
            Handler::HttpGet(get) => get.host.as_deref(),
            Handler::TcpSocket(socket) => socket.host.as_deref(),
            other => {
                let why = format!("{} is not asked over the guest's network", other.name());
                return Outcome::Error(why);
            }
        };
        let ipv4 = Place::Guest(Target::GuestIpv4);
        let ipv6 = Place::Guest(Target::GuestIpv6);
        let place = match (host.map(Place::of), self.family) {
            (Some(place), _) => place,
            (None, IpFamily::Ipv4) => ipv4,
            (None, IpFamily::Ipv6) => ipv6,
            (None, IpFamily::Both) => return question.both(&ipv4, &ipv6, limit),
        };
        let door = match &place {
            Place::Guest(target) => question.guest(*target),
            Place::Address(address) => Door::Host(vec![SocketAddr::new(*address, 0)]),
            Place::Name(name) => match self.resolver.resolve(name, limit) {
                Ok(addresses) => Door::Host(addresses),
                Err(trouble) => return trouble.into(),
            },
        };
        question.ask(&place, &door, limit)
    }
}

/// What is asked, and through which socket if it is the guest.
#[derive(Debug)]
struct Question {
    handler: Handler,
    dial_socket: PathBuf,
}

impl Question {
    /// Both families at once, as they share the time.
    fn both(&self, ipv4: &Place, ipv6: &Place, limit: Limit) -> Outcome {
        let second = || self.ask(ipv6, &self.guest(Target::GuestIpv6), limit);
        thread::scope(|scope| {
            let named = thread::Builder::new().name("ipv6-probe".into());
            let beside = named.spawn_scoped(scope, second);
            let first = self.ask(ipv4, &self.guest(Target::GuestIpv4), limit);
            let second = match beside {
                Ok(beside) => beside.join().unwrap_or_else(|_| defect()),
                Err(error) => Outcome::Error(format!("no thread for it: {}", cause(&error))),
            };
            together(first, second)
        })
    }

    fn guest(&self, target: Target) -> Door<'_> {
        Door::Guest {
            socket: &self.dial_socket,
            target,
        }
    }

    fn ask(&self, place: &Place, door: &Door<'_>, limit: Limit) -> Outcome {
        let name = place.name();
        match &self.handler {
            Handler::HttpGet(get) => match Http::new(get, &name) {
                Ok(http) => http.attempt(door, limit),
                Err(trouble) => trouble.into(),
            },
            Handler::TcpSocket(socket) => tcp::attempt(&name, socket.port, door, limit),
            Handler::Exec { .. } | Handler::GuestAgentPing => defect(),
        }
    }
}

fn defect() -> Outcome {
    Outcome::Error("the attempt ended by a defect of this program; please report it".into())
}

/// What came of both families: the worse of the two, and which it was.
fn together(ipv4: Outcome, ipv6: Outcome) -> Outcome {
    let mut failures = Vec::new();
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    for (family, outcome) in [("IPv4", ipv4), ("IPv6", ipv6)] {
        match outcome {
            Outcome::Success => {}
            Outcome::Warning(why) => warnings.push(format!("over {family}: {why}")),
            Outcome::Failure(why) => failures.push(format!("over {family}: {why}")),
            Outcome::Error(why) => errors.push(format!("over {family}: {why}")),
        }
    }
    if !failures.is_empty() {
        Outcome::Failure(failures.join("; "))
    } else if !errors.is_empty() {
        Outcome::Error(errors.join("; "))
    } else if !warnings.is_empty() {
        Outcome::Warning(warnings.join("; "))
    } else {
        Outcome::Success
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_families_the_worse_counts_and_is_named() {
        let (warning, failure, error) = (
            || Outcome::Warning("w".into()),
            || Outcome::Failure("f".into()),
            || Outcome::Error("e".into()),
        );
        for (ipv4, ipv6, expected) in [
            (Outcome::Success, Outcome::Success, Outcome::Success),
            (
                Outcome::Success,
                warning(),
                Outcome::Warning("over IPv6: w".into()),
            ),
            (error(), warning(), Outcome::Error("over IPv4: e".into())),
            (error(), failure(), Outcome::Failure("over IPv6: f".into())),
            (
                failure(),
                Outcome::Success,
                Outcome::Failure("over IPv4: f".into()),
            ),
            (
                failure(),
                failure(),
                Outcome::Failure("over IPv4: f; over IPv6: f".into()),
            ),
        ] {
            assert_eq!(together(ipv4, ipv6), expected);
        }
    }
}

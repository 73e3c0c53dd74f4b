// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages: what a server may answer, when, and what is made of it.

use std::time::{Duration, Instant};

use kennel_vmm::dial::Target;

use super::super::door::Door;
use super::super::testing::{Guest, Peer, http, in_time, on_loopback, page};
use super::*;
use crate::spec::{Handler, IpFamily};

mod answers;
mod redirects;
mod secured;

/// Long enough for a busy host to come as far as the guest.
const WHILE: Duration = Duration::from_secs(2);

/// The answer that a probe gets.
fn answer(guest: &Guest, get: &HttpGet) -> Result<Answer, Trouble> {
    let socket = guest.socket();
    let door = Door::Guest {
        socket: &socket,
        target: Target::GuestIpv4,
    };
    Http::new(get, "10.0.2.2").unwrap().get(&door, in_time())
}

fn failure(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failure(why) => why,
        other => panic!("{other:?} is no failure"),
    }
}

/// What follows the URL in a failure of `GET /`.
fn reason(outcome: Outcome) -> String {
    let why = failure(outcome);
    let begun = "Get \"http://10.0.2.2:8080/\": ";
    why.strip_prefix(begun).unwrap_or(&why).to_owned()
}

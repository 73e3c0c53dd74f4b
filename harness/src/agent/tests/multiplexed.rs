// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The session with this program's own multiplexer in between, in virtual time.

use std::time::Duration;

use kennel_vmm::agent::{ClientId, Config, Multiplexer};
use serde_json::json;

use super::peer::{Peer, plain_sync_reply, reply};
use crate::agent::AgentError;
use crate::agent::session::{Answer, Session};
use crate::moment::Moment;

const CLIENT: ClientId = ClientId(1);

struct Chain {
    session: Session,
    mux: Multiplexer,
    peer: Option<Peer>,
    /// Commands that the agent does not answer.
    mute: bool,
    seen: Vec<String>,
    now: Moment,
}

impl Chain {
    fn new() -> Self {
        let mut chain = Self {
            session: Session::new(7),
            mux: Multiplexer::new(Config::default()),
            peer: None,
            mute: false,
            seen: Vec::new(),
            now: Moment::ZERO,
        };
        chain.session.connected(chain.now);
        drop(chain.mux.client_connected(CLIENT, 0));
        chain
    }

    fn start_agent(&mut self) {
        self.peer = Some(Peer::new());
        drop(self.mux.port_opened(self.now.as_nanos()));
    }

    fn stop_agent(&mut self, reset: bool) {
        self.peer = None;
        drop(self.mux.port_closed(reset, self.now.as_nanos()));
    }

    fn begin(&mut self, command: &str) {
        let deadline = self.now.after(Duration::from_secs(1));
        self.session.begin(command, &json!({}), deadline, self.now);
    }

    /// Until nothing moves; what came of the request.
    fn run(&mut self) -> Option<Answer> {
        loop {
            let now = self.now.as_nanos();
            let asked = self.session.output().to_vec();
            self.session.sent(asked.len());
            drop(self.mux.client_bytes(CLIENT, &asked, now));
            let told = self.agent(now);
            let answered = self.mux.client_output(CLIENT).to_vec();
            drop(self.mux.client_sent(CLIENT, answered.len(), now));
            if let Some(answer) = self.session.received(&answered, self.now) {
                return Some(answer);
            }
            if asked.is_empty() && !told && answered.is_empty() {
                return None;
            }
        }
    }

    fn agent(&mut self, now: u64) -> bool {
        let Some(peer) = &mut self.peer else {
            return false;
        };
        let bytes = self.mux.port_output().to_vec();
        self.mux.port_sent(bytes.len());
        for request in peer.requests(&bytes) {
            let command = request["execute"].as_str().unwrap().to_owned();
            let answer = match command.as_str() {
                "guest-shutdown" => Vec::new(),
                "guest-sync-delimited" => plain_sync_reply(&request),
                _ if self.mute => Vec::new(),
                _ => reply(&request, &json!(command)),
            };
            self.seen.push(command);
            drop(self.mux.port_bytes(&answer, now));
        }
        !bytes.is_empty()
    }

    fn pass(&mut self) -> Option<Answer> {
        loop {
            if let Some(answer) = self.run() {
                return Some(answer);
            }
            let mux_due = self.mux.next_due().map(Moment::from_nanos);
            let due = self.session.next_due().into_iter().chain(mux_due).min()?;
            self.now = due;
            drop(self.mux.timer(due.as_nanos()));
            if let Some(answer) = self.session.timer(due) {
                return Some(answer);
            }
        }
    }
}

#[test]
fn a_request_is_answered() {
    let mut chain = Chain::new();
    chain.start_agent();
    for command in ["one", "two"] {
        chain.begin(command);
        assert_eq!(chain.run(), Some(Ok(json!(command))));
    }
}

#[test]
fn no_agent_is_told_at_once() {
    let mut chain = Chain::new();
    chain.begin("one");
    assert_eq!(chain.run(), Some(Err(AgentError::NotConnected)));
    chain.start_agent();
    chain.begin("two");
    assert_eq!(chain.run(), Some(Ok(json!("two"))));
}

#[test]
fn an_agent_that_went_is_told_before_a_probe_of_a_second_ends() {
    let mut chain = Chain::new();
    chain.start_agent();
    chain.stop_agent(false);
    chain.begin("one");
    assert_eq!(chain.pass(), Some(Err(AgentError::NotConnected)));
    assert!(chain.now < Moment::from_nanos(1_000_000_000));
}

#[test]
fn an_agent_that_is_back_at_once_is_not_missed() {
    let mut chain = Chain::new();
    chain.start_agent();
    chain.stop_agent(false);
    chain.begin("one");
    assert_eq!(chain.run(), None);
    chain.now = Moment::from_nanos(460_000_000);
    chain.start_agent();
    assert_eq!(chain.run(), Some(Ok(json!("one"))));
}

#[test]
fn a_reset_under_way_is_told_and_nothing_is_left_for_the_next_boot() {
    let mut chain = Chain::new();
    chain.start_agent();
    chain.mute = true;
    chain.begin("one");
    assert_eq!(chain.run(), None);
    chain.stop_agent(true);
    assert_eq!(chain.run(), Some(Err(AgentError::Restarted)));
    chain.mute = false;
    chain.seen.clear();
    chain.start_agent();
    chain.begin("two");
    assert_eq!(chain.run(), Some(Ok(json!("two"))));
    assert!(!chain.seen.contains(&"one".to_owned()));
}

#[test]
fn a_lost_answer_costs_one_request() {
    let mut chain = Chain::new();
    chain.start_agent();
    chain.mute = true;
    chain.begin("one");
    assert_eq!(chain.pass(), Some(Err(AgentError::TimedOut)));
    chain.mute = false;
    chain.begin("two");
    assert_eq!(chain.pass(), Some(Ok(json!("two"))));
}

#[test]
fn a_shutdown_is_confirmed_whatever_becomes_of_the_guest() {
    let mut chain = Chain::new();
    chain.start_agent();
    chain.begin("guest-shutdown");
    assert_eq!(chain.run(), Some(Ok(json!(null))));
}

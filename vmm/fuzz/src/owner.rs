// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The owner's side of the contract.

use std::collections::BTreeMap;
use std::time::Duration;

use kennel_vmm::dial::{Answer, GUEST_IPV4, GUEST_IPV6, Request, Target};
use kennel_vmm::link::{
    DIALS, DialId, FRAMES_TO_GUEST, FRAMES_TO_UPLINK, Link, LinkConfig, LinkEvent, Received,
};

use crate::bytes::Bytes;
use crate::guest::{self, GUEST_MAC, HOST_MAC, Peer};

const MS: u64 = 1_000_000;
const PEERS: usize = 8;

#[derive(Debug)]
struct Client {
    deadline: u64,
    is_open: bool,
}

pub(crate) struct Owner {
    link: Link,
    now: u64,
    is_driven: bool,
    /// Dials that are neither closed nor over.
    clients: BTreeMap<DialId, Client>,
    peers: Vec<Peer>,
    /// What was sent to the guest last.
    last: Vec<Vec<u8>>,
}

impl Owner {
    pub(crate) fn new(uplink: bool) -> Self {
        let config = LinkConfig {
            guest_mac: GUEST_MAC,
            host_mac: HOST_MAC,
            uplink,
            seed: 1,
        };
        let mut owner = Self {
            link: Link::new(config, 0),
            now: 0,
            is_driven: true,
            clients: BTreeMap::new(),
            peers: Vec::new(),
            last: Vec::new(),
        };
        owner.link.guest_driver(true, 0);
        owner
    }

    pub(crate) fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() {
            0..=79 => self.segment(bytes),
            80..=99 => self.answer_questions(),
            100..=114 => {
                let frame = guest::any_frame(bytes);
                self.link.from_guest(&frame, self.now);
            }
            115..=119 => {
                let frame = guest::any_frame(bytes);
                self.link.from_uplink(&frame, self.now);
            }
            120..=129 => {
                let frame = guest::service(bytes);
                self.link.from_guest(&frame, self.now);
            }
            130..=159 => self.dial(bytes),
            160..=199 => self.client(bytes),
            200..=229 => self.poll(bytes.pick(&[0, 0, 1, 10, 250, 1000, 60_000])),
            230..=244 => self.take(bytes.pick(&[0, 1, 3, 1000])),
            245..=247 => self.link.paused(bytes.below(2) == 0, self.now),
            248..=250 => {
                self.is_driven = bytes.below(4) > 0;
                self.link.guest_driver(self.is_driven, self.now);
            }
            251..=252 => {
                self.is_driven = false;
                self.link.guest_reset(self.now);
                self.link.guest_driver(true, self.now);
                self.is_driven = true;
            }
            _ => while self.link.to_uplink().is_some() {},
        }
        self.check();
    }

    fn segment(&mut self, bytes: &mut Bytes<'_>) {
        if self.peers.is_empty() {
            self.take(1000);
        }
        if self.peers.is_empty() {
            return;
        }
        let at = usize::from(bytes.byte()) % self.peers.len();
        let frame = match bytes.below(4) {
            0 => self.peers[at].accept(),
            _ => self.peers[at].nearly_right(bytes),
        };
        self.link.from_guest(&frame, self.now);
    }

    fn answer_questions(&mut self) {
        self.take(1000);
        for frame in &self.last {
            if let Some(answer) = guest::answer_for_address(frame) {
                self.link.from_guest(&answer, self.now);
            }
        }
        self.poll(0);
        self.take(1000);
    }

    fn dial(&mut self, bytes: &mut Bytes<'_>) {
        let target = bytes.pick(&[
            Target::GuestIpv4,
            Target::GuestIpv4,
            Target::GuestIpv6,
            Target::Address("10.0.2.7".parse().unwrap()),
            Target::Address("fe80::7".parse().unwrap()),
            Target::Address("192.0.2.1".parse().unwrap()),
        ]);
        let timeout = Duration::from_millis(bytes.pick(&[0, 1, 300, 1000, 1000, 100_000]));
        let request = Request {
            target,
            port: bytes.pick(&[80, 443]),
            timeout,
        };
        let id = self.link.dial(&request, self.now);
        let deadline = self.now + u64::try_from(timeout.as_nanos()).unwrap();
        let client = Client {
            deadline,
            is_open: false,
        };
        assert!(self.clients.insert(id, client).is_none(), "a new number");
        self.poll(0);
    }

    fn client(&mut self, bytes: &mut Bytes<'_>) {
        let Some((id, _)) = self.clients.iter().nth(bytes.below(4).into()) else {
            return;
        };
        let id = *id;
        match bytes.below(8) {
            0..=2 => {
                let data = vec![0x68; bytes.pick(&[0, 1, 100, 3000, 5000])];
                assert!(self.link.send(id, &data) <= data.len());
            }
            3..=5 => {
                let mut buffer = vec![0; bytes.pick(&[0, 1, 1000, 20_000])];
                match self.link.receive(id, &mut buffer) {
                    Received::Bytes(count) => {
                        assert!(count > 0 && count <= buffer.len());
                        assert!(buffer[..count].iter().all(|byte| *byte == 0x67));
                    }
                    Received::Nothing | Received::Finished => {}
                }
            }
            6 => self.link.finish(id),
            _ => {
                self.link.close(id);
                self.clients.remove(&id);
            }
        }
    }

    fn poll(&mut self, ms: u64) {
        self.now += ms * MS;
        for round in 0.. {
            self.link.poll(self.now);
            // A connection has at most 16 packets' turn at a time, the queue's room is all that can be used up.
            assert!(round < 200, "it does not come to rest");
            if self.link.next_due().is_none_or(|due| due > self.now) {
                break;
            }
        }
        self.take_events();
        let late = self
            .clients
            .values()
            .find(|client| !client.is_open && client.deadline <= self.now);
        assert!(late.is_none(), "not answered: {late:?} at {}", self.now);
    }

    fn take_events(&mut self) {
        for event in self.link.take_events() {
            match event {
                LinkEvent::Answered(id, answer) => {
                    let Some(client) = self.clients.get_mut(&id) else {
                        // Its client left while the answer was on its way.
                        continue;
                    };
                    assert!(!client.is_open, "answered twice");
                    client.is_open = matches!(answer, Answer::Connected { .. });
                    if !client.is_open {
                        assert!(answer.to_string().len() <= kennel_vmm::dial::LINE_BYTES);
                        self.clients.remove(&id);
                    }
                }
                LinkEvent::Ended(id) => {
                    if let Some(client) = self.clients.remove(&id) {
                        assert!(client.is_open);
                    }
                    assert_eq!(self.link.send(id, b"more"), 0);
                    assert_eq!(self.link.receive(id, &mut [0; 8]), Received::Finished);
                }
                LinkEvent::Readable(_) | LinkEvent::Writable(_) | LinkEvent::Addresses => {}
            }
        }
    }

    fn take(&mut self, most: usize) {
        self.last = self
            .link
            .to_guest()
            .take(most)
            .map(<[u8]>::to_vec)
            .collect();
        self.link.guest_took(self.last.len());
        for peer in self.last.iter().filter_map(|frame| Peer::read(frame)) {
            self.peers.retain(|known| !known.same(&peer));
            self.peers.push(peer);
        }
        let excess = self.peers.len().saturating_sub(PEERS);
        self.peers.drain(..excess);
    }

    fn check(&mut self) {
        assert!(self.link.connections() <= DIALS);
        let mut waiting = 0;
        for frame in self.link.to_guest() {
            assert!((14..=1514).contains(&frame.len()));
            waiting += 1;
        }
        assert!(waiting <= FRAMES_TO_GUEST);
        let mut beyond = 0;
        if self.now % 7 == 0 {
            while self.link.to_uplink().is_some() {
                beyond += 1;
            }
        }
        assert!(beyond <= FRAMES_TO_UPLINK);
        let addresses = self.link.addresses();
        assert!(
            addresses
                .ipv4
                .is_none_or(|address| address.octets()[..3] == [10, 0, 2])
        );
        let prefix =
            |address: std::net::Ipv6Addr| address.octets()[..8] == GUEST_IPV6.octets()[..8];
        assert!(addresses.ipv6.is_none_or(prefix));
    }

    /// The next boot's guest is reached.
    pub(crate) fn check_it_still_works(&mut self) {
        self.link.paused(false, self.now);
        self.link.guest_reset(self.now);
        self.take_events();
        assert_eq!(self.link.connections(), 0);
        assert_eq!(self.link.to_guest().count(), 0);
        self.clients.clear();
        self.peers.clear();
        self.link.guest_driver(true, self.now);
        for target in [Target::GuestIpv4, Target::GuestIpv6] {
            let request = Request {
                target,
                port: 80,
                timeout: Duration::from_secs(1),
            };
            let id = self.link.dial(&request, self.now);
            self.link.poll(self.now);
            self.answer_questions();
            let accept = self.peers.last().expect("it connects").accept();
            self.link.from_guest(&accept, self.now);
            self.link.poll(self.now);
            let address = match target {
                Target::GuestIpv4 => GUEST_IPV4.into(),
                _ => GUEST_IPV6.into(),
            };
            let answer = Answer::Connected { address, port: 80 };
            assert!(
                self.link
                    .take_events()
                    .contains(&LinkEvent::Answered(id, answer))
            );
        }
    }
}

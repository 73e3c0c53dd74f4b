// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The loop of the link's thread: the network device's rings, the link, the dial socket and the
//! uplink. A guest that floods its link keeps this thread busy, and no other.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use i6300esb::VmInstant;
use kennel_virtio::QueueFault;

use super::address_news::AddressNews;
use super::card::Card;
use super::dial_socket::DialSocket;
use super::orders::OrderBox;
use super::uplink::{self, Part, Uplink};
use crate::clock::{VmClock, VmTimer};
use crate::fault::{self, Place};
use crate::link::Link;
use crate::protocol::News;

/// Rounds of work in one turn of the loop; a guest that keeps on waits for the next.
const ROUNDS: usize = 4;

/// Which descriptor an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Source {
    Orders,
    Device,
    Timer,
    DialClient,
    UplinkFrames,
    UplinkMessages,
    UplinkExit,
}

/// Events of the dial socket's listener carry this.
pub(super) const LISTENER: u32 = Source::DialClient as u32;
/// Events of its clients carry this and more.
pub(super) const CLIENTS: u32 = 1 << 16;
/// Events of the uplink carry these.
pub(super) const UPLINK: uplink::Data = uplink::Data {
    frames: Source::UplinkFrames as u32,
    messages: Source::UplinkMessages as u32,
    exit: Source::UplinkExit as u32,
};

impl Source {
    const ALL: [Self; 7] = [
        Self::Orders,
        Self::Device,
        Self::Timer,
        Self::DialClient,
        Self::UplinkFrames,
        Self::UplinkMessages,
        Self::UplinkExit,
    ];

    fn of(events: &Events) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|source| *source as u32 == events.data())
    }
}

/// Tells the supervisor.
pub type Tell = Arc<dyn Fn(News) + Send + Sync>;

/// What the loop works with.
pub(super) struct Parts {
    pub(super) orders: Arc<OrderBox>,
    pub(super) card: Box<dyn Card>,
    pub(super) link: Link,
    pub(super) dials: DialSocket,
    pub(super) uplink: Option<Uplink>,
    /// Real time: it goes on while the machine is paused.
    pub(super) clock: Arc<VmClock>,
    pub(super) timer: VmTimer,
    pub(super) tell: Tell,
}

/// The loop's only subscriber.
pub(super) struct LinkLoop {
    parts: Parts,
    addresses: AddressNews,
    driven: bool,
    /// A guest can break its device at any rate; once is said aloud.
    warned: bool,
    stopped: bool,
    /// It cannot go on: why.
    failed: Option<String>,
}

impl LinkLoop {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            addresses: AddressNews::default(),
            driven: false,
            warned: false,
            stopped: false,
            failed: None,
        }
    }

    /// How it is over, once it is: the machine has ended, or it cannot go on.
    pub(super) fn over(&mut self) -> Option<Result<(), String>> {
        let failed = self.failed.take().map(Err);
        failed.or(self.stopped.then_some(Ok(())))
    }

    fn now(&self) -> u64 {
        self.parts.clock.now().as_nanos()
    }

    fn handle(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let now = self.now();
        let parts = &mut self.parts;
        if parts.dials.is_client(events.data()) {
            return parts.dials.client_event(events, &mut parts.link, now, ops);
        }
        let part = match Source::of(&events) {
            None => return,
            // Every round looks at them.
            Some(Source::Orders) => return parts.orders.seen(),
            Some(Source::Device) => {
                let _count = parts.card.work().read();
                return;
            }
            Some(Source::Timer) => {
                let _moved_or_not = parts.timer.take_expiry();
                return;
            }
            Some(Source::DialClient) => return parts.dials.accept(&mut parts.link, now, ops),
            Some(Source::UplinkFrames) => Part::Frames,
            Some(Source::UplinkMessages) => Part::Messages,
            Some(Source::UplinkExit) => Part::Exit,
        };
        if let Some(uplink) = &mut parts.uplink {
            let link = &mut parts.link;
            uplink.event(part, now, ops, &mut |frame| link.from_uplink(frame, now));
        }
    }

    /// Does what there is to do, for a while.
    fn turn(&mut self, ops: &mut EventOps<'_>) {
        let more = (0..ROUNDS).all(|_| self.round(ops));
        if more {
            // Only a full counter fails, and then the loop is awake already.
            let _woken = self.parts.card.work().write(1);
            // A guest that floods gets the CPU time that the loop which acts on bites leaves.
            std::thread::yield_now();
        }
        let now = self.now();
        let addresses = self.parts.link.addresses();
        let news = self.addresses.now_are(addresses.ipv4, addresses.ipv6, now);
        let of_uplink = self.parts.uplink.as_mut().map(Uplink::take_news);
        for news in news.into_iter().chain(of_uplink.into_iter().flatten()) {
            (self.parts.tell)(news);
        }
        let due = [
            self.parts.link.next_due(),
            self.parts.dials.next_due(),
            self.parts.uplink.as_ref().and_then(Uplink::next_due),
            self.addresses.next_due(),
        ];
        // One turn too many is cheaper than a system call at each.
        if let Some(at) = due.into_iter().flatten().min() {
            self.parts.timer.arm_by(VmInstant::from_nanos(at));
        }
    }

    /// Whether there is more to do.
    fn round(&mut self, ops: &mut EventOps<'_>) -> bool {
        let now = self.now();
        self.obey(now);
        if self.stopped {
            return false;
        }
        self.look_at_driver(now);
        let parts = &mut self.parts;
        let link = &mut parts.link;
        let sent = parts
            .card
            .transmit(&mut |frame| link.from_guest(frame, now));
        parts.dials.time_passed(link, now, ops);
        let talking = talk(link, &mut parts.dials, now, ops);
        let (taken, received) = parts.card.receive(&mut link.to_guest());
        link.guest_took(taken);
        self.pass_up(now, ops);
        for fault in [&sent.fault, &received.fault] {
            self.broken(fault.as_ref());
        }
        sent.more || received.more || talking
    }

    fn obey(&mut self, now: u64) {
        if self.parts.orders.resets_seen().is_some() {
            fault::may_hang(Place::Link);
        }
        let orders = self.parts.orders.take();
        if orders.stop {
            fault::may_hang(Place::LinkAtEnd);
        }
        if orders.reset {
            self.parts.link.guest_reset(now);
        }
        if let Some(paused) = orders.paused {
            self.parts.link.paused(paused, now);
        }
        self.stopped |= orders.stop;
    }

    fn look_at_driver(&mut self, now: u64) {
        let gone = self.parts.card.take_reset() && self.driven;
        let driven = self.parts.card.is_driven();
        if gone {
            self.parts.link.guest_driver(false, now);
        }
        if driven != (self.driven && !gone) {
            self.parts.link.guest_driver(driven, now);
        }
        self.driven = driven;
    }

    /// Frames for beyond the link.
    fn pass_up(&mut self, now: u64, ops: &mut EventOps<'_>) {
        let Parts { link, uplink, .. } = &mut self.parts;
        let Some(uplink) = uplink else { return };
        uplink.time_passed(now, ops);
        while let Some(frame) = link.to_uplink() {
            uplink.send(&frame);
        }
        uplink.flush(ops);
    }

    fn broken(&mut self, fault: Option<&QueueFault>) {
        let Some(fault) = fault else { return };
        let level = if std::mem::replace(&mut self.warned, true) {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        log::log!(
            level,
            "the guest broke its network device, which stands still until it is reset: {fault:?}"
        );
    }
}

/// Lets the link and its clients talk to each other for a while; whether they have more to say.
fn talk(link: &mut Link, dials: &mut DialSocket, now: u64, ops: &mut EventOps<'_>) -> bool {
    for _ in 0..ROUNDS {
        link.poll(now);
        let events = link.take_events();
        let quiet = events.is_empty();
        for event in events {
            dials.heed(&event, link, now, ops);
        }
        let unfinished = dials.go_on(link, now, ops);
        if quiet && !unfinished {
            return false;
        }
    }
    true
}

impl MutEventSubscriber for LinkLoop {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if !self.stopped {
            self.handle(events, ops);
            self.turn(ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let parts = &self.parts;
        let mut watch = |source: &dyn AsRawFd, data: Source| {
            let fd = source.as_raw_fd();
            ops.add(Events::with_data_raw(fd, data as u32, EventSet::IN))
        };
        let watched = watch(&parts.orders.event, Source::Orders)
            .and_then(|()| watch(parts.card.work(), Source::Device))
            .and_then(|()| watch(&parts.timer, Source::Timer))
            .and_then(|()| watch(parts.dials.listener(), Source::DialClient));
        if let Err(error) = watched {
            self.failed = Some(format!("its descriptors cannot be watched: {error}"));
            return;
        }
        // An uplink is tried at once.
        self.turn(ops);
    }
}

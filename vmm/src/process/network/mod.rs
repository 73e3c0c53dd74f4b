// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's network: the link on a thread of its own, so that no guest and no client delays the
//! watchdog.

mod address_news;
mod card;
mod dial_client;
mod dial_socket;
mod link_loop;
mod orders;
mod uplink;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberOps};
use rustix::process::{Resource, getrlimit, setrlimit};

pub use self::card::Card;
pub use self::link_loop::Tell;

use self::card::InMachine;
use self::dial_socket::DialSocket;
use self::link_loop::{LinkLoop, Parts};
use self::orders::OrderBox;
use self::uplink::Uplink;
use super::worker::{Worker, guarded};
use crate::clock::{VmClock, VmTimer};
use crate::config::{self, NetworkConfig};
use crate::link::{Link, LinkConfig};
use crate::machine::Machine;
use crate::protocol::News;
use crate::virtio_net::{GUEST_MAC, HOST_MAC};

/// What is made before the machine is built: its failure is the machine's.
#[derive(Debug)]
pub(super) struct Prepared {
    dials: DialSocket,
    uplink: Option<Uplink>,
    has_uplink: bool,
}

/// Makes the dial socket.
pub(super) fn prepare(config: &NetworkConfig) -> Result<Prepared, String> {
    let dials = DialSocket::new(&config.dial_socket, link_loop::LISTENER, link_loop::CLIENTS)
        .map_err(|error| dial_failed(&error))?;
    Ok(Prepared {
        dials,
        uplink: Uplink::new(&config.uplink, GUEST_MAC, HOST_MAC, link_loop::UPLINK),
        has_uplink: config.uplink != config::Uplink::None,
    })
}

/// How long the end of a machine that is dropped waits for the thread.
const STOP_BOUND: Duration = Duration::from_secs(1);

/// The thread.
#[derive(Debug)]
pub struct Network {
    orders: Arc<OrderBox>,
    thread: Option<Worker>,
}

impl Network {
    /// Starts it for `machine`, which has a network device.
    pub(super) fn start(prepared: Prepared, machine: &Machine, tell: Tell) -> Result<Self, String> {
        let device = machine.board().virtio_net.as_ref().map(Arc::clone);
        let device = device.ok_or("the machine has no network device")?;
        let memory = machine.memory().clone();
        Self::with_card(prepared, Box::new(InMachine { device, memory }), tell)
    }

    /// Starts it without a machine, for whoever is behind `card`.
    ///
    /// # Errors
    /// What could not be had, and where.
    pub fn without_machine(
        config: &NetworkConfig,
        card: Box<dyn Card>,
        tell: Tell,
    ) -> Result<Self, String> {
        Self::with_card(prepare(config)?, card, tell)
    }

    fn with_card(prepared: Prepared, card: Box<dyn Card>, tell: Tell) -> Result<Self, String> {
        let Prepared {
            dials,
            uplink,
            has_uplink,
        } = prepared;
        raise_descriptor_limit();
        let failed = |error: io::Error| format!("the guest's network cannot be had: {error}");
        let clock = Arc::new(VmClock::new());
        clock.resume();
        let orders = Arc::new(OrderBox::new().map_err(failed)?);
        let link = LinkConfig {
            guest_mac: GUEST_MAC,
            host_mac: HOST_MAC,
            uplink: has_uplink,
            // The guest knows what time it is, and not this.
            seed: RandomState::new().build_hasher().finish(),
        };
        let parts = Parts {
            orders: Arc::clone(&orders),
            card,
            link: Link::new(link, clock.now().as_nanos()),
            dials,
            uplink,
            timer: VmTimer::new(Arc::clone(&clock)).map_err(failed)?,
            clock,
            tell: Arc::clone(&tell),
        };
        let manager =
            EventManager::new().map_err(|error| format!("no event loop for the link: {error}"))?;
        // Under 2 MiB: the kernel gives no stack a huge page.
        let thread = Worker::start("link", 512 << 10, move || {
            tell_how_it_ends(&tell, || work(manager, parts));
        })
        .map_err(failed)?;
        Ok(Self {
            orders,
            thread: Some(thread),
        })
    }

    /// Something happened to the machine; waits for nobody.
    pub(super) fn heed(&self, news: &News) {
        match news {
            News::Paused { .. } => self.orders.add(|orders| orders.paused = Some(true)),
            News::Resumed => self.orders.add(|orders| orders.paused = Some(false)),
            News::Reset { .. } => self.orders.add(|orders| orders.reset = true),
            _ => {}
        }
    }

    /// How many resets the thread has seen, if it is there and has not seen the last.
    pub(super) fn is_behind(&self) -> Option<u16> {
        let runs = self.thread.as_ref().is_some_and(Worker::is_running);
        self.orders.resets_seen().filter(|_| runs)
    }

    /// Ends the thread, with its clients, its uplink and its socket; waits for it until `deadline`.
    pub fn stop_by(&mut self, deadline: Instant) {
        self.orders.add(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            thread.end_by(deadline);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let now = Instant::now();
        self.stop_by(now.checked_add(STOP_BOUND).unwrap_or(now));
    }
}

/// What the thread does, until the machine has ended.
fn work(mut manager: EventManager<LinkLoop>, parts: Parts) -> Result<(), String> {
    let text = |error: event_manager::Error| error.to_string();
    let id = manager.add_subscriber(LinkLoop::new(parts));
    loop {
        if let Some(over) = manager.subscriber_mut(id).map_err(text)?.over() {
            return over;
        }
        manager.run().map_err(text)?;
    }
}

/// Does `work`. If it cannot go on, or panics, the machine goes on without a network, since a watchdog
/// must not end with it: clients and uplink are closed, and it is told why. Nothing is started anew: what a
/// guest has brought about once, it can bring about again.
fn tell_how_it_ends(tell: &Tell, work: impl FnOnce() -> Result<(), String>) {
    let Err(why) = guarded(work) else { return };
    let message = format!(
        "the guest's network has ended: {why}; to have it back, end the machine and start it again"
    );
    log::error!("{message}");
    tell(News::NetworkDown { message });
}

/// Each client of the guest's ports takes a descriptor.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the limit of open files stays as it is: {error}");
    }
}

fn dial_failed(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        return "another machine of this name runs here: end it, or rename this one".to_owned();
    }
    format!(
        "the socket of the guest's ports cannot be made: {error}; its directory must be \
         on a file system that holds sockets (set XDG_RUNTIME_DIR to choose another)"
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use parking_lot::Mutex;

    use super::*;

    /// What is told of such an end, and whether the dial socket was there when it was.
    fn told(end: impl FnOnce() -> Result<(), String>) -> Vec<(String, bool)> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("dials");
        let dials = DialSocket::new(&path, 0, 1).expect("a socket");
        let mut client = UnixStream::connect(&path).expect("it listens");
        let heard: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
        let (hears, was_at) = (Arc::clone(&heard), path.clone());
        let tell: Tell = Arc::new(move |news| {
            if let News::NetworkDown { message } = news {
                hears.lock().push((message, was_at.exists()));
            }
        });
        tell_how_it_ends(&tell, || {
            let _owned = dials;
            end()
        });
        assert!(!path.exists());
        // Never accepted: a reset is an end, too.
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        std::mem::take(&mut *heard.lock())
    }

    #[test]
    fn a_thread_that_cannot_go_on_closes_everything_and_says_why() {
        type End = fn() -> Result<(), String>;
        let ends: [(End, &str); 3] = [
            (|| Err("no epoll".into()), "ended: no epoll;"),
            (|| panic!("a word"), "please report it: a word;"),
            (|| panic!("{}", "two words"), "report it: two words;"),
        ];
        for (end, why) in ends {
            let told = told(end);
            let [(message, socket)] = told.as_slice() else {
                panic!("{told:?}");
            };
            assert!(message.contains(why), "{message}");
            assert!(!socket, "clients fail before it is told");
        }
    }

    #[test]
    fn a_thread_that_ends_with_its_machine_says_nothing() {
        assert_eq!(told(|| Ok(())), []);
    }
}

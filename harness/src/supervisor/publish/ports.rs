// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The published ports of a run: held from its beginning, open while a guest is behind them.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kennel_vmm::dial::Target;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{self, AddressFamily, SocketAddrAny, SocketFlags, SocketType, sockopt};

use super::Publish;
use super::relay::Relays;
use crate::supervisor::controller::InstanceId;
use crate::supervisor::events::Said;

/// How long nobody is taken in when there is no descriptor for one.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Why a port is not published.
#[derive(Debug, thiserror::Error)]
#[error("cannot publish {at}: {}", why(.source))]
pub struct PublishError {
    at: SocketAddr,
    source: io::Error,
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; end it, or give another port, 0 for any that is free"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not listen on ports as low as that; give one from 1024 on".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; give one of its own, 0.0.0.0 or [::] for all"
                .to_owned()
        }
        _ => crate::words::without_error_numbers(&error.to_string()),
    }
}

/// A guest behind published ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervisor) struct Backend {
    pub(in crate::supervisor) instance: InstanceId,
    /// It is Ready.
    pub(in crate::supervisor) ready: bool,
    /// Its dial socket.
    pub(in crate::supervisor) socket: PathBuf,
    /// Its address.
    pub(in crate::supervisor) target: Target,
}

/// The published ports of a run.
#[derive(Debug, Default)]
pub struct Ports {
    ports: Vec<Port>,
    relays: Relays,
}

#[derive(Debug)]
struct Port {
    publish: Publish,
    /// Bound, and not listening: nobody is given this port meanwhile.
    _held: OwnedFd,
    open: Option<Open>,
    /// It could not be opened, and that has been told.
    failed: bool,
}

impl Ports {
    /// Holds all of them; none listens yet.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub fn hold(wanted: &[Publish]) -> Result<Self, PublishError> {
        let ports: Result<_, _> = wanted.iter().map(Port::hold).collect();
        Ok(Self {
            ports: ports?,
            relays: Relays::default(),
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Each of them, with the port's number where any would do.
    pub fn published(&self) -> impl Iterator<Item = Publish> {
        self.ports.iter().map(|port| port.publish)
    }

    /// Opens and closes ports, now that these guests are there; with what is to be told of it.
    pub(in crate::supervisor) fn lead_to(&mut self, guests: &[Backend]) -> Vec<(InstanceId, Said)> {
        let relays = &self.relays;
        let told = self.ports.iter_mut();
        told.filter_map(|port| port.lead_to(guests, relays))
            .collect()
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.ports.clear();
        self.relays.end();
    }
}

impl Port {
    fn hold(publish: &Publish) -> Result<Self, PublishError> {
        let failed = |error: rustix::io::Errno| PublishError {
            at: publish.at,
            source: error.into(),
        };
        let family = match publish.at {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC;
        let held = net::socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
        // As listeners do: connections of a former run may linger on.
        sockopt::set_socket_reuseaddr(&held, true).map_err(failed)?;
        net::bind(&held, &publish.at).map_err(failed)?;
        let name: SocketAddrAny = net::getsockname(&held).map_err(failed)?;
        let at = SocketAddr::try_from(name).map_err(failed)?;
        Ok(Self {
            publish: Publish { at, ..*publish },
            _held: held,
            open: None,
            failed: false,
        })
    }

    fn lead_to(&mut self, guests: &[Backend], relays: &Relays) -> Option<(InstanceId, Said)> {
        let Publish {
            at,
            guest_port,
            ready,
        } = self.publish;
        let eligible = guests.iter().filter(|guest| guest.ready || !ready);
        let guests: Vec<_> = eligible.cloned().collect();
        let Some(first) = guests.first().map(|guest| guest.instance) else {
            self.failed = false;
            let last = self.open.take()?.turns.any()?;
            return Some((last, Said::port_closed(at, guest_port)));
        };
        if let Some(open) = &self.open {
            open.turns.set(guests);
            return None;
        }
        match Open::new(at, guest_port, guests, relays.clone()) {
            Ok(open) => {
                self.open = Some(open);
                self.failed = false;
                Some((first, Said::port_opened(at, guest_port)))
            }
            Err(_) if std::mem::replace(&mut self.failed, true) => None,
            Err(source) => {
                let error = PublishError { at, source };
                Some((first, Said::port_failed(at, guest_port, &error.to_string())))
            }
        }
    }
}

/// The guests that connections are given to in turn; never none.
#[derive(Clone, Debug)]
struct Turns(Arc<Mutex<(Vec<Backend>, usize)>>);

impl Turns {
    fn new(guests: Vec<Backend>) -> Self {
        Self(Arc::new(Mutex::new((guests, 0))))
    }

    fn set(&self, guests: Vec<Backend>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = guests;
    }

    fn next(&self) -> Option<Backend> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (guests, next) = &mut *turns;
        let guest = guests.get(next.checked_rem(guests.len())?).cloned();
        *next = next.wrapping_add(1);
        guest
    }

    fn any(&self) -> Option<InstanceId> {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.0.first().map(|guest| guest.instance)
    }
}

/// A port that listens, until this is dropped.
#[derive(Debug)]
struct Open {
    turns: Turns,
    /// Its thread waits for the other end of this, too.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Open {
    fn new(
        at: SocketAddr,
        guest_port: u16,
        guests: Vec<Backend>,
        relays: Relays,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let (wake, woken) = UnixStream::pair()?;
        let turns = Turns::new(guests);
        let of_thread = turns.clone();
        let take_in = move |client| {
            if let Some(guest) = of_thread.next() {
                relays.start(client, guest, guest_port);
            }
        };
        let thread = thread::Builder::new()
            .name(format!("port-{}", at.port()))
            .spawn(move || accept(&listener, &woken, take_in))?;
        Ok(Self {
            turns,
            wake: Some(wake),
            thread: Some(thread),
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.wake = None;
        // With the thread goes the listener: from here on connections are refused.
        if self.thread.take().is_some_and(|it| it.join().is_err()) {
            log::error!("the thread of a published port panicked");
        }
    }
}

/// Takes clients in until the other end of `woken` is closed.
fn accept(listener: &TcpListener, woken: &UnixStream, take_in: impl Fn(TcpStream)) {
    loop {
        let mut ends = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(woken, PollFlags::IN),
        ];
        match poll(&mut ends, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return log::error!("a published port cannot be waited for: {error}"),
            Ok(_) => {}
        }
        if ends.last().is_none_or(|woken| !woken.revents().is_empty()) {
            return;
        }
        match listener.accept() {
            Ok((client, _)) => take_in(client),
            Err(error) if passes(&error) => {}
            Err(error) => {
                log::warn!("a published port takes nobody in: {error}");
                thread::sleep(OUT_OF_DESCRIPTORS);
            }
        }
    }
}

/// Whether it is about one client, or none any more.
fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

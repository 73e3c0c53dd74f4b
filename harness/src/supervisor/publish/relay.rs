// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One connection of a published port: bytes both ways, an end of them in each, until both are over.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};

use super::Backend;
use crate::dial;

/// Connections of all published ports at one time.
pub(super) const MOST: usize = 256;
/// How long a guest has to accept one.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections have to end with their run.
const END_BOUND: Duration = Duration::from_secs(1);
/// What a direction holds.
const HELD: usize = 16 << 10;
const STACK: usize = 256 << 10;

/// The connections of a run.
#[derive(Clone, Debug)]
pub(super) struct Relays {
    count: Arc<Count>,
    /// Both ends of what tells them to end: one is closed for it, they wait for the other.
    end: Arc<Mutex<Option<UnixStream>>>,
    ended: Option<Arc<UnixStream>>,
}

impl Default for Relays {
    fn default() -> Self {
        // Without it they end by themselves, when their guest is gone.
        let (end, ended) = UnixStream::pair().ok().unzip();
        Self {
            count: Arc::default(),
            end: Arc::new(Mutex::new(end)),
            ended: ended.map(Arc::new),
        }
    }
}

#[derive(Debug, Default)]
struct Count {
    open: Mutex<usize>,
    changed: Condvar,
}

/// One of those that are counted.
struct Counted(Arc<Count>);

impl Count {
    fn one_more(count: &Arc<Self>) -> Option<Counted> {
        let mut open = count.open.lock().unwrap_or_else(PoisonError::into_inner);
        if *open >= MOST {
            return None;
        }
        *open = open.saturating_add(1);
        Some(Counted(Arc::clone(count)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open = open.saturating_sub(1);
        self.0.changed.notify_all();
    }
}

impl Relays {
    /// Connects `client` with the guest, in a thread of its own. What cannot be is reset.
    pub(super) fn start(&self, client: TcpStream, guest: Backend, guest_port: u16) {
        let Some(counted) = Count::one_more(&self.count) else {
            log::debug!("{MOST} connections of published ports are open: no more");
            return reset(&client);
        };
        let ended = self.ended.clone();
        let run = move || {
            let _counted = counted;
            if let Err(why) = serve(&client, &guest, guest_port, ended.as_deref()) {
                log::debug!("a connection of a published port: {why}");
                reset(&client);
            }
        };
        let thread = thread::Builder::new().name("relay".into());
        if let Err(error) = thread.stack_size(STACK).spawn(run) {
            log::warn!("there is no thread for a connection of a published port: {error}");
        }
    }

    /// Ends all of them.
    pub(super) fn end(&self) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let open = self.count.open.lock();
        let open = open.unwrap_or_else(PoisonError::into_inner);
        let changed = &self.count.changed;
        let left = changed.wait_timeout_while(open, END_BOUND, |open| *open > 0);
        let (open, _) = left.unwrap_or_else(PoisonError::into_inner);
        if *open > 0 {
            log::warn!("{} connections of published ports do not end", *open);
        }
    }
}

/// Has the client see that nobody was there, not that somebody hung up.
fn reset(client: &TcpStream) {
    // One that is gone already needs nothing.
    let _set = sockopt::set_socket_linger(client, Some(Duration::ZERO));
}

fn serve(
    client: &TcpStream,
    guest: &Backend,
    guest_port: u16,
    ended: Option<&UnixStream>,
) -> Result<(), String> {
    // A client that vanished is noticed some time.
    let _kept = sockopt::set_socket_keepalive(client, true);
    let _undelayed = client.set_nodelay(true);
    let now = Instant::now();
    let deadline = now.checked_add(ACCEPT_TIMEOUT).unwrap_or(now);
    let stream = dial::connect(&guest.socket, guest.target, guest_port, deadline)
        .map_err(|error| error.to_string())?;
    relay(client.as_fd(), stream.as_fd(), ended.map(AsFd::as_fd)).map_err(|error| error.to_string())
}

/// One direction.
struct Flow {
    buffer: Box<[u8]>,
    sent: usize,
    held: usize,
    /// Nothing more comes in.
    ended: bool,
    /// And the other side has been told.
    finished: bool,
}

impl Flow {
    fn new() -> Self {
        Self {
            buffer: vec![0; HELD].into_boxed_slice(),
            sent: 0,
            held: 0,
            ended: false,
            finished: false,
        }
    }

    const fn has_output(&self) -> bool {
        self.sent < self.held
    }

    const fn wants_input(&self) -> bool {
        !self.ended && !self.has_output()
    }

    /// Whoever it is for is gone.
    fn abandon(&mut self) {
        (self.sent, self.held) = (0, 0);
        (self.ended, self.finished) = (true, true);
    }

    /// Moves what can be moved without waiting, one piece at most.
    fn advance(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.wants_input() {
            match rustix::net::recv(from, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.ended = true,
                Ok((_, count)) => (self.sent, self.held) = (0, count),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        while self.has_output() {
            let piece = self.buffer.get(self.sent..self.held).unwrap_or_default();
            match rustix::net::send(to, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.sent = self.sent.saturating_add(count),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if self.ended && !self.finished {
            self.finished = true;
            // It fails where the other side has hung up, which the next wait tells.
            let _told = rustix::net::shutdown(to, Shutdown::Write);
        }
        Ok(())
    }
}

/// What a side is waited for.
fn wanted(input: &Flow, output: &Flow) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, input.wants_input());
    flags.set(PollFlags::OUT, output.has_output());
    flags
}

/// Passes bytes on until both directions are over, or there is something to read from `ended`.
fn relay(
    client: BorrowedFd<'_>,
    guest: BorrowedFd<'_>,
    ended: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let (mut up, mut down) = (Flow::new(), Flow::new());
    // A side that has hung up would end every wait: after the first it takes part in those only that
    // are for something it can still give.
    let (mut client_hung_up, mut guest_hung_up) = (false, false);
    loop {
        let (from_client, from_guest) = (wanted(&up, &down), wanted(&down, &up));
        let mut ends = Vec::with_capacity(3);
        let mut watch = |end, flags: PollFlags, hung_up: bool| {
            let watched = !flags.is_empty() || !hung_up;
            watched.then(|| {
                ends.push(PollFd::from_borrowed_fd(end, flags));
                ends.len().saturating_sub(1)
            })
        };
        let client_at = watch(client, from_client, client_hung_up);
        let guest_at = watch(guest, from_guest, guest_hung_up);
        let ended_at = ended.and_then(|ended| watch(ended, PollFlags::IN, false));
        match poll(&mut ends, None) {
            Err(Errno::INTR) => continue,
            told => told?,
        };
        let seen = |at: Option<usize>| {
            let end = at.and_then(|at| ends.get(at));
            end.map_or(PollFlags::empty(), PollFd::revents)
        };
        if !seen(ended_at).is_empty() {
            return Err(io::Error::other("the run is over"));
        }
        if seen(client_at).contains(PollFlags::ERR) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        client_hung_up |= seen(client_at).contains(PollFlags::HUP);
        if seen(guest_at).intersects(PollFlags::HUP | PollFlags::ERR) {
            guest_hung_up = true;
            // What it said before is still there.
            up.abandon();
        }
        match up.advance(client, guest) {
            Err(Errno::PIPE) => up.abandon(),
            told => told?,
        }
        down.advance(guest, client)?;
        if up.finished && down.finished {
            // What is left unread would reset the connection, and overtake the guest's last words.
            let _left = rustix::net::recv(client, &mut up.buffer[..], RecvFlags::DONTWAIT);
            return Ok(());
        }
    }
}

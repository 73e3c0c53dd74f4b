// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tells the supervisor, and never waits for it.
//!
//! A notice is sent at once if the supervisor has read most of the ones before. Else it waits in a
//! [`NoticeQueue`], and a thread sends it later. The kernel calls a UNIX socket writable while at most a
//! quarter of its buffer is in use, and only then is anything sent; so at the end of the machine the
//! rest of the buffer takes the notices that still wait, also while the supervisor is stopped.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::notices::NoticeQueue;
use crate::protocol::Notice;

/// The thread tries again after this long when the kernel has no memory for a writable socket.
const MEMORY_WAIT: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct Unsent {
    queue: NoticeQueue,
    /// What the kernel did not take of a line.
    partial: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    socket: UnixStream,
    unsent: Mutex<Unsent>,
    /// There is something to send for the thread.
    waits: Condvar,
}

/// Tells the supervisor.
#[derive(Clone, Debug)]
pub(super) struct Teller(Arc<Shared>);

impl Teller {
    /// Tells whoever is at the other end of `socket`.
    pub(super) fn start(socket: UnixStream) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            socket,
            unsent: Mutex::default(),
            waits: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        // It ends with the process.
        std::thread::Builder::new()
            .name("notices".into())
            .stack_size(64 << 10)
            .spawn(move || theirs.send_what_waits())?;
        Ok(Self(shared))
    }

    /// Tells it now or later. A supervisor that is gone is noticed by the reader.
    pub(super) fn tell(&self, notice: Notice) {
        let mut unsent = self.0.unsent.lock();
        let was_empty = unsent.is_empty();
        unsent.queue.push(notice);
        if was_empty {
            self.0.send_while_writable(&mut unsent);
            if !unsent.is_empty() {
                self.0.waits.notify_one();
            }
        }
    }

    /// Sends what waits, into whatever room the socket has; waits until `deadline` if there is too little.
    pub(super) fn close_by(&self, deadline: Instant) {
        let mut unsent = self.0.unsent.lock();
        while unsent.next_line() && self.0.send(&mut unsent) {}
        while !unsent.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.0.is_writable(Timespec::try_from(left).ok()) {
                return;
            }
            while unsent.next_line() && self.0.send(&mut unsent) {}
        }
    }
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.queue.is_empty()
    }

    /// Makes sure that `partial` has something to send; false if there is nothing.
    fn next_line(&mut self) -> bool {
        while self.partial.is_empty() {
            let Some(notice) = self.queue.pop() else {
                return false;
            };
            // Its fields are numbers and text, which JSON always holds.
            self.partial = serde_json::to_vec(&notice).unwrap_or_default();
            self.partial.push(b'\n');
        }
        true
    }
}

impl Shared {
    fn send_what_waits(&self) {
        loop {
            let mut unsent = self.unsent.lock();
            self.waits
                .wait_while(&mut unsent, |unsent| unsent.is_empty());
            let stuck = MutexGuard::unlocked(&mut unsent, || self.is_writable(None));
            self.send_while_writable(&mut unsent);
            if stuck && !unsent.partial.is_empty() {
                MutexGuard::unlocked(&mut unsent, || std::thread::sleep(MEMORY_WAIT));
            }
        }
    }

    fn send_while_writable(&self, unsent: &mut Unsent) {
        while !unsent.is_empty()
            && self.is_writable(Some(Timespec::default()))
            && unsent.next_line()
            && self.send(unsent)
        {}
    }

    /// Whether the socket is, or becomes within `bound`, writable or broken.
    fn is_writable(&self, bound: Option<Timespec>) -> bool {
        let mut ends = [PollFd::new(&self.socket, PollFlags::OUT)];
        loop {
            match poll(&mut ends, bound.as_ref()) {
                Err(Errno::INTR) => {}
                answer => return answer.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Sends the line that was begun; false if the kernel does not take all of it now.
    fn send(&self, unsent: &mut Unsent) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match send(&self.socket, &unsent.partial, flags) {
            Ok(count) => {
                unsent.partial.drain(..count.min(unsent.partial.len()));
                unsent.partial.is_empty()
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => false,
            Err(_) => {
                // The supervisor has closed its end.
                unsent.partial.clear();
                unsent.queue.discard();
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;
    use crate::mailbox::ResetCause;
    use crate::protocol::{Ending, News};

    fn notice(at: u64, news: News) -> Notice {
        Notice {
            realtime_ns: at,
            uptime_ns: at,
            news,
        }
    }

    fn reset(count: u64) -> Notice {
        let cause = ResetCause::Host;
        notice(count, News::Reset { cause, count })
    }

    fn counts(notices: &[Notice]) -> Vec<u64> {
        let counts = notices.iter().filter_map(|notice| match notice.news {
            News::Reset { count, .. } => Some(count),
            _ => None,
        });
        counts.collect()
    }

    fn read_all(socket: UnixStream) -> Vec<Notice> {
        let lines = BufReader::new(socket).lines().map_while(Result::ok);
        lines
            .map(|line| serde_json::from_str(&line).expect("whole lines"))
            .collect()
    }

    #[test]
    fn a_supervisor_that_does_not_read_blocks_nobody_and_misses_no_last_word() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let teller = Teller::start(ours).expect("a thread");
        const FLOOD: u64 = 100_000;
        for count in 1..=FLOOD {
            teller.tell(reset(count));
        }
        assert!(!teller.0.unsent.lock().is_empty(), "the socket is full");
        teller.tell(notice(FLOOD, News::Ended(Ending::Stopped)));
        // It has not read a byte, and there is no time to wait.
        teller.close_by(Instant::now());
        assert!(teller.0.unsent.lock().is_empty());
        let _no_more = teller.0.socket.shutdown(std::net::Shutdown::Both);
        let heard = read_all(theirs);
        let counts = counts(&heard);
        assert!(counts.is_sorted() && counts.len() < 10_000);
        assert_eq!(counts.last(), Some(&FLOOD));
        let last = heard.last().map(|notice| notice.news.clone());
        assert_eq!(last, Some(News::Ended(Ending::Stopped)));
    }

    #[test]
    fn a_supervisor_that_reads_again_hears_the_rest() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let teller = Teller::start(ours).expect("a thread");
        const FLOOD: u64 = 20_000;
        for count in 1..=FLOOD {
            teller.tell(reset(count));
        }
        let mut lines = BufReader::new(theirs).lines();
        // The test fails by never ending: nobody tells anything more.
        let last = lines.find_map(|line| {
            let notice: Notice = serde_json::from_str(&line.ok()?).ok()?;
            (notice == reset(FLOOD)).then_some(())
        });
        assert_eq!(last, Some(()));
    }

    #[test]
    fn a_supervisor_that_is_gone_leaves_nothing_behind() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let teller = Teller::start(ours).expect("a thread");
        drop(theirs);
        for count in 1..=1_000 {
            teller.tell(reset(count));
        }
        assert!(teller.0.unsent.lock().is_empty());
    }
}

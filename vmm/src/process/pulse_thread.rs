// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The second thread of a VM process: it tells the supervisor, whatever the event loop does, that the
//! process runs, and how far the event loop has come.
//!
//! It takes no lock and no memory, and never logs: whatever holds up the event loop must not hold up
//! this.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::progress::Progress;
use crate::pulse::{Phase, Pulse, QUESTION_BYTES, Sender};

/// A VM process' end of the socket that signs of life go out at.
#[derive(Clone, Debug)]
pub(super) struct PulseSocket {
    socket: Arc<OwnedFd>,
    progress: Arc<Progress>,
}

impl PulseSocket {
    pub(super) fn new(socket: OwnedFd, progress: Arc<Progress>) -> Self {
        Self {
            socket: Arc::new(socket),
            progress,
        }
    }

    /// What is told at it.
    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Starts the second thread. It ends with the process, or with the supervisor.
    pub(super) fn start_thread(&self) -> io::Result<()> {
        let pulse = self.clone();
        std::thread::Builder::new()
            .name("pulse".into())
            .stack_size(64 << 10)
            .spawn(move || pulse.answer_all())?;
        Ok(())
    }

    /// The event loop's own answer. It waits for nothing, but a thread that it told something may be
    /// `behind`.
    pub(super) fn answer_from_loop(&self, number: u64, behind: Option<(Phase, u16)>) {
        let pulse = self.progress.pulse(Sender::EventLoop, number);
        self.send(Pulse { behind, ..pulse });
    }

    fn answer_all(&self) {
        let mut question = [0; QUESTION_BYTES];
        loop {
            match recv(&*self.socket, &mut question, RecvFlags::empty()) {
                Ok((QUESTION_BYTES, _)) => {
                    let number = u64::from_le_bytes(question);
                    self.send(self.progress.pulse(Sender::SecondThread, number));
                }
                Err(Errno::INTR) => {}
                // The supervisor is gone, which the event loop finds by itself, or asks nonsense.
                _ => return,
            }
        }
    }

    /// Never waits. The supervisor has at most one question to each thread under way, so there is room;
    /// a supervisor that is gone needs no answer.
    fn send(&self, pulse: Pulse) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _sent = send(&*self.socket, &pulse.to_bytes(), flags);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::pulse::PULSE_BYTES;

    fn pair() -> (OwnedFd, OwnedFd) {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        socketpair(family, kind, SocketFlags::CLOEXEC, None).expect("sockets")
    }

    fn heard(socket: &OwnedFd) -> Pulse {
        let mut bytes = [0; PULSE_BYTES];
        let (count, _) = recv(socket, &mut bytes, RecvFlags::empty()).expect("an answer");
        Pulse::from_bytes(&bytes[..count]).expect("an answer")
    }

    #[test]
    fn both_threads_answer_and_say_who_they_are() {
        let (ours, theirs) = pair();
        let progress = Arc::new(Progress::default());
        let pulse = PulseSocket::new(theirs, Arc::clone(&progress));
        pulse.start_thread().expect("a thread");
        progress.enter(Phase::Wipe);
        send(&ours, &5_u64.to_le_bytes(), SendFlags::empty()).expect("room");
        let second = heard(&ours);
        assert_eq!((second.number, second.sender), (5, Sender::SecondThread));
        assert_eq!(second.phase, Phase::Wipe);
        let behind = Some((Phase::WaitForLink, 3));
        pulse.answer_from_loop(6, behind);
        let first = heard(&ours);
        assert_eq!((first.number, first.sender), (6, Sender::EventLoop));
        assert_eq!((first.phase, first.behind), (Phase::Wipe, behind));
    }

    #[test]
    fn a_supervisor_that_does_not_read_holds_up_nobody() {
        let (_ours, theirs) = pair();
        let pulse = PulseSocket::new(theirs, Arc::default());
        for number in 0..10_000 {
            pulse.answer_from_loop(number, None);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The signals a caller gets while its command runs in the box.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags};
use signal_hook::SigId;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::flag::register_conditional_default;
use signal_hook::low_level::{pipe, unregister};

const WATCHED: [i32; 6] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGCONT];

/// What a signal means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caught {
    /// The command is to get it, and may be meant to end.
    Forward(u8),
    /// The command is to get it, and go on.
    Continue(u8),
    /// The terminal has another size.
    Resized,
}

#[derive(Debug)]
struct Watch {
    id: SigId,
    signal: i32,
    pipe: UnixStream,
}

/// Who is watching. A handler, once installed, stays for good; so it does what would happen without it while nobody is.
#[derive(Debug, Default)]
struct Watchers {
    count: usize,
    has_defaults: [bool; WATCHED.len()],
}

static WATCHERS: LazyLock<Mutex<Watchers>> = LazyLock::new(Mutex::default);
static NOBODY_WATCHES: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Catches signals until dropped. Those that this process was told to ignore (as by nohup) stay ignored.
#[derive(Debug)]
pub(super) struct Signals(Vec<Watch>);

impl Signals {
    pub(super) fn watch() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // From here on, dropping this counts the watcher out again.
        let mut signals = Self::begin();
        signals.fill(&status)?;
        Ok(signals)
    }

    fn begin() -> Self {
        let mut watchers = watchers();
        watchers.count += 1;
        NOBODY_WATCHES.store(false, Ordering::SeqCst);
        Self(Vec::new())
    }

    fn fill(&mut self, status: &str) -> io::Result<()> {
        install_defaults(status)?;
        for signal in WATCHED {
            if is_ignored(status, signal) {
                continue;
            }
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            let id = pipe::register(signal, writer)?;
            self.0.push(Watch {
                id,
                signal,
                pipe: reader,
            });
        }
        Ok(())
    }

    pub(super) fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(
            self.0
                .iter()
                .map(|watch| PollFd::new(&watch.pipe, PollFlags::IN)),
        );
    }

    /// The signals that arrived, each once.
    pub(super) fn caught(&self) -> Vec<Caught> {
        let mut scratch = [0; 64];
        self.0
            .iter()
            .filter(|watch| {
                let mut any = false;
                while rustix::io::read(&watch.pipe, &mut scratch).is_ok_and(|count| count > 0) {
                    any = true;
                }
                any
            })
            .filter_map(|watch| match watch.signal {
                SIGWINCH => Some(Caught::Resized),
                SIGCONT => u8::try_from(SIGCONT).ok().map(Caught::Continue),
                signal => u8::try_from(signal).ok().map(Caught::Forward),
            })
            .collect()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for watch in &self.0 {
            unregister(watch.id);
        }
        let mut watchers = watchers();
        watchers.count = watchers.count.saturating_sub(1);
        NOBODY_WATCHES.store(watchers.count == 0, Ordering::SeqCst);
    }
}

fn watchers() -> MutexGuard<'static, Watchers> {
    WATCHERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once per signal and process.
fn install_defaults(status: &str) -> io::Result<()> {
    let mut watchers = watchers();
    for (signal, has_default) in WATCHED.into_iter().zip(&mut watchers.has_defaults) {
        if !*has_default && !is_ignored(status, signal) {
            register_conditional_default(signal, Arc::clone(&NOBODY_WATCHES))?;
            *has_default = true;
        }
    }
    Ok(())
}

/// Whether the text of `/proc/PID/status` says that `signal` is ignored.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(signal - 1)
        .ok()
        .and_then(|n| 1_u64.checked_shl(n));
    mask.zip(bit).is_some_and(|(mask, bit)| mask & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_caught_while_watched() {
        let signals = Signals::watch().expect("descriptors");
        assert_eq!(signals.caught(), []);
        signal_hook::low_level::raise(SIGTERM).expect("a signal of this process");
        assert_eq!(signals.caught(), [Caught::Forward(15)]);
        assert_eq!(signals.caught(), [], "each is told once");
    }

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tx\nSigIgn:\t0000000000001003\nSigCgt:\tffffffffffffffff\n";
        assert!(is_ignored(status, SIGHUP) && is_ignored(status, SIGINT));
        assert!(!is_ignored(status, SIGTERM) && !is_ignored(status, SIGQUIT));
        assert!(!is_ignored("", SIGINT));
    }
}

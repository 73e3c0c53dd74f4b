// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The watchdog in a VMM with a loop of its own and nothing but std: `cargo run --example embed_own_loop`.
//!
//! A thread plays the guest: it starts the watchdog as Linux does, pings it for a while, and hangs.

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use i6300esb::{Bite, Config, Event, I6300Esb, VmInstant};

/// A trapped guest access.
enum Access {
    Mmio(u64, Vec<u8>),
    Config(u16, Vec<u8>),
}

// ---- the embedding begins ----
struct Vmm {
    watchdog: I6300Esb,
    /// VM time counts from then; a VMM that pauses guests subtracts the pauses.
    started: Instant,
}
impl Vmm {
    fn now(&self) -> VmInstant {
        VmInstant::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Serves the guest until the watchdog bites.
    fn run(&mut self, accesses: &Receiver<Access>) -> Option<(Bite, VmInstant)> {
        loop {
            let wait = match self.watchdog.deadline() {
                Some(deadline) => Duration::from_nanos(deadline.nanos_since(self.now())),
                None => Duration::MAX,
            };
            let access = accesses.recv_timeout(wait);
            let now = self.now();
            let effects = match access {
                Ok(Access::Mmio(offset, data)) => self.watchdog.mmio_write(now, offset, &data),
                Ok(Access::Config(offset, data)) => self.watchdog.config_write(now, offset, &data),
                Err(RecvTimeoutError::Timeout) => self.watchdog.timer_fired(now),
                Err(RecvTimeoutError::Disconnected) => return None,
            };
            // No use for effects.timer: the loop asks for the deadline each time around.
            if let Some(level) = effects.interrupt {
                println!("{:9.3} ms  interrupt pin {}", millis(now), u8::from(level));
            }
            for event in effects.events {
                println!("{:9.3} ms  {event:?}", millis(now));
                if let Event::Bite(bite) = event {
                    return Some((bite, now));
                }
            }
        }
    }
}
// ---- the embedding ends ----

fn millis(at: VmInstant) -> f64 {
    Duration::from_nanos(at.as_nanos()).as_secs_f64() * 1e3
}

/// A guest with a timeout of 2 times 60 ticks, 118 ms, that pings five times and then hangs.
fn guest(accesses: &SyncSender<Access>) {
    let mmio = |offset: u64, data: &[u8]| accesses.send(Access::Mmio(offset, data.to_vec()));
    let unlocked = |offset: u64, data: &[u8]| {
        mmio(0x0c, &[0x80, 0])
            .and_then(|()| mmio(0x0c, &[0x86, 0]))
            .and_then(|()| mmio(offset, data))
    };
    let _ = unlocked(0x00, &60_u32.to_le_bytes());
    let _ = unlocked(0x04, &60_u32.to_le_bytes());
    let _ = accesses.send(Access::Config(0x68, vec![0x02]));
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(20));
        let _ = unlocked(0x0c, &[0x00, 0x01]);
    }
    std::thread::sleep(Duration::from_secs(3600));
}

fn main() -> ExitCode {
    let (sender, accesses) = sync_channel(16);
    std::thread::spawn(move || guest(&sender));
    let mut vmm = Vmm {
        watchdog: I6300Esb::new(Config::default()),
        started: Instant::now(),
    };
    let Some((bite, now)) = vmm.run(&accesses) else {
        eprintln!("error: the guest thread ended before it was bitten");
        return ExitCode::FAILURE;
    };
    println!(
        "bitten {} us late, {:?} ns after the last ping",
        bite.lateness_ns(now) / 1_000,
        bite.since_ping_ns(now)
    );
    if now >= bite.due && bite.timeout_ns == 117_964_800 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMU's own i6300esb, armed from outside through the qtest protocol, with what it tells at QMP.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{Killed, QEMU};
use crate::Trouble;
use crate::clock::monotonic_ns;

/// Where its BAR is put.
const BAR: u32 = 0xe000_0000;
const SLOT: u32 = 0x8000_2000;
/// QEMU's two sockets are there soon after its start.
const START: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(10);
/// A firmware that halts: `cli; hlt; jmp -3` at the reset vector.
const HALT: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// A QEMU whose guest stands still.
#[derive(Debug)]
pub(crate) struct QemuWatchdog {
    qtest: BufReader<UnixStream>,
    qmp: UnixStream,
    process: Killed,
    _directory: TempDir,
}

/// Something QEMU told: its name, and when, by `CLOCK_REALTIME` in ns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) event: String,
    pub(crate) realtime_ns: u64,
}

impl QemuWatchdog {
    /// Starts QEMU; what it tells goes to `told`, until that wants no more. A bite does `action`.
    pub(crate) fn start(
        action: &str,
        told: impl FnMut(Told) -> bool + Send + 'static,
    ) -> Result<Self, Trouble> {
        let directory = tempfile::tempdir().map_err(Trouble::new)?;
        let path = |name: &str| directory.path().join(name);
        let mut firmware = vec![0xf4_u8; 64 << 10];
        if let Some(vector) = firmware.get_mut(0xfff0..0xfff4) {
            vector.copy_from_slice(&HALT);
        }
        std::fs::write(path("halt"), firmware).map_err(Trouble::new)?;
        let socket = |name: &str| format!("unix:{},server=on,wait=off", path(name).display());
        let child = Command::new(QEMU)
            .args([
                "-accel", "kvm", "-accel", "tcg", "-machine", "pc", "-m", "16M",
            ])
            .args(["-nodefaults", "-display", "none", "-bios"])
            .arg(path("halt"))
            .args(["-device", "i6300esb,addr=4", "-action"])
            .arg(format!("watchdog={action}"))
            .args(["-qtest", &socket("qtest"), "-qtest-log", "/dev/null"])
            .args(["-qmp", &socket("qmp")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for us alone: what is measured comes to its end.
            .process_group(0)
            .spawn()
            .map_err(|error| Trouble::new(format!("{QEMU} cannot be started: {error}")))?;
        let process = Killed(child);
        let qtest = BufReader::new(connect(&path("qtest"))?);
        let qmp = connect(&path("qmp"))?;
        listen(&qmp, told)?;
        let mut qemu = Self {
            qtest,
            qmp,
            process,
            _directory: directory,
        };
        qemu.configure(0x10, BAR, "outl")?;
        qemu.configure(0x04, 0x2, "outw")?;
        Ok(qemu)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Arms the watchdog with so many ticks of 2^15 clocks in each stage; the instants of
    /// `CLOCK_MONOTONIC` between which it was enabled.
    pub(crate) fn arm(&mut self, ticks: [u32; 2]) -> Result<[u64; 2], Trouble> {
        self.configure(0x60, 0x3, "outw")?;
        for (offset, ticks) in [(0, ticks[0]), (4, ticks[1])] {
            self.qtest(&format!("writew {:#x} 0x80", BAR + 0xc))?;
            self.qtest(&format!("writew {:#x} 0x86", BAR + 0xc))?;
            self.qtest(&format!("writel {:#x} {ticks:#x}", BAR + offset))?;
        }
        self.qtest(&format!("outl 0xcf8 {:#x}", SLOT | 0x68))?;
        let before = monotonic_ns();
        self.qtest("outb 0xcfc 0x2")?;
        Ok([before, monotonic_ns()])
    }

    /// Sends a QMP command; its answer is not waited for.
    pub(crate) fn tell(&mut self, command: &str) -> Result<(), Trouble> {
        let line = format!("{{\"execute\":\"{command}\"}}\n");
        self.qmp.write_all(line.as_bytes()).map_err(Trouble::new)
    }

    fn configure(&mut self, register: u32, value: u32, width: &str) -> Result<(), Trouble> {
        self.qtest(&format!("outl 0xcf8 {:#x}", SLOT | (register & 0xfc)))?;
        self.qtest(&format!("{width} {:#x} {value:#x}", 0xcfc + (register & 3)))
    }

    fn qtest(&mut self, command: &str) -> Result<(), Trouble> {
        let refused = |what: String| Trouble::new(format!("{QEMU}, qtest {command:?}: {what}"));
        let stream = self.qtest.get_mut();
        stream
            .write_all(format!("{command}\n").as_bytes())
            .map_err(|error| refused(error.to_string()))?;
        let mut answer = String::new();
        self.qtest
            .read_line(&mut answer)
            .map_err(|error| refused(error.to_string()))?;
        if answer.starts_with("OK") {
            Ok(())
        } else {
            Err(refused(answer))
        }
    }
}

/// Connects to a socket that QEMU makes.
pub(crate) fn connect(path: &Path) -> Result<UnixStream, Trouble> {
    let end = Instant::now() + START;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream
                    .set_read_timeout(Some(ANSWER))
                    .map_err(Trouble::new)?;
                return Ok(stream);
            }
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => {
                return Err(Trouble::new(format!(
                    "{QEMU} opens no socket {}: {error}",
                    path.display()
                )));
            }
        }
    }
}

/// Has a thread pass on what QEMU tells, for as long as it lives.
pub(crate) fn listen(
    qmp: &UnixStream,
    mut told: impl FnMut(Told) -> bool + Send + 'static,
) -> Result<(), Trouble> {
    let mut reader = BufReader::new(qmp.try_clone().map_err(Trouble::new)?);
    let mut greeting = String::new();
    reader.read_line(&mut greeting).map_err(Trouble::new)?;
    let mut writer = qmp.try_clone().map_err(Trouble::new)?;
    writer
        .write_all(b"{\"execute\":\"qmp_capabilities\"}\n")
        .map_err(Trouble::new)?;
    reader.read_line(&mut greeting).map_err(Trouble::new)?;
    qmp.set_read_timeout(None).map_err(Trouble::new)?;
    std::thread::Builder::new()
        .name("qmp".into())
        .spawn(move || {
            let events = reader.lines().map_while(Result::ok);
            for event in events.filter_map(|line| event(&line)) {
                if !told(event) {
                    break;
                }
            }
        })
        .map_err(Trouble::new)?;
    Ok(())
}

fn event(line: &str) -> Option<Told> {
    let message: Value = serde_json::from_str(line).ok()?;
    let part = |name| message.pointer(name).and_then(Value::as_u64);
    let seconds = part("/timestamp/seconds")?;
    let micros = part("/timestamp/microseconds")?;
    Some(Told {
        event: message.get("event")?.as_str()?.to_owned(),
        realtime_ns: seconds * 1_000_000_000 + micros * 1_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_with_their_time_and_answers_are_not() {
        let line = r#"{"event":"WATCHDOG","data":{"action":"none"},
                       "timestamp":{"seconds":3,"microseconds":5}}"#;
        let told = Told {
            event: "WATCHDOG".into(),
            realtime_ns: 3_000_005_000,
        };
        assert_eq!(event(line), Some(told));
        assert_eq!(event(r#"{"return":{}}"#), None);
    }
}

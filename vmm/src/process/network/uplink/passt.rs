// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! passt as a child at the other end of a socket pair: <https://passt.top>.
//!
//! It ends when our end of the socket is closed, however that comes about, and is killed with this process. It is in a process group
//! of its own: what is typed at the terminal is for the supervisor alone.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};

use super::framing::{FrameReader, FrameWriter};
use super::last_words::LastWords;
use crate::dial;
use crate::link::DNS_IPV4;
use crate::process::listener::is_temporary;

/// Where passt finds its end of the socket pair.
const SOCKET_FD: i32 = 3;
/// As much as one turn of the loop reads.
const CHUNK: usize = 64 << 10;
/// Its MAC address; one of its own, since nobody on the uplink may speak for the link's host.
const MAC: &str = "02:00:0a:00:02:03";
/// Frames carry no more than an Ethernet of old.
const MTU: &str = "1500";

/// Asks who has the router's address; passt answers for everybody but the guest.
pub(super) fn question(guest_mac: [u8; 6]) -> Vec<u8> {
    const ARP: [u8; 2] = [0x08, 0x06];
    /// Ethernet, IPv4, the lengths of their addresses, a request.
    const REQUEST: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 1];
    let (guest, host) = (dial::GUEST_IPV4.octets(), dial::HOST_IPV4.octets());
    let fields: [&[u8]; 8] = [
        &[0xff; 6], &guest_mac, &ARP, &REQUEST, &guest_mac, &guest, &[0; 6], &host,
    ];
    fields.concat()
}

/// Its command line. The link's own host gives addresses and answers for the router; passt gets the
/// rest, and nothing on the host is reached through the router's address.
pub(super) fn arguments() -> Vec<OsString> {
    let prefix = dial::IPV4_PREFIX.to_string();
    let fd = SOCKET_FD.to_string();
    let (guest_4, guest_6) = (dial::GUEST_IPV4.to_string(), dial::GUEST_IPV6.to_string());
    let (host_4, host_6) = (dial::HOST_IPV4.to_string(), dial::HOST_IPV6.to_string());
    let dns = DNS_IPV4.to_string();
    let words: [&[&str]; 8] = [
        &["--quiet", "--foreground", "--one-off", "--fd", &fd],
        &["--mtu", MTU, "--mac-addr", MAC],
        &["--address", &guest_4, "--netmask", &prefix],
        &["--gateway", &host_4],
        &["--address", &guest_6, "--gateway", &host_6],
        &["--dns-forward", &dns, "--no-map-gw"],
        &["--no-dhcp", "--no-dhcpv6", "--no-ra"],
        &["--tcp-ports", "none", "--udp-ports", "none"],
    ];
    words.concat().into_iter().map(OsString::from).collect()
}

/// A running passt.
#[derive(Debug)]
pub(super) struct Passt {
    child: Child,
    /// Readable when the child has ended.
    pub(super) exit: OwnedFd,
    /// Frames; gone once passt has closed its end.
    pub(super) socket: Option<UnixStream>,
    /// What it complains of, until it says no more.
    pub(super) messages: Option<ChildStderr>,
    words: LastWords,
    reader: FrameReader,
    pub(super) writer: FrameWriter,
    chunk: Vec<u8>,
}

impl Passt {
    pub(super) fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(program);
        let mapping = FdMapping {
            parent_fd: OwnedFd::from(theirs),
            child_fd: SOCKET_FD,
        };
        command
            .args(arguments())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .fd_mappings(vec![mapping])
            .map_err(io::Error::other)?;
        die_with_this_thread(&mut command);
        let mut child = command.spawn()?;
        // Our copy of the child's end would keep the socket open after the child's death.
        drop(command);
        let watch = |child: &mut Child| {
            let exit = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
            let messages = child.stderr.take();
            if let Some(messages) = &messages {
                rustix::io::ioctl_fionbio(messages, true)?;
            }
            Ok((exit, messages))
        };
        match watch(&mut child) {
            Ok((exit, messages)) => Ok(Self {
                child,
                exit,
                socket: Some(ours),
                messages,
                words: LastWords::default(),
                reader: FrameReader::default(),
                writer: FrameWriter::default(),
                chunk: vec![0; CHUNK],
            }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Reads frames, a chunk of them; false when there are none any more.
    pub(super) fn read(&mut self, sink: &mut dyn FnMut(&[u8])) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        match socket.read(&mut self.chunk) {
            Ok(0) => false,
            Ok(count) => {
                let bytes = self.chunk.get(..count).unwrap_or_default();
                match self.reader.take(bytes, sink) {
                    Ok(()) => true,
                    Err(error) => {
                        self.words.hear(format!("\n{error}\n").as_bytes());
                        false
                    }
                }
            }
            Err(error) => is_temporary(&error),
        }
    }

    /// Writes what it takes; false when it takes nothing any more.
    pub(super) fn write(&mut self) -> bool {
        match &mut self.socket {
            Some(socket) => self.writer.flush(socket).is_ok(),
            None => false,
        }
    }

    /// Hears what it says; false when it says no more.
    pub(super) fn hear(&mut self) -> bool {
        let Some(messages) = &mut self.messages else {
            return false;
        };
        match messages.read(&mut self.chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.words.hear(self.chunk.get(..count).unwrap_or_default());
                true
            }
            Err(error) => is_temporary(&error),
        }
    }

    /// Ends it, unless it has ended.
    pub(super) fn kill(&mut self) {
        if let Err(error) = self.child.kill() {
            log::debug!("passt cannot be killed: {error}");
        }
    }

    /// How it ended and what it said last; `None` while it has not.
    pub(super) fn obituary(&mut self) -> Option<String> {
        let status = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        // A pipe holds no more than this many chunks.
        for _ in 0..32 {
            if !self.hear() {
                break;
            }
        }
        let words = self.words.text();
        let colon = if words.is_empty() { "" } else { ": " };
        Some(format!("passt ended ({status}){colon}{words}"))
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Has the kernel kill passt when the link's thread ends, which is when this process dies at the latest: a
/// passt that is stopped does not see its socket closed. As root it becomes another user, and the kernel
/// then forgets about the signal.
fn die_with_this_thread(command: &mut Command) {
    let ask = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec the closure makes one system call, and neither allocates nor locks.
    unsafe { command.pre_exec(ask) };
}

/// Ends a child that may have ended already, and waits for that.
fn end(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        log::debug!("passt cannot be ended: {error}");
    }
}

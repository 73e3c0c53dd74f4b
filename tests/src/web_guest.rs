// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A web server on bare metal: a virtio-net driver and as much of TCP as a probe needs, on Kennel's own
//! machine alone, as it looks for no device.
//!
//! It has the address that its link expects, and every port of it is open: it answers whatever it is sent with
//! [`ANSWER`] and the end of the connection. It remembers no connection: each segment is answered by what is in it, so there is
//! no limit to how many there are. Nothing interrupts it: it looks for frames all the time. `+` on COM1 says that
//! the device is driven.
//!
//! *Not emulated:* IPv6, options, fragments, answers that the client acknowledges in part.

use std::arch::global_asm;

use kennel_vmm::dial::GUEST_IPV4;
use kennel_vmm::virtio_net::GUEST_MAC;
use tempfile::TempPath;

use crate::elf::{self, Entry};

global_asm!(include_str!("web_guest.s"), options(raw));

unsafe extern "C" {
    static kennel_web_guest_start: u8;
    static kennel_web_guest_end: u8;
}

/// What it says to everybody.
pub const ANSWER: &[u8; 24] = b"HTTP/1.0 200 OK\r\n\r\nfine\n";
const TCP: u8 = 6;

/// How the server leaves, over a request that it does not answer.
#[derive(Clone, Copy, Debug)]
pub enum Leaving {
    /// It powers the machine off.
    PowerOff,
    /// It resets the machine.
    Reset,
}

impl Leaving {
    /// The port that it writes, and what.
    const fn write(self) -> (u16, u16) {
        match self {
            Self::PowerOff => (0x604, 1 << 13),
            Self::Reset => (0xcf9, 6),
        }
    }
}

/// The server in a temporary file.
///
/// # Panics
///
/// The file cannot be written.
#[must_use]
pub fn write() -> TempPath {
    elf::write(&image())
}

/// The server as an ELF file.
#[must_use]
pub fn image() -> Vec<u8> {
    build(0, (0, 0))
}

/// The server that leaves over the request of this number, counted from 1 in each boot.
#[must_use]
pub fn image_that_leaves(request: u32, how: Leaving) -> Vec<u8> {
    build(request, how.write())
}

fn build(last_request: u32, (port, value): (u16, u16)) -> Vec<u8> {
    let (start, end) = (
        &raw const kennel_web_guest_start,
        &raw const kennel_web_guest_end,
    );
    // SAFETY: the two symbols delimit one read-only section of this program.
    let mut code = unsafe { elf::code(start, end) }.to_vec();
    code.extend(GUEST_MAC);
    code.extend([0; 2]);
    code.extend(GUEST_IPV4.octets());
    for answer in [&[][..], ANSWER] {
        code.extend(ipv4_sum(answer.len()).to_le_bytes());
        code.extend(tcp_sum(answer).to_le_bytes());
    }
    code.extend(ANSWER);
    code.extend(last_request.to_le_bytes());
    code.extend(port.to_le_bytes());
    code.extend(value.to_le_bytes());
    elf::elf(&code, Entry::Long)
}

/// The length field of a packet with so many bytes of data.
fn length(data: usize) -> [u8; 2] {
    u16::try_from(20 + 20 + data).unwrap_or(0).to_be_bytes()
}

/// What never changes in the header of a packet with so many bytes of data.
fn ipv4_sum(data: usize) -> u32 {
    let [high, low] = length(data);
    let header = [0x45, 0, high, low, 0, 0, 0x40, 0, 0x40, TCP];
    sum(&[&header[..], &GUEST_IPV4.octets()].concat())
}

/// What never changes in the pseudo-header and the data of a segment.
fn tcp_sum(data: &[u8]) -> u32 {
    let [high, low] = u16::try_from(20 + data.len()).unwrap_or(0).to_be_bytes();
    sum(&[&GUEST_IPV4.octets()[..], &[0, TCP, high, low], data].concat())
}

/// Of an even number of bytes, as a machine adds that stores the low byte first.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) | u32::from(word[1]) << 8);
    words.sum()
}

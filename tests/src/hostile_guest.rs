// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that means its network no good: a virtio-net driver without a kernel under it, on Kennel's own
//! machine alone, as it looks for no device.
//!
//! The last letter of the command line says how: `f` floods its link with frames of every kind, `b` breaks
//! its rings in every way and resets its device after each, anything else drives the device and then
//! does nothing at all. `+` on COM1 says that the device is driven; then a watchdog is armed that nobody feeds;
//! `*` comes every 4096 frames of a flood, and whenever all ways to break rings are through.

use std::arch::global_asm;
use std::net::{Ipv4Addr, Ipv6Addr};

use kennel_vmm::dial::{GUEST_IPV4, HOST_IPV4, HOST_IPV6};
use kennel_vmm::virtio_net::{GUEST_MAC, HOST_MAC};
use tempfile::TempPath;

use crate::elf::{self, Entry};

global_asm!(include_str!("hostile_guest.s"), options(raw));

unsafe extern "C" {
    static kennel_hostile_guest_start: u8;
    static kennel_hostile_guest_end: u8;
}

/// From arming to the bite: two stages of 200 ticks.
pub const TIMEOUT_NS: u64 = 2 * 200 * 983_040;
/// Frames of a flood from one `*` to the next.
pub const FRAMES: u64 = 4096;
/// As many as its queue has entries.
const KINDS: usize = 64;
const BROADCAST: [u8; 6] = [0xff; 6];
/// Somebody else's.
const STRANGER: [u8; 6] = [0x02, 0xff, 0xff, 0xff, 0xff, 0xff];
/// In front of each frame.
const VIRTIO_HEADER: [u8; 12] = [0; 12];
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The guest that does what `letter` says, in a temporary file.
///
/// # Panics
///
/// The file cannot be written.
#[must_use]
pub fn write(letter: char) -> TempPath {
    elf::write(&image(letter))
}

/// The guest that does what `letter` says, as an ELF file, entered by PVH.
#[must_use]
pub fn image(letter: char) -> Vec<u8> {
    let (start, end) = (
        &raw const kennel_hostile_guest_start,
        &raw const kennel_hostile_guest_end,
    );
    // SAFETY: the two symbols delimit one read-only section of this program.
    let mut code = unsafe { elf::code(start, end) }.to_vec();
    code.extend(if letter == 'b' { breaks() } else { flood() });
    elf::elf(&code, Entry::Pvh)
}

/// Each with its length.
fn flood() -> Vec<u8> {
    let frames: Vec<_> = (0..KINDS).map(frame).collect();
    let counted = |frame: Vec<u8>| [&length(frame.len())[..], &frame].concat();
    frames.into_iter().flat_map(counted).collect()
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(0).to_le_bytes()
}

/// The frame at this place of a flood.
fn frame(at: usize) -> Vec<u8> {
    let number = u8::try_from(at).unwrap_or(0);
    let frame = match at {
        0..6 => arp(
            GUEST_MAC,
            Ipv4Addr::from_bits(GUEST_IPV4.to_bits() + u32::from(number)),
        ),
        6..12 => solicitation(number),
        12..18 => ipv4(UDP, Ipv4Addr::UNSPECIFIED, &discover(number)),
        18..26 => ipv4(TCP, GUEST_IPV4, &syn(number)),
        26..50 => ipv4(ICMP, GUEST_IPV4, &ping()),
        // Longer than any frame, and shorter.
        50..53 => [&ethernet(HOST_MAC, GUEST_MAC, 0x0800)[..], &[0; 60_000]].concat(),
        53..56 => GUEST_MAC.to_vec(),
        56..60 => arp(STRANGER, GUEST_IPV4),
        // No packet at all.
        60..62 => [&ethernet(HOST_MAC, GUEST_MAC, 0x0800)[..], &[0xff; 100]].concat(),
        // Less than the header in front of it.
        _ => return vec![0; 4],
    };
    [&VIRTIO_HEADER[..], &frame].concat()
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes()].concat()
}

/// Asks who has the probe host's address.
fn arp(from: [u8; 6], sender: Ipv4Addr) -> Vec<u8> {
    let request = [0, 1, 8, 0, 6, 4, 0, 1];
    let parts: [&[u8]; 6] = [
        &ethernet(BROADCAST, from, 0x0806),
        &request,
        &from,
        &sender.octets(),
        &[0; 6],
        &HOST_IPV4.octets(),
    ];
    parts.concat()
}

fn ipv4(protocol: u8, source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(0);
    let [high, low] = length.to_be_bytes();
    let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend(HOST_IPV4.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [&ethernet(HOST_MAC, GUEST_MAC, 0x0800)[..], &header, payload].concat()
}

/// A connection to a port of the probe host.
fn syn(number: u8) -> Vec<u8> {
    let mut segment = vec![
        0x80, number, 0x04, number, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff,
    ];
    segment.extend([0; 4]);
    let pseudo = [
        &GUEST_IPV4.octets()[..],
        &HOST_IPV4.octets(),
        &[0, TCP, 0, 20],
    ]
    .concat();
    let sum = checksum(&[&pseudo[..], &segment].concat());
    segment[16..18].copy_from_slice(&sum);
    segment
}

/// As long as fits a frame, and so is the answer.
fn ping() -> Vec<u8> {
    let mut message = vec![0; 1480];
    message[0] = 8;
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

fn discover(number: u8) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 0, 0, 0, number];
    message.resize(28, 0);
    message.extend(GUEST_MAC);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let length = u16::try_from(8 + message.len()).unwrap_or(0);
    let [high, low] = length.to_be_bytes();
    // Without a checksum.
    [&[0, 68, 0, 67, high, low, 0, 0][..], &message].concat()
}

/// From an address of the link that nobody else has, for the probe host's.
fn solicitation(number: u8) -> Vec<u8> {
    let source = Ipv6Addr::from_bits(HOST_IPV6.to_bits() + 100 + u128::from(number));
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(HOST_IPV6.octets());
    let addresses = [source.octets(), HOST_IPV6.octets()].concat();
    let sum = checksum(&[&addresses[..], &[0, 0, 0, 24, 0, 0, 0, ICMPV6], &message].concat());
    message[2..4].copy_from_slice(&sum);
    let header = [0x60, 0, 0, 0, 0, 24, ICMPV6, 255];
    let parts: [&[u8]; 4] = [
        &ethernet(HOST_MAC, GUEST_MAC, 0x86dd),
        &header,
        &addresses,
        &message,
    ];
    parts.concat()
}

/// The Internet's, of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).unwrap_or(0).to_be_bytes()
}

/// A descriptor, and which one is offered how often.
struct Break {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
    offered: u16,
    count: u16,
}

/// Their number, and all of them.
fn breaks() -> Vec<u8> {
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;
    let sound = || Break {
        address: elf::LOAD_ADDRESS.into(),
        length: 100,
        flags: 0,
        next: 0,
        offered: 0,
        count: 1,
    };
    let ways = [
        Break {
            address: 0xffff_f000_0000,
            ..sound()
        },
        Break {
            address: u64::MAX - 10,
            length: u32::MAX,
            ..sound()
        },
        // A device's registers.
        Break {
            address: kennel_vmm::layout::NET_BAR.into(),
            ..sound()
        },
        Break {
            length: u32::MAX,
            ..sound()
        },
        // A chain that bites its own tail, and one that leads nowhere.
        Break {
            flags: NEXT,
            ..sound()
        },
        Break {
            flags: NEXT,
            next: u16::MAX,
            ..sound()
        },
        Break {
            flags: INDIRECT,
            ..sound()
        },
        Break {
            flags: WRITE,
            ..sound()
        },
        Break {
            length: 0,
            ..sound()
        },
        Break {
            offered: u16::MAX,
            ..sound()
        },
        Break {
            count: u16::MAX,
            ..sound()
        },
    ];
    let mut bytes = length(ways.len()).to_vec();
    for way in ways {
        bytes.extend(way.address.to_le_bytes());
        bytes.extend(way.length.to_le_bytes());
        for half in [way.flags, way.next, way.offered, way.count] {
            bytes.extend(half.to_le_bytes());
        }
    }
    bytes
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A TAP device as the uplink: the guest's frames come out of it on the host, whose administrator
//! does the rest.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::dial;
use crate::link::DNS_IPV4;

/// Where TAP devices are had.
const TUN: &str = "/dev/net/tun";
/// No frame is longer, whatever the device's MTU is.
const LONGEST: usize = 64 << 10;
/// Frames that one turn of the loop reads.
const FRAMES: usize = 64;

/// Where a frame has whom it is for.
const DESTINATION: std::ops::Range<usize> = 0..6;

/// An open TAP device.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) file: File,
    /// The link's router, as the guest knows it.
    host_mac: [u8; 6],
    /// The device's end on the host, which does the routing.
    own_mac: [u8; 6],
    buffer: Vec<u8>,
}

impl Tap {
    /// Opens the device `name`. The error is for people.
    pub(super) fn open(name: &str, host_mac: [u8; 6]) -> Result<Self, String> {
        let mut request = request(name)?;
        let failed = |error: io::Error| advice(name, &error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(TUN)
            .map_err(failed)?;
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap_or(0);
        control(&file, libc::TUNSETIFF, &mut request).map_err(failed)?;
        control(&file, libc::SIOCGIFHWADDR, &mut request).map_err(failed)?;
        Ok(Self {
            file,
            host_mac,
            own_mac: ethernet(&request),
            buffer: vec![0; LONGEST],
        })
    }

    /// Reads frames, some of them.
    pub(super) fn read(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        for _ in 0..FRAMES {
            match self.file.read(&mut self.buffer) {
                Ok(count) => sink(self.buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes a frame, or drops it: a device that is down takes none. What is for the link's router
    /// is for the host.
    pub(super) fn send(&mut self, frame: &[u8]) {
        let mut frame = frame.to_vec();
        if let Some(destination) = frame.get_mut(DESTINATION)
            && destination == self.host_mac
        {
            destination.copy_from_slice(&self.own_mac);
        }
        if let Err(error) = self.file.write(&frame) {
            log::trace!("a frame of {} bytes was dropped: {error}", frame.len());
        }
    }
}

fn request(name: &str) -> Result<libc::ifreq, String> {
    // SAFETY: ifreq is a plain C structure of integers and unions of such, for which all zeroes is
    // a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len().saturating_sub(1);
    let possible = !name.is_empty()
        && name.len() <= room
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if !possible {
        return Err(format!(
            "{name:?} is no name of a TAP device: give 1 to {room} visible ASCII characters, without \"/\""
        ));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        // ASCII, as was just seen.
        *place = libc::c_char::try_from(byte).unwrap_or(0);
    }
    Ok(request)
}

/// The MAC address that SIOCGIFHWADDR has put there.
fn ethernet(request: &libc::ifreq) -> [u8; 6] {
    // SAFETY: every member of the union is made of integers, and all of its bytes were initialised,
    // by zeroes first and then by the kernel: any of them may be read.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (place, byte) in mac.iter_mut().zip(address.sa_data) {
        *place = u8::from_ne_bytes(byte.to_ne_bytes());
    }
    mac
}

fn control(file: &File, operation: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call. Both operations that are asked for, TUNSETIFF
    // and SIOCGIFHWADDR, read and write one ifreq, which `request` is, borrowed for the call alone;
    // the kernel keeps no pointer to it.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), operation, request) };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What failed, and what to do.
fn advice(name: &str, error: &io::Error) -> String {
    let (address, prefix) = (DNS_IPV4, dial::IPV4_PREFIX);
    let what = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!(
            "make it yours: sudo ip tuntap add {name} mode tap user $USER; sudo ip addr add \
             {address}/{prefix} dev {name}; sudo ip link set {name} up"
        ),
        Some(libc::EBUSY) => "another program holds it: give each guest a device of its own".into(),
        Some(libc::EINVAL) => {
            "it is no TAP device, or one of several queues: choose another name".into()
        }
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            format!("the kernel has no {TUN}: sudo modprobe tun")
        }
        _ => format!("look at it: ip -d link show {name}"),
    };
    format!("the TAP device {name} cannot be opened: {error}; {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_device_has_are_refused_before_the_kernel_is_asked() {
        for name in ["", "a/b", "a b", "sixteen_letters_", "tap\u{e9}"] {
            let error = Tap::open(name, [2; 6]).expect_err("no such name");
            assert!(error.contains("is no name of a TAP device"), "{error}");
        }
    }

    #[test]
    fn a_device_that_cannot_be_had_is_told_with_what_to_do() {
        let told = |errno| advice("tap7", &io::Error::from_raw_os_error(errno));
        assert!(told(libc::EPERM).contains("ip tuntap add tap7 mode tap user $USER"));
        assert!(told(libc::EBUSY).contains("another program holds it"));
        assert!(told(libc::ENOENT).contains("modprobe tun"));
        assert!(told(libc::EIO).contains("tap7 cannot be opened"));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest: a smoltcp interface with listening sockets and, if wished, a DHCP client.

use std::collections::VecDeque;
use std::fmt;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use super::{FILTERED, GUEST_MAC, OPEN};
use crate::dial::{GUEST_IPV4, GUEST_IPV6};

/// What a packet filter answers to a frame.
pub(super) type Reject = fn(&[u8]) -> Vec<u8>;

pub(super) struct Guest {
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    cable: Cable,
    pub(super) listening: Vec<SocketHandle>,
    dhcp: Option<SocketHandle>,
    pub(super) lease: Option<dhcpv4::Config<'static>>,
    /// It takes frames and does nothing, as one does that hangs.
    pub(super) hangs: bool,
    /// How many of the next frames get lost on their way in.
    pub(super) loses: usize,
    /// ICMP answers for the filtered port, instead of nothing.
    pub(super) rejects: Option<Reject>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guest")
    }
}

fn instant(now: u64) -> Instant {
    Instant::from_micros(i64::try_from(now / 1000).unwrap())
}

impl Guest {
    /// It has the link's addresses, and listens.
    pub(super) fn configured() -> Self {
        let mut guest = Self::bare();
        guest.set_addresses(&[GUEST_IPV4.into(), GUEST_IPV6.into()]);
        guest.listen(4);
        guest
    }

    /// It has no address.
    pub(super) fn bare() -> Self {
        let mut cable = Cable::default();
        let mut config = Config::new(EthernetAddress(GUEST_MAC).into());
        config.random_seed = 99;
        Self {
            interface: Interface::new(config, &mut cable, Instant::ZERO),
            sockets: SocketSet::new(Vec::new()),
            cable,
            listening: Vec::new(),
            dhcp: None,
            lease: None,
            hangs: false,
            loses: 0,
            rejects: None,
        }
    }

    /// It asks for an address by DHCP.
    pub(super) fn with_dhcp() -> Self {
        let mut guest = Self::bare();
        let socket = dhcpv4::Socket::new();
        guest.dhcp = Some(guest.sockets.add(socket));
        guest
    }

    pub(super) fn set_addresses(&mut self, own: &[IpAddress]) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            for address in own {
                let length = if address.version() == smoltcp::wire::IpVersion::Ipv4 {
                    24
                } else {
                    64
                };
                addresses.push(IpCidr::new(*address, length)).unwrap();
            }
        });
    }

    /// So many sockets wait for a connection each.
    pub(super) fn listen(&mut self, count: usize) {
        for _ in 0..count {
            let buffer = || tcp::SocketBuffer::new(vec![0; 8192]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_ack_delay(None);
            socket.listen(OPEN).unwrap();
            let handle = self.sockets.add(socket);
            self.listening.push(handle);
        }
    }

    /// The socket that was connected to.
    pub(super) fn accepted(&mut self) -> &mut tcp::Socket<'static> {
        let handle = self.listening.iter().find(|handle| {
            let socket = self.sockets.get::<tcp::Socket<'_>>(**handle);
            !matches!(socket.state(), tcp::State::Listen | tcp::State::Closed)
        });
        let handle = *handle.expect("somebody connected");
        self.sockets.get_mut(handle)
    }

    /// Its sockets that are no more listen again.
    pub(super) fn listen_again(&mut self) {
        for handle in &self.listening {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(*handle);
            match socket.state() {
                tcp::State::CloseWait => socket.close(),
                tcp::State::Closed | tcp::State::TimeWait => {
                    socket.abort();
                    socket.listen(OPEN).unwrap();
                }
                _ => {}
            }
        }
    }

    /// Takes frames and gives its own.
    pub(super) fn exchange(&mut self, frames: Vec<Vec<u8>>, now: u64) -> Vec<Vec<u8>> {
        if self.hangs {
            return Vec::new();
        }
        let mut answers = Vec::new();
        for frame in frames {
            if self.loses > 0 {
                self.loses -= 1;
            } else if tcp_port(&frame) == Some(FILTERED) {
                answers.extend(self.rejects.map(|reject| reject(&frame)));
            } else {
                self.cable.arrived.push_back(frame);
            }
        }
        let (interface, cable) = (&mut self.interface, &mut self.cable);
        interface.poll(instant(now), cable, &mut self.sockets);
        self.take_lease();
        answers.extend(self.cable.leaving.drain(..));
        answers
    }

    fn take_lease(&mut self) {
        let Some(dhcp) = self.dhcp else { return };
        let event = self.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll();
        let Some(dhcpv4::Event::Configured(config)) = event else {
            return;
        };
        let address = config.address;
        self.lease = Some(dhcpv4::Config {
            packet: None,
            ..config
        });
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            addresses.push(IpCidr::Ipv4(address)).unwrap();
        });
    }

    pub(super) fn next_due(&mut self, now: u64) -> Option<u64> {
        if self.hangs {
            return None;
        }
        let delay = self.interface.poll_delay(instant(now), &self.sockets)?;
        Some(now + delay.max(Duration::from_micros(1)).total_micros() * 1000)
    }
}

/// The TCP port that a frame is for.
fn tcp_port(frame: &[u8]) -> Option<u16> {
    let at = match (frame[12], frame[13]) {
        (0x08, 0x00) if frame[23] == 6 => 34,
        (0x86, 0xdd) if frame[20] == 6 => 54,
        _ => return None,
    };
    Some(u16::from_be_bytes([frame[at + 2], frame[at + 3]]))
}

#[derive(Debug, Default)]
struct Cable {
    arrived: VecDeque<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
}

impl Device for Cable {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Arrived(Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

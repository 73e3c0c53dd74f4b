// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The probe host's IP and TCP: one smoltcp interface, and a set of one socket for each connection,
//! so that a packet costs the same however many connections there are.
//!
//! The interface carries IP packets. Ethernet and neighbours are done outside: smoltcp asks for a
//! neighbour once a second at most, whoever has the address, and does not say whether it answered.

use std::fmt;
use std::net::IpAddr;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, HardwareAddress, IpCidr};

use super::frame;
use super::plan::{MTU, Plan};
use super::queue::Queue;
use crate::dial::{HOST_IPV4, HOST_IPV6, IPV4_PREFIX, IPV6_PREFIX};

/// Bytes from the client that wait for the guest, for each connection.
pub(super) const SEND_BYTES: usize = 4096;
/// Bytes from the guest that wait for the client, for each connection.
pub(super) const RECEIVE_BYTES: usize = 16 * 1024;
/// Frames to the guest beyond which connections wait. Answers may exceed it up to the queue's end.
pub(super) const PATIENT_FRAMES: usize = 768;
/// Packets that one connection sends before others have their turn.
const TURN: usize = 16;
const NS_PER_US: u64 = 1000;

/// One connection's socket. Alone in its set.
pub(super) struct Connection {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.socket().state())
    }
}

impl Connection {
    pub(super) fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// What became of a turn to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All that there was.
    All,
    /// There is more, and room for it.
    More,
    /// There is more, and no room.
    NoRoom,
}

pub(super) struct Stack {
    interface: Interface,
    /// For packets that belong to no connection.
    nobody: SocketSet<'static>,
    plan: Plan,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stack").field(&self.plan).finish()
    }
}

impl Stack {
    pub(super) fn new(plan: Plan, seed: u64, now: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut none = Queue::new(0);
        let mut wire = Wire::new(&plan, &mut none, None);
        let mut interface = Interface::new(config, &mut wire, instant(now));
        interface.update_ip_addrs(|addresses| {
            let own = [
                IpCidr::new(HOST_IPV4.into(), IPV4_PREFIX),
                IpCidr::new(HOST_IPV6.into(), IPV6_PREFIX),
                IpCidr::new(plan.link_local.into(), IPV6_PREFIX),
            ];
            for address in own {
                // There is room for four.
                let _ = addresses.push(address);
            }
        });
        Self {
            interface,
            nobody: SocketSet::new(Vec::new()),
            plan,
        }
    }

    /// A connection that is about to be made. `None` if there is none from this port to there.
    pub(super) fn connect(&mut self, target: IpAddr, port: u16, from: u16) -> Option<Connection> {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; RECEIVE_BYTES]),
            SocketBuffer::new(vec![0; SEND_BYTES]),
        );
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let source = self.plan.source_for(target);
        socket
            .connect(self.interface.context(), (target, port), (source, from))
            .ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Some(Connection { sockets, handle })
    }

    /// An IP packet from the guest, for one connection or for the host itself. Answers go to the
    /// guest, as far as there is room.
    pub(super) fn take(
        &mut self,
        packet: &[u8],
        connection: Option<&mut Connection>,
        to_guest: &mut Queue,
        now: u64,
    ) {
        let mut wire = Wire::new(&self.plan, to_guest, Some(packet));
        let sockets = connection.map_or(&mut self.nobody, |connection| &mut connection.sockets);
        self.interface
            .poll_ingress_single(instant(now), &mut wire, sockets);
    }

    /// What this connection has to send.
    pub(super) fn send(
        &mut self,
        connection: &mut Connection,
        to_guest: &mut Queue,
        now: u64,
    ) -> Sent {
        let mut wire = Wire::new(&self.plan, to_guest, None);
        for _ in 0..TURN {
            let sockets = &mut connection.sockets;
            let result = self.interface.poll_egress(instant(now), &mut wire, sockets);
            if wire.refused {
                return Sent::NoRoom;
            }
            if result == PollResult::None {
                return Sent::All;
            }
        }
        Sent::More
    }

    /// When this connection has something to send next.
    pub(super) fn next_due(&mut self, connection: &Connection, now: u64) -> Option<u64> {
        let due = self.interface.poll_at(instant(now), &connection.sockets)?;
        let micros = u64::try_from(due.total_micros()).unwrap_or(0);
        Some(micros.saturating_mul(NS_PER_US))
    }
}

fn instant(now: u64) -> Instant {
    Instant::from_micros(i64::try_from(now / NS_PER_US).unwrap_or(i64::MAX))
}

/// The interface's device for the time of one call.
struct Wire<'a> {
    plan: &'a Plan,
    to_guest: &'a mut Queue,
    packet: Option<&'a [u8]>,
    /// There was no room for a packet.
    refused: bool,
}

impl<'a> Wire<'a> {
    fn new(plan: &'a Plan, to_guest: &'a mut Queue, packet: Option<&'a [u8]>) -> Self {
        Self {
            plan,
            to_guest,
            packet,
            refused: false,
        }
    }
}

impl Device for Wire<'_> {
    type RxToken<'t>
        = Arrived<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Leaving<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Arrived<'_>, Leaving<'_>)> {
        let packet = self.packet.take()?;
        let leaving = Leaving {
            plan: self.plan,
            to_guest: self.to_guest,
        };
        Some((Arrived(packet), leaving))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        if !self.to_guest.has_room(PATIENT_FRAMES) {
            self.refused = true;
            return None;
        }
        Some(Leaving {
            plan: self.plan,
            to_guest: self.to_guest,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

struct Arrived<'a>(&'a [u8]);

impl RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

struct Leaving<'a> {
    plan: &'a Plan,
    to_guest: &'a mut Queue,
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut bytes = vec![0; frame::HEADER.saturating_add(length)];
        let packet = bytes.get_mut(frame::HEADER..).unwrap_or_default();
        let result = write(packet);
        let protocol = match packet.first() {
            Some(first) if first >> 4 == 6 => EthernetProtocol::Ipv6,
            _ => EthernetProtocol::Ipv4,
        };
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        frame.set_src_addr(self.plan.host);
        frame.set_dst_addr(self.plan.guest);
        frame.set_ethertype(protocol);
        self.to_guest.push(bytes);
        result
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's TCP/IP without a guest: smoltcp with two servers, HTTP and one that says nothing.
//!
//! Each connection is in a socket set of its own, so that a packet costs the same however many
//! there are.

use std::collections::{HashMap, VecDeque};

use kennel_vmm::dial::{GUEST_IPV4, IPV4_PREFIX};
use kennel_vmm::virtio_net::GUEST_MAC;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpCidr, IpProtocol, Ipv4Packet, TcpPacket,
};

/// Where HTTP is served.
pub(crate) const HTTP_PORT: u16 = 8080;
/// Where connections are accepted, and end with the client's.
pub(crate) const TCP_PORT: u16 = 1500;
/// Where no packet is ever answered.
pub(crate) const SILENT_PORT: u16 = 9;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const REQUEST_BYTES: usize = 2048;
const ANSWER_BYTES: usize = 512;
const FRAME: usize = 1514;

/// How the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Health {
    Well,
    /// Nobody listens any more.
    Refuses,
    /// It answers no packet.
    Silent,
}

impl Health {
    pub(crate) const ALL: [Self; 3] = [Self::Well, Self::Refuses, Self::Silent];
}

struct Connection {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    answered: bool,
}

impl Connection {
    fn new() -> Self {
        let socket = Socket::new(
            SocketBuffer::new(vec![0; REQUEST_BYTES]),
            SocketBuffer::new(vec![0; ANSWER_BYTES]),
        );
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            sockets,
            handle,
            answered: false,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn listen(mut self, port: u16) -> Option<Self> {
        self.answered = false;
        let socket = self.socket();
        socket.abort();
        socket.set_ack_delay(None);
        socket.listen(port).is_ok().then_some(self)
    }

    /// What a server does; whether the connection is over.
    fn serve(&mut self) -> bool {
        let answered = self.answered;
        let socket = self.socket();
        let is_http = socket
            .local_endpoint()
            .is_some_and(|end| end.port == HTTP_PORT);
        let asked = socket.can_recv() && socket.peek(REQUEST_BYTES).is_ok_and(ends_a_request);
        if is_http && !answered && asked {
            let _room_for_it = socket.send_slice(ANSWER);
            socket.close();
            self.answered = true;
        } else if socket.state() == State::CloseWait {
            socket.close();
        }
        matches!(self.socket().state(), State::Closed | State::TimeWait)
    }
}

fn ends_a_request(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\r\n\r\n")
}

pub(crate) struct Stack {
    interface: Interface,
    cable: Cable,
    nobody: SocketSet<'static>,
    /// By the client's port.
    connections: HashMap<u16, Connection>,
    spare: Vec<Connection>,
}

impl Stack {
    pub(crate) fn new() -> Self {
        let mut cable = Cable::default();
        let mut config = Config::new(EthernetAddress(GUEST_MAC).into());
        config.random_seed = 7;
        let mut interface = Interface::new(config, &mut cable, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for four.
            let _ = addresses.push(IpCidr::new(GUEST_IPV4.into(), IPV4_PREFIX));
        });
        Self {
            interface,
            cable,
            nobody: SocketSet::new(vec![]),
            connections: HashMap::new(),
            spare: vec![],
        }
    }

    /// A frame arrives at a guest that is so.
    pub(crate) fn take(&mut self, frame: Vec<u8>, health: Health, now_ns: u64) {
        let now = instant(now_ns);
        let segment = segment(&frame);
        let silent = segment
            .as_ref()
            .is_some_and(|one| one.destination == SILENT_PORT);
        if health == Health::Silent || silent {
            return;
        }
        if let Some(one) = &segment
            && one.begins
            && health == Health::Well
            // Not a first packet that comes once more.
            && !self.connections.contains_key(&one.source)
            && [HTTP_PORT, TCP_PORT].contains(&one.destination)
        {
            let spare = self.spare.pop().unwrap_or_else(Connection::new);
            if let Some(connection) = spare.listen(one.destination) {
                self.connections.insert(one.source, connection);
            }
        }
        self.cable.arrived = Some(frame);
        let from = segment.map_or(0, |one| one.source);
        let (interface, cable) = (&mut self.interface, &mut self.cable);
        let Some(connection) = self.connections.get_mut(&from) else {
            interface.poll_ingress_single(now, cable, &mut self.nobody);
            return;
        };
        interface.poll_ingress_single(now, cable, &mut connection.sockets);
        self.go_on(from, now);
    }

    fn go_on(&mut self, from: u16, now: Instant) {
        let Some(connection) = self.connections.get_mut(&from) else {
            return;
        };
        let over = connection.serve();
        let (interface, cable) = (&mut self.interface, &mut self.cable);
        while interface.poll_egress(now, cable, &mut connection.sockets) != PollResult::None {}
        // In TIME-WAIT for a moment only: its port comes again in half a minute at the earliest.
        if over || matches!(connection.socket().state(), State::Closed) {
            self.spare.extend(self.connections.remove(&from));
        }
    }

    /// Repeats what was lost.
    pub(crate) fn time_passed(&mut self, now_ns: u64) {
        let ports: Vec<u16> = self.connections.keys().copied().collect();
        for from in ports {
            self.go_on(from, instant(now_ns));
        }
    }

    /// The next frame that it sends.
    pub(crate) fn send(&mut self) -> Option<Vec<u8>> {
        self.cable.leaving.pop_front()
    }
}

fn instant(now_ns: u64) -> Instant {
    Instant::from_micros(i64::try_from(now_ns / 1000).unwrap_or(i64::MAX))
}

/// What is of use of a TCP segment.
struct Segment {
    source: u16,
    destination: u16,
    begins: bool,
}

fn segment(frame: &[u8]) -> Option<Segment> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if packet.next_header() != IpProtocol::Tcp {
        return None;
    }
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    Some(Segment {
        source: segment.src_port(),
        destination: segment.dst_port(),
        begins: segment.syn() && !segment.ack(),
    })
}

#[derive(Debug, Default)]
struct Cable {
    arrived: Option<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
}

impl Device for Cable {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.arrived.take()?;
        Some((Arrived(frame), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
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

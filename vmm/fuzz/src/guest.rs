// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's frames: what a guest answers, nearly.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;

use crate::bytes::Bytes;

pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub(crate) const HOST_MAC: [u8; 6] = [0x02, 0x6b, 0x65, 0x6e, 0x65, 0x6c];

/// A connection as the guest sees it, from what it was sent last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    guest: IpAddr,
    host: IpAddr,
    port: u16,
    host_port: u16,
    /// What the host sends next.
    host_seq: TcpSeqNumber,
    /// What the host expects next; 0 before the guest has answered.
    own_seq: TcpSeqNumber,
}

impl Peer {
    pub(crate) fn same(&self, other: &Self) -> bool {
        (self.host_port, self.guest) == (other.host_port, other.guest)
    }

    /// Out of a frame that the guest gets.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let (host, guest, payload): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
            4 => {
                let packet = Ipv4Packet::new_checked(packet).ok()?;
                if packet.next_header() != IpProtocol::Tcp {
                    return None;
                }
                let ends = (packet.src_addr().into(), packet.dst_addr().into());
                (ends.0, ends.1, packet.payload())
            }
            _ => {
                let packet = Ipv6Packet::new_checked(packet).ok()?;
                if packet.next_header() != IpProtocol::Tcp {
                    return None;
                }
                let ends = (packet.src_addr().into(), packet.dst_addr().into());
                (ends.0, ends.1, packet.payload())
            }
        };
        let tcp = TcpPacket::new_checked(payload).ok()?;
        Some(Self {
            guest,
            host,
            port: tcp.dst_port(),
            host_port: tcp.src_port(),
            host_seq: tcp.seq_number() + tcp.segment_len(),
            own_seq: if tcp.ack() {
                tcp.ack_number()
            } else {
                TcpSeqNumber(1000)
            },
        })
    }

    fn frame(&self, repr: &TcpRepr<'_>) -> Vec<u8> {
        let (source, destination) = (self.guest.into(), self.host.into());
        let ip = IpRepr::new(source, destination, IpProtocol::Tcp, repr.buffer_len(), 64);
        let mut frame = header(self.guest.is_ipv4());
        frame.resize(14 + ip.buffer_len(), 0);
        let caps = ChecksumCapabilities::default();
        ip.emit(&mut frame[14..], &caps);
        let mut tcp = TcpPacket::new_unchecked(&mut frame[14 + ip.header_len()..]);
        repr.emit(&mut tcp, &source, &destination, &caps);
        frame
    }

    fn segment<'a>(&self, control: TcpControl, payload: &'a [u8]) -> TcpRepr<'a> {
        TcpRepr {
            src_port: self.port,
            dst_port: self.host_port,
            control,
            seq_number: self.own_seq,
            ack_number: Some(self.host_seq),
            window_len: 8192,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        }
    }

    /// The guest accepts.
    pub(crate) fn accept(&self) -> Vec<u8> {
        self.frame(&self.segment(TcpControl::Syn, &[]))
    }

    /// What a guest would send, or something near it.
    pub(crate) fn nearly_right(&self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        use TcpControl::{Fin, None as Plain, Psh, Rst, Syn};
        let control = bytes.pick(&[Plain, Plain, Plain, Psh, Fin, Syn, Syn, Rst]);
        let data = vec![0x67; bytes.pick(&[0, 0, 0, 1, 100, 536, 1400, 1440])];
        let mut segment = self.segment(control, &data);
        segment.seq_number = near(self.own_seq, bytes);
        segment.ack_number = (bytes.below(8) > 0).then(|| near(self.host_seq, bytes));
        segment.window_len = bytes.pick(&[8192, 8192, 0, 1, 100, 65535, 2920]);
        if control == Syn {
            segment.window_scale = bytes.pick(&[None, Some(0), Some(7), Some(14), Some(255)]);
            segment.max_seg_size = bytes.pick(&[None, Some(0), Some(1), Some(1460), Some(65535)]);
            segment.sack_permitted = bytes.below(2) == 0;
        }
        self.frame(&segment)
    }
}

fn near(seq: TcpSeqNumber, bytes: &mut Bytes<'_>) -> TcpSeqNumber {
    let by = bytes.pick(&[
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        -1,
        2,
        100,
        -100,
        1400,
        -1400,
        16384,
        16383,
        70_000,
        0x4000_0000,
        i32::MIN,
        i32::MAX,
    ]);
    TcpSeqNumber(seq.0.wrapping_add(by))
}

fn header(is_ipv4: bool) -> Vec<u8> {
    let ethertype = if is_ipv4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&HOST_MAC[..], &GUEST_MAC, &ethertype].concat()
}

/// The answer to a question for an address, if this is one.
pub(crate) fn answer_for_address(frame: &[u8]) -> Option<Vec<u8>> {
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            let packet = ArpPacket::new_checked(&frame[14..]).ok()?;
            let ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_protocol_addr: host,
                target_protocol_addr: asked,
                ..
            } = ArpRepr::parse(&packet).ok()?
            else {
                return None;
            };
            let repr = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: EthernetAddress(GUEST_MAC),
                source_protocol_addr: asked,
                target_hardware_addr: EthernetAddress(HOST_MAC),
                target_protocol_addr: host,
            };
            let mut answer = [&HOST_MAC[..], &GUEST_MAC, &[0x08, 0x06]].concat();
            answer.resize(14 + repr.buffer_len(), 0);
            repr.emit(&mut ArpPacket::new_unchecked(&mut answer[14..]));
            Some(answer)
        }
        [0x86, 0xdd] => {
            let packet = Ipv6Packet::new_checked(&frame[14..]).ok()?;
            let (host, to) = (packet.src_addr(), packet.dst_addr());
            let caps = ChecksumCapabilities::default();
            let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
            let Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. }) =
                Icmpv6Repr::parse(&host, &to, &icmp, &caps).ok()?
            else {
                return None;
            };
            let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                flags: NdiscNeighborFlags::SOLICITED,
                target_addr,
                lladdr: Some(EthernetAddress(GUEST_MAC).into()),
            });
            let ends = (target_addr.into(), host.into());
            let ip = IpRepr::new(ends.0, ends.1, IpProtocol::Icmpv6, repr.buffer_len(), 255);
            let mut answer = header(false);
            answer.resize(14 + ip.buffer_len(), 0);
            ip.emit(&mut answer[14..], &caps);
            let mut packet = Icmpv6Packet::new_unchecked(&mut answer[14 + ip.header_len()..]);
            repr.emit(&target_addr, &host, &mut packet, &caps);
            Some(answer)
        }
        _ => None,
    }
}

/// Bytes with or without the headers that let them in.
pub(crate) fn any_frame(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let length = usize::from(bytes.pick(&[0, 1, 13, 14, 28, 42, 60, 90, 255_u8]));
    let mut frame: Vec<u8> = (0..length).map(|_| bytes.byte()).collect();
    let start: &[&[u8]] = &[
        &[],
        &[&HOST_MAC[..], &GUEST_MAC, &[0x08, 0x06]].concat(),
        &[&HOST_MAC[..], &GUEST_MAC, &[0x08, 0x00, 0x45, 0, 0, 28]].concat(),
        &[
            &HOST_MAC[..],
            &GUEST_MAC,
            &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 8],
        ]
        .concat(),
        &[&[0xff; 6][..], &GUEST_MAC].concat(),
        &[&GUEST_MAC[..], &[2; 6], &[0x08, 0x00, 0x45]].concat(),
    ];
    let start = start[usize::from(bytes.below(6))];
    let overlap = start.len().min(frame.len());
    frame[..overlap].copy_from_slice(&start[..overlap]);
    if bytes.below(16) == 0 {
        frame.resize(1600, 0);
    }
    frame
}

/// UDP to a service of the link.
pub(crate) fn service(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let is_ipv4 = bytes.below(2) == 0;
    let (from, to): (IpAddr, IpAddr) = if is_ipv4 {
        ([0, 0, 0, 0].into(), [255; 4].into())
    } else {
        ("fe80::2".parse().unwrap(), "ff02::1:2".parse().unwrap())
    };
    let mut data = if is_ipv4 {
        let mut data = vec![0; 236];
        (data[0], data[1], data[2]) = (1, 1, 6);
        data[28..34].copy_from_slice(&GUEST_MAC);
        data.extend([0x63, 0x82, 0x53, 0x63, 53, 1, bytes.below(9)]);
        data
    } else {
        vec![bytes.below(13), 1, 2, 3, 0, 1, 0, 2, 7, 7]
    };
    for _ in 0..bytes.below(6) {
        if is_ipv4 {
            data.push(bytes.pick(&[50, 54, 61, 55, 0, 255, 12]));
            data.push(bytes.pick(&[4, 0, 7, 200]));
            data.extend(bytes.pick(&[[10, 0, 2, 2], [10, 0, 2, 1], [1, 2, 3, 4]]));
        } else {
            data.extend([0, bytes.pick(&[2, 3, 4, 5, 14, 25, 1]), 0]);
            data.push(bytes.pick(&[0, 4, 12, 40, 10, 200]));
            data.extend((0..bytes.pick(&[0, 4, 12, 40])).map(|at| at as u8));
        }
    }
    let udp = UdpRepr {
        src_port: if is_ipv4 { 68 } else { 546 },
        dst_port: if is_ipv4 { 67 } else { 547 },
    };
    let ip = IpRepr::new(from.into(), to.into(), IpProtocol::Udp, 8 + data.len(), 64);
    let mut frame = header(is_ipv4);
    frame.resize(14 + ip.buffer_len(), 0);
    let caps = ChecksumCapabilities::default();
    ip.emit(&mut frame[14..], &caps);
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut frame[14 + ip.header_len()..]),
        &from.into(),
        &to.into(),
        data.len(),
        |payload| payload.copy_from_slice(&data),
        &caps,
    );
    frame
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's network as documents describe it: whether there is one, and which ports it has names
//! for.

use std::collections::HashMap;

use super::nearest;
use super::network::{Network, UplinkWish};
use super::problem::{Fault, NoteKind, Position, did_you_mean, quoted};
use super::walk::Cursor;

/// What `networks` and `interfaces` say about reaching the guest.
pub(super) struct GuestNetwork<'a> {
    /// Whether the guest is on the pod network.
    pub(super) attached: bool,
    named: Vec<(&'a str, Port)>,
    /// The only ports that KubeVirt forwards; none when it forwards all.
    forwarded: Option<Vec<u16>>,
}

#[derive(Clone, Copy)]
struct Port {
    number: u16,
    tcp: bool,
}

impl<'a> GuestNetwork<'a> {
    /// Reads the instance's spec, and reports what is wrong with the ports of its interfaces.
    pub(super) fn read(spec: &Cursor<'a>) -> Self {
        let interfaces = spec.descend(&["domain", "devices", "interfaces"]);
        let interfaces: Vec<_> = interfaces.iter().flat_map(Cursor::items).collect();
        let networks = spec.get("networks");
        let networks: Vec<_> = networks.iter().flat_map(Cursor::items).collect();
        let mut network = Self {
            attached: networks.iter().any(is_pod),
            named: Vec::new(),
            forwarded: None,
        };
        if interfaces.is_empty() && networks.is_empty() {
            // KubeVirt then adds both, unless it is told not to.
            let auto = spec.descend(&["domain", "devices", "autoattachPodInterface"]);
            network.attached = auto.and_then(|auto| auto.flag()) != Some(false);
        }
        let mut seen = HashMap::new();
        for interface in &interfaces {
            let ports = network.read_ports(interface, &mut seen);
            let on_pod = networks
                .iter()
                .any(|network| is_pod(network) && name(network) == name(interface));
            if on_pod {
                note_attached(interface);
            } else {
                interface.note_not_attached();
            }
            if on_pod && lists_ports(interface) {
                network.forwarded = Some(ports);
            }
        }
        let others = networks.iter().filter(|network| !is_pod(network));
        others.for_each(Cursor::note_not_attached);
        network
    }

    /// The machine's network, which leads where `uplink` says; none if it is not attached.
    pub(super) fn attach(self, uplink: UplinkWish) -> Option<Network> {
        self.attached.then_some(Network {
            uplink,
            ports: self.forwarded,
        })
    }

    /// The TCP ports of an interface.
    fn read_ports(
        &mut self,
        interface: &Cursor<'a>,
        seen: &mut HashMap<&'a str, Option<Position>>,
    ) -> Vec<u16> {
        let mut tcp_ports = Vec::new();
        for at in interface.get("ports").iter().flat_map(Cursor::items) {
            let tcp = protocol(&at);
            let number = at
                .require("port", "write the port's number, such as port: 80")
                .and_then(|at| number(&at, at.integer()?));
            if let Some((at, name)) = at.get("name").and_then(|at| Some((at.clone(), at.text()?))) {
                let place = at.place().position;
                if let Some(fault) = misnamed(name) {
                    at.refuse(fault);
                } else if let Some(first) = seen.insert(name, place) {
                    let line = first.map_or(0, |first| first.line);
                    at.refuse(
                        Fault::new(format!(
                            "port {} is given twice, first on line {line}",
                            quoted(name)
                        ))
                        .hint("give one of them another name"),
                    );
                }
                if let Some(number) = number {
                    self.named.push((name, Port { number, tcp }));
                }
            }
            tcp_ports.extend(number.filter(|_| tcp));
        }
        tcp_ports
    }

    /// The port that `at` gives by number or by name, whose absence or fault is reported.
    pub(super) fn port(&self, at: &Cursor<'_>) -> Option<u16> {
        if let Some(value) = at.integer() {
            return number(at, value);
        }
        let text = at.text()?;
        if let Ok(value) = text.parse::<i64>() {
            let port = number(at, value)?;
            at.note(
                NoteKind::NotInKubeVirt,
                "a number in quotes is taken as that port; a cluster would look for a port of that name",
            );
            return Some(port);
        }
        match self.named.iter().find(|(name, _)| *name == text) {
            Some((_, port)) if port.tcp => Some(port.number),
            Some((_, port)) => {
                let fault = Fault::new(format!("port {} is a UDP port", quoted(text)));
                at.refuse(fault.allowed("a TCP port").hint(format!(
                    "write protocol: TCP at port {} of the interface, if the guest listens there",
                    port.number
                )));
                None
            }
            None => {
                at.refuse(self.unknown(text));
                None
            }
        }
    }

    fn unknown(&self, name: &str) -> Fault {
        let known = self.named.iter().map(|(name, _)| *name);
        let list: String = known.clone().map(|name| format!(", {name}")).collect();
        // A text that could not even be a name has nowhere been given to a port.
        let fault = Fault::new(format!("no port is named {}", quoted(name)))
            .allowed(format!("{NUMBERS}{list}"));
        match nearest::among(name, known) {
            Some(near) => fault.hint(did_you_mean(near)),
            None => fault.hint("write the number, or name a port of domain.devices.interfaces[]"),
        }
    }

    /// Whether KubeVirt would never let a probe reach this port.
    pub(super) fn is_shut(&self, port: u16) -> bool {
        self.forwarded
            .as_ref()
            .is_some_and(|ports| !ports.contains(&port))
    }
}

const NUMBERS: &str = "1 to 65535";

fn number(at: &Cursor<'_>, value: i64) -> Option<u16> {
    let port = u16::try_from(value).ok().filter(|port| *port > 0);
    if port.is_none() {
        let shown = at.scalar().unwrap_or_default();
        at.refuse(Fault::new(format!("{} is no port", quoted(shown))).allowed(NUMBERS));
    }
    port
}

fn is_pod(network: &Cursor<'_>) -> bool {
    network.get("pod").is_some()
}

fn name<'a>(at: &Cursor<'a>) -> Option<&'a str> {
    at.get("name")?.text()
}

/// What KubeVirt may put in masquerade's place.
const OTHER_BINDINGS: [&str; 7] = [
    "bridge",
    "slirp",
    "sriov",
    "macvtap",
    "passt",
    "passtBinding",
    "binding",
];

/// Notes what an attached interface has otherwise here than it is written.
fn note_attached(interface: &Cursor<'_>) {
    let bindings = OTHER_BINDINGS.into_iter();
    for at in bindings.filter_map(|key| interface.get(key)) {
        at.note(NoteKind::NoUseHere, "taken as masquerade");
    }
    let model = interface.get("model");
    if let Some(at) = model.filter(|at| at.text().is_some_and(|model| model != "virtio")) {
        at.note(NoteKind::NoUseHere, "taken as virtio");
    }
}

/// Whether the interface's list of ports decides what reaches the guest: an empty one lets all
/// through, and so does a bridge.
fn lists_ports(interface: &Cursor<'_>) -> bool {
    let listed = interface.get("ports");
    listed.is_some_and(|ports| ports.items().next().is_some())
        && ["bridge", "sriov", "macvtap", "portRanges"]
            .iter()
            .all(|key| interface.get(key).is_none())
}

/// Whether the port is a TCP port, which it is unless it says otherwise.
fn protocol(port: &Cursor<'_>) -> bool {
    const PROTOCOLS: [&str; 2] = ["TCP", "UDP"];
    let Some((at, text)) = port
        .get("protocol")
        .and_then(|at| Some((at.clone(), at.text()?)))
    else {
        return true;
    };
    if !text.is_empty() && !PROTOCOLS.contains(&text) {
        at.refuse(Fault::unknown("protocol", text, PROTOCOLS.into_iter()));
    }
    text != PROTOCOLS[1]
}

/// IANA's longest service name.
const LONGEST_NAME: usize = 15;
/// Their rules in words.
const NAMES: &str = "up to 15 lowercase letters, digits and single -, at least one letter";

/// Whether IANA's rules for service names hold for a port's name.
fn is_service_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// What is wrong with the name that an interface gives a port.
fn misnamed(name: &str) -> Option<Fault> {
    if is_service_name(name) {
        return None;
    }
    let fault = Fault::new(format!("{} is no name for a port", quoted(name)));
    let better = name.to_ascii_lowercase().replace(['_', ' '], "-");
    Some(fault.allowed(NAMES).hint(if is_service_name(&better) {
        format!("write {better}")
    } else {
        "write a short one, such as http, or none".to_owned()
    }))
}

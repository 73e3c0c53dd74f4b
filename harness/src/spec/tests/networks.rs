// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's network: when it has one, what is said of it, and Kennel's annotations about it.

use super::super::{IpFamily, Network, NoteKind, UplinkWish};
use super::{INSTANCE, accept, note, refuse, with};

/// [`INSTANCE`] with these interfaces, the first of which is line 19, and networks, line 20.
fn networked(interfaces: &str, networks: &str) -> String {
    format!("{INSTANCE}      interfaces: [{interfaces}]\n  networks: [{networks}]\n")
}

/// [`INSTANCE`] with this annotation, on line 6.
fn annotated(line: &str) -> String {
    let line = format!("  name: small\n  annotations:\n    {line}\n");
    with("  name: small\n", &line)
}

fn network(text: &str) -> Option<Network> {
    accept(text).vmi.network
}

const POD: &str = "{name: a, pod: {}}";

#[test]
fn a_machine_on_the_pod_network_has_a_network() {
    let attached = Some(Network::default());
    for text in [
        INSTANCE.to_owned(),
        format!("{INSTANCE}      autoattachPodInterface: true\n"),
        networked("{name: a, masquerade: {}}", POD),
        networked("{name: a}", POD),
        networked("{name: a, bridge: {}, ports: [{port: 80}]}", POD),
        networked("{name: a, masquerade: {}, ports: []}", POD),
    ] {
        assert_eq!(network(&text), attached, "{text}");
    }
    for text in [
        format!("{INSTANCE}      autoattachPodInterface: false\n"),
        networked(
            "{name: a, bridge: {}}",
            "{name: a, multus: {networkName: b}}",
        ),
    ] {
        assert_eq!(network(&text), None, "{text}");
    }
}

#[test]
fn listed_tcp_ports_alone_may_be_published() {
    let listed =
        "{name: a, masquerade: {}, ports: [{port: 80}, {port: 53, protocol: UDP}, {port: 22}]}";
    let ports = network(&networked(listed, POD)).and_then(|network| network.ports);
    assert_eq!(ports, Some(vec![80, 22]));
}

#[test]
fn what_is_otherwise_here_is_noted() {
    let notes = |text: &str| -> Vec<_> {
        let notes = accept(text).notes;
        notes.iter().map(ToString::to_string).collect()
    };
    let plain = networked("{name: a, model: virtio, masquerade: {}}", POD);
    assert_eq!(notes(&plain), [] as [&str; 0]);
    let interfaces = "spec.domain.devices.interfaces";
    for (interface, said) in [
        ("bridge: {}", "taken as masquerade: {}[0].bridge (line 19)"),
        ("slirp: {}", "taken as masquerade: {}[0].slirp (line 19)"),
        ("passt: {}", "taken as masquerade: {}[0].passt (line 19)"),
        (
            "passtBinding: {}",
            "taken as masquerade: {}[0].passtBinding (line 19)",
        ),
        (
            "model: e1000, masquerade: {}",
            "taken as virtio: {}[0].model (line 19)",
        ),
        (
            "macAddress: de:ad:00:00:be:af",
            "of no use on this host, ignored: {}[0].macAddress (line 19)",
        ),
    ] {
        let text = networked(&format!("{{name: a, {interface}}}"), POD);
        assert_eq!(notes(&text), [said.replace("{}", interfaces)], "{text}");
    }
    let others = networked(
        "{name: a, masquerade: {}}, {name: b, bridge: {}}",
        "{name: a, pod: {vmNetworkCIDR: 10.1.0.0/24}}, {name: b, multus: {networkName: c}}",
    );
    assert_eq!(
        note(&accept(&others), NoteKind::NotAttached).as_deref(),
        Some(
            "not attached to the guest yet: spec.domain.devices.interfaces[1] (line 19), \
             spec.networks[1] (line 20)"
        )
    );
    assert_eq!(
        note(&accept(&others), NoteKind::NoUseHere).as_deref(),
        Some("of no use on this host, ignored: spec.networks[0].pod.vmNetworkCIDR (line 20)")
    );
}

#[test]
fn annotations_say_where_it_leads_and_how_it_is_probed() {
    let probe = "  livenessProbe: {httpGet: {port: 80}}\n";
    let tap = UplinkWish::Tap("tap0".to_owned());
    for (value, wish) in [
        ("passt", UplinkWish::Passt),
        ("none", UplinkWish::None),
        ("tap:tap0", tap),
    ] {
        let document = accept(&annotated(&format!("kennel/uplink: {value}")));
        let network = document.vmi.network.as_ref();
        assert_eq!(network.map(|network| &network.uplink), Some(&wish));
        assert_eq!(note(&document, NoteKind::NoEffect), None);
    }
    for (value, family) in [
        ("IPv4", IpFamily::Ipv4),
        ("IPv6", IpFamily::Ipv6),
        ("both", IpFamily::Both),
    ] {
        let text = annotated(&format!("kennel/probe-ip-family: {value}"));
        let document = accept(&format!("{text}{probe}"));
        assert_eq!(document.vmi.probe_ip_family, family);
        assert_eq!(note(&document, NoteKind::NoEffect), None);
    }
}

#[test]
fn annotations_without_effect_are_noted() {
    let at = "metadata.annotations[kennel/";
    let off = "      autoattachPodInterface: false\n";
    let uplink = annotated("kennel/uplink: none");
    let said = note(&accept(&format!("{uplink}{off}")), NoteKind::NoEffect);
    let expected = format!("no effect without a network: {at}uplink] (line 6)");
    assert_eq!(said, Some(expected));
    let family = annotated("kennel/probe-ip-family: both");
    let ping = "  livenessProbe: {guestAgentPing: {}}\n";
    let said = note(&accept(&format!("{family}{ping}")), NoteKind::NoEffect);
    let message = "no effect without an httpGet or tcpSocket probe";
    let expected = format!("{message}: {at}probe-ip-family] (line 6)");
    assert_eq!(said, Some(expected));
}

#[test]
fn annotations_that_say_something_else_are_refused() {
    let at = "vm.yaml:6: metadata.annotations[kennel/";
    let name = "allowed: 1 to 15 characters without spaces, /, : and %; \
                write the TAP device's name, as in tap:tap0";
    for (line, said) in [
        (
            "kennel/uplink: past",
            "uplink]: unknown uplink \"past\"; allowed: passt, tap:NAME, none; did you mean \"passt\"?",
        ),
        (
            "kennel/uplink: tap:a/b",
            &format!("uplink]: \"a/b\" is no name of an interface; {name}"),
        ),
        (
            "kennel/probe-ip-family: ipv6",
            "probe-ip-family]: unknown IP family \"ipv6\"; allowed: IPv4, IPv6, both; did you mean \"IPv6\"?",
        ),
    ] {
        assert_eq!(refuse(&annotated(line)), [format!("{at}{said}")]);
        // Also where they would have no effect.
        let off = "      autoattachPodInterface: false\n";
        let without = format!("{}{off}", annotated(line));
        assert_eq!(refuse(&without), [format!("{at}{said}")]);
    }
}

#[test]
fn replicas_share_no_tap_device() {
    let set = |replicas: u32, uplink: &str| {
        format!(
            "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstanceReplicaSet\nmetadata:\n  name: s\n\
             spec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{a: b}}}}\n  template:\n    \
             metadata: {{labels: {{a: b}}, annotations: {{kennel/uplink: \"{uplink}\"}}}}\n    \
             spec: {{domain: {{memory: {{guest: 64Mi}}}}}}\n"
        )
    };
    accept(&set(1, "tap:t"));
    accept(&set(2, "passt"));
    assert_eq!(
        refuse(&set(2, "tap:t")),
        [
            "vm.yaml:9: spec.template.metadata.annotations[kennel/uplink]: the replicas cannot share the \
             TAP device \"t\": it is one machine's; write passt or none, or replicas: 1"
        ]
    );
}

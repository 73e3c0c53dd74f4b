// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A machine's network on this host: where it leads to, and which of its ports are published.

use kennel_vmm::config::Uplink;

use super::Failure;
use super::progress::say;
use crate::host;
use crate::spec::{UplinkWish, Vmi};
use crate::supervisor::publish::{Ports, Publish};

const PASST: &str = "passt";

/// What lies beyond the machine's network, if it has one. Where the document does not say, it is
/// passt, if this host has that.
pub(super) fn uplink(vmi: &Vmi) -> Option<Uplink> {
    let network = vmi.network.as_ref()?;
    Some(match &network.uplink {
        UplinkWish::Auto => by_itself(host::find_program(PASST).is_some(), host::inside_box()),
        UplinkWish::None => Uplink::None,
        UplinkWish::Passt => Uplink::Passt,
        UplinkWish::Tap(name) => Uplink::Tap(name.clone()),
    })
}

/// The box has no network that anything could lead to.
const fn by_itself(has_passt: bool, is_box: bool) -> Uplink {
    if has_passt && !is_box {
        Uplink::Passt
    } else {
        Uplink::None
    }
}

/// Whether the machine has the ports that are to be published.
pub(super) fn check(publish: &[Publish], vmi: &Vmi) -> Result<(), Failure> {
    let problems: Vec<_> = publish
        .iter()
        .enumerate()
        .filter_map(|(index, wanted)| {
            let before = publish.get(..index).unwrap_or_default();
            problem(wanted, before, vmi)
        })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::Usage(problems.join("\n")))
    }
}

fn problem(wanted: &Publish, before: &[Publish], vmi: &Vmi) -> Option<String> {
    let Publish { at, guest_port, .. } = wanted;
    let Some(network) = &vmi.network else {
        return Some(format!(
            "--publish: port {guest_port} cannot be reached, as the document attaches no pod network; add an \
             interface with masquerade: {{}} and a network of its name with pod: {{}}"
        ));
    };
    let listed = network.ports.as_deref();
    if let Some(listed) = listed.filter(|listed| !listed.contains(guest_port)) {
        let listed: Vec<_> = listed.iter().map(u16::to_string).collect();
        let allowed = match listed.join(", ") {
            none if none.is_empty() => "none, as it lists no TCP port".to_owned(),
            listed => listed,
        };
        return Some(format!(
            "--publish: port {guest_port} is not in domain.devices.interfaces[].ports; allowed: {allowed}; \
             list it there, or leave out the list"
        ));
    }
    let twice = at.port() != 0 && before.iter().any(|other| other.at == *at);
    twice.then(|| format!("--publish: {at} is given twice; give one of them another port"))
}

/// Has the ports from here on, and says which they are.
pub(super) fn hold(publish: &[Publish]) -> Result<Ports, Failure> {
    let ports = Ports::hold(publish).map_err(Failure::could_not)?;
    for published in ports.published() {
        say(&format!("kennel: published: {published}"));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Document, parse};

    /// A machine with these devices, and these annotations.
    fn machine(devices: &str, annotations: &str) -> Document {
        let text = format!(
            "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: lab, annotations: \
             {{{annotations}}}}}, spec: {{networks: [{{name: a, pod: {{}}}}], domain: {{resources: {{requests: \
             {{memory: 256Mi}}}}, devices: {{interfaces: [{{name: a, masquerade: {{}}, {devices}}}]}}}}}}}}"
        );
        parse(&text, "lab.yaml").unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn published(words: &[&str]) -> Vec<Publish> {
        words.iter().map(|word| word.parse().expect(word)).collect()
    }

    #[test]
    fn a_host_with_passt_has_an_uplink() {
        assert_eq!(by_itself(true, false), Uplink::Passt);
        assert_eq!(by_itself(false, false), Uplink::None);
        assert_eq!(by_itself(true, true), Uplink::None);
        for (wish, expected) in [
            ("none", Uplink::None),
            ("passt", Uplink::Passt),
            ("tap:t", Uplink::Tap("t".into())),
        ] {
            let document = machine("", &format!("kennel/uplink: \"{wish}\""));
            assert_eq!(uplink(&document.vmi), Some(expected));
        }
    }

    #[test]
    fn only_what_the_document_lets_through_is_published() {
        let told = |document: &Document, words: &[&str]| -> Vec<String> {
            match check(&published(words), &document.vmi) {
                Ok(()) => vec![],
                Err(Failure::Usage(message)) => message.lines().map(str::to_owned).collect(),
                Err(other) => panic!("{other:?}"),
            }
        };
        let all = machine("", "");
        assert_eq!(told(&all, &["0:1", "0:1", "8080:65535"]), [""; 0]);
        let twice = told(&all, &["8080:80", "127.0.0.1:8080:81"]);
        let expected = "--publish: 127.0.0.1:8080 is given twice; give one of them another port";
        assert_eq!(twice, [expected]);
        let some = machine("ports: [{port: 80}, {port: 22}]", "");
        assert_eq!(told(&some, &["0:80", "0:22"]), [""; 0]);
        let is =
            |port| format!("--publish: port {port} is not in domain.devices.interfaces[].ports;");
        let lists = "list it there, or leave out the list";
        let expected = [8081, 8082].map(|port| format!("{} allowed: 80, 22; {lists}", is(port)));
        assert_eq!(told(&some, &["0:8081", "0:80", "0:8082"]), expected);
        let none = machine("ports: [{port: 80, protocol: UDP}]", "");
        let expected = format!("{} allowed: none, as it lists no TCP port; {lists}", is(80));
        assert_eq!(told(&none, &["0:80"]), [expected]);
        let text = "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: lab}, spec: \
            {domain: {memory: {guest: 64Mi}, devices: {autoattachPodInterface: false}}}}";
        let without = parse(text, "lab.yaml").unwrap_or_else(|problems| panic!("{problems}"));
        assert!(told(&without, &["0:80"])[0].contains("attaches no pod network"));
        assert_eq!(uplink(&without.vmi), None);
    }
}

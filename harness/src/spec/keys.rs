// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The names of KubeVirt's v1 API, in one place: which keys each object has, what they hold, and
//! what this host does with them.
//!
//! Source: the API types of KubeVirt (`kubevirt.io/api/core/v1`, 2026-08), beside legacy names that
//! old documents still use (`registryDisk`).

mod devices;
mod domain;
mod machine;

mod probe;

pub(super) use machine::{REPLICA_SET, VIRTUAL_MACHINE, VIRTUAL_MACHINE_INSTANCE};

/// API versions taken, both read as v1.
pub(super) const API_VERSIONS: [&str; 2] = ["kubevirt.io/v1", "kubevirt.io/v1alpha3"];

/// One kind of object.
#[derive(Debug)]
pub(super) struct Object {
    /// KubeVirt's or Kubernetes' name of it.
    pub(super) kind: &'static str,
    pub(super) keys: &'static [Key],
}

/// One key of an object.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) usage: Use,
    /// What to do when the value has another shape.
    pub(super) advice: Option<&'static str>,
}

/// What a key holds.
#[derive(Debug)]
pub(super) enum Shape {
    /// A string.
    Text,
    /// An integer from 0 up.
    Count,
    /// An integer, also a negative one.
    Integer,
    /// An integer or a string.
    IntegerOrText,
    /// True or false.
    Flag,
    /// A Kubernetes quantity, quoted or not.
    Quantity,
    /// A map of strings with free names.
    Strings,
    /// An object.
    Object(&'static Object),
    /// A list.
    List(&'static Shape),
    /// Anything; nobody looks into it.
    Opaque,
}

impl Shape {
    /// In words, after "must be".
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Count => "a whole number from 0 up",
            Self::Integer => "a whole number",
            Self::IntegerOrText => "a whole number or a name",
            Self::Flag => "true or false",
            Self::Quantity => "a quantity such as 512Mi",
            Self::Strings | Self::Object(_) => "a mapping of keys and values",
            Self::List(_) => "a list",
            Self::Opaque => "anything",
        }
    }
}

/// What this host does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Read, or only holds keys that are.
    Honoured,
    /// A device that is not attached yet.
    NotAttached,
    /// Nothing: accepted and named in a note.
    NoUseHere,
}

/// A key that is read.
const fn used(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        shape,
        usage: Use::Honoured,
        advice: None,
    }
}

/// A key that this host has no use for.
const fn unused(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        shape,
        usage: Use::NoUseHere,
        advice: None,
    }
}

/// A key whose devices are not attached yet.
const fn unattached(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        shape,
        usage: Use::NotAttached,
        advice: None,
    }
}

/// A key below one that has been noted as a whole.
const fn inner(name: &'static str, shape: Shape) -> Key {
    used(name, shape)
}

/// A key that is read, with what to do when its value has another shape.
const fn advised(name: &'static str, shape: Shape, advice: &'static str) -> Key {
    Key {
        name,
        shape,
        usage: Use::Honoured,
        advice: Some(advice),
    }
}

impl Object {
    /// The path, from this object, of the place that has `key`. Of several the only one in
    /// an object of `near`, else the only one around it; none when that does not decide.
    pub(super) fn home_of(&self, key: &str, near: &str) -> Option<String> {
        let mut homes = Vec::new();
        self.collect_homes(key, "", &mut homes);
        let only = |fits: &dyn Fn(&str) -> bool| {
            let mut homes = homes.iter().filter(|home| fits(around(home)));
            homes.next().filter(|_| homes.next().is_none()).cloned()
        };
        only(&|_| true)
            .or_else(|| only(&|parent| around(parent) == near))
            .or_else(|| only(&|parent| is_below(near, parent)))
    }

    fn collect_homes(&self, name: &str, path: &str, homes: &mut Vec<String>) {
        for key in self.keys {
            let here = if path.is_empty() {
                key.name.to_owned()
            } else {
                format!("{path}.{}", key.name)
            };
            if let Shape::Object(object) = &key.shape {
                object.collect_homes(name, &here, homes);
            }
            if key.name == name {
                homes.push(here);
            }
        }
    }
}

/// The path of what holds `path`.
fn around(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// What to do about a key that Kubernetes' objects have in this place and KubeVirt's have not.
pub(super) fn stranger(object: &Object, key: &str) -> Option<&'static str> {
    Some(match (object.kind, key) {
        ("Probe", "grpc") => {
            "KubeVirt has no gRPC probes: use tcpSocket, or exec with a health-check program in the guest"
        }
        ("Probe", "terminationGracePeriodSeconds") => {
            "KubeVirt's probes have none: the instance's own decides, beside its probes"
        }
        ("VirtualMachineInstanceSpec", "startupProbe") => {
            "KubeVirt has no startupProbe: give the livenessProbe an initialDelaySeconds, or a larger failureThreshold"
        }
        ("ExecAction", "args" | "arguments") => {
            "write the arguments into command, behind the program"
        }
        ("VirtualMachineInstanceSpec", "restartPolicy") => {
            "make it the template of a VirtualMachine, whose runStrategy decides"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn visit(object: &'static Object, seen: &mut HashSet<&'static str>) {
        let names: HashSet<_> = object.keys.iter().map(|key| key.name).collect();
        assert_eq!(
            names.len(),
            object.keys.len(),
            "{} names a key twice",
            object.kind
        );
        seen.insert(object.kind);
        for key in object.keys {
            let mut shape = &key.shape;
            while let Shape::List(item) = shape {
                shape = item;
            }
            if let Shape::Object(object) = shape {
                visit(object, seen);
            }
        }
    }

    #[test]
    fn no_table_names_a_key_twice() {
        let mut seen = HashSet::new();
        visit(&REPLICA_SET, &mut seen);
        visit(&VIRTUAL_MACHINE, &mut seen);
        visit(&VIRTUAL_MACHINE_INSTANCE, &mut seen);
        assert!(
            seen.contains("Watchdog") && seen.contains("KernelBootContainer"),
            "{seen:?}"
        );
    }

    #[test]
    fn a_key_in_the_wrong_place_has_a_home() {
        assert_eq!(
            VIRTUAL_MACHINE_INSTANCE
                .home_of("watchdog", "spec")
                .as_deref(),
            Some("spec.domain.devices.watchdog")
        );
        assert_eq!(
            VIRTUAL_MACHINE.home_of("livenessProbe", "spec").as_deref(),
            Some("spec.template.spec.livenessProbe")
        );
        assert_eq!(VIRTUAL_MACHINE_INSTANCE.home_of("name", "spec"), None);
    }

    #[test]
    fn of_several_homes_the_nearest_is_meant() {
        let home = |key, near| VIRTUAL_MACHINE_INSTANCE.home_of(key, near);
        assert_eq!(
            home("periodSeconds", "spec.readinessProbe.httpGet").as_deref(),
            Some("spec.readinessProbe.periodSeconds")
        );
        assert_eq!(
            home("scheme", "spec.livenessProbe").as_deref(),
            Some("spec.livenessProbe.httpGet.scheme")
        );
        assert_eq!(home("port", "spec.livenessProbe"), None);
        assert_eq!(home("periodSeconds", "spec.domain"), None);
    }
}

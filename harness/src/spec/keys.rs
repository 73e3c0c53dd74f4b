// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The names of KubeVirt's v1 API, in one place: which keys each object has, what they hold, and
//! what this host does with them.
//!
//! Source: the API types of KubeVirt (`kubevirt.io/api/core/v1`, 2026-08), beside legacy names that
//! old documents still use (`registryDisk`).

mod devices;
mod domain;
mod machine;

pub(super) use machine::{VIRTUAL_MACHINE, VIRTUAL_MACHINE_INSTANCE};

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
    /// A probe that is not run yet.
    NotRun,
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

impl Object {
    /// The path, from this object, of the only place that has `key`; none when no or several places have it.
    pub(super) fn home_of(&self, key: &str) -> Option<String> {
        let mut homes = Vec::new();
        self.collect_homes(key, "", &mut homes);
        match homes.as_slice() {
            [home] => Some(home.clone()),
            _ => None,
        }
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
            VIRTUAL_MACHINE_INSTANCE.home_of("watchdog").as_deref(),
            Some("spec.domain.devices.watchdog")
        );
        assert_eq!(
            VIRTUAL_MACHINE.home_of("livenessProbe").as_deref(),
            Some("spec.template.spec.livenessProbe")
        );
        assert_eq!(VIRTUAL_MACHINE_INSTANCE.home_of("name"), None);
    }
}

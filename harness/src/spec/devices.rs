// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Disks with their volumes, interfaces with their networks: whether their names belong together.

use std::collections::HashMap;

use super::nearest;
use super::problem::{Fault, did_you_mean, quoted};
use super::walk::Cursor;

/// Named things, in the order of the text.
type Named<'a> = Vec<(&'a str, Cursor<'a>)>;

/// Reports names that stand twice, and names without their partner.
pub(super) fn check_names(spec: &Cursor<'_>) {
    let device = |key| spec.descend(&["domain", "devices", key]);
    let disks = named(device("disks").as_ref());
    let filesystems = named(device("filesystems").as_ref());
    let volumes = named(spec.get("volumes").as_ref());
    let interfaces = named(device("interfaces").as_ref());
    let networks = named(spec.get("networks").as_ref());
    pair(("disk", &disks), ("volume", &volumes));
    let holders: Named<'_> = disks.into_iter().chain(filesystems).collect();
    orphans(&volumes, "disk or filesystem", &holders);
    pair(("interface", &interfaces), ("network", &networks));
    orphans(&networks, "interface", &interfaces);
}

fn named<'a>(list: Option<&Cursor<'a>>) -> Named<'a> {
    let items = list.into_iter().flat_map(Cursor::items);
    let names = items.filter_map(|item| item.require("name", "give it a name"));
    let named: Named<'a> = names.filter_map(|at| Some((at.text()?, at))).collect();
    let mut seen = HashMap::new();
    for (name, at) in &named {
        if let Some(first) = seen.insert(*name, at.place().position) {
            let line = first.map_or(0, |first: super::Position| first.line);
            at.refuse(Fault::new(format!(
                "name {} is given twice, first on line {line}",
                quoted(name)
            )));
        }
    }
    named
}

/// Reports each of the first kind that has none of the second.
fn pair((kind, these): (&str, &Named<'_>), (partner, those): (&str, &Named<'_>)) {
    for (name, at) in these {
        if those.iter().all(|(other, _)| other != name) {
            let fault = Fault::new(format!(
                "{kind} {} has no {partner} of its name",
                quoted(name)
            ));
            let free = unpaired(those, these);
            at.refuse(match nearest::among(name, free) {
                Some(near) => fault.hint(did_you_mean(near)),
                None => fault.hint(format!("add a {partner} named {name}")),
            });
        }
    }
}

/// Reports each volume or network that nobody names, unless it is the one a misspelt name means.
fn orphans(these: &Named<'_>, partner: &str, those: &Named<'_>) {
    for (name, at) in these {
        let meant = nearest::among(name, unpaired(those, these)).is_some();
        if those.iter().all(|(other, _)| other != name) && !meant {
            at.refuse(
                Fault::new(format!("no {partner} is named {}", quoted(name)))
                    .hint("add one, or remove this"),
            );
        }
    }
}

/// The names of `these` that none of `those` has.
fn unpaired<'n>(
    these: &'n Named<'_>,
    those: &'n Named<'_>,
) -> impl Iterator<Item = &'n str> + Clone {
    these
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| those.iter().all(|(other, _)| other != name))
}

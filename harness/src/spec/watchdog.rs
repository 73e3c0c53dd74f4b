// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The watchdog, with the defaults that KubeVirt gives it on amd64.

use kennel_vmm::config::WatchdogAction;

use super::problem::{Fault, NoteKind};
use super::vmi::Watchdog;
use super::walk::Cursor;

/// What KubeVirt takes; the others are Kennel's own.
const KUBEVIRT: [WatchdogAction; 3] = [
    WatchdogAction::Reset,
    WatchdogAction::Poweroff,
    WatchdogAction::Shutdown,
];

/// Reads `devices.watchdog`.
pub(super) fn watchdog(domain: &Cursor<'_>) -> Option<Watchdog> {
    let at = domain.descend(&["devices", "watchdog"])?;
    let name = at.require("name", "give the watchdog a name, such as name: mywatchdog");
    if let Some(name) = name.as_ref().filter(|name| name.text() == Some("")) {
        name.refuse(
            Fault::new("the watchdog's name is empty").hint("write a name, such as mywatchdog"),
        );
    }
    if let Some(diag288) = at.get("diag288") {
        let fault =
            Fault::new("the diag288 watchdog is one of s390x machines, this machine is amd64");
        diag288.refuse(fault.allowed("i6300esb"));
    }
    Some(Watchdog {
        name: name
            .and_then(|name| name.text().map(str::to_owned))
            .unwrap_or_default(),
        action: action(&at),
    })
}

fn action(watchdog: &Cursor<'_>) -> WatchdogAction {
    let default = WatchdogAction::default();
    let Some(model) = watchdog.get("i6300esb") else {
        let message = format!(
            "no model given: an i6300esb with action {}, as in KubeVirt",
            default.name()
        );
        watchdog.note_missing("i6300esb", NoteKind::Defaulted, &message);
        return default;
    };
    let Some((at, text)) = model
        .get("action")
        .and_then(|at| Some((at.clone(), at.text()?)))
    else {
        return default;
    };
    let known = WatchdogAction::ALL.into_iter();
    match known.clone().find(|action| action.name() == text) {
        Some(action) => {
            if !KUBEVIRT.contains(&action) {
                at.note(
                    NoteKind::NotInKubeVirt,
                    &format!("action {text} is Kennel's own, not in KubeVirt"),
                );
            }
            action
        }
        // KubeVirt's default for an empty action.
        None if text.is_empty() => default,
        None => {
            at.refuse(Fault::unknown(
                "watchdog action",
                text,
                known.map(WatchdogAction::name),
            ));
            default
        }
    }
}

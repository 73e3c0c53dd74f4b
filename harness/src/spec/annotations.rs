// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kennel's own additions to a document: annotations named `kennel/…`.

use std::collections::BTreeMap;
use std::time::Duration;

use kennel_vmm::config::{AfterBite, PretimeoutAction, WatchdogConfig};

use super::duration;
use super::metadata;
use super::nearest;
use super::network::UplinkWish;
use super::probe::IpFamily;
use super::problem::{Fault, NoteKind, did_you_mean, quoted};
use super::vmi::KernelSource;
use super::walk::Cursor;

const PREFIX: &str = "kennel/";
const GUEST_SCRIPT: &str = "kennel/guest-script";
const PRETIMEOUT: &str = "kennel/pretimeout";
const PRETIMEOUT_LEAD: &str = "kennel/pretimeout-lead";
const SHUTDOWN_GRACE: &str = "kennel/shutdown-grace";
const AFTER_BITE: &str = "kennel/after-bite";
const UPLINK: &str = "kennel/uplink";
const PROBE_IP_FAMILY: &str = "kennel/probe-ip-family";

/// Every annotation that is known, in the order that messages list them.
pub const KNOWN: [&str; 7] = [
    GUEST_SCRIPT,
    PRETIMEOUT,
    PRETIMEOUT_LEAD,
    SHUTDOWN_GRACE,
    AFTER_BITE,
    UPLINK,
    PROBE_IP_FAMILY,
];

const LONGEST_GRACE: Duration = Duration::from_secs(24 * 3600);
/// Longer than a quarter of any timeout.
const LONGEST_LEAD: Duration = Duration::from_secs(3600);

/// What a document has that annotations are about.
#[derive(Clone, Copy)]
pub(super) struct Has {
    pub(super) watchdog: bool,
    pub(super) network: bool,
    /// A probe that goes through it.
    pub(super) network_probe: bool,
}

/// The annotations that count: the instance's, then those of the machine around it.
pub(super) struct Annotations<'a> {
    maps: Vec<Cursor<'a>>,
}

impl<'a> Annotations<'a> {
    /// From metadata, the one that wins first.
    pub(super) fn new(metadata: impl IntoIterator<Item = Option<Cursor<'a>>>) -> Self {
        Self {
            maps: metadata
                .into_iter()
                .flatten()
                .filter_map(|at| at.get("annotations"))
                .collect(),
        }
    }

    fn get(&self, name: &str) -> Option<Cursor<'a>> {
        self.maps.iter().find_map(|map| map.get(name))
    }

    fn text(&self, name: &str) -> Option<(Cursor<'a>, &'a str)> {
        let at = self.get(name)?;
        let text = at.text()?;
        Some((at, text))
    }

    /// The instance's annotations, with the `kennel/…` ones that it has from the machine around it.
    pub(super) fn all(&self, instance: Option<&Cursor<'_>>) -> BTreeMap<String, String> {
        let mut all = metadata::strings(instance, "annotations");
        for name in KNOWN {
            if let Some((_, text)) = self.text(name) {
                all.insert(name.to_owned(), text.to_owned());
            }
        }
        all
    }

    /// Reports `kennel/…` annotations that nobody knows.
    pub(super) fn refuse_unknown(&self) {
        for (name, at) in self.maps.iter().flat_map(Cursor::named) {
            if !name.starts_with(PREFIX) || KNOWN.contains(&name) {
                continue;
            }
            let fault = Fault::new(format!("unknown annotation {}", quoted(name)))
                .allowed(KNOWN.join(", "));
            // Without the common prefix, which would make all of them look near.
            let bare = KNOWN
                .into_iter()
                .filter_map(|known| known.strip_prefix(PREFIX));
            at.refuse(
                match name
                    .strip_prefix(PREFIX)
                    .and_then(|name| nearest::among(name, bare))
                {
                    Some(near) => fault.hint(did_you_mean(&format!("{PREFIX}{near}"))),
                    None => fault,
                },
            );
        }
    }

    /// Notes annotations that do nothing in this document.
    pub(super) fn note_without_effect(&self, has: Has, source: &KernelSource) {
        let note = |name: &str, message: &str| {
            if let Some(at) = self.get(name) {
                at.note(NoteKind::NoEffect, message);
            }
        };
        if !has.network {
            note(UPLINK, "no effect without a network");
        }
        if !has.network_probe {
            let message = "no effect without an httpGet or tcpSocket probe";
            note(PROBE_IP_FAMILY, message);
        }
        if !has.watchdog {
            for name in [PRETIMEOUT, PRETIMEOUT_LEAD, SHUTDOWN_GRACE, AFTER_BITE] {
                note(name, "no effect without a watchdog");
            }
        }
        let none = PretimeoutAction::None.name();
        if has.watchdog && self.text(PRETIMEOUT).is_none_or(|(_, text)| text == none) {
            let message = "no effect without kennel/pretimeout: event or inject-nmi";
            note(PRETIMEOUT_LEAD, message);
        }
        if *source != KernelSource::Built {
            note(
                GUEST_SCRIPT,
                "no effect: only the built guest image kennel/guest runs it",
            );
        }
    }

    pub(super) fn guest_script(&self) -> Option<String> {
        let (_, text) = self.text(GUEST_SCRIPT)?;
        (!text.trim().is_empty()).then(|| text.to_owned())
    }

    pub(super) fn pretimeout(&self) -> PretimeoutAction {
        self.one_of(
            PRETIMEOUT,
            "pretimeout action",
            PretimeoutAction::ALL,
            PretimeoutAction::name,
        )
    }

    pub(super) fn pretimeout_lead(&self) -> Option<Duration> {
        let (at, text) = self.text(PRETIMEOUT_LEAD)?;
        match duration::parse(text, LONGEST_LEAD) {
            Ok(Duration::ZERO) => {
                let fault = Fault::new("a pretimeout that comes with the bite itself is none");
                at.refuse(fault.hint("write a longer lead, such as 2s, or leave it out"));
                None
            }
            Ok(lead) => Some(lead),
            Err(fault) => {
                at.refuse(fault);
                None
            }
        }
    }

    pub(super) fn after_bite(&self) -> AfterBite {
        self.one_of(AFTER_BITE, "policy", AfterBite::ALL, AfterBite::name)
    }

    pub(super) fn uplink(&self) -> UplinkWish {
        let Some((at, text)) = self.text(UPLINK) else {
            return UplinkWish::default();
        };
        UplinkWish::parse(text).unwrap_or_else(|fault| {
            at.refuse(fault);
            UplinkWish::default()
        })
    }

    /// Reports a TAP device that several machines would have to share.
    pub(super) fn refuse_shared_tap(&self) {
        let Some((at, text)) = self.text(UPLINK) else {
            return;
        };
        if let Ok(UplinkWish::Tap(name)) = UplinkWish::parse(text) {
            let fault = Fault::new(format!(
                "the replicas cannot share the TAP device {}: it is one machine's",
                quoted(&name)
            ));
            at.refuse(fault.hint("write passt or none, or replicas: 1"));
        }
    }

    pub(super) fn probe_ip_family(&self) -> IpFamily {
        let all = [IpFamily::Ipv4, IpFamily::Ipv6, IpFamily::Both];
        self.one_of(PROBE_IP_FAMILY, "IP family", all, |family| match family {
            IpFamily::Ipv4 => "IPv4",
            IpFamily::Ipv6 => "IPv6",
            IpFamily::Both => "both",
        })
    }

    pub(super) fn shutdown_grace(&self) -> Duration {
        let default = WatchdogConfig::default().shutdown_grace;
        let Some((at, text)) = self.text(SHUTDOWN_GRACE) else {
            return default;
        };
        duration::parse(text, LONGEST_GRACE).unwrap_or_else(|fault| {
            at.refuse(fault);
            default
        })
    }

    fn one_of<T: Copy + Default, const N: usize>(
        &self,
        name: &str,
        what: &str,
        all: [T; N],
        named: fn(T) -> &'static str,
    ) -> T {
        let Some((at, text)) = self.text(name) else {
            return T::default();
        };
        let known = all.into_iter();
        known
            .clone()
            .find(|value| named(*value) == text)
            .unwrap_or_else(|| {
                at.refuse(Fault::unknown(what, text, known.map(named)));
                T::default()
            })
    }
}

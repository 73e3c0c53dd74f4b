// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's network: where it leads to, and which of the guest's ports may be published.

use super::nearest;
use super::problem::{Fault, did_you_mean, quoted};

/// The guest's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Network {
    /// `kennel/uplink`.
    pub uplink: UplinkWish,
    /// The only TCP ports that may be published: those of the pod network's interface, if it lists
    /// any.
    pub ports: Option<Vec<u16>>,
}

/// What the document wants beyond the guest's own link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UplinkWish {
    /// It does not say: what this host has.
    #[default]
    Auto,
    /// Nothing.
    None,
    /// passt: what this user reaches.
    Passt,
    /// A TAP device of this name.
    Tap(String),
}

/// The longest name of a network interface: the kernel's `IFNAMSIZ` less its terminator.
const LONGEST_NAME: usize = 15;
const TAP: &str = "tap:";
const ALLOWED: &str = "passt, tap:NAME, none";

impl UplinkWish {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "passt" => Ok(Self::Passt),
            "none" => Ok(Self::None),
            _ => match text.strip_prefix(TAP) {
                Some(name) => interface(name).map(Self::Tap),
                None => Err(unknown(text)),
            },
        }
    }
}

fn unknown(text: &str) -> Fault {
    let fault = Fault::new(format!("unknown uplink {}", quoted(text))).allowed(ALLOWED);
    let (word, name) = text.split_once(':').unwrap_or((text, text));
    let means_tap = word.to_ascii_lowercase().starts_with("tap") && interface(name).is_ok();
    match nearest::among(text, ["passt", "none"].into_iter()) {
        Some(near) => fault.hint(did_you_mean(near)),
        None if means_tap => fault.hint(format!("write {TAP}{name}")),
        None => fault,
    }
}

/// A name that the kernel gives an interface as it stands: `%` would be replaced by a number.
fn interface(name: &str) -> Result<String, Fault> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
    if (1..=LONGEST_NAME).contains(&name.len())
        && !name.contains(odd)
        && !matches!(name, "." | "..")
    {
        return Ok(name.to_owned());
    }
    let fault = Fault::new(format!("{} is no name of an interface", quoted(name)));
    Err(fault
        .allowed(format!(
            "1 to {LONGEST_NAME} characters without spaces, /, : and %"
        ))
        .hint("write the TAP device's name, as in tap:tap0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uplinks() {
        let tap = |name: &str| Ok(UplinkWish::Tap(name.to_owned()));
        for (text, wish) in [
            ("passt", Ok(UplinkWish::Passt)),
            ("none", Ok(UplinkWish::None)),
            ("tap:tap0", tap("tap0")),
            ("tap:fifteen-letters", tap("fifteen-letters")),
        ] {
            assert_eq!(UplinkWish::parse(text), wish, "{text}");
        }
    }

    #[test]
    fn other_words_are_told_what_was_meant() {
        let fault = |text: &str| UplinkWish::parse(text).expect_err(text);
        for (text, hint) in [
            ("past", Some("did you mean \"passt\"?")),
            ("Passt", Some("did you mean \"passt\"?")),
            ("non", Some("did you mean \"none\"?")),
            ("tap0", Some("write tap:tap0")),
            ("TAP:lab", Some("write tap:lab")),
            ("bridge", None),
            ("", None),
        ] {
            let fault = fault(text);
            assert_eq!(fault.message, format!("unknown uplink {}", quoted(text)));
            assert_eq!(fault.allowed.as_deref(), Some(ALLOWED));
            assert_eq!(fault.hint.as_deref(), hint, "{text}");
        }
        for name in ["", "sixteen-letters-", "a b", "a/b", "a:b", "tap%d", ".."] {
            let fault = fault(&format!("tap:{name}"));
            let said = format!("{} is no name of an interface", quoted(name));
            assert_eq!(fault.message, said);
            assert!(fault.allowed.is_some() && fault.hint.is_some());
        }
    }
}

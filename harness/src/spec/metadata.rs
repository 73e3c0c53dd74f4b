// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Name, namespace, labels and annotations.

use std::collections::BTreeMap;

use super::problem::{Fault, quoted};
use super::walk::Cursor;

/// Who an object is.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) namespace: String,
}

/// Reads `metadata.name` and `metadata.namespace` and checks Kubernetes' rules for them.
pub(super) fn identity(document: &Cursor<'_>) -> Identity {
    let metadata = document.require("metadata", "write metadata with a name");
    let name = metadata
        .as_ref()
        .and_then(|at| at.require("name", "write a name, such as name: my-vm"));
    let namespace = metadata.as_ref().and_then(|at| at.get("namespace"));
    Identity {
        name: read(name.as_ref(), "name", NAME).unwrap_or_default(),
        namespace: read(namespace.as_ref(), "namespace", LABEL)
            .unwrap_or_else(|| "default".to_owned()),
    }
}

/// The map of strings under `key`.
pub(super) fn strings(metadata: Option<&Cursor<'_>>, key: &str) -> BTreeMap<String, String> {
    let Some(map) = metadata.and_then(|at| at.get(key)) else {
        return BTreeMap::new();
    };
    map.named()
        .filter_map(|(key, value)| Some((key.to_owned(), value.text()?.to_owned())))
        .collect()
}

/// Which names are taken.
#[derive(Clone, Copy)]
struct Rule {
    longest: usize,
    dots: bool,
    words: &'static str,
}

/// DNS-1123 subdomain: names of objects.
const NAME: Rule = Rule {
    longest: 253,
    dots: true,
    words: "lowercase letters, digits, - and ., beginning and ending with a letter or digit, at most 253",
};
/// DNS-1123 label: namespaces.
const LABEL: Rule = Rule {
    longest: 63,
    dots: false,
    words: "lowercase letters, digits and -, beginning and ending with a letter or digit, at most 63",
};

fn read(at: Option<&Cursor<'_>>, what: &str, rule: Rule) -> Option<String> {
    let at = at?;
    let text = at.text()?;
    if !rule.fits(text) {
        let mut fault =
            Fault::new(format!("{what} {} is not a DNS name", quoted(text))).allowed(rule.words);
        if let Some(better) = rule.nearest(text) {
            fault = fault.hint(format!("write {better}"));
        }
        at.refuse(fault);
    }
    Some(text.to_owned())
}

impl Rule {
    fn fits(self, text: &str) -> bool {
        let part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        text.len() <= self.longest
            && if self.dots {
                text.split('.').all(part)
            } else {
                part(text)
            }
    }

    /// The text with what is not allowed replaced, if that makes it fit.
    fn nearest(self, text: &str) -> Option<String> {
        let replaced: String = text
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || (c == '.' && self.dots) {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        let trimmed = replaced.trim_matches(['-', '.']).to_owned();
        self.fits(&trimmed).then_some(trimmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dns_1123() {
        let long = "x".repeat(254);
        let table = [
            (NAME, "vmi-fedora", true),
            (NAME, "lab.08", true),
            (NAME, "0", true),
            (NAME, "", false),
            (NAME, "My-VM", false),
            (NAME, "a_b", false),
            (NAME, "-a", false),
            (NAME, "a-", false),
            (NAME, "a..b", false),
            (NAME, "ä", false),
            (NAME, &long, false),
            (LABEL, "a.b", false),
            (LABEL, "default", true),
        ];
        for (rule, text, fits) in table {
            assert_eq!(rule.fits(text), fits, "{text}");
        }
        assert_eq!(NAME.nearest("My_VM").as_deref(), Some("my-vm"));
        assert_eq!(NAME.nearest("___"), None);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A cursor over a document, with typed getters, that knows its path and reports what is wrong.
//!
//! [`check`] compares the document's structure with the tables of [`super::keys`] once: unknown
//! and duplicate keys, types. The getters afterwards stay silent about types and give what fits.

use std::borrow::Cow;

use super::keys::{self, Key, Object, Shape, Use};
use super::nearest;
use super::node::{Content, Entry, Node};
use super::problem::{Fault, NoteKind, Place, Position, Report, did_you_mean, printable, quoted};
use super::scalar::{self, Scalar};

/// A value, the way to it, and where to report.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    node: &'a Node,
    key_at: Position,
    path: String,
    report: &'a Report,
}

impl<'a> Cursor<'a> {
    pub(super) fn root(node: &'a Node, report: &'a Report) -> Self {
        Self {
            node,
            key_at: node.at,
            path: String::new(),
            report,
        }
    }

    /// The place of the value's key.
    pub(super) fn key_place(&self) -> Place {
        Place {
            path: self.path.clone(),
            position: Some(self.key_at),
        }
    }

    /// The value's place, for later checks.
    pub(super) fn place(&self) -> Place {
        Place {
            path: self.path.clone(),
            position: Some(self.node.at),
        }
    }

    /// Where a key of this mapping would stand.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let position = self.entry(key).map_or(self.key_at, |entry| entry.key_at);
        Place {
            path: child_path(&self.path, key),
            position: Some(position),
        }
    }

    fn entries(&self) -> &'a [Entry] {
        match &self.node.content {
            Content::Mapping(entries) => entries,
            _ => &[],
        }
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    fn enter(&self, entry: &'a Entry) -> Self {
        let path = child_path(&self.path, &entry.key);
        Self {
            node: &entry.value,
            key_at: entry.key_at,
            path,
            report: self.report,
        }
    }

    /// The value under `key`; none when it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        self.entry(key)
            .filter(|entry| !entry.value.is_null())
            .map(|entry| self.enter(entry))
    }

    /// Whether `key` stands there without a value.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.value.is_null())
    }

    /// Whether a misspelt key stands for `key`.
    pub(super) fn is_misspelt(&self, key: &str) -> bool {
        self.report.is_misspelt(&child_path(&self.path, key))
    }

    /// Whether this value is a mapping.
    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.content, Content::Mapping(_))
    }

    /// Whether this value is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.content, Content::List(_))
    }

    /// [`Self::get`] several times.
    pub(super) fn descend(&self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self.clone(), |at, key| at.get(key))
    }

    /// The value under `key`, whose absence is a problem unless a misspelt key stands for it.
    pub(super) fn require(&self, key: &str, hint: &str) -> Option<Self> {
        let found = self.get(key);
        if found.is_none() && self.is_mapping() {
            self.missing(key, hint);
        }
        found
    }

    /// Reports that `key` is absent, unless a misspelt key stands for it.
    pub(super) fn missing(&self, key: &str, hint: &str) {
        if !self.is_misspelt(key) {
            self.report
                .problem(self.place_of(key), Fault::new("missing").hint(hint));
        }
    }

    /// The entries of a map with free names.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'a str, Self)> {
        let at = self.clone();
        self.entries()
            .iter()
            .map(move |entry| (entry.key.as_str(), at.enter(entry)))
    }

    /// The items of a list.
    pub(super) fn items(&self) -> impl Iterator<Item = Self> {
        let items: &'a [Node] = match &self.node.content {
            Content::List(items) => items,
            _ => &[],
        };
        let at = self.clone();
        items.iter().enumerate().map(move |(index, node)| Self {
            node,
            key_at: node.at,
            path: format!("{}[{index}]", at.path),
            report: at.report,
        })
    }

    /// A scalar as it is written, whatever its type.
    pub(super) fn scalar(&self) -> Option<&'a str> {
        match &self.node.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// A string.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.scalar()
            .filter(|_| self.node.scalar_value() == Some(Scalar::Text))
    }

    /// A string or number, as it reaches a cluster.
    pub(super) fn text_or_number(&self) -> Option<Cow<'a, str>> {
        match self.node.scalar_value()? {
            Scalar::Text => self.scalar().map(Cow::Borrowed),
            Scalar::Integer(number) => Some(Cow::Owned(number.to_string())),
            Scalar::Fraction(number) => Some(Cow::Owned(number.to_string())),
            Scalar::Null | Scalar::Flag(_) | Scalar::Unfit => None,
        }
    }

    /// A whole number, however large.
    pub(super) fn whole(&self) -> Option<i128> {
        match self.node.scalar_value()? {
            Scalar::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// A number from 0 up. Beyond 64 bits it is the largest number.
    pub(super) fn count(&self) -> Option<u64> {
        let number = self.whole().filter(|number| *number >= 0)?;
        Some(u64::try_from(number).unwrap_or(u64::MAX))
    }

    /// A number of either sign. Beyond 64 bits it is the number farthest from 0.
    pub(super) fn integer(&self) -> Option<i64> {
        let number = self.whole()?;
        let farthest = if number < 0 { i64::MIN } else { i64::MAX };
        Some(i64::try_from(number).unwrap_or(farthest))
    }

    /// True or false.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.node.scalar_value() {
            Some(Scalar::Flag(flag)) => Some(flag),
            _ => None,
        }
    }

    /// Reports a problem with this value.
    pub(super) fn refuse(&self, fault: Fault) {
        self.report.problem(self.place(), fault);
    }

    /// Reports a problem with what this value should hold, at its key.
    pub(super) fn refuse_whole(&self, fault: Fault) {
        self.report.problem(self.key_place(), fault);
    }

    /// Notes this value.
    pub(super) fn note(&self, kind: NoteKind, message: &str) {
        self.report.note(kind, message, self.key_place());
    }

    /// Notes that this is not attached.
    pub(super) fn note_not_attached(&self) {
        self.note(NoteKind::NotAttached, "not attached to the guest yet");
    }

    /// Notes that this is ignored.
    pub(super) fn note_no_use(&self) {
        self.note(NoteKind::NoUseHere, "of no use on this host, ignored");
    }

    /// Notes the absence of `key`.
    pub(super) fn note_missing(&self, key: &str, kind: NoteKind, message: &str) {
        self.report.note(kind, message, self.place_of(key));
    }

    fn kind_of_value(&self) -> String {
        match &self.node.content {
            Content::List(items) => format!("a list of {}", items.len()),
            Content::Mapping(_) => "a mapping".to_owned(),
            Content::Scalar { text, value } => match value {
                Scalar::Null => "empty".to_owned(),
                Scalar::Flag(_) => format!("the boolean {text}"),
                Scalar::Integer(_) | Scalar::Fraction(_) => {
                    format!("the number {}", quoted(text).trim_matches('"'))
                }
                Scalar::Text | Scalar::Unfit => format!("the text {}", quoted(text)),
            },
        }
    }

    /// Notes a number that a person may read as another one.
    fn note_number(&self) {
        if let (Some(text), Some(number)) = (self.scalar(), self.whole())
            && scalar::looks_otherwise(text, number)
        {
            let text = printable(text);
            let message = format!("{text} is read as {number}, as a cluster reads it");
            self.note(NoteKind::Doubtful, &message);
        }
    }
}

/// Checks that the root is an object of this kind and everything below it fits the tables.
pub(super) fn check(at: &Cursor<'_>, object: &'static Object) {
    check_tree(at);
    check_object(at, object, object, None);
}

/// Whether the node is a mapping; says so when it is not.
pub(super) fn check_mapping(at: &Cursor<'_>, what: &str, advice: Option<&str>) -> bool {
    if at.is_mapping() {
        return true;
    }
    let mut fault = Fault::new(format!(
        "{what} must be a mapping of keys and values, is {}",
        at.kind_of_value()
    ));
    if let Some(advice) = advice {
        fault = fault.hint(advice);
    }
    at.refuse(fault);
    false
}

fn check_object(
    at: &Cursor<'_>,
    object: &'static Object,
    root: &'static Object,
    advice: Option<&str>,
) {
    if !check_mapping(at, object.kind, advice) {
        return;
    }
    for entry in at.entries() {
        let child = at.enter(entry);
        match object.keys.iter().find(|key| key.name == entry.key) {
            Some(key) => check_key(&child, key, root),
            None => unknown_key(at, &child, entry, object, root),
        }
    }
}

fn check_key(at: &Cursor<'_>, key: &'static Key, root: &'static Object) {
    // Null is the same as absent, for Kubernetes and here.
    if at.node.is_null() {
        return;
    }
    match key.usage {
        Use::Honoured => {}
        Use::NotAttached => at.note_not_attached(),
        Use::NoUseHere => at.note_no_use(),
    }
    check_shape(at, &key.shape, root, key.advice);
}

fn check_shape(
    at: &Cursor<'_>,
    shape: &'static Shape,
    root: &'static Object,
    advice: Option<&str>,
) {
    let fits = match shape {
        Shape::Opaque => true,
        Shape::Object(object) => return check_object(at, object, root, advice),
        Shape::List(item) => {
            at.items().for_each(|at| check_shape(&at, item, root, None));
            at.is_list()
        }
        Shape::Strings => return check_strings(at),
        Shape::Text => at.text().is_some(),
        Shape::Flag => at.flag().is_some(),
        Shape::Count => at.count().is_some(),
        Shape::Integer => at.integer().is_some(),
        Shape::IntegerOrText => at.integer().is_some() || at.text().is_some(),
        Shape::Quantity => at.text_or_number().is_some(),
    };
    if !fits {
        mismatch(at, shape, advice);
    } else if !matches!(shape, Shape::Opaque) {
        at.note_number();
    }
}

fn check_strings(at: &Cursor<'_>) {
    if check_mapping(at, at.path.rsplit('.').next().unwrap_or_default(), None) {
        for (_, value) in at.named().filter(|(_, value)| value.text().is_none()) {
            mismatch(&value, &Shape::Text, None);
        }
    }
}

fn mismatch(at: &Cursor<'_>, shape: &Shape, advice: Option<&str>) {
    let mut fault = Fault::new(format!(
        "must be {}, is {}",
        shape.name(),
        at.kind_of_value()
    ));
    let quotes = match (shape, at.scalar()) {
        (Shape::Text, Some(text)) => Some(format!("write it in quotes: \"{}\"", printable(text))),
        (Shape::Count | Shape::Integer | Shape::Flag, Some(text)) => {
            let seconds = at.path.ends_with("Seconds");
            let seconds = seconds.then(|| seconds_in(text)).flatten();
            let seconds = seconds.map(|number| format!("write {number}: the unit is seconds"));
            unquoted(shape, text)
                .map(|value| format!("write {value} without quotes"))
                .or(seconds)
        }
        _ => None,
    };
    if let Some(hint) = advice.map(str::to_owned).or(quotes) {
        fault = fault.hint(hint);
    }
    at.refuse(fault);
}

/// How many seconds a duration such as 20s or 2m is.
fn seconds_in(text: &str) -> Option<u64> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// What to write for a value in quotes, which would fit without them.
fn unquoted(shape: &Shape, text: &str) -> Option<String> {
    match shape {
        // Read as a person reads it: 010 is ten here.
        Shape::Count => text.parse::<u64>().ok().map(|number| number.to_string()),
        Shape::Integer => text.parse::<i64>().ok().map(|number| number.to_string()),
        _ => match scalar::resolve_plain(text) {
            Scalar::Flag(flag) => Some(flag.to_string()),
            _ => None,
        },
    }
}

fn unknown_key(
    at: &Cursor<'_>,
    child: &Cursor<'_>,
    entry: &Entry,
    object: &Object,
    root: &'static Object,
) {
    let mut fault = Fault::new(format!(
        "unknown key {} in {}",
        quoted(&entry.key),
        object.kind
    ));
    if let Some(advice) = keys::stranger(object, &entry.key) {
        at.report.misspelt(child.path.clone());
        fault = fault.hint(advice);
    } else if let Some(near) = nearest::among(&entry.key, object.keys.iter().map(|key| key.name)) {
        at.report.misspelt(child_path(&at.path, near));
        fault = fault.hint(did_you_mean(near));
    } else if entry.key == "<<" {
        fault = fault.hint("merge keys are not taken: write the keys out");
    } else if let Some(home) = root.home_of(&entry.key, &at.path) {
        fault = fault.hint(format!("it belongs at {home}"));
    } else if object.keys.is_empty() {
        fault = fault.hint("it has no keys: write {}");
    } else {
        fault = fault.allowed(
            object
                .keys
                .iter()
                .map(|key| key.name)
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    at.report.problem(
        Place {
            path: child.path.clone(),
            position: Some(entry.key_at),
        },
        fault,
    );
}

/// Reports, everywhere below, keys that stand twice in one mapping, keys that are no texts, and
/// values that kubectl would refuse.
fn check_tree(at: &Cursor<'_>) {
    if at.node.scalar_value() == Some(Scalar::Unfit) {
        refuse_unfit(at);
    }
    let mut seen = std::collections::HashMap::new();
    for entry in at.entries() {
        let child = at.enter(entry);
        check_tree(&child);
        let refuse = |fault| {
            let place = Place {
                path: child.path.clone(),
                position: Some(entry.key_at),
            };
            at.report.problem(place, fault);
        };
        if let Some(fault) = key_fault(entry) {
            refuse(fault);
        }
        if let Some(first) = seen.insert(entry.key.as_str(), entry.key_at.line) {
            let fault = Fault::new(format!(
                "key {} is given twice, first on line {first}",
                quoted(&entry.key)
            ));
            refuse(fault.hint("keep one of them"));
        }
    }
    at.items().for_each(|item| check_tree(&item));
}

fn refuse_unfit(at: &Cursor<'_>) {
    let text = at.scalar().unwrap_or_default();
    let fault = match scalar::resolve_plain(text) {
        Scalar::Unfit => Fault::new(format!("{} is no number for Kubernetes", printable(text))),
        _ => Fault::new(format!("{} does not fit its tag", quoted(text))),
    };
    let hint = format!(
        "write a number, or the text in quotes without a tag: \"{}\"",
        printable(text)
    );
    at.refuse(fault.hint(hint));
}

/// What is wrong with a key that is no text: for Kubernetes it is another text than it looks.
fn key_fault(entry: &Entry) -> Option<Fault> {
    let key = &entry.key;
    let (what, meant) = match entry.key_value {
        Scalar::Text => return None,
        Scalar::Flag(flag) => ("a boolean", flag.to_string()),
        Scalar::Integer(number) => ("a number", number.to_string()),
        Scalar::Null => ("empty", String::new()),
        Scalar::Fraction(_) | Scalar::Unfit => ("a number", String::new()),
    };
    if *key == meant && !key.is_empty() {
        return None;
    }
    let fault = Fault::new(format!("the key {} is {what}, not a text", quoted(key)));
    let meant = if meant.is_empty() {
        String::new()
    } else {
        format!(", or {meant}, which a cluster would read")
    };
    Some(fault.hint(format!("write it in quotes: \"{}\"{meant}", printable(key))))
}

fn child_path(path: &str, key: &str) -> String {
    let simple = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    match (path, simple) {
        ("", _) => printable(key),
        (_, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{}]", printable(key)),
    }
}

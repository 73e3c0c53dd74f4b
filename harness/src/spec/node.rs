// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A YAML document as a tree that knows the line and column of each key and value.
//!
//! Built from the parser's events, within budgets: no text makes it deep or large.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span};

use super::problem::{Fault, Position};
use super::scalar::{self, Scalar};

/// Longest document taken, in bytes: more than a cluster's store would take.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting, aliases expanded.
const MAX_DEPTH: usize = 64;
/// Nodes plus bytes of their texts, aliases expanded.
const MAX_WEIGHT: usize = 4 << 20;
/// Where YAML's own tags are: `!!int` is `tag:yaml.org,2002:int`.
const YAML_TAGS: &str = "tag:yaml.org,2002:";

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A text as it is written, and what it means.
    Scalar {
        text: String,
        value: Scalar,
    },
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// What the key means; a mapping's keys are texts.
    pub(super) key_value: Scalar,
    pub(super) key_at: Position,
    pub(super) value: Node,
}

impl Node {
    /// What the scalar means; none for lists and mappings.
    pub(super) fn scalar_value(&self) -> Option<Scalar> {
        match self.content {
            Content::Scalar { value, .. } => Some(value),
            Content::List(_) | Content::Mapping(_) => None,
        }
    }

    /// `key:` without a value, `~` or `null`: the same as leaving the key out.
    pub(super) fn is_null(&self) -> bool {
        self.scalar_value() == Some(Scalar::Null)
    }
}

/// A fault in the text itself, and where.
pub(super) type Malformed = (Option<Position>, Fault);

/// Reads the one document in `text`.
///
/// # Errors
/// Malformed YAML, no document, more than one, or one beyond the budgets.
pub(super) fn read(text: &str) -> Result<Node, Malformed> {
    if text.len() > MAX_BYTES {
        let fault = Fault::new(format!("the document has {} bytes", text.len()))
            .allowed(format!("at most {MAX_BYTES} bytes"));
        return Err((None, fault));
    }
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| malformed(text, &error))?;
        builder.take(event, span)?;
    }
    builder.finish()
}

fn position(span: Span) -> Position {
    Position {
        line: span.start.line(),
        column: span.start.col().saturating_add(1),
    }
}

fn malformed(text: &str, error: &ScanError) -> Malformed {
    let marker = error.marker();
    let at = Position {
        line: marker.line(),
        column: marker.col().saturating_add(1),
    };
    let line = text
        .lines()
        .nth(at.line.saturating_sub(1))
        .unwrap_or_default();
    let mut fault = Fault::new(format!(
        "malformed YAML: {} (column {})",
        error.info(),
        at.column
    ));
    if let Some(hint) = advice(error.kind(), text, line) {
        fault = fault.hint(hint);
    }
    (Some(at), fault)
}

fn advice(kind: &ErrorKind, text: &str, line: &str) -> Option<String> {
    if line.contains("{{") {
        return Some(
            "the line still has a template placeholder `{{…}}`: fill it in first".to_owned(),
        );
    }
    if matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart
    ) || line.trim_start_matches(' ').starts_with('\t')
    {
        return Some("YAML is indented with spaces: replace the tab".to_owned());
    }
    lost_indentation(text).then(|| LOST_INDENTATION.to_owned())
}

/// What is said of a document that [`lost_indentation`].
pub(super) const LOST_INDENTATION: &str =
    "no line is indented: the document has lost its indentation";

/// Whether a document of several lines looks as if it had been copied without its leading spaces:
/// no line has any, though a line ends in a key whose value should stand below it.
pub(super) fn lost_indentation(text: &str) -> bool {
    let lines = text.lines().filter(|line| !line.is_empty());
    let opens = |line: &str| line.trim_end().ends_with(':') && !line.starts_with('#');
    lines.clone().count() > 3
        && lines.clone().any(opens)
        && !lines.clone().any(|line| line.starts_with([' ', '\t']))
}

/// A list or mapping that is still open.
struct Frame {
    at: Position,
    anchor: usize,
    /// Of the deepest child, counted from this frame.
    depth: usize,
    weight: usize,
    open: Open,
}

enum Open {
    List(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        key: Option<(String, Scalar, Position)>,
    },
}

/// What an alias stands for.
struct Anchored {
    node: Node,
    depth: usize,
    weight: usize,
}

#[derive(Default)]
struct Builder {
    frames: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    weight: usize,
    root: Option<Node>,
    document_at: Option<Position>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Malformed> {
        let at = position(span);
        match event {
            Event::DocumentStart(..) => self.document_at = Some(at),
            Event::DocumentEnd => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref();
                let name = tag.and_then(|tag| tag.suffix_in_namespace(YAML_TAGS));
                let tag = match (tag, &name) {
                    (None, _) => scalar::Tag::None,
                    (Some(_), Some(name)) => scalar::Tag::Core(name),
                    (Some(_), None) => scalar::Tag::Local,
                };
                let weight = text.len().saturating_add(1);
                let value = scalar::resolve(&text, style == ScalarStyle::Plain, tag);
                let node = Node {
                    at,
                    content: Content::Scalar {
                        text: text.into_owned(),
                        value,
                    },
                };
                self.complete(node, anchor, 0, weight, at)?;
            }
            Event::SequenceStart(_, anchor, _) => self.open(at, anchor, Open::List(Vec::new()))?,
            Event::MappingStart(_, anchor, _) => self.open(
                at,
                anchor,
                Open::Mapping {
                    entries: Vec::new(),
                    key: None,
                },
            )?,
            Event::SequenceEnd | Event::MappingEnd => self.close(at)?,
            Event::Alias(anchor) => self.alias(anchor, at)?,
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, at: Position, anchor: usize, open: Open) -> Result<(), Malformed> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.frames.push(Frame {
            at,
            anchor,
            depth: 0,
            weight: 1,
            open,
        });
        Ok(())
    }

    fn close(&mut self, end: Position) -> Result<(), Malformed> {
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        let content = match frame.open {
            Open::List(items) => Content::List(items),
            Open::Mapping { entries, .. } => Content::Mapping(entries),
        };
        let node = Node {
            at: frame.at,
            content,
        };
        self.complete(node, frame.anchor, frame.depth, frame.weight, end)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Malformed> {
        let Some(target) = self.anchors.get(&anchor) else {
            return Err((
                Some(at),
                Fault::new("an alias stands inside its own anchor").hint("write the value out"),
            ));
        };
        let (depth, weight) = (target.depth, target.weight);
        if self.frames.len().saturating_add(depth) >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        spend(&mut self.weight, weight, at)?;
        // Positions stay those of the anchor: that is the text to correct.
        let node = target.node.clone();
        self.complete(node, 0, depth, weight, at)
    }

    /// Hands a finished node to what is open around it.
    fn complete(
        &mut self,
        node: Node,
        anchor: usize,
        depth: usize,
        weight: usize,
        at: Position,
    ) -> Result<(), Malformed> {
        spend(&mut self.weight, 1, at)?;
        if anchor != 0 {
            spend(&mut self.weight, weight, at)?;
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    depth,
                    weight,
                },
            );
        }
        let Some(frame) = self.frames.last_mut() else {
            return self.complete_document(node);
        };
        frame.depth = frame.depth.max(depth.saturating_add(1));
        frame.weight = frame.weight.saturating_add(weight);
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Mapping { entries, key } => {
                match key.take() {
                    Some((key, key_value, key_at)) => entries.push(Entry {
                        key,
                        key_value,
                        key_at,
                        value: node,
                    }),
                    None => {
                        match node.content {
                            Content::Scalar { text, value } => {
                                *key = Some((text, value, node.at));
                            }
                            Content::List(_) | Content::Mapping(_) => {
                                let fault =
                                    Fault::new("a list or mapping stands where a key should be")
                                        .allowed("a word as key");
                                return Err((Some(node.at), fault.hint("if this is a template placeholder `{{…}}`, fill it in first")));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn complete_document(&mut self, node: Node) -> Result<(), Malformed> {
        if node.is_null() {
            return Ok(());
        }
        if self.root.is_some() {
            let fault =
                Fault::new("a second document begins here").allowed("one document in a file");
            return Err((
                self.document_at,
                fault.hint("put each document into a file of its own"),
            ));
        }
        self.root = Some(node);
        Ok(())
    }

    fn finish(self) -> Result<Node, Malformed> {
        self.root.ok_or_else(|| {
            let fault = Fault::new("the file holds no document");
            (
                None,
                fault.allowed(
                    "one VirtualMachineInstance, VirtualMachine or VirtualMachineInstanceReplicaSet",
                ),
            )
        })
    }
}

fn too_deep(at: Position) -> Malformed {
    (
        Some(at),
        Fault::new("the document is nested too deeply")
            .allowed(format!("at most {MAX_DEPTH} levels")),
    )
}

/// Counts what a node costs.
fn spend(total: &mut usize, weight: usize, at: Position) -> Result<(), Malformed> {
    *total = total.saturating_add(weight);
    if *total <= MAX_WEIGHT {
        return Ok(());
    }
    let fault = Fault::new("the document grows too large when its aliases are expanded")
        .hint("use fewer aliases");
    Err((Some(at), fault))
}

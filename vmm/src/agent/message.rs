// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests and replies: taken apart without building what is inside them, and written.
//!
//! Words of the protocol: `execute`, `arguments` and `id` in a request, `return` or `error` and
//! `id` in a reply; an error has `class` and `desc` (QEMU's documentation of its machine protocol).

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The class of errors that have none of their own.
pub const GENERIC: &str = "GenericError";

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The command.
    pub execute: String,
    /// Its arguments, an object, as they were written.
    pub arguments: Option<Box<RawValue>>,
    /// The client's own tag, any JSON value.
    pub id: Option<Box<RawValue>>,
}

/// A request that no agent could carry out, and what to answer.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// What is wrong with it.
    pub desc: String,
    /// The client's own tag, if that much could be read.
    pub id: Option<Box<RawValue>>,
}

/// What an agent answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The return value, or the error, as it was written.
    pub result: Result<Box<RawValue>, Box<RawValue>>,
    /// The tag of the request.
    pub id: Option<Box<RawValue>>,
}

/// The parts of an error that a program looks at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct ErrorParts {
    /// QEMU's class of error, as in `CommandNotFound`.
    #[serde(default)]
    pub class: String,
    /// The sentence.
    #[serde(default)]
    pub desc: String,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// What a client is to be told if it is none.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let members: Members<'_> =
            serde_json::from_slice(text).map_err(|error| Malformed::new(not_json(&error)))?;
        let id = members.id.map(ToOwned::to_owned);
        let refuse = |desc: String| {
            Err(Malformed {
                desc,
                id: id.clone(),
            })
        };
        let answered = members.result.or(members.error);
        let other = members.other.or(answered.map(|_| "return".into()));
        if let Some(name) = other {
            return refuse(format!("a request has no member \"{name}\""));
        }
        let Some(execute) = members.execute else {
            return refuse("a request must have a member \"execute\"".into());
        };
        let Ok(execute) = serde_json::from_str::<String>(execute.get()) else {
            return refuse("\"execute\" must be a string".into());
        };
        let arguments = members.arguments.map(ToOwned::to_owned);
        if arguments.as_ref().is_some_and(|raw| !is_object(raw)) {
            return refuse("\"arguments\" must be an object".into());
        }
        Ok(Self {
            execute,
            arguments,
            id,
        })
    }

    /// Bytes it takes in memory, near enough.
    #[must_use]
    pub fn size(&self) -> usize {
        let raw = |value: &Option<Box<RawValue>>| value.as_ref().map_or(0, |raw| raw.get().len());
        self.execute
            .len()
            .saturating_add(raw(&self.arguments))
            .saturating_add(raw(&self.id))
    }
}

impl Malformed {
    fn new(desc: String) -> Self {
        Self { desc, id: None }
    }
}

impl Reply {
    /// Reads a reply; none if the text is no reply.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let members: Members<'_> = serde_json::from_slice(text).ok()?;
        let result = match (members.result, members.error) {
            (Some(value), None) => Ok(value.to_owned()),
            (None, Some(error)) => Err(error.to_owned()),
            _ => return None,
        };
        let id = members.id.map(ToOwned::to_owned);
        Some(Self { result, id })
    }

    /// An error of our own making.
    #[must_use]
    pub fn error(desc: &str) -> Self {
        let parts = serde_json::json!({"class": GENERIC, "desc": desc});
        let raw = serde_json::value::to_raw_value(&parts).unwrap_or_default();
        Self {
            result: Err(raw),
            id: None,
        }
    }

    /// The reply as a line, with this tag.
    #[must_use]
    pub fn line(&self, id: Option<&RawValue>) -> Vec<u8> {
        let (word, body) = match &self.result {
            Ok(value) => ("return", value),
            Err(error) => ("error", error),
        };
        let id_size = id.map_or(0, |raw| raw.get().len());
        let size = body.get().len().saturating_add(id_size).saturating_add(32);
        let mut line = String::with_capacity(size);
        line.extend(["{\"", word, "\": ", &one_line(body.get())]);
        if let Some(id) = id {
            line.extend([", \"id\": ", &one_line(id.get())]);
        }
        line.push_str("}\n");
        line.into_bytes()
    }

    /// The tag, if it is a number such as we give.
    #[must_use]
    pub fn tag(&self) -> Option<u64> {
        self.id.as_ref()?.get().parse().ok()
    }

    /// The return value, if it is a number as a sync's is.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.result.as_ref().ok()?.get().parse().ok()
    }

    /// Class and sentence of an error.
    #[must_use]
    pub fn error_parts(&self) -> Option<ErrorParts> {
        let raw = self.result.as_ref().err()?;
        Some(
            serde_json::from_str(raw.get()).unwrap_or_else(|_| ErrorParts {
                class: GENERIC.into(),
                desc: raw.get().into(),
            }),
        )
    }
}

/// The commands that qemu-ga does not answer if they succeed.
#[must_use]
pub fn is_silent(execute: &str) -> bool {
    matches!(
        execute,
        "guest-shutdown" | "guest-suspend-disk" | "guest-suspend-ram" | "guest-suspend-hybrid"
    )
}

/// Both commands by which a client gets in step with its agent.
#[must_use]
pub fn is_sync(execute: &str) -> bool {
    matches!(execute, "guest-sync" | "guest-sync-delimited")
}

/// A request as a line.
#[must_use]
pub fn request_line(execute: &str, arguments: Option<&str>, tag: Option<u64>) -> Vec<u8> {
    let name = serde_json::Value::from(execute).to_string();
    let size = arguments
        .map_or(0, str::len)
        .saturating_add(name.len())
        .saturating_add(64);
    let mut line = String::with_capacity(size);
    line.extend(["{\"execute\": ", &name]);
    if let Some(arguments) = arguments {
        line.extend([", \"arguments\": ", &one_line(arguments)]);
    }
    if let Some(tag) = tag {
        line.extend([", \"id\": ", &tag.to_string()]);
    }
    line.push_str("}\n");
    line.into_bytes()
}

/// A line is a line: white space between JSON tokens is all that newlines can be.
fn one_line(json: &str) -> Cow<'_, str> {
    // Block by block without an early end: answers are long, and newlines in them rare.
    let breaks = |block: &[u8]| {
        let found = |found, &byte| found | (byte == b'\n') | (byte == b'\r');
        block.iter().fold(false, found)
    };
    if json.as_bytes().chunks(4096).any(breaks) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

fn not_json(error: &serde_json::Error) -> String {
    if error.is_data() {
        error.to_string()
    } else {
        format!("JSON parse error, {error}")
    }
}

/// The members of a request or reply, each as it was written.
#[derive(Default)]
struct Members<'a> {
    execute: Option<&'a RawValue>,
    arguments: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    other: Option<Cow<'a, str>>,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                while let Some(name) = map.next_key::<String>()? {
                    let value: &RawValue = map.next_value()?;
                    let place = match name.as_str() {
                        "execute" => &mut members.execute,
                        "arguments" => &mut members.arguments,
                        "return" => &mut members.result,
                        "error" => &mut members.error,
                        "id" => &mut members.id,
                        _ => {
                            members.other = Some(Cow::Owned(name));
                            continue;
                        }
                    };
                    if place.replace(value).is_some() {
                        return Err(de::Error::custom(format_args!("\"{name}\" is there twice")));
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The other side of the protocol, by hand.

use kennel_vmm::agent::framing::{Frame, Framer, Limits};
use serde_json::{Value, json};

/// Reads requests, and answers what every agent answers alike.
#[derive(Debug)]
pub(super) struct Peer {
    framer: Framer,
}

impl Peer {
    pub(super) fn new() -> Self {
        Self {
            framer: Framer::new(Limits::FROM_CLIENT),
        }
    }

    /// The requests in these bytes.
    pub(super) fn requests(&mut self, mut bytes: &[u8]) -> Vec<Value> {
        let mut requests = Vec::new();
        while let Some(frame) = self.framer.next(&mut bytes) {
            if let Frame::Object { bytes, .. } = frame {
                requests.push(serde_json::from_slice(&bytes).unwrap());
            }
        }
        requests
    }
}

/// What an agent says to a sync that came with its 0xFF.
pub(super) fn sync_reply(sync: &Value) -> Vec<u8> {
    let mut bytes = error(&Value::Null, "stray");
    bytes.extend(plain_sync_reply(sync));
    bytes
}

/// What it says to one that came without.
pub(super) fn plain_sync_reply(sync: &Value) -> Vec<u8> {
    assert_eq!(sync["execute"], "guest-sync-delimited", "{sync}");
    let mut bytes = vec![0xff];
    bytes.extend(reply(sync, &sync["arguments"]["id"]));
    bytes
}

pub(super) fn reply(request: &Value, value: &Value) -> Vec<u8> {
    line(&json!({"return": value, "id": request["id"]}))
}

pub(super) fn error(request: &Value, desc: &str) -> Vec<u8> {
    let error = json!({"class": "GenericError", "desc": desc});
    line(&json!({"error": error, "id": request["id"]}))
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

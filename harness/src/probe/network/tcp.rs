// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `tcpSocket`: a connection is accepted. Nothing is said over it.

use super::door::Door;
use super::{Limit, Outcome};

/// One attempt at `port` of the host called `name`.
pub(super) fn attempt(name: &str, port: u16, door: &Door<'_>, limit: Limit) -> Outcome {
    match door.connect(port, limit) {
        Ok(wire) => {
            drop(wire);
            Outcome::Success
        }
        Err(trouble) => trouble.at(&format!("dial tcp {name}:{port}")).into(),
    }
}

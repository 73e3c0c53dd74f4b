// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looks names up, and leaves a lookup that takes too long to itself.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use super::{Limit, Trouble};
use crate::socket::cause;

type Found = io::Result<Vec<SocketAddr>>;

/// Looks one name up, over and over.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// A lookup that the last attempt has not waited for. There is never a second one beside it.
    pending: Option<Receiver<Found>>,
}

impl Resolver {
    /// The addresses of `name`, with the interfaces that it names, without a port.
    pub(super) fn resolve(&mut self, name: &str, limit: Limit) -> Result<Vec<SocketAddr>, Trouble> {
        let begun = match self.pending.take() {
            Some(pending) => Ok(pending),
            None => begin(name.to_owned()),
        };
        let pending = begun.map_err(|error| {
            Trouble::Untold(format!("no thread to look up {name:?}: {}", cause(&error)))
        })?;
        let failed = |why: String| Trouble::Failed(format!("lookup of {name:?}: {why}"));
        match pending.recv_timeout(limit.left()) {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(failed("no address".to_owned())),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(failed(cause(&error))),
            Err(RecvTimeoutError::Timeout) => {
                self.pending = Some(pending);
                Err(failed(format!("no answer within {}", limit.seconds())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Trouble::Untold(format!(
                "the lookup of {name:?} ended early"
            ))),
        }
    }
}

fn begin(name: String) -> io::Result<Receiver<Found>> {
    let (sender, receiver) = mpsc::channel();
    let look_up = move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let found = found.map(Iterator::collect);
        // Nobody waits for it any more.
        let _heard = sender.send(found);
    };
    thread::Builder::new()
        .name("probe-lookup".into())
        .spawn(look_up)?;
    Ok(receiver)
}

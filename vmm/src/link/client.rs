// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a dial's client does and is told, once the guest has accepted.

use super::dial::{Dial, Phase, is_over};
use super::dials::{Around, DialId, Dials};
use super::{LinkEvent, Received};

/// How long a connection that its client has left may take to end, before it is broken off.
pub(super) const LINGER: u64 = 1_000_000_000;

impl Dials {
    pub(super) fn send(&mut self, id: DialId, bytes: &[u8]) -> usize {
        let Some(dial) = self.dials.get_mut(&id) else {
            return 0;
        };
        let Phase::Open { connection, .. } = &mut dial.phase else {
            return 0;
        };
        let taken = connection.socket_mut().send_slice(bytes).unwrap_or(0);
        dial.wants_room = taken < bytes.len();
        self.ready.insert(id);
        taken
    }

    pub(super) fn receive(&mut self, id: DialId, buffer: &mut [u8]) -> Received {
        let Some(dial) = self.dials.get_mut(&id) else {
            return Received::Finished;
        };
        let connection = match &mut dial.phase {
            Phase::Resolving | Phase::Connecting { .. } => return Received::Nothing,
            Phase::Closing { .. } => return Received::Finished,
            Phase::Open { connection, .. } => connection,
        };
        if buffer.is_empty() {
            return Received::Nothing;
        }
        match connection.socket_mut().recv_slice(buffer) {
            Ok(0) => {
                dial.told = false;
                Received::Nothing
            }
            Ok(count) => {
                self.ready.insert(id);
                Received::Bytes(count)
            }
            Err(_) => {
                dial.knows_end = true;
                self.ready.insert(id);
                Received::Finished
            }
        }
    }

    pub(super) fn finish(&mut self, id: DialId) {
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.finished = true;
            if let Phase::Open { connection, .. } = &mut dial.phase {
                connection.socket_mut().close();
                self.ready.insert(id);
            }
        }
    }

    pub(super) fn close(&mut self, around: &mut Around<'_>, id: DialId) {
        let Some(dial) = self.dials.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut dial.phase, Phase::Resolving) {
            Phase::Open {
                mut connection,
                from,
            } => {
                connection.socket_mut().close();
                dial.phase = Phase::Closing {
                    connection,
                    from,
                    until: around.now.saturating_add(LINGER),
                };
                self.ready.insert(id);
            }
            closing @ Phase::Closing { .. } => dial.phase = closing,
            waiting => {
                dial.phase = waiting;
                self.break_off(around, id);
            }
        }
    }
}

/// What the client of an open connection may want to know. Whether the connection is over, and the
/// client knows that nothing more comes.
pub(super) fn tell(dial: &mut Dial, id: DialId, events: &mut Vec<LinkEvent>) -> bool {
    let Phase::Open { connection, .. } = &dial.phase else {
        return false;
    };
    let socket = connection.socket();
    if !dial.told && (socket.can_recv() || !socket.may_recv()) {
        dial.told = true;
        events.push(LinkEvent::Readable(id));
    }
    if dial.wants_room && socket.can_send() {
        dial.wants_room = false;
        events.push(LinkEvent::Writable(id));
    }
    is_over(socket.state()) && dial.knows_end
}

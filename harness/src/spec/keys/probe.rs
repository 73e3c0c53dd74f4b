// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Probe and its handlers.

use super::{Object, Shape, advised, inner};

pub(super) static PROBE: Object = Object {
    kind: "Probe",
    keys: &[
        advised(
            "exec",
            Shape::Object(&EXEC),
            "write its command below it, as in command: [cat, /tmp/healthy]",
        ),
        advised(
            "guestAgentPing",
            Shape::Object(&GUEST_AGENT_PING),
            "write guestAgentPing: {}",
        ),
        inner("httpGet", Shape::Object(&HTTP_GET)),
        inner("tcpSocket", Shape::Object(&TCP_SOCKET)),
        inner("initialDelaySeconds", Shape::Integer),
        inner("timeoutSeconds", Shape::Integer),
        inner("periodSeconds", Shape::Integer),
        inner("successThreshold", Shape::Integer),
        inner("failureThreshold", Shape::Integer),
    ],
};

static EXEC: Object = Object {
    kind: "ExecAction",
    keys: &[advised(
        "command",
        Shape::List(&Shape::Text),
        "write a list, as in [cat, /tmp/healthy]; there is no shell",
    )],
};

static GUEST_AGENT_PING: Object = Object {
    kind: "GuestAgentPing",
    keys: &[],
};

static HTTP_GET: Object = Object {
    kind: "HTTPGetAction",
    keys: &[
        inner("port", Shape::IntegerOrText),
        inner("path", Shape::Text),
        inner("host", Shape::Text),
        inner("scheme", Shape::Text),
        inner("httpHeaders", Shape::List(&Shape::Object(&HTTP_HEADER))),
    ],
};

static HTTP_HEADER: Object = Object {
    kind: "HTTPHeader",
    keys: &[inner("name", Shape::Text), inner("value", Shape::Text)],
};

static TCP_SOCKET: Object = Object {
    kind: "TCPSocketAction",
    keys: &[
        inner("port", Shape::IntegerOrText),
        inner("host", Shape::Text),
    ],
};

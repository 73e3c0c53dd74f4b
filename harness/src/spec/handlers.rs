// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a probe asks: exec, guestAgentPing, httpGet, tcpSocket.

use super::NoteKind;
use super::hosts;
use super::ports::GuestNetwork;
use super::probe::{Handler, HttpGet, TcpSocket, VIRT_PROBE};
use super::problem::{Fault, quoted};
use super::walk::Cursor;

/// The handlers' keys, in the order that messages list them.
const KEYS: [&str; 4] = ["exec", "guestAgentPing", "httpGet", "tcpSocket"];
/// The handlers that go through the network.
const BY_NETWORK: [&str; 2] = ["httpGet", "tcpSocket"];

/// The one handler of `probe`. None when there is none, several, or one at fault, which is reported.
pub(super) fn handler(probe: &Cursor<'_>, network: &GuestNetwork<'_>) -> Option<Handler> {
    let given: Vec<_> = KEYS
        .into_iter()
        .filter_map(|key| Some((key, probe.get(key)?)))
        .collect();
    let read: Vec<_> = given
        .iter()
        .map(|(key, at)| read(key, at, network))
        .collect();
    match <[Option<Handler>; 1]>::try_from(read) {
        Ok([handler]) => return handler,
        Err(none) if none.is_empty() => refuse_none(probe),
        Err(_) => {
            let names: Vec<_> = given.iter().map(|(key, _)| *key).collect();
            let fault = Fault::new(format!("several handlers: {}", names.join(", ")));
            probe.refuse_whole(
                fault
                    .allowed("exactly one of them in a probe")
                    .hint("keep the one that tells most about the guest"),
            );
        }
    }
    None
}

fn refuse_none(probe: &Cursor<'_>) {
    let misspelt = KEYS
        .into_iter()
        .chain(["grpc"])
        .any(|key| probe.is_misspelt(key));
    if misspelt || !probe.is_mapping() {
        return;
    }
    let fault = Fault::new("no handler: nothing says how to probe")
        .allowed(format!("one of {}", KEYS.join(", ")));
    probe.refuse_whole(if probe.is_null("guestAgentPing") {
        fault.hint("guestAgentPing is left empty: write guestAgentPing: {}")
    } else {
        fault.hint("add one, such as guestAgentPing: {}, or tcpSocket with a port")
    });
}

fn read(key: &str, at: &Cursor<'_>, network: &GuestNetwork<'_>) -> Option<Handler> {
    if BY_NETWORK.contains(&key) && !network.attached {
        let fault = Fault::new(format!(
            "{key} goes through the pod network, which is not attached"
        ));
        at.refuse_whole(fault.allowed("exec, guestAgentPing").hint(
            "or attach it: add an interface with masquerade: {} and a network of its name with pod: {}",
        ));
    }
    match key {
        "exec" => exec(at),
        "guestAgentPing" => Some(Handler::GuestAgentPing),
        "httpGet" => http_get(at, network),
        _ => tcp_socket(at, network),
    }
}

fn exec(at: &Cursor<'_>) -> Option<Handler> {
    const HINT: &str = "write the program and its arguments, as in command: [cat, /tmp/healthy]";
    let at = at.require("command", HINT)?;
    let items: Vec<_> = at.items().collect();
    let command: Option<Vec<String>> = items
        .iter()
        .map(|item| item.text().map(str::to_owned))
        .collect();
    let command = command?;
    if let Some(item) = items
        .iter()
        .zip(&command)
        .find(|(_, word)| word.contains('\0'))
    {
        let fault = Fault::new(format!("{} has a NUL, which ends a word", quoted(item.1)));
        item.0
            .refuse(fault.hint("leave it out: no program can be given one"));
        return None;
    }
    match (command.first().map(String::as_str), items.first()) {
        (None, _) => {
            // Of another shape than a list, it has been refused already.
            if at.is_list() {
                at.refuse(Fault::new("the command is empty").hint(HINT));
            }
            return None;
        }
        (Some(""), Some(first)) => {
            first.refuse(Fault::new("the program has no name").hint(HINT));
            return None;
        }
        (Some(VIRT_PROBE), Some(first)) => first.note(
            NoteKind::Doubtful,
            "virt-probe is no program of the guest: write the command that it is to run",
        ),
        _ => {}
    }
    Some(Handler::Exec { command })
}

fn http_get(at: &Cursor<'_>, network: &GuestNetwork<'_>) -> Option<Handler> {
    let (port, host) = target(at, network, false);
    let path = path(at);
    let https = scheme(at);
    let headers = headers(at);
    Some(Handler::HttpGet(HttpGet {
        port: port?,
        path: path?,
        host,
        https: https?,
        headers: headers?,
    }))
}

fn tcp_socket(at: &Cursor<'_>, network: &GuestNetwork<'_>) -> Option<Handler> {
    let (port, host) = target(at, network, true);
    Some(Handler::TcpSocket(TcpSocket { port: port?, host }))
}

/// Port and host. A host at fault is reported and none.
fn target(
    at: &Cursor<'_>,
    network: &GuestNetwork<'_>,
    zones: bool,
) -> (Option<u16>, Option<String>) {
    let host = host(at, zones);
    let port = at.require("port", "write the port to probe, such as port: 80");
    let number = port.as_ref().and_then(|at| network.port(at));
    if let (Some(at), Some(number), None) = (port, number, &host)
        && network.is_shut(number)
    {
        at.note(
            NoteKind::Doubtful,
            "not in the ports of its interface: KubeVirt would not forward it, and the probe always fail; \
             here it is probed all the same, but cannot be published",
        );
    }
    (number, host)
}

/// `zones` says whether an address may have the interface that it is of.
fn host(at: &Cursor<'_>, zones: bool) -> Option<String> {
    let at = at.get("host")?;
    let text = at.text().filter(|text| !text.is_empty())?;
    if let Err(fault) = hosts::check(text, zones) {
        at.refuse(fault);
        return None;
    }
    Some(text.to_owned())
}

fn path(at: &Cursor<'_>) -> Option<String> {
    const DEFAULT: &str = "/";
    let Some(at) = at.get("path") else {
        return Some(DEFAULT.to_owned());
    };
    let text = at.text()?;
    if text.contains(char::is_control) {
        let fault = Fault::new(format!(
            "path {} has a line break or control character",
            quoted(text)
        ));
        at.refuse(fault.allowed("one line, such as /healthz?full"));
        return None;
    }
    Some(if text.is_empty() { DEFAULT } else { text }.to_owned())
}

/// Whether it is HTTPS.
fn scheme(at: &Cursor<'_>) -> Option<bool> {
    const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];
    let Some(at) = at.get("scheme") else {
        return Some(false);
    };
    let text = at.text()?;
    if text.is_empty() || text == SCHEMES[0] {
        return Some(false);
    }
    if text != SCHEMES[1] {
        at.refuse(Fault::unknown("scheme", text, SCHEMES.into_iter()));
        return None;
    }
    Some(true)
}

fn headers(at: &Cursor<'_>) -> Option<Vec<(String, String)>> {
    let Some(list) = at.get("httpHeaders") else {
        return Some(Vec::new());
    };
    let headers: Vec<_> = list.items().map(|item| header(&item)).collect();
    headers.into_iter().collect()
}

fn header(at: &Cursor<'_>) -> Option<(String, String)> {
    let name = at.require("name", "write the header's name, such as name: Host");
    let value = at.require("value", "write its value, or value: \"\" to send none");
    let (name, value) = (name?, value?);
    let (name_text, value_text) = (name.text()?, value.text()?);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name_text.is_empty() || !name_text.bytes().all(fits) {
        let fault = Fault::new(format!("{} is no header's name", quoted(name_text)));
        let fault = fault.allowed("letters, digits and -");
        let better = name_text
            .trim()
            .trim_end_matches(':')
            .replace(['_', ' '], "-");
        name.refuse(if !better.is_empty() && better.bytes().all(fits) {
            fault.hint(format!("write {better}"))
        } else {
            fault.hint("write a name such as X-Custom-Header")
        });
    }
    if value_text.contains(|c: char| c.is_control() && c != '\t') {
        let fault = Fault::new(format!(
            "value {} has a line break or control character",
            quoted(value_text)
        ));
        value.refuse(fault.allowed("one line"));
    }
    Some((name_text.to_owned(), value_text.to_owned()))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A probe's `host`: one that no attempt could ever reach is refused with the document.

use std::net::IpAddr;

use super::problem::{Fault, quoted};

const HOSTS: &str = "a host name or an IP address";
/// DNS' bounds, in bytes.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// What is wrong with `host`, if anything is. `zones` says whether the probe takes an address with
/// the interface that it is of, as in `fe80::1%eth0`.
pub(super) fn check(host: &str, zones: bool) -> Result<(), Fault> {
    if host.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err(no_host(host).hint(
            "scheme, port and path have keys of their own; without host the guest is probed",
        ));
    }
    let in_brackets = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let bare = in_brackets.unwrap_or(host);
    let (text, zone) = match bare.split_once('%') {
        Some((text, zone)) => (text, Some(zone)),
        None => (bare, None),
    };
    match (text.parse::<IpAddr>(), zone) {
        (Ok(address), zone) => check_address(host, address, zone, zones),
        (Err(_), None) if in_brackets.is_none() => check_name(host),
        (Err(_), _) => Err(no_host(host)),
    }
}

fn no_host(host: &str) -> Fault {
    Fault::new(format!("{} is no host", quoted(host))).allowed(HOSTS)
}

fn check_address(
    host: &str,
    address: IpAddr,
    zone: Option<&str>,
    zones: bool,
) -> Result<(), Fault> {
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    if zone.is_some() && (address.is_ipv4() || zone == Some("")) {
        return Err(no_host(host));
    }
    if zone.is_some() && !zones {
        let fault = Fault::new(format!(
            "httpGet cannot ask {}: no URL has an interface in its host",
            quoted(host)
        ));
        return Err(fault
            .allowed("an address without %, or a host name")
            .hint("write another address of the host, or use tcpSocket"));
    }
    if link_local && zone.is_none() {
        let fault = Fault::new(format!(
            "{} is a link-local address, and nothing says on which interface",
            quoted(host)
        ));
        return Err(fault.hint(if zones {
            format!("write the interface behind it, as in \"{address}%eth0\"")
        } else {
            "write another address of the host".to_owned()
        }));
    }
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_multicast() || broadcast {
        let fault = Fault::new(format!("no connection leads to {}", quoted(host)));
        return Err(fault.allowed("the address of one host, or its name"));
    }
    Ok(())
}

fn check_name(host: &str) -> Result<(), Fault> {
    if let Some((name, port)) = host.rsplit_once(':') {
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        return Err(if is_port && check(name, true).is_ok() {
            Fault::new(format!("{} is a host with a port", quoted(host)))
                .allowed(HOSTS)
                .hint(format!("write host: {name:?}, and port: {port} beside it"))
        } else {
            no_host(host)
        });
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > LONGEST_NAME || !name.split('.').all(is_label) {
        let words = "labels of up to 63 letters, digits, - and _ between dots, 253 in all";
        return Err(no_host(host).allowed(format!("{HOSTS}: {words}")));
    }
    if is_unfit_ipv4(name) {
        return Err(no_host(host).hint("an IPv4 address has four numbers of up to 255"));
    }
    Ok(())
}

fn is_label(label: &str) -> bool {
    // What DNS does not have a table of this host's may.
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || !c.is_ascii();
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.chars().all(fits)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether a name of numbers is none of the forms in which the system's resolver takes an address:
/// up to four numbers, of which the last stands for the bytes that are left.
fn is_unfit_ipv4(name: &str) -> bool {
    let parts: Vec<_> = name.split('.').collect();
    let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !parts.iter().all(digits) {
        return false;
    }
    let Some((last, first)) = parts.split_last() else {
        return false;
    };
    let most = match first.len() {
        count @ 0..=3 => u64::from(u32::MAX) >> (8 * count),
        _ => return true,
    };
    let fits = |part: &str, most| part.parse::<u64>().is_ok_and(|number| number <= most);
    !first.iter().all(|part| fits(part, 255)) || !fits(last, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_can_be_reached_are_taken() {
        for host in [
            "127.0.0.1",
            "10.0.2.2",
            "127.1",
            "2130706433",
            "0.0.0.0",
            "::1",
            "[::1]",
            "fd10:0:2::2",
            "::ffff:127.0.0.1",
            "localhost",
            "a_b.example",
            "db-1.example.",
            "1and1.example",
            "büro",
        ] {
            for zones in [true, false] {
                assert_eq!(check(host, zones), Ok(()), "{host}");
            }
        }
        for host in ["fe80::1%lo", "[fe80::1%eth0]", "::1%1"] {
            assert_eq!(check(host, true), Ok(()), "{host}");
        }
    }

    #[test]
    fn hosts_that_can_never_be_reached_say_what_to_write() {
        let long = format!("{}.example", "x".repeat(64));
        for (host, says, hint) in [
            ("127.0.0.1:80", "a host with a port", "port: 80 beside it"),
            (
                "localhost:8080",
                "a host with a port",
                "host: \"localhost\"",
            ),
            ("[::1]:443", "a host with a port", "host: \"[::1]\""),
            ("fe80::1", "link-local", ""),
            ("[fe80::1]", "link-local", ""),
            ("224.0.0.1", "no connection leads to", ""),
            ("ff02::1", "no connection leads to", ""),
            ("255.255.255.255", "no connection leads to", ""),
            ("http://a", "is no host", "keys of their own"),
            ("a b", "is no host", "keys of their own"),
            ("a:b", "is no host", ""),
            (":80", "is no host", ""),
            ("1:2:3", "is no host", ""),
            ("[localhost]", "is no host", ""),
            ("127.0.0.1%lo", "is no host", ""),
            ("fe80::1%", "is no host", ""),
            ("a%20b", "is no host", ""),
            ("a..b", "is no host", ""),
            ("-a", "is no host", ""),
            ("a$b", "is no host", ""),
            ("300.1.1.1", "is no host", "up to 255"),
            ("1.2.3.4.5", "is no host", "up to 255"),
            ("4294967296", "is no host", "up to 255"),
            (long.as_str(), "is no host", ""),
        ] {
            for zones in [true, false] {
                let fault = check(host, zones).expect_err(host);
                assert!(fault.message.contains(says), "{host}: {fault:?}");
                assert!(fault.allowed.is_some() || fault.hint.is_some(), "{host}");
                let told = fault.hint.unwrap_or_default();
                assert!(told.contains(hint), "{host}: {told}");
            }
        }
        let zone = check("fe80::1%lo", false).expect_err("httpGet");
        assert!(zone.message.contains("httpGet cannot ask"), "{zone:?}");
    }
}

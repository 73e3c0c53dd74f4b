// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The request, with the kubelet's headers and the probe's own.

use url::Url;

use super::url::authority;

/// The kubelet's name, and whose rules these are.
const USER_AGENT: &str = "kube-probe/1.35";
/// What the connection itself says, or nobody may say: of a request without a body.
const RESERVED: [&str; 5] = [
    "Host",
    "User-Agent",
    "Content-Length",
    "Transfer-Encoding",
    "Trailer",
];

/// A GET of `url`. An empty `User-Agent` or `Accept` among the headers leaves that one out.
pub(super) fn bytes(url: &Url, headers: &[(String, String)]) -> Vec<u8> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (canonical(name), value.trim()))
        .collect();
    let first = |wanted: &str| {
        let mut values = headers.iter().filter(|(name, _)| name == wanted);
        values.next().map(|(_, value)| (*value).to_owned())
    };
    let host = first("Host").filter(|host| !host.is_empty());
    let agent = first("User-Agent").unwrap_or_else(|| USER_AGENT.to_owned());
    let accept = first("Accept");
    let closes = headers
        .iter()
        .any(|(name, value)| name == "Connection" && value.eq_ignore_ascii_case("close"));

    let mut lines = vec![format!("GET {} HTTP/1.1", target(url))];
    lines.push(format!("Host: {}", host.unwrap_or_else(|| authority(url))));
    if !agent.is_empty() {
        lines.push(format!("User-Agent: {agent}"));
    }
    if accept.is_none() {
        lines.push("Accept: */*".to_owned());
    }
    let accepts = accept.is_some_and(|first| !first.is_empty());
    for (name, value) in &headers {
        if !RESERVED.contains(&name.as_str()) && (accepts || name != "Accept") {
            lines.push(format!("{name}: {value}"));
        }
    }
    if !closes {
        lines.push("Connection: close".to_owned());
    }
    lines.push("\r\n".to_owned());
    lines.join("\r\n").into_bytes()
}

fn target(url: &Url) -> String {
    let path = url.path();
    match url.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// A header's name as Go writes it: a capital at the start and behind each hyphen.
fn canonical(name: &str) -> String {
    let mut starts = true;
    let letters = name.chars().map(|letter| {
        let capital = std::mem::replace(&mut starts, letter == '-');
        if capital {
            letter.to_ascii_uppercase()
        } else {
            letter.to_ascii_lowercase()
        }
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that a probe with these headers sends.
    fn lines(headers: &[(&str, &str)]) -> Vec<String> {
        let url = Url::parse("http://10.0.2.2:8080/a?b").unwrap();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let text = String::from_utf8(bytes(&url, &headers)).unwrap();
        let text = text.strip_suffix("\r\n\r\n").unwrap();
        text.split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn without_headers_of_its_own_a_probe_sends_exactly_three() {
        assert_eq!(
            lines(&[]),
            [
                "GET /a?b HTTP/1.1",
                "Host: 10.0.2.2:8080",
                "User-Agent: kube-probe/1.35",
                "Accept: */*",
                "Connection: close",
            ]
        );
    }

    #[test]
    fn headers_as_the_kubelet_makes_them() {
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let agent = "User-Agent: kube-probe/1.35";
        let any = "Accept: */*";
        let host = "Host: 10.0.2.2:8080";
        let table: [Row<'_>; 16] = [
            (
                &[("Accept-Encoding", "gzip")],
                &[host, agent, any, "Accept-Encoding: gzip"],
            ),
            (
                &[("Accept-Encoding", "foo")],
                &[host, agent, any, "Accept-Encoding: foo"],
            ),
            (
                &[("Accept-Encoding", "")],
                &[host, agent, any, "Accept-Encoding: "],
            ),
            (
                &[("X-Muffins-Or-Cupcakes", "muffins")],
                &[host, agent, any, "X-Muffins-Or-Cupcakes: muffins"],
            ),
            (
                &[("User-Agent", "foo/1.0")],
                &[host, "User-Agent: foo/1.0", any],
            ),
            (&[("user-agent", "")], &[host, any]),
            (&[("Accept", "")], &[host, agent]),
            (
                &[("ACCEPT", "text/html")],
                &[host, agent, "Accept: text/html"],
            ),
            (
                &[("accept", "application/json"), ("Accept", "*/*")],
                &[host, agent, "Accept: application/json", any],
            ),
            (
                &[("HOST", "muffins.cupcakes.org")],
                &["Host: muffins.cupcakes.org", agent, any],
            ),
            (&[("Host", "")], &[host, agent, any]),
            (
                &[("X-A", "1"), ("x-a", "2")],
                &[host, agent, any, "X-A: 1", "X-A: 2"],
            ),
            (&[("FOO-bAR", " x\t")], &[host, agent, any, "Foo-Bar: x"]),
            // They would make the server wait for a body that never comes.
            (
                &[("Content-Length", "5"), ("transfer-encoding", "chunked")],
                &[host, agent, any],
            ),
            (&[("Trailer", "X")], &[host, agent, any]),
            (
                &[("connection", "keep-alive")],
                &[host, agent, any, "Connection: keep-alive"],
            ),
        ];
        for (headers, expected) in table {
            let lines = lines(headers);
            let (close, others) = lines.split_last().unwrap();
            assert_eq!(close, "Connection: close", "{headers:?}");
            assert_eq!(others[1..], *expected, "{headers:?}");
        }
        assert_eq!(
            lines(&[("connection", "Close")])[1..],
            [host, agent, any, "Connection: Close"]
        );
    }
}

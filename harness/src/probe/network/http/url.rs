// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The URL of a probe: scheme, host and port as given, and `path` as a reference in it.

use url::Url;

use super::super::Trouble;
use crate::spec::HttpGet;

/// The page that `get` means, at the host called `name`.
pub(super) fn of(get: &HttpGet, name: &str) -> Result<Url, Trouble> {
    let scheme = if get.https { "https" } else { "http" };
    let base = format!("{scheme}://{name}:{}/", get.port);
    let base = Url::parse(&base)
        .map_err(|error| Trouble::Failed(format!("{name:?} is no host to ask: {error}")))?;
    Ok(with_path(base, &get.path))
}

/// `base` with the path and query of `path`; whatever else that has is left out. A path that is no
/// reference is taken literally.
fn with_path(mut base: Url, path: &str) -> Url {
    let reference = base.join(path);
    let reference = reference
        .ok()
        .filter(|url| url.has_host() && is_escaped(path));
    match reference {
        Some(reference) => {
            base.set_path(reference.path());
            base.set_query(reference.query());
        }
        None => base.set_path(&path.replace('%', "%25")),
    }
    base
}

/// Whether each `%` of the path, up to query and fragment, begins an escape.
fn is_escaped(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.split('%').skip(1).all(|rest| {
        let mut digits = rest.bytes().take(2).filter(u8::is_ascii_hexdigit);
        digits.next().and(digits.next()).is_some()
    })
}

/// `host:port`, the port also where it is the scheme's own.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(https: bool, name: &str, port: u16, path: &str) -> Url {
        let get = HttpGet {
            port,
            path: path.to_owned(),
            host: None,
            https,
            headers: Vec::new(),
        };
        of(&get, name).unwrap()
    }

    #[test]
    fn a_path_is_a_reference_in_the_probes_url() {
        for (https, name, path, expected) in [
            (false, "localhost", "", "http://localhost:93/"),
            (true, "localhost", "/path", "https://localhost:93/path"),
            (false, "localhost", "?foo", "http://localhost:93/?foo"),
            (
                true,
                "localhost",
                "/path?bar",
                "https://localhost:93/path?bar",
            ),
            (false, "[::1]", "/", "http://[::1]:93/"),
            (false, "10.0.2.2", "healthz", "http://10.0.2.2:93/healthz"),
            (false, "h", "/a#part", "http://h:93/a"),
            (false, "h", "/a%20b?c=%20", "http://h:93/a%20b?c=%20"),
            (false, "h", "/a b?c d", "http://h:93/a%20b?c%20d"),
            (false, "h", "/é", "http://h:93/%C3%A9"),
            // Only path and query count.
            (false, "h", "//other/x?y", "http://h:93/x?y"),
            (false, "h", "https://other:1/x", "http://h:93/x"),
            // No references: taken literally.
            (false, "h", "/50%?off", "http://h:93/50%25%3Foff"),
            (false, "h", "/%zz", "http://h:93/%25zz"),
            (false, "h", "mailto:x", "http://h:93/mailto:x"),
            (false, "h", "http://[", "http://h:93/http://["),
        ] {
            assert_eq!(url(https, name, 93, path).as_str(), expected, "{path:?}");
        }
    }

    #[test]
    fn the_port_is_always_named() {
        assert_eq!(authority(&url(false, "10.0.2.2", 80, "/")), "10.0.2.2:80");
        assert_eq!(authority(&url(true, "[::1]", 443, "/")), "[::1]:443");
        assert_eq!(authority(&url(true, "h", 80, "/")), "h:80");
    }

    #[test]
    fn a_host_that_cannot_be_one_is_named() {
        let get = HttpGet {
            port: 1,
            path: "/".to_owned(),
            host: None,
            https: false,
            headers: Vec::new(),
        };
        let Err(Trouble::Failed(why)) = of(&get, "a%zzb") else {
            panic!("it was taken");
        };
        assert!(why.contains("a%zzb"), "{why}");
    }
}

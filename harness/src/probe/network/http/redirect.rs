// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where an answer leads, if it is followed: to another port, path or scheme of the same host.

use url::Url;

use super::super::Trouble;
use super::response::Head;
use crate::agent::text::cut;

/// Where to go on after `from` was answered so; nowhere if that is the answer.
pub(super) fn target(from: &Url, head: &Head) -> Result<Option<Url>, Trouble> {
    let location = head.location.as_deref().filter(|place| !place.is_empty());
    let Some(location) = location.filter(|_| matches!(head.status, 301..=303 | 307 | 308)) else {
        return Ok(None);
    };
    let target = from.join(location).map_err(|error| {
        let location = cut(format!("{location:?}"));
        Trouble::Failed(format!("Location header {location} is no URL: {error}"))
    })?;
    if target.host_str() != from.host_str() {
        return Ok(None);
    }
    if !matches!(target.scheme(), "http" | "https") {
        let why = format!(
            "redirected to unsupported protocol scheme {:?}",
            target.scheme()
        );
        return Err(Trouble::Failed(why));
    }
    Ok(Some(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_host_is_followed_and_no_other() {
        let from = Url::parse("http://10.0.2.2:8080/a/b?c").unwrap();
        let next = |status, location: Option<&str>| {
            let head = Head::with_location(status, location);
            target(&from, &head).map(|url| url.map(String::from))
        };
        let to = |url: &str| Ok(Some(url.to_owned()));
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(next(status, Some("/new")), to("http://10.0.2.2:8080/new"));
            assert_eq!(next(status, None), Ok(None));
        }
        for status in [200, 300, 304, 305, 404] {
            assert_eq!(next(status, Some("/new")), Ok(None));
        }
        for (location, expected) in [
            ("x", to("http://10.0.2.2:8080/a/x")),
            ("?d", to("http://10.0.2.2:8080/a/b?d")),
            ("http://10.0.2.2/new", to("http://10.0.2.2/new")),
            ("//10.0.2.2:1/new", to("http://10.0.2.2:1/new")),
            ("https://10.0.2.2/new", to("https://10.0.2.2/new")),
            ("http://0.0.0.0/fail", Ok(None)),
            ("http://10.0.2.3:8080/", Ok(None)),
            ("mailto:x", Ok(None)),
            ("", Ok(None)),
        ] {
            assert_eq!(next(302, Some(location)), expected, "{location:?}");
        }
        for (location, word) in [("http://[", "Location"), ("ftp://10.0.2.2/", "\"ftp\"")] {
            let Err(Trouble::Failed(why)) = next(302, Some(location)) else {
                panic!("{location:?} was taken");
            };
            assert!(why.contains(word), "{why}");
        }
    }
}

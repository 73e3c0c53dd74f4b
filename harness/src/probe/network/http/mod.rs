// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `httpGet`: a page's status.

mod body;
mod exchange;
mod redirect;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod tls;
mod url;

use std::sync::Arc;

use ::url::Url;
use rustls::ClientConfig;

use super::door::Door;
use super::{Limit, Outcome, Trouble};
use crate::agent::text::cut;
use crate::spec::HttpGet;
use response::Answer;

/// How often one attempt asks, redirects included.
const MOST_REQUESTS: usize = 10;

/// A page to ask for.
#[derive(Debug)]
pub(super) struct Http<'a> {
    url: Url,
    headers: &'a [(String, String)],
    tls: Arc<ClientConfig>,
}

impl<'a> Http<'a> {
    /// The page that `get` means, at the host called `name` in URLs.
    pub(super) fn new(get: &'a HttpGet, name: &str) -> Result<Self, Trouble> {
        Ok(Self {
            url: url::of(get, name)?,
            headers: &get.headers,
            tls: tls::config().map_err(|error| Trouble::Untold(format!("TLS: {error}")))?,
        })
    }

    /// One attempt.
    pub(super) fn attempt(&self, door: &Door<'_>, limit: Limit) -> Outcome {
        match self.get(door, limit) {
            Ok(answer) => verdict(&answer),
            Err(trouble) => trouble.into(),
        }
    }

    /// The answer, after the redirects that are followed.
    pub(super) fn get(&self, door: &Door<'_>, limit: Limit) -> Result<Answer, Trouble> {
        let mut url = self.url.clone();
        for _ in 0..MOST_REQUESTS {
            let about = |trouble: Trouble| trouble.at(&shown(&url));
            let answer = self.ask(&url, door, limit).map_err(about)?;
            match redirect::target(&url, &answer.head).map_err(about)? {
                Some(target) => url = target,
                None => return Ok(answer),
            }
        }
        let why = format!("stopped after {MOST_REQUESTS} redirects");
        Err(Trouble::Failed(why).at(&shown(&url)))
    }

    fn ask(&self, url: &Url, door: &Door<'_>, limit: Limit) -> Result<Answer, Trouble> {
        let port = url.port_or_known_default().unwrap_or_default();
        let request = request::bytes(url, self.headers);
        let wire = door.connect(port, limit)?;
        let mut lane = if url.scheme() == "https" {
            tls::lane(wire, &self.tls, url, request)?
        } else {
            exchange::plain(wire, request)
        };
        // A redirect that is followed is not read to its end.
        let wants_body = |head: &_| !matches!(redirect::target(url, head), Ok(Some(_)));
        exchange::run(lane.as_mut(), &wants_body, limit)
    }
}

/// The request in messages.
fn shown(url: &Url) -> String {
    format!("Get \"{url}\"")
}

fn verdict(answer: &Answer) -> Outcome {
    match answer.head.status {
        200..=299 => Outcome::Success,
        300..=399 => {
            let body = cut(String::from_utf8_lossy(&answer.body).into_owned());
            let why = format!("Probe terminated redirects, Response body: {body}");
            Outcome::Warning(why)
        }
        status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

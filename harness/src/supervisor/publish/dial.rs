// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The client's side of [`kennel_vmm::dial`], for now.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use kennel_vmm::dial::{Answer, Request, Target};

pub(super) fn connect(
    socket: &Path,
    target: Target,
    port: u16,
    deadline: Instant,
) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    let timeout = deadline.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(timeout))?;
    let request = Request {
        target,
        port,
        timeout,
    };
    stream.write_all(request.to_string().as_bytes())?;
    let mut line = vec![];
    let mut byte = [0];
    while !line.ends_with(b"\n") {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    match String::from_utf8_lossy(&line).parse() {
        Ok(Answer::Connected { .. }) => Ok(stream),
        Ok(Answer::Failed { text, .. }) => Err(io::Error::other(text)),
        Err(error) => Err(io::Error::other(error)),
    }
}

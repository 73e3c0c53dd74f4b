// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The floor: one thread that connects and closes, or gets a page, over loopback at the probes'
//! rate, and two that serve it, with nothing but the calls that it takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::accounts::{self, HostSockets};
use crate::Trouble;

const CLIENT: &str = "floor-client";
const SERVER: &str = "floor-server";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// What it took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floor {
    pub(crate) attempts: u64,
    /// ns of CPU of the client's thread, which also does the kernel's part of the server's TCP.
    pub(crate) client: u64,
    /// ns of CPU of the servers' threads.
    pub(crate) servers: u64,
    /// Sockets in TIME-WAIT that it left.
    pub(crate) time_wait: u64,
}

/// So many of each kind a second.
pub(crate) fn run(http: u32, tcp: u32, lasts: Duration) -> Result<Floor, Trouble> {
    let tcp_server = serve(|_| Ok(()))?;
    let http_server = serve(|mut stream| {
        let mut request = [0; 1024];
        let _count = stream.read(&mut request)?;
        stream.write_all(ANSWER)
    })?;
    let pid = std::process::id();
    let before = HostSockets::read().time_wait;
    let servers = accounts::cpu_ns(pid, &[SERVER]);
    let client = std::thread::Builder::new()
        .name(CLIENT.into())
        .spawn(move || attempts([http, tcp], [http_server, tcp_server], lasts))
        .map_err(Trouble::new)?;
    let ended = client.join();
    let (attempts, client) = ended.map_err(|_| Trouble::new("the floor's client panicked"))??;
    Ok(Floor {
        attempts,
        client,
        servers: accounts::cpu_ns(pid, &[SERVER]).saturating_sub(servers),
        time_wait: HostSockets::read().time_wait.saturating_sub(before),
    })
}

/// A server for as long as this process lives.
fn serve(
    answer: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static,
) -> Result<SocketAddr, Trouble> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Trouble::new)?;
    let address = listener.local_addr().map_err(Trouble::new)?;
    std::thread::Builder::new()
        .name(SERVER.into())
        .spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // The client says what went wrong.
                let _answered = answer(stream);
            }
        })
        .map_err(Trouble::new)?;
    Ok(address)
}

/// How many there were, and what CPU they took.
fn attempts(
    [http, tcp]: [u32; 2],
    [http_server, tcp_server]: [SocketAddr; 2],
    lasts: Duration,
) -> Result<(u64, u64), Trouble> {
    let pid = std::process::id();
    let all = http + tcp;
    let before = accounts::cpu_ns(pid, &[CLIENT]);
    let begin = Instant::now();
    let mut attempts = 0;
    for number in 0_u64.. {
        let due = Duration::from_nanos(number * 1_000_000_000 / u64::from(all.max(1)));
        if due >= lasts {
            break;
        }
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        // As evenly mixed as can be.
        let (number, http, all) = (number, u64::from(http), u64::from(all));
        let is_http = (number + 1) * http / all > number * http / all;
        if is_http {
            get(http_server).map_err(Trouble::new)?;
        } else {
            drop(TcpStream::connect(tcp_server).map_err(Trouble::new)?);
        }
        attempts += 1;
    }
    let used = accounts::cpu_ns(pid, &[CLIENT]).saturating_sub(before);
    Ok((attempts, used))
}

fn get(server: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(REQUEST)?;
    let mut answer = [0; 1024];
    while stream.read(&mut answer)? > 0 {}
    Ok(())
}

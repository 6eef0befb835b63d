//! A receiver on loopback that costs as little as a receiver can: it reads a head and a body,
//! counts them and says yes. Both sides of the bench are measured against it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::{Outcome, prepare};

const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

const TOKEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 71\r\n\r\n\
    {\"token_type\":\"Bearer\",\"expires_in\":86400,\"access_token\":\"bench-token\"}";

const NO_LENGTH: &[u8] =
    b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Where tokens are asked for; every other path takes a payload.
pub(crate) const TOKEN_PATH: &str = "/token";

/// Longest head that is read: far above what a client sends here.
const HEAD_MAX: usize = 64 * 1024;

/// What has arrived since the start.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    payloads: u64,
    bytes: u64,
}

#[derive(Default)]
struct Counters {
    payloads: AtomicU64,
    bytes: AtomicU64,
    tokens: AtomicU64,
}

/// Listens until the process ends: one thread accepts, one serves each connection.
pub(crate) struct Sink {
    address: SocketAddr,
    counters: Arc<Counters>,
}

impl Sink {
    pub(crate) fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counters = Arc::clone(&shared);
                // A connection that breaks is the client's news, not ours.
                thread::spawn(move || serve(stream, &counters).ok());
            }
        });
        Ok(Self { address, counters })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn seen(&self) -> Seen {
        Seen {
            payloads: self.counters.payloads.load(Ordering::Relaxed),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
        }
    }

    /// Whether exactly the prepared files have arrived since `before`, by number and bytes.
    pub(crate) fn check_since(&self, before: Seen, files: usize) -> Outcome<()> {
        let now = self.seen();
        let arrived = (now.payloads - before.payloads, now.bytes - before.bytes);
        let expected = (files as u64, prepare::bytes_of(files));
        if arrived == expected {
            return Ok(());
        }
        Err(format!(
            "the sink got {} payloads ({} bytes), expected {} ({} bytes); {} tokens asked for",
            arrived.0,
            arrived.1,
            expected.0,
            expected.1,
            self.counters.tokens.load(Ordering::Relaxed)
        )
        .into())
    }
}

fn serve(mut stream: TcpStream, counters: &Counters) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; HEAD_MAX];
    let mut filled = 0;
    loop {
        let head_end = loop {
            if let Some(end) = head_end(&buffer[..filled]) {
                break end;
            }
            if filled == buffer.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "endless head"));
            }
            match stream.read(&mut buffer[filled..])? {
                0 => return Ok(()),
                read => filled += read,
            }
        };
        let head = &buffer[..head_end];
        let is_token = target(head).starts_with(TOKEN_PATH.as_bytes());
        let Some(length) = body_length(head).or(is_token.then_some(0)) else {
            return stream.write_all(NO_LENGTH);
        };
        filled = take_body(&mut stream, &mut buffer, filled, head_end, length)?;
        if is_token {
            counters.tokens.fetch_add(1, Ordering::Relaxed);
            stream.write_all(TOKEN)?;
        } else {
            counters.payloads.fetch_add(1, Ordering::Relaxed);
            counters.bytes.fetch_add(length as u64, Ordering::Relaxed);
            stream.write_all(ACCEPTED)?;
        }
    }
}

/// Reads the rest of a body and moves what follows it to the front; returns how much that is.
fn take_body(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    filled: usize,
    head_end: usize,
    length: usize,
) -> io::Result<usize> {
    let here = filled - head_end;
    if here >= length {
        buffer.copy_within(head_end + length..filled, 0);
        return Ok(here - length);
    }
    let mut missing = length - here;
    while missing > 0 {
        let room = missing.min(buffer.len());
        match stream.read(&mut buffer[..room])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => missing -= read,
        }
    }
    Ok(0)
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn target(head: &[u8]) -> &[u8] {
    head.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
}

fn body_length(head: &[u8]) -> Option<usize> {
    let line = head.split(|byte| *byte == b'\n').find(|line| {
        line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:"))
    })?;
    std::str::from_utf8(line.get(15..)?).ok()?.trim().parse().ok()
}

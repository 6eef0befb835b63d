//! The floor: what the machine can do when nothing is promised. Threads read a file, parse it,
//! POST it on a kept-alive socket of their own and rename it into `sent/`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::prepare::DropFolder;

/// Drains the folder; the time is from its listing to its last rename.
pub(crate) fn drain(
    drop_folder: &DropFolder,
    address: SocketAddr,
    connections: usize,
) -> Outcome<Duration> {
    let started = Instant::now();
    let mut names = Vec::new();
    for entry in fs::read_dir(drop_folder.inbox())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name());
        }
    }
    let next = AtomicUsize::new(0);
    let worker = || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let source = drop_folder.inbox().join(name);
            let body = fs::read(&source)?;
            serde_json::from_slice::<serde_json::Value>(&body)?;
            post(&mut stream, &body)?;
            fs::rename(&source, drop_folder.sent().join(name))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..connections).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker of the floor does not panic"))
    })?;
    Ok(started.elapsed())
}

fn post(stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    let mut request = Vec::with_capacity(body.len() + 256);
    write!(
        request,
        "POST /v1/bench/orders HTTP/1.1\r\nHost: 127.0.0.1\r\n\
         Authorization: Bearer bench-token\r\nContent-Type: application/json\r\n\
         Accept: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    let mut answer = [0; 512];
    let mut filled = 0;
    while !answer[..filled].ends_with(b"\r\n\r\nok") {
        match stream.read(&mut answer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(io::Error::other("the sink refused a payload of the floor"))
}

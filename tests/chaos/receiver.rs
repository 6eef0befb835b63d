//! A server whose steps count as operations of the journey: what was read, stored and answered.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the server answers to a file, by its name and how often it came before.
pub(crate) type Answers = fn(&str, usize) -> u16;

/// Counts an operation and runs it, or not.
pub(crate) type Pass = Arc<dyn Fn(String, &mut dyn FnMut()) + Send + Sync>;

/// Names and bodies, in the order of their arrival.
pub(crate) type Arrivals = Vec<(String, Vec<u8>)>;

#[derive(Default)]
struct Inner {
    arrived: Arrivals,
    requests: BTreeMap<String, usize>,
}

pub(crate) struct Receiver {
    pub(crate) addr: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Listens until the test's process ends.
    pub(crate) fn start(answers: Answers, pass: Pass) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().unwrap();
        let inner = Arc::new(Mutex::new(Inner::default()));
        let shared = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (inner, pass) = (Arc::clone(&shared), Arc::clone(&pass));
                // A sender that was killed breaks its connection.
                std::thread::spawn(move || serve(stream, &inner, answers, &pass).ok());
            }
        });
        Self { addr, inner }
    }

    pub(crate) fn arrived(&self) -> Arrivals {
        lock(&self.inner).arrived.clone()
    }
}

/// One request, one connection.
fn serve(
    mut stream: TcpStream,
    inner: &Mutex<Inner>,
    answers: Answers,
    pass: &Pass,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4_096];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(&piece[..read]),
        }
    };
    pass("send: the head is read".to_owned(), &mut || ());
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let header = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    let len: usize = header("content-length:").parse().unwrap_or(0);
    let name = header("x-file-name:");
    while bytes.len() < head + len {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
    pass("send: the body is read".to_owned(), &mut || ());
    // The body is here whole: that its sender is gone keeps no server from storing it.
    let status = {
        let mut inner = lock(inner);
        let times = inner.requests.entry(name.clone()).or_default();
        *times += 1;
        let status = answers(&name, *times - 1);
        if (200..300).contains(&status) {
            inner.arrived.push((name, bytes[head..].to_vec()));
        }
        status
    };
    pass("send: the answer goes out".to_owned(), &mut || {
        let answer = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        );
        // The other end may be gone.
        drop(stream.write_all(answer.as_bytes()));
    });
    Ok(())
}

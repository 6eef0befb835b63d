//! The way to a server: through a proxy or past it, and whose certificates are believed.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use patchdrop::model::exchange::{Progress, Reply};
use patchdrop::model::network::{Network, Proxy};
use patchdrop::model::secret::Secret;
use patchdrop::model::time::Wall;
use patchdrop::world::endpoint::{Endpoint as _, EndpointOptions, HttpEndpoint};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Captured, SECRET, answer, post};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a server's certificate says of itself.
struct Says {
    host: &'static str,
    until: i32,
}

/// A TLS server that answers 200 to whatever comes.
fn tls_server(authority: &Authority, says: &Says) -> SocketAddr {
    let mut params = CertificateParams::new([says.host.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(says.until, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    serve(move |socket| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = BufReader::new(rustls::StreamOwned::new(connection, socket));
        if head(&mut stream).is_empty() {
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        stream.get_mut().write_all(answer).ok();
        stream.get_mut().flush().ok();
    })
}

fn serve(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || answer(socket));
        }
    });
    address
}

/// The lines of a request before its body; none where the peer went away.
fn head(stream: &mut impl std::io::BufRead) -> Vec<String> {
    let lines = stream.lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).collect()
}

#[derive(Clone, Copy)]
enum Door {
    /// Lets everybody through, wherever they want to go, to the one server behind it.
    Open,
    /// Wants a name and a password.
    Login,
    /// Connects to nothing.
    Barred,
    /// Ends every connection.
    Shut,
}

/// A proxy that leads to `behind` whatever it is asked for, and the heads that it was sent.
fn proxy(door: Door, behind: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("me:{SECRET}"));
    let address = serve(move |socket| {
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        let head = head(&mut reader).join("\n");
        let knows = head.to_lowercase().contains("proxy-authorization") && head.contains(&pair);
        let is_connect = head.starts_with("CONNECT ");
        seen.lock().unwrap().push(head);
        let mut socket = socket;
        match door {
            Door::Shut => return,
            Door::Barred => {
                socket.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").unwrap();
                return;
            }
            Door::Login if !knows => {
                let answer = "HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\n\
                              Content-Length: 0\r\nConnection: close\r\n\r\n";
                socket.write_all(answer.as_bytes()).unwrap();
                return;
            }
            Door::Open | Door::Login => {}
        }
        if !is_connect {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            return;
        }
        let mut there = TcpStream::connect(behind).unwrap();
        socket.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
        let (mut from, mut to) = (socket.try_clone().unwrap(), there.try_clone().unwrap());
        thread::spawn(move || {
            std::io::copy(&mut there, &mut socket).ok();
            socket.shutdown(std::net::Shutdown::Both).ok();
        });
        std::io::copy(&mut from, &mut to).ok();
        to.shutdown(std::net::Shutdown::Both).ok();
    });
    (address, heads)
}

fn through(network: Network) -> HttpEndpoint {
    Captured::start();
    HttpEndpoint::new(EndpointOptions { network, user_agent: "patchdrop-test".into() }).unwrap()
}

fn by(url: impl Into<String>) -> Proxy {
    Proxy::Url(Secret::new(url.into()))
}

/// The code and the sentence of an attempt that had no answer.
fn cause(reply: Reply) -> (String, String) {
    match reply {
        Reply::NoAnswer { progress: Progress::Nothing, cause } => {
            (cause.code.0.to_string(), cause.plain)
        }
        other @ (Reply::NoAnswer { .. } | Reply::Answer(_) | Reply::Changed) => {
            panic!("an answer, or more than nothing was sent: {other:?}")
        }
    }
}

#[tokio::test]
async fn a_certificate_is_believed_by_the_store_or_by_ca_file_and_by_nothing_else() {
    let authority = authority("Ours");
    let mine = vec![authority.der().to_vec()];
    let other = vec![self::authority("Others").der().to_vec()];
    let renewed = vec![self::authority("Ours").der().to_vec()];
    for (says, authorities, words) in [
        (Says { host: "localhost", until: 2999 }, &mine, ""),
        (Says { host: "localhost", until: 2999 }, &vec![], "name the file by ca_file"),
        (Says { host: "localhost", until: 2999 }, &other, "and ca_file does not hold it"),
        (Says { host: "localhost", until: 2999 }, &renewed, "ca_file must hold the new one"),
        (Says { host: "localhost", until: 2001 }, &mine, "it has expired, or this machine's clock"),
        (Says { host: "shop.example", until: 2999 }, &mine, "it is for another host name"),
    ] {
        let port = tls_server(&authority, &says).port();
        let network = Network { authorities: authorities.clone(), ..Network::default() };
        let endpoint = through(network);
        let glance = endpoint.glance(post(format!("https://localhost:{port}/x"), "{}")).await;
        let (reply, ends) = (glance.reply, glance.certificate_ends);
        if words.is_empty() {
            assert_eq!(answer(reply).status, 200);
            // 2999-01-01
            assert_eq!(ends, Some(Wall(32_472_144_000_000)));
            continue;
        }
        assert_eq!(ends, None);
        let is_of_store = words.contains("by ca_file") || words.contains("does not hold it");
        let words = if is_of_store && !endpoint.trust().has_store {
            "install the package ca-certificates"
        } else {
            words
        };
        let (code, text) = cause(reply);
        assert_eq!(code, "tls");
        assert!(text.contains(words), "{text}");
        assert!(text.contains(&format!("localhost:{port}")), "{text}");
    }
}

#[tokio::test]
async fn a_proxy_is_gone_through_with_name_and_password() {
    let authority = authority("Ours");
    let says = Says { host: "shop.example", until: 2999 };
    let server = tls_server(&authority, &says);
    let password =
        percent_encoding::utf8_percent_encode(SECRET, percent_encoding::NON_ALPHANUMERIC);
    for (door, login, words) in [
        (Door::Open, String::new(), ""),
        (Door::Login, format!("me:{password}@"), ""),
        (Door::Login, String::new(), "asks for a name and a password"),
        (Door::Login, format!("you:{password}@"), "or refuses those it was given (407)"),
        (Door::Barred, format!("me:{password}@"), "does not connect to shop.example: it may not"),
        (Door::Shut, format!("me:{password}@"), "it may be no proxy"),
    ] {
        let (address, heads) = proxy(door, server);
        let endpoint = through(Network {
            proxy: by(format!("http://{login}{address}")),
            authorities: vec![authority.der().to_vec()],
            ..Network::default()
        });
        let reply = endpoint.send(post("https://shop.example/in", "{}")).await;
        assert!(heads.lock().unwrap()[0].starts_with("CONNECT shop.example:443 "), "{words}");
        if words.is_empty() {
            assert_eq!(answer(reply).status, 200);
            continue;
        }
        let (code, text) = cause(reply);
        assert_eq!(code, "connect");
        assert!(text.contains(words) && text.contains(&format!("{address}")), "{text}");
        assert!(text.contains("the key proxy") || text.contains("the keys proxy"), "{text}");
        assert!(!text.contains("me:") && !text.contains(&password.to_string()), "{text}");
    }
    let said = Captured::start().text();
    assert!(!said.contains(SECRET) && !said.contains(&password.to_string()));
}

#[tokio::test]
async fn a_plain_request_that_its_proxy_refuses_never_reached_the_server() {
    let (address, _) = proxy(Door::Login, "127.0.0.1:9".parse().unwrap());
    let plain = |proxy: String| async move {
        let network = Network { proxy: by(proxy), ..Network::default() };
        through(network).send(post("http://shop.example/in", "{}")).await
    };
    let (code, text) = cause(plain(format!("http://{address}")).await);
    assert_eq!(code, "connect");
    assert!(text.contains("asks for a name and a password"), "{text}");
    let password =
        percent_encoding::utf8_percent_encode(SECRET, percent_encoding::NON_ALPHANUMERIC);
    let reply = plain(format!("http://me:{password}@{address}")).await;
    assert_eq!(answer(reply).status, 200);
}

#[tokio::test]
async fn a_proxy_may_speak_tls_itself() {
    let authority = authority("Ours");
    let port = tls_server(&authority, &Says { host: "localhost", until: 2999 }).port();
    let to = |authorities| {
        let proxy = by(format!("https://localhost:{port}"));
        through(Network { proxy, authorities, ..Network::default() })
    };
    let request = || post("http://shop.example/in", "{}");
    let reply = to(vec![authority.der().to_vec()]).send(request()).await;
    assert_eq!(answer(reply).status, 200);
    let (code, text) = cause(to(Vec::new()).send(request()).await);
    assert_eq!(code, "tls");
    assert!(text.contains(&format!("(or of the proxy https://localhost:{port})")), "{text}");
}

#[tokio::test]
async fn no_proxy_and_loopback_go_past_the_proxy() {
    let (address, heads) = proxy(Door::Barred, "127.0.0.1:9".parse().unwrap());
    let endpoint = |list: &[&str]| {
        through(Network {
            proxy: by(format!("http://me:word@{address}")),
            no_proxy: list.iter().map(|&host| host.to_owned()).collect(),
            ..Network::default()
        })
    };
    let list = [".inside.example", "plain.example", "10.0.0.0/8", "192.0.2.7", "2001:db8::/32"];
    for (url, list, is_past) in [
        ("https://shop.example/", &list[..], false),
        ("https://a.inside.example/", &list, true),
        ("https://plain.example/", &list, true),
        ("https://a.plain.example:8443/", &list, true),
        ("https://notplain.example/", &list, false),
        ("http://10.200.3.4/", &list, true),
        ("http://11.0.0.1/", &list, false),
        ("http://192.0.2.7:8080/", &list, true),
        ("https://[2001:db8::1]/", &list, true),
        ("https://shop.example/", &["*"], true),
        ("https://localhost/", &[], true),
        ("https://127.9.9.9/", &[], true),
        ("https://[::1]/", &[], true),
    ] {
        let way = endpoint(list).proxy_to(&url.parse().unwrap());
        let shown = (!is_past).then(|| format!("http://{address}"));
        assert_eq!(way, shown, "{url}");
    }
    // What goes past it is not only shown so.
    let server = serve(|mut socket| {
        let mut byte = [0];
        socket.read_exact(&mut byte).ok();
        socket.write_all(b"HTTP/1.1 204 No\r\nConnection: close\r\n\r\n").ok();
    });
    let reply = endpoint(&[]).send(post(format!("http://{server}/x"), "")).await;
    assert_eq!(answer(reply).status, 204);
    assert!(heads.lock().unwrap().is_empty());
}

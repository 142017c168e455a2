//! The way out: names asked for each dial, addresses in turn, and proxies in between.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sns_relay::config::Proxy;
use sns_relay::provider::upstream::{
    AddressGuard, Egress, FaultKind, Limits, Names, Origin, Pool, PoolMetrics, SendError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::peer::{Peer, answer};
use super::{Certified, counted, metrics, send};

const LOGIN: &str = "YW5uYTpzZXNhbWU="; // anna:sesame

/// How the proxy answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Open,
    LoginRequired,
    Refuses,
    Rambles,
}

/// A proxy on loopback that notes whereto it was asked to connect, and always goes to one port.
struct Door {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Door {
    async fn start(kind: &'static str, manner: Manner, behind: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = door.asked.clone();
        tokio::spawn(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                let asked = asked.clone();
                tokio::spawn(async move {
                    match kind {
                        "http" => http(io, manner, behind, &asked).await,
                        _ => socks5(io, manner, behind, &asked).await,
                    }
                });
            }
        });
        door
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn http(mut io: TcpStream, manner: Manner, behind: u16, asked: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let whereto = head.split(' ').nth(1).unwrap().to_owned();
    assert!(head.starts_with(&format!("CONNECT {whereto} HTTP/1.1\r\nHost: {whereto}\r\n")));
    asked.lock().unwrap().push(whereto);
    let login = head.contains(&format!("\r\nProxy-Authorization: Basic {LOGIN}\r\n"));
    let answer = match manner {
        Manner::LoginRequired if !login => "HTTP/1.1 407 Who are you\r\nA: b\r\n\r\n".to_owned(),
        Manner::Open | Manner::LoginRequired => "HTTP/1.1 200 Go on\r\nA: b\r\n\r\n".to_owned(),
        Manner::Refuses => "HTTP/1.1 403 No\r\n\r\n".to_owned(),
        Manner::Rambles => format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(20_000)),
    };
    let _ = io.write_all(answer.as_bytes()).await;
    if answer.starts_with("HTTP/1.1 200 Go") {
        join(io, behind).await;
    }
}

async fn socks5(mut io: TcpStream, manner: Manner, behind: u16, asked: &Mutex<Vec<String>>) {
    let mut head = [0; 2];
    io.read_exact(&mut head).await.unwrap();
    let mut methods = vec![0; usize::from(head[1])];
    io.read_exact(&mut methods).await.unwrap();
    if manner == Manner::Rambles {
        let _ = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        return;
    }
    let wants_login = manner == Manner::LoginRequired;
    let method = if wants_login { 2 } else { 0 };
    if !methods.contains(&method) {
        let _ = io.write_all(&[5, 0xFF]).await;
        return;
    }
    io.write_all(&[5, method]).await.unwrap();
    if wants_login {
        let mut login = [0; 13];
        io.read_exact(&mut login).await.unwrap();
        let good = login == *b"\x01\x04anna\x06sesame";
        io.write_all(&[1, u8::from(!good)]).await.unwrap();
    }
    let mut request = [0; 4];
    if io.read_exact(&mut request).await.is_err() {
        return;
    }
    let host = match request[3] {
        1 => {
            let mut bytes = [0; 4];
            io.read_exact(&mut bytes).await.unwrap();
            Ipv4Addr::from(bytes).to_string()
        }
        3 => {
            let mut bytes = vec![0; usize::from(io.read_u8().await.unwrap())];
            io.read_exact(&mut bytes).await.unwrap();
            String::from_utf8(bytes).unwrap()
        }
        other => panic!("address type {other}"),
    };
    let port = io.read_u16().await.unwrap();
    asked.lock().unwrap().push(format!("{host}:{port}"));
    if manner == Manner::Refuses {
        let _ = io.write_all(&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]).await;
        return;
    }
    // The address that the proxy came from may be a name.
    io.write_all(&[5, 0, 0, 3, 2, b'm', b'e', 0, 1]).await.unwrap();
    join(io, behind).await;
}

async fn join(mut io: TcpStream, port: u16) {
    let mut behind = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let _ = copy_bidirectional(&mut io, &mut behind).await;
}

fn limits() -> Limits {
    Limits { backoff_ms_min: 60_000, backoff_ms_max: 60_000, ..Limits::default() }
}

fn pool_through(
    url: &str,
    port: u16,
    guard: AddressGuard,
    tls: Arc<rustls::ClientConfig>,
    metrics: &Arc<PoolMetrics>,
) -> Arc<Pool> {
    let proxy = Some(Arc::new(Proxy::parse(url).unwrap()));
    let egress = Egress { proxy, ..Egress::direct(guard) };
    Pool::new(Origin::new("localhost", port).unwrap(), tls, egress, limits(), metrics.clone())
}

const KINDS: [&str; 2] = ["http", "socks5"];

async fn peer(certified: &Certified) -> Peer {
    Peer::start(certified.acceptor(&["h2"]), 10, Box::new(|_, _| answer(0))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_through_a_proxy_that_is_given_the_name() {
    for kind in KINDS {
        for (manner, login) in [(Manner::Open, ""), (Manner::LoginRequired, "anna:sesame@")] {
            let certified = Certified::new();
            let peer = peer(&certified).await;
            let door = Door::start(kind, manner, peer.port).await;
            let url = format!("{kind}://{login}127.0.0.1:{}", door.port);
            let metrics = metrics();
            let tls = certified.client.clone();
            let pool = pool_through(&url, peer.port, AddressGuard::Any, tls, &metrics);
            for number in 0..20 {
                assert!(send(&pool, number, 5_000).await.is_ok(), "{kind}");
            }
            assert_eq!(door.asked(), [format!("localhost:{}", peer.port)], "{kind}");
            assert_eq!(peer.processed(), (0..20).collect::<Vec<_>>());
        }
    }
}

/// Where addresses are guarded the proxy gets no name to look up for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_address_is_checked_here_and_is_the_one_that_the_proxy_dials() {
    for kind in KINDS {
        let certified = Certified::new();
        let peer = peer(&certified).await;
        let door = Door::start(kind, Manner::Open, peer.port).await;
        let url = format!("{kind}://127.0.0.1:{}", door.port);
        for (names, expect) in
            [(vec![[127, 0, 0, 1]], true), (vec![[127, 0, 0, 1], [9, 9, 9, 9]], false)]
        {
            let table: Vec<IpAddr> = names.into_iter().map(IpAddr::from).collect();
            let names = Names::Table(Arc::new(move |host| {
                // The proxy's own address is looked up too.
                if host == "localhost" { table.clone() } else { vec![host.parse().unwrap()] }
            }));
            // Here "public" is what loopback is.
            let guard = AddressGuard::PublicOnly(|address| address.is_loopback());
            let proxy = Some(Arc::new(Proxy::parse(&url).unwrap()));
            let egress = Egress { guard, proxy, names };
            let origin = Origin::new("localhost", peer.port).unwrap();
            let metrics = metrics();
            let tls = certified.client.clone();
            let pool = Pool::new(origin, tls, egress, limits(), metrics.clone());
            let asked = door.asked().len();
            assert_eq!(send(&pool, 0, 5_000).await.is_ok(), expect, "{kind}");
            if expect {
                assert_eq!(door.asked(), [format!("127.0.0.1:{}", peer.port)], "{kind}");
            } else {
                assert_eq!(counted(&metrics.dial_failures, FaultKind::Address), 1);
                assert_eq!(door.asked().len(), asked, "{kind}: the proxy was asked");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_proxy_has_its_kind() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = nobody.local_addr().unwrap().port();
    drop(nobody);
    for kind in KINDS {
        for (manner, login, expect) in [
            (Manner::LoginRequired, "", FaultKind::ProxyAuthentication),
            (Manner::LoginRequired, "anna:barley@", FaultKind::ProxyAuthentication),
            (Manner::Refuses, "", FaultKind::ProxyRefused),
            (Manner::Rambles, "", FaultKind::ProxyRefused),
            (Manner::Open, "", FaultKind::Proxy),
        ] {
            let door = Door::start(kind, manner, 1).await;
            let port = if expect == FaultKind::Proxy { closed } else { door.port };
            let metrics = metrics();
            let url = format!("{kind}://{login}127.0.0.1:{port}");
            let tls = Certified::new().client;
            let pool = pool_through(&url, 443, AddressGuard::Any, tls, &metrics);
            let error = send(&pool, 0, 5_000).await.unwrap_err();
            match error {
                SendError::NotSent(fault) => assert_eq!(fault.kind, expect, "{kind} {login}"),
                other => panic!("{kind} {login}: {other:?}"),
            }
            assert_eq!(counted(&metrics.dial_failures, expect), 1);
            let shown = format!("{error} {error:?} {pool:?}");
            assert!(!shown.contains("barley") && !shown.contains("anna"), "{shown}");
        }
    }
}

/// Two listeners behind one name: each dial asks for the name anew and starts at any address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_dial_asks_for_the_name_anew_and_the_addresses_share_the_dials() {
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await.unwrap();
    let third = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), port)).await.unwrap();
    let dials: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
    for listener in [first, second, third] {
        let dials = dials.clone();
        tokio::spawn(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                dials.lock().unwrap().push(io.local_addr().unwrap());
            }
        });
    }
    let questions = Arc::new(AtomicUsize::new(0));
    let count = questions.clone();
    let names = Names::Table(Arc::new(move |_| {
        // After forty questions the service has moved.
        let moved = count.fetch_add(1, Ordering::SeqCst) >= 40;
        let hosts: &[u8] = if moved { &[3] } else { &[1, 2] };
        hosts.iter().map(|host| IpAddr::from([127, 0, 0, *host])).collect()
    }));
    let egress = Egress { names, ..Egress::direct(AddressGuard::Any) };
    let limits = Limits {
        backoff_ms_min: 1,
        backoff_ms_max: 1,
        breaker_failures: 1_000,
        breaker_failure_percent: 101,
        ..Limits::default()
    };
    let origin = Origin::new("localhost", port).unwrap();
    let pool = Pool::new(origin, Certified::new().client, egress, limits, metrics());
    for number in 0..50 {
        assert!(send(&pool, number, 5_000).await.is_err());
        sleep(Duration::from_millis(3)).await;
    }
    // A request that waits through a pause may see two dials.
    let asked = questions.load(Ordering::SeqCst);
    assert!(asked >= 50, "{asked}");
    let dials = dials.lock().unwrap().clone();
    let to = |host| dials.iter().filter(|dial| dial.ip() == Ipv4Addr::new(127, 0, 0, host)).count();
    assert_eq!((to(1) + to(2), to(3)), (40, asked - 40));
    assert!(to(1) >= 8 && to(2) >= 8, "{} and {}", to(1), to(2));
}

//! Connections: every protocol that the port speaks, and what becomes of those who abuse it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde_json::json;
use sns_loadtest::device::DeviceKind;
use sns_loadtest::sim::script::Step;
use sns_loadtest::stage::{APP, Stage};
use sns_nas::client::message::{Message, Urgency};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::forge::{Forge, sealed};
use crate::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PREFACE,
    REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get, post, preface, read_frames,
};
use crate::house::House;
use crate::wire::{
    Ask, PATIENCE, ask_http1, ask_http2, http2, read_answer, read_to_end, send_http2, told_http2,
};

/// Timeouts that a test can wait for.
fn impatient(stage: &mut Stage) {
    stage.set_key("server.header_timeout_ms", 300);
    stage.set_key("server.body_timeout_ms", 300);
}

pub(crate) async fn connect(house: &House) -> TcpStream {
    TcpStream::connect(house.address()).await.unwrap()
}

pub(crate) async fn connect_tls(house: &House, alpn: &[&str]) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(house.stage.ca.der().clone()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, connect(house).await).await.unwrap()
}

async fn assert_serves(address: SocketAddr) {
    let app = Ask::new("GET", "/v1/apps/chat");
    assert_eq!(ask_http1(address, &app).await.status, 200);
    assert_eq!(ask_http2(address, &app).await.status, 200);
}

async fn metric(house: &House, name: &str) -> f64 {
    let told = ask_http1(house.admin_address(), &Ask::new("GET", "/metrics")).await;
    let text = String::from_utf8(told.body).unwrap();
    let line =
        text.lines().find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until a figure of the relay's is as expected; fails when it never is.
pub(crate) async fn wait_for_metric(house: &House, name: &str, value: f64) {
    let wait = async {
        while metric(house, name).await != value {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{name} never was {value}"));
}

/// Cleartext and TLS, each with HTTP/1.1 and HTTP/2, told apart by preface or by ALPN.
#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_is_served_on_one_port() {
    let plain = House::build().await;
    assert_serves(plain.address()).await;
    let house = House::with_tls(|_| {}).await;
    let app = Ask::new("GET", "/v1/apps/chat");
    for alpn in [&[][..], &["http/1.1"], &["http/1.1", "http/1.0"]] {
        let mut stream = connect_tls(&house, alpn).await;
        stream.write_all(&app.http1()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200, "{alpn:?}");
    }
    let stream = connect_tls(&house, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, _connection) = http2(stream).await;
    assert_eq!(send_http2(&mut sender, &app).await.unwrap().status, 200);
    let forge = Forge::for_house(&house);
    let device = house.device(DeviceKind::Ios).await;
    let endpoint = forge.pair(&house, APP, &device).await;
    let body = sealed("hello").into();
    let message = Message { ttl_s: 60, urgency: Urgency::High, topic: None, body };
    let answer = house.client.push(&endpoint, &forge.key, &message).await.unwrap();
    assert_eq!(answer.status, 201);
    assert!(answer.location.unwrap().starts_with(&house.url));
}

/// Beginnings that never go on; the relay hangs up on each within its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_begin_is_closed_in_time() {
    let house = House::with(impatient).await;
    let block = post("/v1/nas");
    let half_block = frame(HEADERS, END_STREAM, 1, &block[..4]);
    let half_frame = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    let half_frame = &half_frame[..half_frame.len() - 3];
    let begin = preface();
    let beginnings: [&[u8]; 9] = [
        b"",
        b"P",
        b"POST /v1/nas HTTP/1.1\r\nhost: local",
        b"GET /v1/nas/self HTTP/1.1\r\nhost: localhost\r\n",
        &PREFACE[..10],
        PREFACE,
        &begin,
        &[&begin[..], &half_block[..]].concat(),
        &[&begin[..], half_frame].concat(),
    ];
    for beginning in beginnings {
        let mut stream = connect(&house).await;
        stream.write_all(beginning).await.unwrap();
        let begun = Instant::now();
        read_to_end(&mut stream).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{beginning:?}");
    }
    wait_for_metric(&house, "sns_connections", 0.0).await;
    assert_serves(house.address()).await;
}

/// Half a handshake, and none at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_tls_handshake_that_does_not_end_is_closed_in_time() {
    let house = House::with_tls(impatient).await;
    for beginning in
        [&b""[..], &[22], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3], b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut stream = connect(&house).await;
        stream.write_all(beginning).await.unwrap();
        let begun = Instant::now();
        read_to_end(&mut stream).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{beginning:?}");
    }
    let mut silent = connect_tls(&house, &["h2"]).await;
    read_to_end(&mut silent).await;
    wait_for_metric(&house, "sns_connections", 0.0).await;
}

/// Headers that come byte by byte count as one wait; so does the second request of a connection.
#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_are_cut_off_however_busy_they_look() {
    let house = House::with(impatient).await;
    for requests_before in [0, 1] {
        let mut stream = connect(&house).await;
        for _ in 0..requests_before {
            stream.write_all(&Ask::new("GET", "/v1/apps/chat").http1()).await.unwrap();
            assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
        }
        let (mut reading, mut writing) = stream.into_split();
        let drip = tokio::spawn(async move {
            let _ =
                writing.write_all(b"GET /v1/apps/chat HTTP/1.1\r\nhost: localhost\r\nx: ").await;
            while writing.write_all(b"x").await.is_ok() {
                time::sleep(Duration::from_millis(20)).await;
            }
        });
        let begun = Instant::now();
        read_to_end(&mut reading).await;
        assert!(begun.elapsed() < Duration::from_secs(5));
        time::timeout(PATIENCE, drip).await.expect("the writer notices").unwrap();
    }
    let mut idle = connect(&house).await;
    idle.write_all(&Ask::new("GET", "/v1/apps/chat").http1()).await.unwrap();
    assert_eq!(read_answer(&mut idle).await.unwrap().status, 200);
    read_to_end(&mut idle).await;
}

/// Over HTTP/1.1, silent and dripping, and over HTTP/2: 408, and the place in work is free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_end_is_answered_in_time() {
    let house = House::with(impatient).await;
    let forge = Forge::for_house(&house);
    let ask = forge.json("POST", "/v1/nas", &json!({ "model": "DS923+", "serial": "x" }));
    let head = ask.clone().and("content-length", "100").head();
    for drips in [false, true] {
        let (mut reading, mut writing) = connect(&house).await.into_split();
        writing.write_all(head.as_bytes()).await.unwrap();
        let drip = tokio::spawn(async move {
            while drips && writing.write_all(b" ").await.is_ok() {
                time::sleep(Duration::from_millis(20)).await;
            }
            writing
        });
        let told = read_answer(&mut reading).await.unwrap();
        assert_eq!((told.status, told.code()), (408, "body_timeout".to_owned()));
        read_to_end(&mut reading).await;
        drip.await.unwrap();
    }
    let (sender, _connection) = http2(connect(&house).await).await;
    let (answer, mut body) =
        sender.ready().await.unwrap().send_request(ask.http2(), false).unwrap();
    body.send_data("{".into(), false).unwrap();
    let told = time::timeout(PATIENCE, told_http2(answer)).await.unwrap().unwrap();
    assert_eq!((told.status, told.code()), (408, "body_timeout".to_owned()));
    // A sender that goes away in the middle of its body leaves nothing behind.
    let mut gone = connect(&house).await;
    gone.write_all(head.as_bytes()).await.unwrap();
    drop(gone);
    wait_for_metric(&house, "sns_requests_in_flight", 0.0).await;
}

/// A peer that asks and asks and never reads an answer does not keep its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_cut_off() {
    let house = House::with(impatient).await;
    let description = Ask::new("GET", "/openapi.json").http1();
    let mut http1 = connect(&house).await;
    let asks = description.repeat(2000);
    // The relay stops reading at some point, so not all may be taken.
    let _ = time::timeout(Duration::from_millis(500), http1.write_all(&asks)).await;
    let mut http2 = connect(&house).await;
    // Windows as wide as they go, so that only the socket holds the answers back.
    let wide = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    let window = frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    http2.write_all(&[PREFACE, &wide, &window].concat()).await.unwrap();
    for number in 0..200_u32 {
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &get("/openapi.json"));
        if time::timeout(Duration::from_millis(500), http2.write_all(&ask)).await.is_err() {
            break;
        }
    }
    wait_for_metric(&house, "sns_connections", 0.0).await;
    drop((http1, http2));
    assert_serves(house.address()).await;
}

/// Two places: a third connection is turned away, and served once a place is free.
#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_the_limit_are_turned_away() {
    let house = House::with(|stage| stage.set_key("server.connections_max", 2)).await;
    let app = Ask::new("GET", "/v1/apps/chat").http1();
    let (mut first, mut second) = (connect(&house).await, connect(&house).await);
    for stream in [&mut first, &mut second] {
        stream.write_all(&app).await.unwrap();
        assert_eq!(read_answer(stream).await.unwrap().status, 200);
    }
    let mut third = connect(&house).await;
    assert_eq!(read_to_end(&mut third).await, b"");
    assert_eq!(metric(&house, "sns_connections_refused_total").await, 1.0);
    drop(first);
    wait_for_metric(&house, "sns_connections", 1.0).await;
    let mut fourth = connect(&house).await;
    fourth.write_all(&app).await.unwrap();
    assert_eq!(read_answer(&mut fourth).await.unwrap().status, 200);
}

/// One place in work, held by a push service that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_the_limit_are_shed_at_once() {
    let house = House::with(|stage| {
        stage.set_key("server.in_flight_max", 1);
        stage.set_key("server.request_timeout_ms", 1500);
    })
    .await;
    let forge = Forge::for_house(&house);
    let device = house.device(DeviceKind::Ios).await;
    let ask = forge.push(&forge.pair(&house, APP, &device).await);
    house.stage.apns.script().next(1, Step::Stall);
    let mut held = connect(&house).await;
    held.write_all(&ask.http1()).await.unwrap();
    assert!(house.stage.apns.journal().wait_requests(1, PATIENCE).await);
    let begun = Instant::now();
    for ask in [ask.clone(), Ask::new("GET", "/v1/apps/chat"), Ask::new("POST", "/v1/pairings")] {
        for told in [ask_http1(house.address(), &ask).await, ask_http2(house.address(), &ask).await]
        {
            assert_eq!((told.status, told.code()), (503, "overloaded".to_owned()));
            assert_eq!(told.header("retry-after"), Some("1"));
            let problem = told.json();
            assert_eq!(
                (&problem["retry_after_s"], &problem["outcome"]),
                (&json!(1), &json!("not_now"))
            );
            let any_origin = told.headers.contains_key("access-control-allow-origin");
            assert_eq!(any_origin, !ask.path.starts_with("/push/"), "a page may read why");
        }
    }
    assert!(begun.elapsed() < Duration::from_millis(1400), "shed, not queued");
    let told = read_answer(&mut held).await.unwrap();
    assert_eq!((told.status, told.code()), (504, "no_answer".to_owned()));
    assert_eq!(ask_http1(house.address(), &ask).await.status, 201);
}

/// Headers over the limit: 431 or the end of the connection, over both protocols.
#[tokio::test(flavor = "multi_thread")]
async fn headers_over_the_limit_are_refused() {
    let house = House::with(|stage| stage.set_key("server.header_bytes_max", 8192)).await;
    let long = Ask::new("GET", "/v1/apps/chat").header("x-long", "zqmarkerzq".repeat(2000));
    let mut many = Ask::new("GET", "/v1/apps/chat");
    for _ in 0..1000 {
        many = many.and("x", "y");
    }
    let long_path = Ask::new("GET", format!("/push/{}", "a".repeat(20_000)));
    for ask in [long, many, long_path] {
        let mut stream = connect(&house).await;
        let _refused_before_the_end = stream.write_all(&ask.http1()).await;
        let told = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        assert!(
            told.is_empty() || told.starts_with("HTTP/1.1 431") || told.starts_with("HTTP/1.1 414"),
            "{told}"
        );
        assert!(!told.contains("zqmarkerzq"));
        let (mut sender, _connection) = http2(connect(&house).await).await;
        let refused = send_http2(&mut sender, &ask).await;
        assert!(refused.as_ref().map_or(true, |told| told.status == 431), "{refused:?}");
    }
    assert_serves(house.address()).await;
}

/// Requests that two readers could understand differently ("smuggling") end their connection.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_lengths_are_refused() {
    let house = House::build().await;
    for headers in [
        "content-length: 2\r\ncontent-length: 3\r\n",
        "content-length: +2\r\n",
        "content-length: 2, 3\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding : chunked\r\n",
    ] {
        let mut stream = connect(&house).await;
        let head = format!("POST /v1/nas HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{{}}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let told = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        assert!(
            told.starts_with("HTTP/1.1 400") && told.matches("HTTP/1.1").count() == 1,
            "{told}"
        );
    }
    assert_serves(house.address()).await;
}

fn says_goodbye(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| frame.kind == GOAWAY)
}

/// The limit is told in SETTINGS; streams over it are refused, those below it answered.
#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_the_limit_are_refused() {
    let house = House::with(|stage| {
        stage.set_key("server.streams_per_connection_max", 4);
        impatient(stage);
    })
    .await;
    let mut stream = connect(&house).await;
    let mut bytes = preface();
    for number in 0..10 {
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * number + 1, &post("/v1/pairings")));
    }
    stream.write_all(&bytes).await.unwrap();
    let refused =
        |frame: &&Frame| frame.kind == RST_STREAM && frame.payload == REFUSED_STREAM.to_be_bytes();
    let answers = |frames: &[Frame]| frames.iter().filter(|frame| frame.kind == HEADERS).count();
    let enough = |frames: &[Frame]| answers(frames) >= 4 || says_goodbye(frames);
    let frames = read_frames(&mut stream, enough).await;
    let settings = frames.iter().find(|frame| frame.kind == SETTINGS).unwrap();
    assert!(settings.payload.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 4]));
    let refused: Vec<u32> = frames.iter().filter(refused).map(|frame| frame.stream).collect();
    assert!(refused.iter().all(|stream| *stream > 8) && refused.len() == 6, "{refused:?}");
    assert_eq!(answers(&frames), 4);
    assert_serves(house.address()).await;
}

/// Floods of CVE-2023-44487, CVE-2024-27316 and CVE-2025-8671: each flooder is sent away or cut off
/// while others are served.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_frames_ends_its_own_connection_alone() {
    let house = House::build().await;
    let ids = || (0..4000_u32).map(|number| 2 * number + 1);
    let ask = |id| frame(HEADERS, END_HEADERS, id, &post("/v1/pairings"));
    let reset = |id| frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes());
    let no_window = |id| frame(WINDOW_UPDATE, 0, id, &[0; 4]);
    let rapid_reset: Vec<u8> = ids().flat_map(|id| [ask(id), reset(id)].concat()).collect();
    let made_you_reset: Vec<u8> = ids().flat_map(|id| [ask(id), no_window(id)].concat()).collect();
    let more = frame(CONTINUATION, 0, 1, &b"\x00\x01x\x01y".repeat(500));
    let begun = frame(HEADERS, END_STREAM, 1, &get("/v1/apps/chat"));
    let continuations = [begun.clone(), more.repeat(400)].concat();
    let empty = frame(CONTINUATION, 0, 1, &[]);
    let empty_continuations = [begun, empty.repeat(100_000)].concat();
    let closed = frame(DATA, 0, 1, &[0; 100]);
    let on_idle_stream = closed.repeat(10);
    for (name, flood) in [
        ("rapid reset", rapid_reset),
        ("made you reset", made_you_reset),
        ("continuations", continuations),
        ("empty continuations", empty_continuations),
        ("data on an idle stream", on_idle_stream),
    ] {
        let (mut reading, mut writing) = connect(&house).await.into_split();
        let writer = tokio::spawn(async move {
            let _cut_off = writing.write_all(&[preface(), flood].concat()).await;
            writing
        });
        let frames = read_frames(&mut reading, says_goodbye).await;
        let cut_off = reading.read_u8().await.is_err();
        assert!(says_goodbye(&frames) || cut_off, "{name}");
        assert_serves(house.address()).await;
        drop(reading);
        drop(time::timeout(PATIENCE, writer).await.expect("the flood ends"));
    }
    wait_for_metric(&house, "sns_requests_in_flight", 0.0).await;
    wait_for_metric(&house, "sns_connections", 0.0).await;
}

/// Stops while a push service takes its time: what is in work is answered, nothing new begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_is_in_work_and_takes_nothing_new() {
    let mut house = House::build().await;
    let forge = Forge::for_house(&house);
    let device = house.device(DeviceKind::Ios).await;
    let ask = forge.push(&forge.pair(&house, APP, &device).await);
    let (mut sender, connection) = http2(connect(&house).await).await;
    let app = Ask::new("GET", "/v1/apps/chat");
    assert_eq!(send_http2(&mut sender, &app).await.unwrap().status, 200);
    let mut idle = connect(&house).await;
    idle.write_all(&app.http1()).await.unwrap();
    assert_eq!(read_answer(&mut idle).await.unwrap().status, 200);
    house.stage.apns.script().latency(Duration::from_millis(1000));
    let mut held = connect(&house).await;
    held.write_all(&ask.http1()).await.unwrap();
    let mut over_http2 = sender.clone();
    let also_held = tokio::spawn({
        let ask = ask.clone();
        async move { send_http2(&mut over_http2, &ask).await }
    });
    assert!(house.stage.apns.journal().wait_requests(2, PATIENCE).await);
    let (address, admin_address) = (house.address(), house.admin_address());
    let (during, ()) = tokio::join!(
        async {
            let closed = async {
                while TcpStream::connect(address).await.is_ok() {
                    time::sleep(Duration::from_millis(5)).await;
                }
            };
            time::timeout(PATIENCE, closed).await.expect("new connections are refused");
            read_to_end(&mut idle).await;
            let live = ask_http1(admin_address, &Ask::new("GET", "/livez")).await;
            (live.status, ask_http1(admin_address, &Ask::new("GET", "/readyz")).await)
        },
        house.stop()
    );
    assert_eq!(during.0, 200, "a draining relay is alive");
    assert_eq!((during.1.status, during.1.body), (503, b"draining\n".to_vec()));
    assert_eq!(read_answer(&mut held).await.unwrap().status, 201);
    assert_eq!(read_to_end(&mut held).await, b"");
    assert_eq!(also_held.await.unwrap().unwrap().status, 201);
    // GOAWAY without an error: the client sees the end of the connection, not a fault.
    assert!(time::timeout(PATIENCE, connection).await.unwrap().unwrap().is_ok());
    assert!(sender.ready().await.is_err());
    assert_eq!(house.stage.apns.delivered_to(device.address()).len(), 2);
}

/// Takes the store's file away from under the relay, and puts another in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_its_store_is_not_ready_and_acknowledges_nothing() {
    let house = House::with(|stage| stage.set_key("store.cache_entries_max", 0)).await;
    let nas = Forge::for_house(&house);
    assert_eq!(nas.enrol(&house).await.status, 201);
    let ask = Ask::new("GET", "/readyz");
    let ready = || ask_http1(house.admin_address(), &ask);
    assert_eq!(ready().await.status, 200);
    let file = house.stage.folder().join("data/identities.sqlite3");
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    for replaced in [false, true] {
        if replaced {
            std::fs::write(&file, "").unwrap();
        }
        assert_eq!(ready().await.status, 503, "replaced: {replaced}");
        let told = Forge::for_house(&house).enrol(&house).await;
        assert_eq!((told.status, told.code()), (503, "store_unavailable".to_owned()));
        assert!(told.headers.contains_key("retry-after"));
    }
    assert_eq!(ask_http1(house.admin_address(), &Ask::new("GET", "/livez")).await.status, 200);
    assert_serves(house.address()).await;
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(ready().await.status, 200, "and back");
    assert_eq!(Forge::for_house(&house).enrol(&house).await.status, 201);
}

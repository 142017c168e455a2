//! Faults of answers, doors, clocks and credentials, and the timeline that plays them.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use rustls::{AlertDescription, CertificateError};
use serde_json::json;
use sns_loadtest::fault::Fault;
use sns_loadtest::fault::timeline::{Act, Timeline};
use sns_loadtest::sim::journal::Journal;
use sns_loadtest::sim::script::{Answer, Hold, Manner, Step};
use sns_loadtest::sim::server::Welcome;
use sns_loadtest::sim::webpush::{Flavour, Protocol};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{End, post_and_watch, try_tls};
use crate::{apns, fcm, webpush};

const SOON: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);
const DEVICE: &str = "abababababababababababababababababababababababababababababababab";
/// More than any token lives.
const SKEW_S: i64 = 25 * 3600;

fn page() -> Answer {
    Answer::page(StatusCode::BAD_GATEWAY)
}

/// A step; then the status, how much of which body arrives, how it ends, and the acceptances.
type Row = (Step, u16, Bytes, End, u64);

fn rows() -> Vec<Row> {
    let (whole, huge) = (page().body, Bytes::from(vec![b'x'; 1024 * 1024]));
    let half = whole.slice(..whole.len() / 2);
    let in_manner = |manner| Step::Answer(page().in_manner(manner));
    vec![
        (Step::Answer(page()), 502, whole.clone(), End::Whole, 0),
        (Step::AcceptThenAnswer(page()), 502, whole.clone(), End::Whole, 1),
        (Step::Answer(Answer { body: huge.clone(), ..page() }), 502, huge, End::Whole, 0),
        (in_manner(Manner::HalfThenDrop), 502, half.clone(), End::Broken, 0),
        (in_manner(Manner::HalfThenSilence), 502, half, End::Silent, 0),
        (in_manner(Manner::Trickle(Duration::from_millis(1))), 502, whole, End::Whole, 0),
        (Step::AcceptIn(Manner::HalfThenDrop), 201, Bytes::new(), End::Broken, 1),
        (Step::AcceptIn(Manner::HalfThenSilence), 201, Bytes::new(), End::Silent, 1),
    ]
}

/// Each manner by both protocols, for messages that are processed and for those that are not.
#[tokio::test]
async fn answers_go_out_whole_by_half_and_byte_by_byte() {
    let bench = webpush::Bench::start(Flavour::Mozilla, Protocol::Both).await;
    let headers = bench.headers(&[], &bench.body);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
    let journal = bench.sim.journal();
    for alpn in ["h2", "http/1.1"] {
        for (step, status, body, end, acceptances) in rows() {
            let (cell, accepted) = (format!("{alpn} {step:?}"), journal.accepted());
            bench.sim.script().next(1, step);
            let server = (bench.sim.base_url(), alpn);
            let asked_at = Instant::now();
            let got = post_and_watch(&bench.ca, server, bench.path(), &headers, &bench.body).await;
            assert_eq!((got.0.as_u16(), got.2), (status, end), "{cell}");
            assert!(got.1 == body, "{cell}: {} bytes", got.1.len());
            assert_eq!(journal.accepted() - accepted, acceptances, "{cell}");
            if cell.contains("Trickle") {
                assert!(asked_at.elapsed().as_millis() >= body.len() as u128, "{cell}");
            }
        }
    }
}

/// Whether a connection failed as it should.
type Told = dyn Fn(&io::Error) -> bool;

/// What rustls says of a failed handshake.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Each welcome, as a client of rustls meets it; a connection from before is served all the while.
#[tokio::test]
async fn what_meets_a_new_connection_is_as_told_and_live_ones_stay() {
    let bench = apns::Bench::start().await;
    let (mut early, token) = (bench.client().await, bench.token());
    let connections = bench.sim.connections();
    let alert = |description| {
        move |error: &io::Error| {
            tls_error(error) == Some(&rustls::Error::AlertReceived(description))
        }
    };
    let handshake_failure = alert(AlertDescription::HandshakeFailure);
    let no_application_protocol = alert(AlertDescription::NoApplicationProtocol);
    let expired = |error: &io::Error| {
        use CertificateError::{Expired, ExpiredContext};
        matches!(
            tls_error(error),
            Some(rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }))
        )
    };
    let closed = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
    };
    let failures: [(Welcome, &Told); 4] = [
        (Welcome::TurnAway, &closed),
        (Welcome::TlsAlert, &handshake_failure),
        (Welcome::WrongAlpn, &no_application_protocol),
        (Welcome::ExpiredCertificate, &expired),
    ];
    let connect = async || try_tls(&bench.ca, bench.sim.base_url(), "h2", None).await;
    for (welcome, as_told) in failures {
        connections.welcome(welcome);
        let error = connect().await.unwrap_err();
        assert!(as_told(&error), "{welcome:?}: {error:?}");
        assert_eq!(apns::push(&mut early, &token, DEVICE).await.status, 200, "{welcome:?}");
    }
    connections.welcome(Welcome::Silence);
    assert!(timeout(SHORT, connect()).await.is_err());
    connections.welcome(Welcome::NoAlpn);
    assert_eq!(connect().await.unwrap().get_ref().1.alpn_protocol(), None);
    connections.welcome(Welcome::Open);
    assert_eq!(connect().await.unwrap().get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(connections.met(), 8);
}

/// Held requests are not processed, held answers are; both go on when they are let go.
#[tokio::test]
async fn what_is_held_waits_where_it_was_told_to() {
    let bench = apns::Bench::start().await;
    let (mut client, token) = (bench.client().await, bench.token());
    let (script, journal): (_, &Journal) = (bench.sim.script(), bench.sim.journal());
    for (number, hold, accepted) in [(1, Hold::Requests, 0), (2, Hold::Answers, 2)] {
        script.hold(hold);
        let mut answer = Box::pin(apns::push(&mut client, &token, DEVICE));
        assert!(timeout(SHORT, &mut answer).await.is_err());
        assert_eq!((journal.requests(), journal.accepted()), (number, accepted), "{hold:?}");
        script.let_go();
        assert_eq!(timeout(SOON, answer).await.unwrap().status, 200, "{hold:?}");
        assert_eq!(journal.accepted(), number, "{hold:?}");
    }
}

/// A token is over for a clock that is ahead, and of the future for one that is behind.
#[tokio::test]
async fn a_clock_that_is_wrong_either_way_refuses_good_tokens() {
    let (ios, android) = (apns::Bench::start().await, fcm::Bench::start().await);
    let browser = webpush::Bench::start(Flavour::Mozilla, Protocol::Both).await;
    let (mut apns_client, mut fcm_client) = (ios.client().await, android.client().await);
    for (ahead_s, as_right) in [(SKEW_S, false), (-SKEW_S, false), (0, true)] {
        ios.sim.controls().set_clock_ahead_s(ahead_s);
        android.sim.controls().set_clock_ahead_s(ahead_s);
        browser.sim.controls().set_clock_ahead_s(ahead_s);
        let told = apns::push(&mut apns_client, &ios.token(), DEVICE).await.reason();
        let wrong = (403, "ExpiredProviderToken".to_owned());
        assert_eq!(told, if as_right { (200, String::new()) } else { wrong }, "{ahead_s}");
        let grant = android.grant(&android.claims());
        let told = fcm_client.post("/token", &[fcm::FORM], grant.as_bytes()).await.unwrap();
        assert_eq!(told.status, if as_right { 200 } else { 400 }, "{ahead_s}");
        assert_eq!(told.json()["error"] == "invalid_grant", !as_right, "{ahead_s}");
        let told = browser.post(&[], &browser.body).await;
        assert_eq!(told.status, if as_right { 201 } else { 401 }, "{ahead_s}");
    }
}

/// Revoked at the push service: good tokens are refused in its own words until they are good again.
#[tokio::test]
async fn credentials_are_refused_in_the_words_of_each_service() {
    let (ios, android) = (apns::Bench::start().await, fcm::Bench::start().await);
    let browser = webpush::Bench::start(Flavour::Mozilla, Protocol::Both).await;
    let (mut apns_client, mut fcm_client) = (ios.client().await, android.client().await);
    let bearer = android.bearer(&mut fcm_client).await;
    let message = json!({ "message": { "token": "t", "data": { "e": "AA" } } });
    for refusing in [true, false] {
        ios.sim.controls().refuse_credentials(refusing);
        android.sim.controls().refuse_credentials(refusing);
        browser.sim.controls().refuse_credentials(refusing);
        let told = apns::push(&mut apns_client, &ios.token(), DEVICE).await.reason();
        let refusal = (403, "InvalidProviderToken".to_owned());
        assert_eq!(told, if refusing { refusal } else { (200, String::new()) });
        let told = android.send(&mut fcm_client, &bearer, &message).await;
        assert_eq!(told.status, if refusing { 401 } else { 200 });
        let grant = android.grant(&android.claims());
        let told = fcm_client.post("/token", &[fcm::FORM], grant.as_bytes()).await.unwrap();
        assert_eq!(told.json()["error"] == "invalid_grant", refusing);
        let told = browser.post(&[], &browser.body).await;
        assert_eq!(told.status, if refusing { 401 } else { 201 });
    }
}

/// Every fault begins and ends, and leaves what it did not touch: limit, latency, clock.
#[tokio::test]
async fn a_fault_that_has_ended_leaves_the_service_as_it_was() {
    let bench = apns::Bench::start().await;
    let (controls, token) = (bench.sim.controls(), bench.token());
    controls.connections.set_stream_limit(7);
    controls.set_clock_ahead_s(60);
    controls.script.latency(Duration::from_millis(30));
    for fault in Fault::ALL.into_iter().filter(|fault| fault.can_begin()) {
        for processed in [false, true] {
            let ongoing = fault.begin(controls, processed);
            timeout(SOON, ongoing.felt()).await.unwrap();
            ongoing.end();
            let mut client = bench.client().await;
            let asked_at = Instant::now();
            let told = timeout(SOON, apns::push(&mut client, &token, DEVICE)).await.unwrap();
            assert_eq!(told.status, 200, "{fault:?}");
            assert!(asked_at.elapsed() < Duration::from_secs(2), "{fault:?}");
            assert!(asked_at.elapsed() >= Duration::from_millis(30), "{fault:?}");
            assert_eq!(controls.connections.stream_limit(), Some(7), "{fault:?}");
            assert_eq!(controls.clock_ahead_s(), 60, "{fault:?}");
        }
    }
}

/// Two acts at two services; each service is as it should be before, within and after its own.
#[tokio::test]
async fn a_timeline_plays_each_act_at_its_time_and_place() {
    let benches = [apns::Bench::start().await, apns::Bench::start().await];
    let tokens = [benches[0].token(), benches[1].token()];
    let mut clients = [benches[0].client().await, benches[1].client().await];
    let lasts = Duration::from_millis(600);
    let act = |at, fault, service| Act { at, lasts, fault, service, processed: false };
    let timeline = Timeline::new(vec![
        act(lasts * 2, Fault::Throttled, 1),
        act(Duration::ZERO, Fault::Unavailable, 0),
    ]);
    let controls = [benches[0].sim.controls().clone(), benches[1].sim.controls().clone()];
    let playing = tokio::spawn(async move { timeline.play(&controls).await });
    let mut told: [Vec<u16>; 2] = [Vec::new(), Vec::new()];
    while !playing.is_finished() {
        for (place, client) in clients.iter_mut().enumerate() {
            let status = apns::push(client, &tokens[place], DEVICE).await.status.as_u16();
            if told[place].last() != Some(&status) {
                told[place].push(status);
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    playing.await.unwrap();
    for (place, client) in clients.iter_mut().enumerate() {
        assert_eq!(apns::push(client, &tokens[place], DEVICE).await.status, 200);
    }
    assert!(told[0].ends_with(&[503, 200]), "{told:?}");
    assert!(told[1].starts_with(&[200, 429]), "{told:?}");
}

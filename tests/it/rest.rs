//! Rest: an HTTP/1.1 connection that is quiet gives its buffers up, and nobody notices.

use std::time::Duration;

use sns_loadtest::device::DeviceKind;
use sns_loadtest::stage::APP;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{self, Instant};

use crate::connections::{connect, connect_tls, wait_for_metric};
use crate::forge::Forge;
use crate::house::House;
use crate::wire::{Ask, read_answer, read_to_end};

/// What every connection of these tests asks for.
fn app() -> Vec<u8> {
    Ask::new("GET", "/v1/apps/chat").http1()
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

async fn assert_answers(stream: &mut (impl AsyncRead + Unpin), statuses: &[u16]) {
    for status in statuses {
        assert_eq!(read_answer(stream).await.unwrap().status, *status);
    }
}

async fn wait_for_rest(house: &House) {
    wait_for_metric(house, "sns_connections_resting", 1.0).await;
}

/// Asks, waits for the rest, and asks again; requests that come together in one write; requests
/// that a rest cuts in two; one that begins after a rest and takes its time.
async fn rest_and_wake(house: &House, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let ask = app();
    for _ in 0..3 {
        say(&mut stream, &ask).await;
        assert_answers(&mut stream, &[200]).await;
        wait_for_rest(house).await;
    }
    let (begin, rest) = ask.split_at(20);
    say(&mut stream, &[&ask, &ask, &ask, begin].concat()).await;
    assert_answers(&mut stream, &[200; 3]).await;
    wait_for_rest(house).await;
    say(&mut stream, &[rest, &ask, begin].concat()).await;
    assert_answers(&mut stream, &[200; 2]).await;
    wait_for_rest(house).await;
    say(&mut stream, rest).await;
    assert_answers(&mut stream, &[200]).await;
    wait_for_rest(house).await;
    say(&mut stream, begin).await;
    wait_for_metric(house, "sns_connections_resting", 0.0).await;
    // Longer than a connection is quiet before it rests: this one waits for the other half.
    time::sleep(Duration::from_millis(2500)).await;
    say(&mut stream, rest).await;
    assert_answers(&mut stream, &[200]).await;
    say(&mut stream, &ask).await;
    assert_answers(&mut stream, &[200]).await;
}

/// Over real sockets, in clear text; the relay says when the connection rests.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_rests_and_wakes_and_no_byte_is_lost() {
    let house = House::build().await;
    rest_and_wake(&house, connect(&house).await).await;
}

/// The same over TLS, whose session stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_tls_connection_rests_and_wakes_and_no_byte_is_lost() {
    let house = House::with_tls(|_| {}).await;
    rest_and_wake(&house, connect_tls(&house, &["http/1.1"]).await).await;
}

/// The first bytes come before a rest, all else after.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_its_device_after_a_rest() {
    let house = House::build().await;
    let forge = Forge::for_house(&house);
    let device = house.device(DeviceKind::Ios).await;
    let ask = forge.push(&forge.pair(&house, APP, &device).await).http1();
    let mut stream = connect(&house).await;
    let (begin, rest) = ask.split_at(ask.len() / 4);
    say(&mut stream, &[&app()[..], begin].concat()).await;
    assert_answers(&mut stream, &[200]).await;
    for count in 1..=3 {
        wait_for_rest(&house).await;
        say(&mut stream, &[rest, begin].concat()).await;
        assert_answers(&mut stream, &[201]).await;
        assert_eq!(house.stage.apns.delivered_to(device.address()).len(), count);
    }
}

/// A stop ends a connection at rest at once, over TLS with a proper end.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_who_rests() {
    for with_tls in [false, true] {
        let mut house = if with_tls { House::with_tls(|_| {}).await } else { House::build().await };
        let begun = if with_tls {
            let mut stream = connect_tls(&house, &["http/1.1"]).await;
            say(&mut stream, &app()).await;
            assert_answers(&mut stream, &[200]).await;
            wait_for_rest(&house).await;
            let begun = Instant::now();
            tokio::join!(house.stop(), read_to_end(&mut stream));
            begun
        } else {
            let mut stream = connect(&house).await;
            say(&mut stream, &app()).await;
            assert_answers(&mut stream, &[200]).await;
            wait_for_rest(&house).await;
            let begun = Instant::now();
            tokio::join!(house.stop(), read_to_end(&mut stream));
            begun
        };
        assert!(begun.elapsed() < Duration::from_secs(5), "with TLS: {with_tls}");
    }
}

/// The time for a head counts on during a rest, with nothing of it there and with a part of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_rests_too_long_is_closed() {
    let house = House::with(|stage| stage.set_key("server.header_timeout_ms", 4000)).await;
    for begin in [&b""[..], b"GET /v1/ap"] {
        let mut stream = connect(&house).await;
        say(&mut stream, &app()).await;
        assert_answers(&mut stream, &[200]).await;
        let begun = Instant::now();
        say(&mut stream, begin).await;
        wait_for_rest(&house).await;
        assert_eq!(read_to_end(&mut stream).await, b"");
        let lasted = begun.elapsed();
        assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&lasted), "{lasted:?}");
    }
    wait_for_metric(&house, "sns_connections", 0.0).await;
    wait_for_metric(&house, "sns_connections_resting", 0.0).await;
}

/// The number of requests counts on over rests.
#[tokio::test(flavor = "multi_thread")]
async fn a_worn_out_connection_ends_after_its_last_answer() {
    let limit = "server.requests_per_connection_max";
    let house = House::with(|stage| stage.set_key(limit, 3)).await;
    let mut stream = connect(&house).await;
    say(&mut stream, &app().repeat(2)).await;
    assert_answers(&mut stream, &[200; 2]).await;
    wait_for_rest(&house).await;
    say(&mut stream, &app()).await;
    assert_answers(&mut stream, &[200]).await;
    assert_eq!(read_to_end(&mut stream).await, b"");
}

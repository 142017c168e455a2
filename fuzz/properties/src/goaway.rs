//! GOAWAY: whatever a peer says as it goes, the reason is one of a closed set, and what it said.
//!
//! The input is the error code in decimal on a line, then the debug data. Both reach the relay's
//! code through a real HTTP/2 connection.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;

use http::Request;
use sns_relay::provider::upstream::{GoAwayReason, Label as _};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::{Builder, Runtime};

/// Codes that RFC 9113 §7 gives, from 0.
const CODES: u32 = 14;

/// Debug data beyond it would not fit one frame.
const DEBUG_BYTES_MAX: usize = 16_000;

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        Builder::new_current_thread().build().expect("a runtime starts"),
    );
}

/// Checks one GOAWAY.
pub fn goaway(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let Some(code) = std::str::from_utf8(&data[..end]).ok().and_then(|text| text.parse().ok())
    else {
        return;
    };
    let debug = &data[end + 1..];
    let debug = &debug[..debug.len().min(DEBUG_BYTES_MAX)];
    let error = RUNTIME.with_borrow(|runtime| runtime.block_on(received(code, debug)));
    assert!(error.is_go_away() && error.is_remote(), "h2 saw another error");
    let label = GoAwayReason::of(&error).label();
    let (codes, documented) = GoAwayReason::ALL.split_at(CODES as usize);
    let documented = &documented[..documented.len() - 1];
    let is_named = |reason: &GoAwayReason| contains(debug, &format!("\"{}\"", reason.label()));
    let named: Vec<_> = documented.iter().filter(|reason| is_named(reason)).collect();
    if named.is_empty() {
        let coded = codes.get(code as usize).map_or("other", |reason| reason.label());
        assert_eq!(label, coded, "the code counts where no reason is named");
    } else {
        assert!(named.iter().any(|reason| reason.label() == label), "{label} was not named");
    }
}

/// Gives the error that a request meets whose connection is ended by GOAWAY.
async fn received(code: u32, debug: &[u8]) -> h2::Error {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let (requests, connection) = h2::client::handshake(near).await.expect("a handshake starts");
    let mut requests = requests.ready().await.expect("a stream is free");
    let request = Request::get("https://push.example/").body(()).expect("a request");
    let (response, _) = requests.send_request(request, true).expect("it is sent");
    let mut frames = frame(4, &[]);
    let mut payload = vec![0; 4];
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(debug);
    frames.extend(frame(7, &payload));
    far.write_all(&frames).await.expect("the pipe takes it");
    let (mut response, mut connection) = (pin!(response), pin!(connection));
    poll_fn(|context| {
        let _ended = connection.as_mut().poll(context);
        match response.as_mut().poll(context) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            Poll::Ready(Ok(_)) => panic!("nobody answered"),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Writes a frame of stream 0 without flags (RFC 9113 §4.1).
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(payload);
    frame
}

fn contains(data: &[u8], text: &str) -> bool {
    data.windows(text.len()).any(|window| window == text.as_bytes())
}

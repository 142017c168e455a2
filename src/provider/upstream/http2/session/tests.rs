//! A session against a peer that is written out frame by frame.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::super::frame::{self, HEAD_BYTES, Head, Reason, flag, kind};
use super::super::stream::{End, Parts};
use super::*;
use crate::provider::upstream::counts::ReplayReason;

/// SETTINGS that say nothing.
const SETTINGS: [u8; 9] = [0, 0, 0, kind::SETTINGS, 0, 0, 0, 0, 0];
/// `:status: 200` of the static table.
const OK: u8 = 0x88;

/// A session whose peer has sent SETTINGS, with nothing left to write.
fn session(settings: &[(u16, u32)]) -> Session {
    let mut session = Session::new();
    assert_eq!(session.receive(&self::settings(settings)), Ok(9 + settings.len() * 6));
    session.take_out(Vec::new());
    session
}

fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    bytes(kind::SETTINGS, 0, 0, &payload)
}

fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, kind, flags, stream, payload);
    out
}

fn open(session: &mut Session, body_bytes: usize) -> Result<u32, NotOpened> {
    let body = Bytes::from(vec![b'b'; body_bytes]);
    let post = Post { path: "/", body, fields: &|_: &mut dyn Fields| {} };
    session.open("push.example", &post, 1_000)
}

/// Everything that was written since, as heads and payloads.
fn written(session: &mut Session) -> Vec<(Head, Vec<u8>)> {
    let out = session.take_out(Vec::new());
    let mut rest = out.as_slice();
    let mut frames = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let head = Head::read(*head);
        let (payload, after) = after.split_at(head.length);
        frames.push((head, payload.to_vec()));
        rest = after;
    }
    frames
}

fn data_bytes(session: &mut Session) -> usize {
    let data = written(session).into_iter().filter(|(head, _)| head.kind == kind::DATA);
    data.map(|(head, _)| head.length).sum()
}

fn head(session: &mut Session, id: u32) -> Poll<Result<Parts, End>> {
    session.poll_head(id, &Context::from_waker(Waker::noop()))
}

fn end(session: &mut Session, id: u32) -> Poll<Option<End>> {
    session.poll_end(id, &Context::from_waker(Waker::noop()))
}

/// What the peer says first of all: preface, SETTINGS and the connection's window.
#[test]
fn a_session_begins_with_the_preface_and_its_settings() {
    let mut session = Session::new();
    let out = session.take_out(Vec::new());
    let rest = out.strip_prefix(PREFACE).unwrap();
    assert_eq!(Head::read(*rest.first_chunk().unwrap()).kind, kind::SETTINGS);
    assert!(out.ends_with(&bytes(
        kind::WINDOW_UPDATE,
        0,
        0,
        &(1_048_576_u32 - 65_535).to_be_bytes()
    )));
}

/// One stream before SETTINGS; then as many as they say, also where that becomes less or more.
#[test]
fn no_more_streams_are_open_than_the_peer_allows() {
    let mut session = Session::new();
    assert_eq!(open(&mut session, 0), Ok(1));
    assert_eq!(open(&mut session, 0), Err(NotOpened::Full));
    session.receive(&settings(&[(setting::MAX_CONCURRENT_STREAMS, 2)])).unwrap();
    assert_eq!(open(&mut session, 0), Ok(3));
    assert_eq!(open(&mut session, 0), Err(NotOpened::Full));
    session.receive(&settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)])).unwrap();
    session.let_go(1);
    assert_eq!(open(&mut session, 0), Err(NotOpened::Full));
    session.let_go(3);
    assert_eq!(open(&mut session, 0), Ok(5));
}

/// A body of 100,000 bytes: a stream's window, the connection's, a smaller and a larger initial
/// window, frames of 16 KiB.
#[test]
fn a_body_goes_no_further_than_the_windows() {
    let mut session = session(&[(setting::INITIAL_WINDOW_SIZE, 20_000)]);
    let id = open(&mut session, 100_000).unwrap();
    assert_eq!(data_bytes(&mut session), 20_000);
    let more = bytes(kind::WINDOW_UPDATE, 0, id, &10_000_u32.to_be_bytes());
    session.receive(&more).unwrap();
    assert_eq!(data_bytes(&mut session), 10_000);
    // Smaller by 15,000: the stream owes as much.
    session.receive(&settings(&[(setting::INITIAL_WINDOW_SIZE, 5_000)])).unwrap();
    session.receive(&more).unwrap();
    assert_eq!(data_bytes(&mut session), 0);
    session.receive(&settings(&[(setting::INITIAL_WINDOW_SIZE, 1_000_000)])).unwrap();
    // What the connection's window has left.
    assert_eq!(data_bytes(&mut session), 65_535 - 30_000);
    let all = bytes(kind::WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes());
    session.receive(&all).unwrap();
    let frames = written(&mut session);
    assert!(frames.iter().all(|(head, _)| head.length <= 16_384));
    let last = frames.last().unwrap().0;
    assert!(last.has(flag::END_STREAM) && last.kind == kind::DATA);
    assert_eq!(frames.iter().map(|(head, _)| head.length).sum::<usize>(), 100_000 - 65_535);
}

/// A head that is longer than a frame goes on in CONTINUATION, the last of which ends it.
#[test]
fn a_long_head_goes_on_in_continuation() {
    let mut session = session(&[]);
    let path = format!("/{}", "p".repeat(40_000));
    let post = Post { path: &path, body: Bytes::new(), fields: &|_: &mut dyn Fields| {} };
    session.open("push.example", &post, 1_000).unwrap();
    let frames = written(&mut session);
    let shape: Vec<_> = frames.iter().map(|(head, _)| (head.kind, head.flags)).collect();
    let expected = [
        (kind::HEADERS, flag::END_STREAM),
        (kind::CONTINUATION, 0),
        (kind::CONTINUATION, flag::END_HEADERS),
    ];
    assert_eq!(shape, expected);
}

/// An interim answer, a head in three frames with padding and a priority, a body with padding, and
/// trailers.
#[test]
fn an_answer_is_read_in_whatever_frames_it_comes() {
    let mut session = session(&[]);
    let id = open(&mut session, 1).unwrap();
    // `:status: 103`: its name has the index 8.
    let interim = bytes(kind::HEADERS, flag::END_HEADERS, id, b"\x08\x03103");
    let padded = [&[2, 0, 0, 0, 0, 9, OK][..], &[0, 0]].concat();
    let parts = [
        interim,
        bytes(kind::HEADERS, flag::PADDED | flag::PRIORITY, id, &padded),
        bytes(kind::CONTINUATION, 0, id, b"\x00\x07apns"),
        bytes(kind::CONTINUATION, flag::END_HEADERS, id, b"-id\x01x"),
        bytes(kind::DATA, flag::PADDED, id, b"\x03body\0\0\0"),
        bytes(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, id, b"\x00\x01t\x01v"),
    ];
    for part in &parts[..3] {
        session.receive(part).unwrap();
        assert!(head(&mut session, id).is_pending());
    }
    session.receive(&parts[3]).unwrap();
    let Poll::Ready(Ok(answer)) = head(&mut session, id) else { panic!("no head") };
    assert_eq!((answer.status.as_u16(), answer.headers["apns-id"].as_bytes()), (200, &b"x"[..]));
    session.receive(&parts[4]).unwrap();
    assert!(end(&mut session, id).is_pending());
    session.receive(&parts[5]).unwrap();
    assert_eq!(end(&mut session, id), Poll::Ready(Some(End::Whole)));
    assert_eq!(session.let_go(id), (b"body".to_vec(), true));
}

/// Byte by byte comes to the same.
#[test]
fn a_frame_is_read_once_it_is_whole() {
    let mut session = session(&[]);
    let id = open(&mut session, 0).unwrap();
    let flags = flag::END_HEADERS | flag::END_STREAM;
    let answer = bytes(kind::HEADERS, flags, id, &[OK]);
    for length in 0..answer.len() {
        assert_eq!(session.receive(&answer[..length]), Ok(0), "{length} bytes");
    }
    assert_eq!(session.receive(&answer), Ok(answer.len()));
    assert!(matches!(head(&mut session, id), Poll::Ready(Ok(_))));
}

/// What is wrong with one answer ends its stream, with a reset; the other goes on.
#[test]
fn a_wrong_answer_spoils_its_stream_alone() {
    let long = [&b"\x88\x00\x01n\x7f\xa1\x7f"[..], &[b'v'; 16_416]].concat();
    let (whole, open_end) = (flag::END_HEADERS | flag::END_STREAM, flag::END_HEADERS);
    let rows: [(&str, Vec<u8>); 8] = [
        ("no status", bytes(kind::HEADERS, whole, 1, b"\x00\x01n\x01v")),
        ("two", bytes(kind::HEADERS, whole, 1, &[OK, OK])),
        ("a status behind a field", bytes(kind::HEADERS, whole, 1, b"\x00\x01n\x01v\x88")),
        ("a name in capitals", bytes(kind::HEADERS, whole, 1, b"\x88\x00\x01N\x01v")),
        ("an interim answer that ends", bytes(kind::HEADERS, whole, 1, b"\x08\x03103")),
        ("a body before its head", bytes(kind::DATA, 0, 1, b"x")),
        ("too many header bytes", {
            let (first, rest) = long.split_at(16_000);
            let mut frames = bytes(kind::HEADERS, flag::END_STREAM, 1, first);
            frames.extend(bytes(kind::CONTINUATION, open_end, 1, rest));
            frames
        }),
        ("a window of no bytes", bytes(kind::WINDOW_UPDATE, 0, 1, &[0; 4])),
    ];
    for (why, frames) in rows {
        let mut session = session(&[]);
        open(&mut session, 0).unwrap();
        open(&mut session, 0).unwrap();
        written(&mut session);
        assert_eq!(session.receive(&frames), Ok(frames.len()), "{why}");
        assert!(matches!(head(&mut session, 1), Poll::Ready(Err(End::Broken))), "{why}");
        let reset = bytes(kind::RST_STREAM, 0, 1, &Reason::PROTOCOL_ERROR.0.to_be_bytes());
        assert!(session.take_out(Vec::new()).ends_with(&reset), "{why}");
        session.receive(&bytes(kind::HEADERS, whole, 3, &[OK])).unwrap();
        assert!(matches!(head(&mut session, 3), Poll::Ready(Ok(_))), "{why}");
    }
}

/// A body that is not as long as its head says was broken off.
#[test]
fn a_body_of_another_length_than_it_says_is_broken() {
    for (body, expected) in [("12", End::Whole), ("1", End::Broken), ("123", End::Broken)] {
        let mut session = session(&[]);
        let id = open(&mut session, 0).unwrap();
        // `content-length: 2`: its name has the index 28.
        let answer = bytes(kind::HEADERS, flag::END_HEADERS, id, b"\x88\x0f\x0d\x012");
        session.receive(&answer).unwrap();
        session.receive(&bytes(kind::DATA, flag::END_STREAM, id, body.as_bytes())).unwrap();
        assert_eq!(end(&mut session, id), Poll::Ready(Some(expected)), "{body}");
    }
}

/// What breaks a rule of the connection is an error, with the code that RFC 9113 has for it.
#[test]
fn what_breaks_a_rule_ends_the_connection() {
    let stream = |kind, payload: &[u8]| bytes(kind, flag::END_HEADERS, 1, payload);
    let begun = bytes(kind::HEADERS, 0, 1, &[OK]);
    let endless = [begun.clone(), bytes(kind::CONTINUATION, 0, 1, b"").repeat(100)].concat();
    let (protocol, size) = (Reason::PROTOCOL_ERROR, Reason::FRAME_SIZE_ERROR);
    let (flow, calm) = (Reason::FLOW_CONTROL_ERROR, Reason::ENHANCE_YOUR_CALM);
    let most = ((1_u32 << 31) - 1).to_be_bytes();
    let chunk = [0; 16_384];
    let flood = bytes(kind::DATA, 0, 1, &chunk);
    let rows = [
        ("a frame of 16,385 bytes", bytes(kind::DATA, 0, 1, &[0; 16_385]), size),
        ("DATA of no stream", bytes(kind::DATA, 0, 0, b""), protocol),
        ("HEADERS of a stream of the peer's", bytes(kind::HEADERS, 4, 2, &[OK]), protocol),
        ("HEADERS of a stream that is to come", bytes(kind::HEADERS, 4, 5, &[OK]), protocol),
        ("compression", stream(kind::HEADERS, &[0x80]), Reason::COMPRESSION_ERROR),
        ("padding longer than the frame", bytes(kind::DATA, flag::PADDED, 1, &[9, 0]), protocol),
        ("RST_STREAM of three bytes", stream(kind::RST_STREAM, &[0; 3]), size),
        ("PING of seven", bytes(kind::PING, 0, 0, &[0; 7]), size),
        ("PING on a stream", bytes(kind::PING, 0, 1, &[0; 8]), protocol),
        ("GOAWAY of seven bytes", bytes(kind::GOAWAY, 0, 0, &[0; 7]), size),
        ("PUSH_PROMISE", stream(kind::PUSH_PROMISE, &[0, 0, 0, 2, OK]), protocol),
        ("CONTINUATION of nothing", stream(kind::CONTINUATION, &[OK]), protocol),
        ("a head with another frame in it", [begun, SETTINGS.to_vec()].concat(), protocol),
        ("a head without end", endless, calm),
        ("no window for all", bytes(kind::WINDOW_UPDATE, 0, 0, &[0; 4]), protocol),
        ("a window too wide", bytes(kind::WINDOW_UPDATE, 0, 0, &most), flow),
        ("SETTINGS of five bytes", bytes(kind::SETTINGS, 0, 0, &[0; 5]), size),
        ("an ACK that says something", bytes(kind::SETTINGS, flag::ACK, 0, &[0; 6]), size),
        ("server push", settings(&[(setting::ENABLE_PUSH, 1)]), protocol),
        ("frames too small", settings(&[(setting::MAX_FRAME_SIZE, 16_383)]), protocol),
        ("windows too wide", settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]), flow),
        ("more replies than are read", bytes(kind::PING, 0, 0, &[0; 8]).repeat(4_000), calm),
    ];
    for (why, frames, reason) in rows {
        let mut session = session(&[]);
        open(&mut session, 0).unwrap();
        assert_eq!(session.receive(&frames), Err(reason), "{why}");
    }
    let mut early = Session::new();
    assert_eq!(early.receive(&bytes(kind::PING, 0, 0, &[0; 8])), Err(protocol), "no SETTINGS");
    // The windows are opened again as they are used: no one who looks at them is wrong.
    let mut session = session(&[]);
    let id = open(&mut session, 0).unwrap();
    session.receive(&bytes(kind::HEADERS, flag::END_HEADERS, id, &[OK])).unwrap();
    for _ in 0..1_000 {
        session.receive(&flood).unwrap();
    }
    assert_eq!(end(&mut session, id), Poll::Ready(None), "no more than 1,000 bytes are kept");
    assert_eq!(session.let_go(id).0.len(), 1_000);
}

/// Late frames of streams that we have left are nothing; the header table goes on.
#[test]
fn what_comes_late_is_read_and_forgotten() {
    let mut session = session(&[]);
    let (gone, kept) = (open(&mut session, 0).unwrap(), open(&mut session, 0).unwrap());
    assert_eq!(session.let_go(gone), (Vec::new(), false));
    let whole = flag::END_HEADERS | flag::END_STREAM;
    // `a: b`, kept in the table by an answer that nobody reads.
    session.receive(&bytes(kind::HEADERS, flag::END_HEADERS, gone, b"\x88\x40\x01a\x01b")).unwrap();
    session.receive(&bytes(kind::DATA, flag::END_STREAM, gone, b"late")).unwrap();
    session.receive(&bytes(kind::RST_STREAM, 0, gone, &[0; 4])).unwrap();
    session.receive(&bytes(kind::HEADERS, whole, kept, &[OK, 0xbe])).unwrap();
    let Poll::Ready(Ok(answer)) = head(&mut session, kept) else { panic!("no head") };
    assert_eq!(answer.headers["a"].as_bytes(), b"b");
}

/// The streams above GOAWAY's last one were not processed; the others go on, and then it is done.
#[test]
fn goaway_gives_back_what_is_above_it() {
    let mut session = session(&[]);
    for _ in 0..3 {
        open(&mut session, 0).unwrap();
    }
    let payload = [&3_u32.to_be_bytes()[..], &[0; 4], br#"{"reason":"Shutdown"}"#].concat();
    session.receive(&bytes(kind::GOAWAY, 0, 0, &payload)).unwrap();
    assert!(session.goaway().is_some());
    assert_eq!(open(&mut session, 0), Err(NotOpened::Closing));
    let refused = End::Refused(ReplayReason::GoAway);
    assert!(matches!(head(&mut session, 5), Poll::Ready(Err(end)) if end == refused));
    for id in [1, 3] {
        assert!(head(&mut session, id).is_pending() && !session.is_done(), "{id}");
        let flags = flag::END_HEADERS | flag::END_STREAM;
        session.receive(&bytes(kind::HEADERS, flags, id, &[OK])).unwrap();
    }
    assert!(session.is_done());
}

/// An answer that comes before the request is read to its end: the rest is not sent, and the peer
/// hears so.
#[test]
fn an_early_answer_ends_its_request() {
    let mut session = session(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let id = open(&mut session, 10).unwrap();
    written(&mut session);
    let flags = flag::END_HEADERS | flag::END_STREAM;
    session.receive(&bytes(kind::HEADERS, flags, id, &[OK])).unwrap();
    assert_eq!(end(&mut session, id), Poll::Ready(Some(End::Whole)));
    assert_eq!(session.take_out(Vec::new()), bytes(kind::RST_STREAM, 0, id, &[0; 4]));
    assert_eq!(session.let_go(id), (Vec::new(), false));
}

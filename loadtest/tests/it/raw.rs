//! A peer that writes frames by hand, since no HTTP/2 library breaks the rules on request.

use std::time::Duration;

use sns_loadtest::sim::script::GoAway;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::apns::Bench;
use crate::client::tls;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

struct Peer(TlsStream<TcpStream>);

#[derive(Debug, PartialEq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Peer {
    /// Connects and sends the preface with empty SETTINGS; acknowledges nothing.
    async fn connect(bench: &Bench) -> Peer {
        let mut peer = Peer(tls(&bench.ca, bench.sim.base_url(), "h2", None).await);
        peer.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        peer.write(SETTINGS, 0, 0, &[]).await;
        peer
    }

    /// Writes a frame in single bytes, so that the other side sees it in pieces.
    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        for byte in [&head, payload].concat() {
            self.0.write_all(&[byte]).await.unwrap();
        }
        self.0.flush().await.unwrap();
    }

    /// Opens a stream with a request that is still without its body.
    async fn open(&mut self, stream: u32) {
        // :method POST, :scheme https, :path /, :authority x; HPACK without Huffman or indexing.
        let block = [0x83, 0x87, 0x84, 0x01, 0x01, b'x'];
        self.write(HEADERS, 4, stream, &block).await;
    }

    async fn read(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, s1, s2, s3, s4] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        Frame { kind, flags, stream: u32::from_be_bytes([s1, s2, s3, s4]), payload }
    }

    /// The next frame of this kind that is no acknowledgement.
    async fn read_kind(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.read().await;
            let is_ack = matches!(frame.kind, SETTINGS | PING) && frame.flags & 1 != 0;
            if frame.kind == kind && !is_ack {
                return frame;
            }
        }
    }

    /// Waits until the server has handled all that was written so far.
    async fn settle(&mut self) {
        self.write(PING, 0, 0, b"roundtri").await;
        while self.read().await.kind != PING {}
    }
}

fn limit_of(settings: &Frame) -> Option<u32> {
    let settings = settings.payload.chunks(6).map(|six| <[u8; 6]>::try_from(six).unwrap());
    settings
        .filter(|six| six[..2] == [0, 3])
        .map(|[_, _, a, b, c, d]| u32::from_be_bytes([a, b, c, d]))
        .next()
}

/// The limit stands in the very first frame; streams beyond it are early until it is acknowledged
/// and excess afterwards.
#[tokio::test]
async fn streams_beyond_an_acknowledged_limit_are_excess() {
    let bench = Bench::start().await;
    let mut peer = Peer::connect(&bench).await;
    let first = peer.read().await;
    assert_eq!((first.kind, limit_of(&first)), (SETTINGS, Some(1)));
    peer.open(1).await;
    peer.open(3).await;
    let refused = peer.read_kind(RST_STREAM).await;
    assert_eq!((refused.stream, &refused.payload[..]), (3, &[0, 0, 0, 7][..]));
    let connections = bench.sim.connections();
    assert_eq!((connections.early_streams(), connections.excess_streams()), (1, 0));
    peer.write(SETTINGS, 1, 0, &[]).await;
    peer.open(5).await;
    assert_eq!(peer.read_kind(RST_STREAM).await.stream, 5);
    peer.open(7).await;
    assert_eq!(peer.read_kind(RST_STREAM).await.stream, 7);
    assert_eq!((connections.early_streams(), connections.excess_streams()), (1, 2));
    assert_eq!((connections.streams_max(), connections.stats()[0].streams_open), (1, 1));
}

/// A lowered limit accuses nobody before its acknowledgement, and everybody after it.
#[tokio::test]
async fn a_lowered_limit_counts_from_its_acknowledgement() {
    let bench = Bench::start().await;
    let mut peer = Peer::connect(&bench).await;
    peer.read_kind(SETTINGS).await;
    peer.write(SETTINGS, 1, 0, &[]).await;
    let connections = bench.sim.connections();
    connections.set_stream_limit(10);
    assert_eq!(limit_of(&peer.read_kind(SETTINGS).await), Some(10));
    peer.write(SETTINGS, 1, 0, &[]).await;
    for stream in [1, 3, 5] {
        peer.open(stream).await;
    }
    peer.settle().await;
    assert_eq!(connections.stats()[0].streams_open, 3);
    connections.set_stream_limit(2);
    assert_eq!(limit_of(&peer.read_kind(SETTINGS).await), Some(2));
    peer.open(7).await;
    peer.read_kind(RST_STREAM).await;
    assert_eq!((connections.early_streams(), connections.excess_streams()), (1, 0));
    peer.write(SETTINGS, 1, 0, &[]).await;
    peer.open(9).await;
    peer.read_kind(RST_STREAM).await;
    assert_eq!((connections.early_streams(), connections.excess_streams()), (1, 1));
    // Streams the client resets or ends no longer count.
    for stream in [1, 3] {
        peer.write(RST_STREAM, 0, stream, &[0, 0, 0, 8]).await;
    }
    peer.open(11).await;
    peer.settle().await;
    assert_eq!((connections.early_streams(), connections.excess_streams()), (1, 1));
    assert_eq!(connections.stats()[0].pings, 2);
}

/// A cutting GOAWAY names the last stream that was processed and carries its debug data; the kept
/// stream is still answered and the connection then closes.
#[tokio::test]
async fn a_goaway_names_the_last_processed_stream() {
    let bench = Bench::start().await;
    let mut peer = Peer::connect(&bench).await;
    peer.read_kind(SETTINGS).await;
    peer.write(SETTINGS, 1, 0, &[]).await;
    let connections = bench.sim.connections();
    connections.set_stream_limit(10);
    peer.read_kind(SETTINGS).await;
    peer.write(SETTINGS, 1, 0, &[]).await;
    bench.sim.script().latency(Duration::from_millis(200));
    peer.open(1).await;
    peer.write(DATA, 1, 1, b"{}").await;
    peer.read_kind(HEADERS).await;
    peer.open(3).await;
    peer.write(DATA, 1, 3, b"{}").await;
    peer.settle().await;
    let debug = r#"{"reason":"Shutdown"}"#;
    connections.go_away(&GoAway::cutting().saying(h2::Reason::NO_ERROR, debug));
    let frame = peer.read_kind(GOAWAY).await;
    assert_eq!(frame.payload, [&[0, 0, 0, 1, 0, 0, 0, 0][..], debug.as_bytes()].concat());
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), peer.0.read_to_end(&mut rest));
    assert!(ended.await.is_ok());
    assert_eq!(connections.live(), 0);
    assert_eq!(bench.sim.journal().answers().get(&404), Some(&1));
}

//! HTTP/2 frames by hand, for what no client library would send (RFC 9113 §4 and §6).

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time;

use crate::wire::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;

/// A frame that the relay sent.
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// Writes one frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Writes the preface with empty settings.
pub(crate) fn preface() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// Writes a header block: `GET path`, http, localhost (RFC 7541, literals without indexing).
pub(crate) fn get(path: &str) -> Vec<u8> {
    block(0x82, path)
}

/// Writes a header block: `POST path`, http, localhost.
pub(crate) fn post(path: &str) -> Vec<u8> {
    block(0x83, path)
}

fn block(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x09localhost");
    block
}

/// Reads frames until the peer closes, or `enough` says so.
pub(crate) async fn read_frames(
    stream: &mut (impl AsyncRead + Unpin),
    enough: impl Fn(&[Frame]) -> bool,
) -> Vec<Frame> {
    let mut frames = Vec::new();
    let read = async {
        while !enough(&frames) {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if stream.read_exact(&mut payload).await.is_err() {
                return;
            }
            let stream_id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            frames.push(Frame { kind: head[3], stream: stream_id, payload });
        }
    };
    time::timeout(PATIENCE, read).await.expect("frames or an end in time");
    frames
}

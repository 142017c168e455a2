//! One HTTP/2 connection as its client sees it (RFC 9113), without any I/O: bytes in, bytes out.
//!
//! Requests come from many tasks and are written at once into one buffer, as far as the peer's
//! windows go; what the peer says moves them on. It never opens more streams than the peer allows,
//! keeps no more of an answer than its reader wants, and ends the connection at the first frame
//! that breaks a rule of compression, of order or of size.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Context, Poll, Waker};

use super::frame::{self, HEAD_BYTES, Head, PAYLOAD_BYTES, PREFACE, Reason, flag, kind, setting};
use super::hpack::{Decoder, Encoder};
use super::stream::{End, HEAD_BYTES_MAX, Parts, Stream};
use crate::provider::upstream::counts::GoAwayReason;
use crate::provider::upstream::request::{Fields, Keep, Post};

mod intake;

use intake::Fragments;

/// The state of a connection.
pub(super) struct Session {
    out: Vec<u8>,
    /// Bytes of `out` that only reply to the peer's own frames.
    replies_bytes: usize,
    encoder: Encoder,
    decoder: Decoder,
    streams: HashMap<u32, Stream, BuildHasherDefault<NumberHasher>>,
    /// Those of them that have not ended.
    open: usize,
    /// Whose bodies wait for a window.
    blocked: VecDeque<u32>,
    /// Who waits for a stream.
    room: Vec<Waker>,
    next_id: u32,
    peer: Peer,
    /// Bytes that the peer takes on all streams together.
    window: i64,
    /// Bytes that came since its window was last opened again.
    taken_bytes: usize,
    /// A block of header fields that has not ended.
    block: Option<Fragments>,
    has_settings: bool,
    goaway: Option<GoAwayReason>,
    /// No more streams: the peer has said GOAWAY, or we want to close.
    is_closing: bool,
    /// We have said it.
    has_ended: bool,
    has_pong: bool,
}

/// What the peer allows.
#[derive(Clone, Copy, Debug)]
struct Peer {
    streams_max: usize,
    frame_bytes_max: usize,
    window_bytes: i64,
}

/// Why a request got no stream; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOpened {
    /// The connection takes no more.
    Closing,
    /// The peer allows no more at present.
    Full,
}

/// RFC 9113 sets no limit before the peer's SETTINGS; what is then too much comes back refused.
pub(super) const STREAMS_BEFORE_SETTINGS: usize = 1;

/// Bytes that all answers of a connection together may have under way.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const WINDOW_BYTES: u32 = 65_535;
const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;
const STREAM_ID_MAX: u32 = (1 << 31) - 1;

// === impl Session ===

impl Session {
    /// Begins; the preface and our settings are the first bytes to be written.
    pub(super) fn new() -> Self {
        let mut settings = Vec::new();
        for (name, value) in [
            (setting::ENABLE_PUSH, 0_u32),
            (setting::MAX_HEADER_LIST_SIZE, u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX)),
        ] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        let mut out = PREFACE.to_vec();
        frame::put(&mut out, kind::SETTINGS, 0, 0, &settings);
        let more = CONNECTION_WINDOW_BYTES - WINDOW_BYTES;
        frame::put(&mut out, kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        Self {
            out,
            replies_bytes: 0,
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            streams: HashMap::default(),
            open: 0,
            blocked: VecDeque::new(),
            room: Vec::new(),
            next_id: 1,
            peer: Peer {
                streams_max: STREAMS_BEFORE_SETTINGS,
                frame_bytes_max: PAYLOAD_BYTES,
                window_bytes: i64::from(WINDOW_BYTES),
            },
            window: i64::from(WINDOW_BYTES),
            taken_bytes: 0,
            block: None,
            has_settings: false,
            goaway: None,
            is_closing: false,
            has_ended: false,
            has_pong: false,
        }
    }

    /// Writes a request onto a new stream and gives its number.
    /// Errors: [`NotOpened`].
    pub(super) fn open(
        &mut self,
        authority: &str,
        post: &Post<'_>,
        answer_bytes_max: usize,
    ) -> Result<u32, NotOpened> {
        if self.is_closing || self.next_id > STREAM_ID_MAX {
            return Err(NotOpened::Closing);
        }
        if self.open >= self.peer.streams_max {
            return Err(NotOpened::Full);
        }
        let id = self.next_id;
        self.next_id += 2;
        self.open += 1;
        let flags = if post.body.is_empty() { flag::END_STREAM } else { 0 };
        self.write_head(id, flags, authority, post);
        let mut stream = Stream::new(post.body.clone(), self.peer.window_bytes, answer_bytes_max);
        let frame_bytes_max = self.peer.frame_bytes_max;
        stream.write_body(id, &mut self.out, &mut self.window, frame_bytes_max);
        if !stream.unsent.is_empty() {
            self.blocked.push_back(id);
        }
        self.streams.insert(id, stream);
        Ok(id)
    }

    /// Waits until a stream may be free.
    pub(super) fn poll_room(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.is_closing || self.open < self.peer.streams_max {
            return Poll::Ready(());
        }
        self.room.push(context.waker().clone());
        Poll::Pending
    }

    /// Waits for the head of an answer.
    /// Errors: how the stream ended without one.
    pub(super) fn poll_head(&mut self, id: u32, context: &Context<'_>) -> Poll<Result<Parts, End>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(End::Broken));
        };
        if let Some(parts) = stream.answer.take() {
            return Poll::Ready(Ok(parts));
        }
        if let Some(end) = stream.end {
            return Poll::Ready(Err(end));
        }
        stream.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Waits for the end of an answer; ready also where there is more of it than is wanted.
    pub(super) fn poll_end(&mut self, id: u32, context: &Context<'_>) -> Poll<Option<End>> {
        match self.streams.get_mut(&id) {
            Some(stream) if stream.end.is_none() && !stream.is_cut => {
                stream.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(stream) if stream.is_cut => Poll::Ready(None),
            Some(stream) => Poll::Ready(stream.end),
            None => Poll::Ready(Some(End::Broken)),
        }
    }

    /// Gives what has come of an answer's body and lets its stream go, which is reset where it has
    /// not ended; true where the peer has nothing more to hear of it.
    pub(super) fn let_go(&mut self, id: u32) -> (Vec<u8>, bool) {
        let Some(mut stream) = self.streams.remove(&id) else { return (Vec::new(), true) };
        if stream.end.is_none() {
            frame::put(&mut self.out, kind::RST_STREAM, 0, id, &Reason::CANCEL.0.to_be_bytes());
            stream.is_reset = true;
            self.one_less();
        }
        (stream.body, !stream.is_reset)
    }

    /// Sends a PING, whose PONG will show.
    pub(super) fn ping(&mut self) {
        frame::put(&mut self.out, kind::PING, 0, 0, &intake::PING);
    }

    /// Tells once that a PONG came.
    pub(super) fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.has_pong)
    }

    /// Opens no more streams.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.wake_room();
    }

    /// Says good-bye, with the reason; every stream that is open is lost.
    pub(super) fn end(&mut self, reason: Reason) {
        self.close();
        if !self.has_ended {
            self.has_ended = true;
            // The last stream of the peer's: it opens none.
            let payload = [0_u32.to_be_bytes(), reason.0.to_be_bytes()];
            frame::put(&mut self.out, kind::GOAWAY, 0, 0, payload.as_flattened());
        }
        self.end_those(|_| true, End::Broken);
    }

    /// Whether no stream is open, and none will be.
    pub(super) fn is_done(&self) -> bool {
        self.is_closing && self.open == 0
    }

    /// Streams that the peer allows.
    pub(super) fn streams_max(&self) -> usize {
        self.peer.streams_max
    }

    /// Why the peer goes, once it has said so.
    pub(super) fn goaway(&self) -> Option<GoAwayReason> {
        self.goaway
    }

    /// Exchanges what is to be written for an empty buffer.
    pub(super) fn take_out(&mut self, empty: Vec<u8>) -> Vec<u8> {
        self.replies_bytes = 0;
        std::mem::replace(&mut self.out, empty)
    }

    fn write_head(&mut self, id: u32, flags: u8, authority: &str, post: &Post<'_>) {
        let begin = self.out.len();
        let head = Head { length: 0, kind: kind::HEADERS, flags, stream: id };
        self.out.extend_from_slice(&head.bytes());
        let mut fields = Written { encoder: &mut self.encoder, out: &mut self.out };
        fields.encoder.begin(fields.out);
        fields.put(":authority", authority.as_bytes(), Keep::Field);
        fields.put(":path", post.path.as_bytes(), Keep::Nothing);
        post.put_fields(&mut fields);
        let length = self.out.len() - begin - HEAD_BYTES;
        let (first, rest) = (length.min(self.peer.frame_bytes_max), begin + HEAD_BYTES);
        let rest = self.out.split_off(rest + first);
        let flags = if rest.is_empty() { flags | flag::END_HEADERS } else { flags };
        let head = Head { length: first, flags, ..head };
        self.out[begin..begin + HEAD_BYTES].copy_from_slice(&head.bytes());
        let mut parts = rest.chunks(self.peer.frame_bytes_max).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { flag::END_HEADERS } else { 0 };
            frame::put(&mut self.out, kind::CONTINUATION, flags, id, part);
        }
    }

    /// Writes what the windows now allow, in the order of the requests.
    fn write_blocked(&mut self) {
        let (streams, frame_bytes_max) = (&mut self.streams, self.peer.frame_bytes_max);
        let (out, window) = (&mut self.out, &mut self.window);
        self.blocked.retain(|id| {
            let Some(stream) = streams.get_mut(id) else { return false };
            stream.write_body(*id, out, window, frame_bytes_max);
            !stream.unsent.is_empty()
        });
    }

    fn live(&mut self, id: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&id).filter(|stream| stream.end.is_none())
    }

    fn end_stream(&mut self, id: u32, end: End) {
        let Some(stream) = self.live(id) else { return };
        stream.end = Some(end);
        stream.unsent.clear();
        stream.wake();
        self.one_less();
    }

    fn end_those(&mut self, which: impl Fn(u32) -> bool, end: End) {
        let ids: Vec<u32> = self.streams.keys().copied().filter(|id| which(*id)).collect();
        for id in ids {
            self.end_stream(id, end);
        }
    }

    fn one_less(&mut self) {
        self.open -= 1;
        self.wake_room();
    }

    fn wake_room(&mut self) {
        for waker in self.room.drain(..) {
            waker.wake();
        }
    }
}

/// Writes fields as they come.
struct Written<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut Vec<u8>,
}

impl Fields for Written<'_> {
    fn put(&mut self, name: &'static str, value: &[u8], keep: Keep) {
        self.encoder.field(self.out, name, value, keep);
    }
}

/// Spreads stream numbers, which are our own, over the table's places.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests;

//! One request on its stream: what is left to send, and what has come.

use std::task::Waker;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::frame::{Head, flag, kind};
use super::hpack::Field;
use crate::provider::upstream::counts::ReplayReason;

/// A stream.
pub(super) struct Stream {
    /// Who waits for the answer.
    pub(super) waker: Option<Waker>,
    /// The rest of the body; it waits for the peer's windows.
    pub(super) unsent: Bytes,
    /// Bytes that the peer takes on this stream.
    pub(super) window: i64,
    /// Until it is taken.
    pub(super) answer: Option<Parts>,
    pub(super) has_answer: bool,
    /// Bytes of the body, where the head says.
    length: Option<usize>,
    pub(super) body: Vec<u8>,
    /// More than that is not read.
    pub(super) body_bytes_max: usize,
    pub(super) is_cut: bool,
    /// Bytes that came since the peer's window was last opened again.
    pub(super) taken_bytes: usize,
    pub(super) end: Option<End>,
    /// It ended by our own reset, which the peer has not confirmed.
    pub(super) is_reset: bool,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The answer is there, all of it.
    Whole,
    /// The peer refused it: certainly not processed.
    Refused(ReplayReason),
    /// It was broken off, by either side.
    Broken,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Parts {
    /// The status.
    pub(super) status: StatusCode,
    /// The header fields.
    pub(super) headers: HeaderMap,
}

/// A block of header fields, as it is read.
#[derive(Default)]
pub(super) struct Block {
    status: Option<StatusCode>,
    headers: HeaderMap,
    bytes: usize,
    is_wrong: bool,
}

/// Header bytes of an answer; a Web Push server may be anybody's.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1_024;

/// RFC 9113 §6.5.2: what a field counts for beside its text.
const FIELD_BYTES: usize = 32;

// === impl Stream ===

impl Stream {
    pub(super) fn new(body: Bytes, window: i64, body_bytes_max: usize) -> Self {
        Self {
            waker: None,
            unsent: body,
            window,
            answer: None,
            has_answer: false,
            length: None,
            body: Vec::new(),
            body_bytes_max,
            is_cut: false,
            taken_bytes: 0,
            end: None,
            is_reset: false,
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Writes as much of the body as all windows allow.
    pub(super) fn write_body(
        &mut self,
        id: u32,
        out: &mut Vec<u8>,
        window: &mut i64,
        frame_bytes_max: usize,
    ) {
        while !self.unsent.is_empty() {
            let allowed = usize::try_from(self.window.min(*window)).unwrap_or(0);
            let length = self.unsent.len().min(allowed).min(frame_bytes_max);
            if length == 0 {
                return;
            }
            let chunk = self.unsent.split_to(length);
            let flags = if self.unsent.is_empty() { flag::END_STREAM } else { 0 };
            out.extend_from_slice(&Head { length, kind: kind::DATA, flags, stream: id }.bytes());
            out.extend_from_slice(&chunk);
            let length = i64::try_from(length).unwrap_or(i64::MAX);
            self.window -= length;
            *window -= length;
        }
    }

    /// Takes in a part of the answer's body.
    pub(super) fn read_body(&mut self, chunk: &[u8]) {
        let room = self.body_bytes_max - self.body.len();
        self.body.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
        self.is_cut |= chunk.len() > room;
        self.taken_bytes += chunk.len();
    }

    /// Takes in a block of header fields; false where it does not belong there.
    pub(super) fn read_block(&mut self, block: Block, is_last: bool) -> bool {
        match (block.status, self.has_answer) {
            _ if block.is_wrong || block.bytes > HEAD_BYTES_MAX => false,
            // More will come: RFC 9110 §15.2.
            (Some(status), false) if status.is_informational() => !is_last,
            (Some(status), false) => {
                self.has_answer = true;
                let length = block.headers.get(header::CONTENT_LENGTH);
                self.length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                self.answer = Some(Parts { status, headers: block.headers });
                true
            }
            // Trailers say nothing to us.
            (None, true) => is_last,
            (None, false) | (Some(_), true) => false,
        }
    }

    /// Whether the body has the length that the head promised, where it did.
    pub(super) fn is_as_long_as_it_says(&self) -> bool {
        self.length.is_none_or(|length| length == self.body.len() || self.is_cut)
    }
}

// === impl Block ===

impl Block {
    pub(super) fn take(&mut self, field: Field) {
        match field {
            // Once, and before all others.
            Field::Status(_) if self.status.is_some() || !self.headers.is_empty() => {
                self.is_wrong = true;
            }
            Field::Status(status) => self.status = Some(status),
            Field::Header(name, value) => {
                self.bytes += name.as_str().len() + value.len() + FIELD_BYTES;
                if self.bytes <= HEAD_BYTES_MAX {
                    self.headers.append(name, value);
                }
            }
            Field::Wrong => self.is_wrong = true,
        }
    }
}

//! What the peer says: whole frames, one by one (RFC 9113 §6).
//!
//! An error is a rule that the peer broke, and ends the connection; what spoils one stream ends
//! that stream alone.

use super::super::frame::{self, HEAD_BYTES, Head, PAYLOAD_BYTES, Reason, flag, kind, setting};
use super::super::stream::{Block, End, HEAD_BYTES_MAX};
use super::{CONNECTION_WINDOW_BYTES, STREAM_ID_MAX, Session, WINDOW_BYTES, WINDOW_BYTES_MAX};
use crate::provider::upstream::counts::{GoAwayReason, ReplayReason};

/// A block of header fields that has not ended.
pub(super) struct Fragments {
    stream: u32,
    is_last: bool,
    bytes: Vec<u8>,
    count: usize,
}

/// What our PING carries.
pub(super) const PING: [u8; 8] = *b"snsrelay";

/// A block comes in so many frames at most, and is no longer than this in all.
const FRAGMENTS_MAX: usize = 64;
const BLOCK_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;

/// A peer that reads none of our replies gets no more of them.
const REPLIES_BYTES_MAX: usize = 64 * 1_024;

// === impl Session ===

impl Session {
    /// Takes in what the peer has said, and gives how much of it made whole frames.
    /// Errors: the rule that it broke.
    pub(in super::super) fn receive(&mut self, input: &[u8]) -> Result<usize, Reason> {
        let mut rest = input;
        while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let head = Head::read(*head);
            if head.length > PAYLOAD_BYTES {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            let Some((payload, after)) = after.split_at_checked(head.length) else { break };
            self.take(head, payload)?;
            rest = after;
        }
        if self.replies_bytes > REPLIES_BYTES_MAX {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        Ok(input.len() - rest.len())
    }

    fn take(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let is_settings = head.kind == kind::SETTINGS && !head.has(flag::ACK);
        if !self.has_settings && !is_settings {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let goes_on = head.kind == kind::CONTINUATION;
        if self.block.as_ref().is_some_and(|block| !goes_on || block.stream != head.stream) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        match head.kind {
            kind::DATA | kind::HEADERS | kind::RST_STREAM | kind::CONTINUATION => {
                // Ours are odd, and numbered in order.
                if head.stream.is_multiple_of(2) || head.stream >= self.next_id {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                match head.kind {
                    kind::DATA => self.take_data(head, payload),
                    kind::HEADERS => self.take_headers(head, payload),
                    kind::RST_STREAM => self.take_reset(head.stream, payload),
                    _ => self.take_continuation(head, payload),
                }
            }
            kind::SETTINGS | kind::PING | kind::GOAWAY if head.stream != 0 => {
                Err(Reason::PROTOCOL_ERROR)
            }
            kind::SETTINGS => self.take_settings(head, payload),
            kind::PING => self.take_ping(head, payload),
            kind::GOAWAY => self.take_goaway(payload),
            kind::WINDOW_UPDATE => self.take_window(head.stream, payload),
            kind::PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR),
            // PRIORITY, and what we do not know (RFC 9113 §5.5).
            _ => Ok(()),
        }
    }

    fn take_data(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        self.taken_bytes += payload.len();
        if self.taken_bytes > CONNECTION_WINDOW_BYTES as usize {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        // Padding counts as well.
        if self.taken_bytes >= CONNECTION_WINDOW_BYTES as usize / 2 {
            self.open_window(0, self.taken_bytes);
            self.taken_bytes = 0;
        }
        let chunk = frame::unpadded(head, payload).ok_or(Reason::PROTOCOL_ERROR)?;
        let Some(stream) = self.live(head.stream) else { return Ok(()) };
        if !stream.has_answer {
            self.spoil(head.stream, Reason::PROTOCOL_ERROR);
            return Ok(());
        }
        stream.read_body(chunk);
        let taken_bytes = stream.taken_bytes;
        if head.has(flag::END_STREAM) {
            self.conclude(head.stream);
        } else if stream.is_cut {
            stream.wake();
        } else if taken_bytes >= WINDOW_BYTES as usize / 2 {
            stream.taken_bytes = 0;
            self.open_window(head.stream, taken_bytes);
        }
        Ok(())
    }

    fn take_headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let fragment = frame::unpadded(head, payload).ok_or(Reason::PROTOCOL_ERROR)?;
        let skipped = if head.has(flag::PRIORITY) { 5 } else { 0 };
        let fragment = fragment.get(skipped..).ok_or(Reason::FRAME_SIZE_ERROR)?;
        let is_last = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.take_block(head.stream, is_last, fragment);
        }
        let (stream, bytes) = (head.stream, fragment.to_vec());
        self.block = Some(Fragments { stream, is_last, bytes, count: 1 });
        Ok(())
    }

    fn take_continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let mut block = self.block.take().ok_or(Reason::PROTOCOL_ERROR)?;
        block.bytes.extend_from_slice(payload);
        block.count += 1;
        if head.has(flag::END_HEADERS) {
            return self.take_block(block.stream, block.is_last, &block.bytes);
        }
        if block.bytes.len() > BLOCK_BYTES_MAX || block.count > FRAGMENTS_MAX {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        self.block = Some(block);
        Ok(())
    }

    fn take_block(&mut self, id: u32, is_last: bool, bytes: &[u8]) -> Result<(), Reason> {
        let mut block = Block::default();
        // Also of a stream that has gone: the table goes on.
        let read = self.decoder.decode(bytes, &mut |field| block.take(field));
        read.map_err(|_| Reason::COMPRESSION_ERROR)?;
        let Some(stream) = self.live(id) else { return Ok(()) };
        if !stream.read_block(block, is_last) {
            self.spoil(id, Reason::PROTOCOL_ERROR);
        } else if is_last {
            self.conclude(id);
        } else {
            stream.wake();
        }
        Ok(())
    }

    fn take_reset(&mut self, id: u32, payload: &[u8]) -> Result<(), Reason> {
        if payload.len() != 4 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        let is_refusal = frame::number(payload) == Some(Reason::REFUSED_STREAM.0);
        let refused = End::Refused(ReplayReason::Refused);
        self.end_stream(id, if is_refusal { refused } else { End::Broken });
        Ok(())
    }

    fn take_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Reason::FRAME_SIZE_ERROR) };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if !self.has_settings {
            self.has_settings = true;
            self.peer.streams_max = usize::MAX;
        }
        for [n0, n1, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            self.set(u16::from_be_bytes([*n0, *n1]), value)?;
        }
        self.reply(kind::SETTINGS, flag::ACK, &[]);
        self.wake_room();
        self.write_blocked();
        Ok(())
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), Reason> {
        let size = value as usize;
        match name {
            setting::HEADER_TABLE_SIZE => self.encoder.resize(size),
            setting::MAX_CONCURRENT_STREAMS => self.peer.streams_max = size,
            setting::ENABLE_PUSH if value != 0 => return Err(Reason::PROTOCOL_ERROR),
            setting::MAX_FRAME_SIZE if !(PAYLOAD_BYTES..1 << 24).contains(&size) => {
                return Err(Reason::PROTOCOL_ERROR);
            }
            setting::MAX_FRAME_SIZE => self.peer.frame_bytes_max = size,
            setting::INITIAL_WINDOW_SIZE => {
                let window_bytes = i64::from(value);
                let more = window_bytes - self.peer.window_bytes;
                self.peer.window_bytes = window_bytes;
                let mut is_wide = window_bytes > WINDOW_BYTES_MAX;
                for stream in self.streams.values_mut() {
                    stream.window += more;
                    is_wide |= stream.window > WINDOW_BYTES_MAX;
                }
                if is_wide {
                    return Err(Reason::FLOW_CONTROL_ERROR);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if payload.len() != PING.len() {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if head.has(flag::ACK) {
            self.has_pong |= payload == PING;
        } else {
            self.reply(kind::PING, flag::ACK, payload);
        }
        Ok(())
    }

    fn take_goaway(&mut self, payload: &[u8]) -> Result<(), Reason> {
        let (Some(last), Some(code)) = (frame::number(payload), payload.get(4..8)) else {
            return Err(Reason::FRAME_SIZE_ERROR);
        };
        let (last, code) = (last & STREAM_ID_MAX, frame::number(code).unwrap_or_default());
        self.goaway.get_or_insert(GoAwayReason::of(code, payload.get(8..).unwrap_or_default()));
        self.close();
        // RFC 9113 §6.8: those above were not processed; the others go on.
        self.end_those(|id| id > last, End::Refused(ReplayReason::GoAway));
        Ok(())
    }

    fn take_window(&mut self, id: u32, payload: &[u8]) -> Result<(), Reason> {
        if payload.len() != 4 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        let more = i64::from(frame::number(payload).unwrap_or_default() & STREAM_ID_MAX);
        let is_idle = id != 0 && (id.is_multiple_of(2) || id >= self.next_id);
        if is_idle || id == 0 && more == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if id == 0 {
            self.window += more;
            if self.window > WINDOW_BYTES_MAX {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
        } else if let Some(stream) = self.live(id) {
            stream.window += more;
            if more == 0 {
                self.spoil(id, Reason::PROTOCOL_ERROR);
            } else if stream.window > WINDOW_BYTES_MAX {
                self.spoil(id, Reason::FLOW_CONTROL_ERROR);
            }
        }
        self.write_blocked();
        Ok(())
    }

    /// The peer has said all.
    fn conclude(&mut self, id: u32) {
        let Some(stream) = self.live(id) else { return };
        if !stream.is_as_long_as_it_says() {
            return self.end_stream(id, End::Broken);
        }
        if !stream.unsent.is_empty() {
            // It wants no more of the request (RFC 9113 §8.1).
            stream.is_reset = true;
            frame::put(&mut self.out, kind::RST_STREAM, 0, id, &Reason::NO_ERROR.0.to_be_bytes());
        }
        self.end_stream(id, End::Whole);
    }

    /// Ends a stream whose peer broke a rule.
    fn spoil(&mut self, id: u32, reason: Reason) {
        if let Some(stream) = self.live(id) {
            stream.is_reset = true;
            frame::put(&mut self.out, kind::RST_STREAM, 0, id, &reason.0.to_be_bytes());
            self.end_stream(id, End::Broken);
        }
    }

    fn open_window(&mut self, id: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        frame::put(&mut self.out, kind::WINDOW_UPDATE, 0, id, &bytes.to_be_bytes());
    }

    fn reply(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        self.replies_bytes += HEAD_BYTES + payload.len();
        frame::put(&mut self.out, kind, flags, 0, payload);
    }
}

//! The byte stream under the HTTP/2 library, read frame by frame in both directions.
//!
//! The library cannot change SETTINGS_MAX_CONCURRENT_STREAMS on a live connection, refuses surplus
//! streams without a word, and cannot put debug data into a GOAWAY. So each frame head is shown to
//! the `ledger` as it passes; frames of ours are slipped in at frame boundaries when the library
//! flushes, and the acknowledgements that belong to them are taken out again. RFC 9113 §4.1.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ledger::{FrameHead, Ledger, Passage, Presence};

/// A byte stream whose frames a ledger watches.
pub(crate) struct Wire<T> {
    // Fields drop in this order.
    _presence: Presence,
    io: T,
    ledger: Arc<Ledger>,
    reader: Scanner,
    writer: Scanner,
    arrived: BytesMut,
    leaving: BytesMut,
    chunk: Box<[u8]>,
}

struct Scanner {
    preface_left: usize,
    head: [u8; HEAD_BYTES],
    head_have: usize,
    payload_left: usize,
    dropping: bool,
    in_header_block: bool,
}

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const CHUNK_BYTES: usize = 16 * 1024;
const LEAVING_BYTES_MAX: usize = 64 * 1024;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const SETTING_BYTES: usize = 6;

impl<T> Wire<T> {
    /// The server's side of a connection, before the first byte.
    pub(crate) fn new(io: T, ledger: Arc<Ledger>) -> Wire<T> {
        Wire {
            _presence: Presence(ledger.clone()),
            io,
            ledger,
            reader: Scanner::new(PREFACE_BYTES),
            writer: Scanner::new(0),
            arrived: BytesMut::new(),
            leaving: BytesMut::new(),
            chunk: vec![0; CHUNK_BYTES].into_boxed_slice(),
        }
    }
}

impl<T: AsyncWrite + Unpin> Wire<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.leaving.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.leaving))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.leaving.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.arrived.is_empty() {
            let mut chunk = ReadBuf::new(&mut this.chunk);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut chunk))?;
            let read = chunk.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let ledger = &this.ledger;
            this.reader.feed(read, &mut this.arrived, |head| ledger.incoming(head));
        }
        let take = this.arrived.len().min(buf.remaining());
        buf.put_slice(&this.arrived[..take]);
        this.arrived.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.leaving.len() > LEAVING_BYTES_MAX {
            ready!(this.poll_drain(cx))?;
        }
        let ledger = &this.ledger;
        this.writer.feed(buf, &mut this.leaving, |head| ledger.outgoing(head));
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.writer.between_frames() {
            let Some(frame) = this.ledger.next_slip() else { break };
            this.leaving.put_slice(&frame);
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl Scanner {
    fn new(preface_left: usize) -> Scanner {
        Scanner {
            preface_left,
            head: [0; HEAD_BYTES],
            head_have: 0,
            payload_left: 0,
            dropping: false,
            // Nothing may stand before the first frame either.
            in_header_block: true,
        }
    }

    fn between_frames(&self) -> bool {
        self.head_have == 0 && self.payload_left == 0 && !self.in_header_block
    }

    fn feed(
        &mut self,
        mut input: &[u8],
        out: &mut BytesMut,
        mut show: impl FnMut(FrameHead) -> Passage,
    ) {
        while !input.is_empty() {
            if self.preface_left > 0 {
                let take = self.preface_left.min(input.len());
                out.put_slice(&input[..take]);
                self.preface_left -= take;
                input = &input[take..];
            } else if self.payload_left > 0 {
                let take = self.payload_left.min(input.len());
                if !self.dropping {
                    out.put_slice(&input[..take]);
                }
                self.payload_left -= take;
                input = &input[take..];
            } else {
                let take = (HEAD_BYTES - self.head_have).min(input.len());
                self.head[self.head_have..self.head_have + take].copy_from_slice(&input[..take]);
                self.head_have += take;
                input = &input[take..];
                if self.head_have == HEAD_BYTES {
                    self.head_have = 0;
                    self.begin(out, &mut show);
                }
            }
        }
    }

    fn begin(&mut self, out: &mut BytesMut, show: &mut impl FnMut(FrameHead) -> Passage) {
        let mut fields = &self.head[..];
        let bytes = fields.get_uint(3) as usize;
        let (kind, flags) = (fields.get_u8(), fields.get_u8());
        let stream = fields.get_u32() & 0x7fff_ffff;
        self.payload_left = bytes;
        self.in_header_block = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS == 0;
        let passage = show(FrameHead { kind, flags, stream });
        self.dropping = matches!(passage, Passage::Drop);
        match passage {
            Passage::Pass => out.put_slice(&self.head),
            Passage::Drop => {}
            Passage::AddLimit(limit) => {
                out.put_uint((bytes + SETTING_BYTES) as u64, 3);
                out.put_slice(&self.head[3..]);
                out.put_u16(MAX_CONCURRENT_STREAMS);
                out.put_u32(limit);
            }
        }
    }
}

//! A connection's bytes: what was read before the protocol was known is read again.
//!
//! While its caller is silent, a line holds no buffer at all.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::life::Life;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Read at once, on the stack: one request of an ordinary size.
const READ_BYTES: usize = 4096;

/// A stream, with what was read ahead.
pub(super) struct Line<S> {
    stream: S,
    ahead: Bytes,
    life: Arc<Life>,
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Whatever is not HTTP/2.
    Http1,
    Http2,
}

// === impl Line ===

impl<S> Line<S> {
    pub(super) const fn new(stream: S, life: Arc<Life>) -> Self {
        Self { stream, ahead: Bytes::new(), life }
    }

    /// Puts bytes back, to be read first.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.ahead = [bytes, &self.ahead].concat().into();
    }

    /// Tells the protocol, unless more bytes must come.
    fn protocol(&self) -> Option<Protocol> {
        let length = self.ahead.len().min(HTTP2_PREFACE.len());
        match self.ahead[..length] == HTTP2_PREFACE[..length] {
            false => Some(Protocol::Http1),
            true => (length == HTTP2_PREFACE.len()).then_some(Protocol::Http2),
        }
    }
}

impl<S: AsyncRead + Unpin> Line<S> {
    /// Waits until the first bytes tell the protocol.
    /// Errors: the stream's; `UnexpectedEof` at its end.
    pub(super) fn poll_protocol(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Protocol>> {
        loop {
            if let Some(protocol) = self.protocol() {
                return Poll::Ready(Ok(protocol));
            }
            ready!(self.poll_more(context))?;
        }
    }

    /// Waits until more bytes are there.
    /// Errors: the stream's; `UnexpectedEof` at its end.
    pub(super) fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.ahead = [&self.ahead, buffer.filled()].concat().into();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        self.ahead.advance(length);
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.life.note_unsent(true);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.life.note_unsent(true);
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.life.note_unsent(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

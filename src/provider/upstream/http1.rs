//! One HTTP/1.1 connection, for origins that offer no HTTP/2: one request at a time.
//!
//! It sits in the same pool as a connection whose limit is one stream, behind the same guarded
//! dial. A cancelled request closes the connection, which is HTTP/1.1's only way to cancel.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::counts::{CloseReason, FaultKind};
use super::ledger::{Control, Fate, Review};
use super::slots::{Inner, Slot, Transport};
use super::{Answer, ConnectionId, Miss};

/// Bounds an answer's header bytes, and what is read ahead of its body.
const BUFFER_BYTES_MAX: usize = 32 * 1_024;

/// Holds the sending half while no request has it.
#[derive(Debug)]
pub(super) struct Lane(Mutex<Option<SendRequest<Full<Bytes>>>>);

/// Shakes hands over secured bytes and lets a task drive the connection.
pub(super) async fn start<I>(inner: &Arc<Inner>, io: I) -> Result<(), FaultKind>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|_| FaultKind::Lost)?;
    let lane = Arc::new(Lane(Mutex::new(Some(sender))));
    let (id, control) = inner.admit(Transport::Http1(lane), 1);
    let inner = inner.clone();
    let runtime = inner.runtime().clone();
    runtime.spawn(async move {
        let reason = drive(&inner, id, &control, connection).await;
        inner.end(id, reason);
    });
    Ok(())
}

async fn drive<I>(
    inner: &Arc<Inner>,
    id: u64,
    control: &Control,
    mut connection: Connection<TokioIo<I>, Full<Bytes>>,
) -> CloseReason
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut review_at = Instant::now();
    loop {
        tokio::select! {
            _ = &mut connection => return control.closing().unwrap_or(CloseReason::Error),
            () = control.bell.notified() => {
                if let Some(reason) = control.closing() {
                    return reason;
                }
            }
            () = sleep_until(review_at) => match inner.review(id) {
                Review::Again(at) => review_at = at,
                Review::Closing => return control.closing().unwrap_or(CloseReason::Shutdown),
            },
        }
    }
}

/// Sends one request on its slot's connection and reads the answer.
pub(super) async fn exchange(
    slot: &mut Slot,
    lane: &Lane,
    request: Request<Bytes>,
    deadline: Instant,
    answer_bytes_max: usize,
) -> Result<Answer, Miss> {
    let Some(mut sender) = lane.take() else {
        slot.drain_connection();
        return Err(Miss::Stale);
    };
    slot.set_fate(Fate::Open { answered: false });
    // Not ready means closed: the peer ended the connection while it was idle.
    match timeout_at(deadline, sender.ready()).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(Miss::Stale),
    }
    let sent_at = Instant::now();
    let response = timeout_at(deadline, sender.try_send_request(request.map(Full::new))).await;
    let response = match response {
        Ok(Ok(response)) => response,
        Ok(Err(mut error)) => {
            // The request comes back only when nothing of it was written.
            let unwritten = error.take_message().is_some();
            return Err(if unwritten { Miss::Stale } else { Miss::Unknown });
        }
        Err(_) => return Err(Miss::Late { counts: slot.miss(sent_at.elapsed()) }),
    };
    let elapsed = sent_at.elapsed();
    slot.set_elapsed(elapsed);
    slot.set_fate(Fate::Open { answered: true });
    let (parts, incoming) = response.into_parts();
    let (body, complete) = read(incoming, deadline, answer_bytes_max).await;
    if complete {
        lane.put(sender);
        slot.set_fate(Fate::Closed { answered: true });
    }
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
        complete,
        sent_at,
        elapsed,
        connection: ConnectionId(slot.connection()),
    })
}

async fn read(mut incoming: Incoming, deadline: Instant, bytes_max: usize) -> (Bytes, bool) {
    let mut body = BytesMut::new();
    loop {
        let frame = match timeout_at(deadline, incoming.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return (body.freeze(), true),
            Ok(Some(Err(_))) | Err(_) => return (body.freeze(), false),
        };
        let Ok(chunk) = frame.into_data() else { continue };
        let room = bytes_max - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if chunk.len() > room {
            return (body.freeze(), false);
        }
    }
}

// === impl Lane ===

impl Lane {
    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, sender: SendRequest<Full<Bytes>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }
}

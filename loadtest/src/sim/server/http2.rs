//! One HTTP/2 connection: accepts streams, hands them to the service, ends them as it decided.
//!
//! The connection task alone drives the socket; each stream is a task of its own. A connection that
//! has gone away closes when its kept streams have ended. RFC 9113 §6.8, §8.1.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::super::journal::{Entry, EntryId, StreamOutcome};
use super::super::ledger::Command;
use super::super::script::Answer;
use super::super::wire::Wire;
use super::{Link, REQUEST_BYTES_MAX, Received, Reply, Service};

/// How long a connection that has gone away waits for the client to close it.
const LINGER: Duration = Duration::from_secs(1);
const WINDOW_BYTES: u32 = 1024 * 1024;

/// Serves the connection until either side closes it.
pub(crate) async fn serve<S: Service>(io: TlsStream<TcpStream>, link: Arc<Link<S>>) {
    let wire = Wire::new(io, link.ledger.clone());
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_reset_streams(10_000)
        .max_pending_accept_reset_streams(10_000)
        .max_local_error_reset_streams(None);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(wire).await else { return };
    let mut streams = JoinSet::new();
    let mut linger_until: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = link.ledger.changed.notified() => {}
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.spawn(serve_stream(link.clone(), request, respond));
                }
                _ => return,
            },
            Some(_) = streams.join_next(), if !streams.is_empty() => {}
            () = sleep_until(linger_until) => return,
        }
        while link.ledger.commanded() == Command::Freeze {
            link.ledger.changed.notified().await;
        }
        if link.ledger.commanded() == Command::Drop {
            return;
        }
        if linger_until.is_none() && link.ledger.is_drained() {
            linger_until = Some(Instant::now() + LINGER);
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn serve_stream<S: Service>(
    link: Arc<Link<S>>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let stream = respond.stream_id().as_u32();
    if link.ledger.take_surplus(stream) {
        respond.send_reset(Reason::REFUSED_STREAM);
        return;
    }
    let Some(received) = receive(request).await else { return };
    let entry = link.parts.journal.record(entry_of(link.number, &received));
    let outcome = answer(&link, stream, &received, entry, &mut respond).await;
    if let Some(outcome) = outcome {
        link.parts.journal.settle(entry, outcome);
    }
}

/// Ends the stream; `None` when the outcome is already in the journal.
async fn answer<S: Service>(
    link: &Link<S>,
    stream: u32,
    received: &Received,
    entry: EntryId,
    respond: &mut SendResponse<Bytes>,
) -> Option<StreamOutcome> {
    let latency = link.service.latency(received);
    if !latency.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(latency) => {}
            () = cancelled(respond) => return Some(StreamOutcome::Cancelled),
        }
    }
    let Some(processed) = link.ledger.process(stream) else {
        link.parts.journal.settle(entry, StreamOutcome::Disowned);
        cancelled(respond).await;
        return None;
    };
    let verdict = link.service.handle(&link.connection, received);
    if let Some(limit) = verdict.limit_after {
        link.ledger.set_limit_after(stream, limit);
    }
    if let Some(go_away) = link.parts.script.go_away_due(processed) {
        link.ledger.go_away(go_away);
    }
    match verdict.reply {
        Reply::Answer(answer) => {
            let status = answer.status.as_u16();
            // Settled first: whoever has read the answer must find it in the journal.
            link.parts.journal.settle(entry, StreamOutcome::Answered(status));
            send(respond, answer).err().map(|_| StreamOutcome::Cancelled)
        }
        Reply::Stall => {
            link.parts.journal.settle(entry, StreamOutcome::Stalled);
            cancelled(respond).await;
            None
        }
        Reply::Reset(reason) => {
            link.parts.journal.settle(entry, StreamOutcome::Reset);
            respond.send_reset(reason);
            None
        }
        Reply::Drop => {
            link.parts.journal.settle(entry, StreamOutcome::Dropped);
            link.ledger.command(Command::Drop);
            cancelled(respond).await;
            None
        }
    }
}

/// Reads the whole request; `None` when the client gave it up or sent more than any service takes.
async fn receive(request: Request<RecvStream>) -> Option<Received> {
    let (head, mut body) = request.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.ok()?;
        body.flow_control().release_capacity(chunk.len()).ok()?;
        if bytes.len() + chunk.len() > REQUEST_BYTES_MAX {
            return None;
        }
        bytes.extend_from_slice(&chunk);
    }
    let path = head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
    Some(Received { method: head.method, path, headers: head.headers, body: bytes.freeze() })
}

fn send(respond: &mut SendResponse<Bytes>, answer: Answer) -> Result<(), h2::Error> {
    let (head, body) = answer.into_response().into_parts();
    let mut stream = respond.send_response(Response::from_parts(head, ()), body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(body, true)?;
    }
    Ok(())
}

/// Waits until the client resets the stream or the connection ends.
async fn cancelled(respond: &mut SendResponse<Bytes>) {
    // Either way the stream is over, so the reason does not matter.
    let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
}

/// The journal's view of a request that has just arrived.
pub(crate) fn entry_of(connection: u64, received: &Received) -> Entry {
    Entry {
        connection,
        method: received.method.clone(),
        path: received.path.clone(),
        headers: HeaderMap::clone(&received.headers),
        body: received.body.clone(),
        outcome: StreamOutcome::Pending,
    }
}

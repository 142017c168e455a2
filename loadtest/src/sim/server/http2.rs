//! One HTTP/2 connection: accepts streams, hands them to the service, ends them as it decided.
//!
//! The connection task alone drives the socket; each stream is a task of its own. A connection that
//! has gone away closes when its kept streams have ended. RFC 9113 §6.8, §8.1.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::super::journal::{Entry, EntryId, StreamOutcome};
use super::super::ledger::{Command, Ledger};
use super::super::script::{Answer, Hold, Manner, Script};
use super::super::wire::Wire;
use super::{Link, REQUEST_BYTES_MAX, Received, Reply, Service};

/// How long a connection that has gone away waits for the client to close it.
const LINGER: Duration = Duration::from_secs(1);
/// Time for what was written to reach the wire before the connection drops.
const ON_THE_WIRE: Duration = Duration::from_millis(20);
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
    let script = &link.parts.script;
    if !wait(script, Hold::Requests, link.service.latency(received), respond).await {
        return Some(StreamOutcome::Cancelled);
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
    if let Some(go_away) = script.go_away_due(processed) {
        link.ledger.go_away(go_away);
    }
    if !wait(script, Hold::Answers, script.answer_delay_now(), respond).await {
        return Some(StreamOutcome::Cancelled);
    }
    match verdict.reply {
        Reply::Answer(answer) => {
            let status = answer.status.as_u16();
            // Settled first: whoever has read the answer must find it in the journal.
            link.parts.journal.settle(entry, StreamOutcome::Answered(status));
            let sent = send(&link.ledger, respond, answer).await;
            sent.err().map(|_| StreamOutcome::Cancelled)
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

/// Waits as the script says; false when the client gives up meanwhile.
async fn wait(
    script: &Script,
    hold: Hold,
    latency: Duration,
    respond: &mut SendResponse<Bytes>,
) -> bool {
    tokio::select! {
        biased;
        () = script.wait(hold, latency) => true,
        () = cancelled(respond) => false,
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

async fn send(
    ledger: &Ledger,
    respond: &mut SendResponse<Bytes>,
    answer: Answer,
) -> Result<(), h2::Error> {
    let manner = answer.manner;
    let (head, body) = answer.into_response().into_parts();
    let head = Response::from_parts(head, ());
    if manner == Manner::Whole {
        let mut stream = respond.send_response(head, body.is_empty())?;
        return if body.is_empty() { Ok(()) } else { stream.send_data(body, true) };
    }
    let mut stream = respond.send_response(head, false)?;
    let half = body.slice(..body.len() / 2);
    match manner {
        Manner::Whole => {}
        Manner::HalfThenDrop => {
            stream.send_data(half, false)?;
            tokio::time::sleep(ON_THE_WIRE).await;
            ledger.command(Command::Drop);
        }
        Manner::HalfThenSilence => {
            stream.send_data(half, false)?;
            reset(&mut stream).await;
        }
        Manner::Trickle(every) => {
            let body = if body.is_empty() { Bytes::from_static(&[b' '; 256]) } else { body };
            for place in 0..body.len() {
                tokio::select! {
                    () = tokio::time::sleep(every) => {}
                    () = reset(&mut stream) => return Ok(()),
                }
                stream.send_data(body.slice(place..=place), place + 1 == body.len())?;
            }
        }
    }
    Ok(())
}

/// Waits until the client resets a stream that has its head, or the connection ends.
async fn reset(stream: &mut SendStream<Bytes>) {
    // Either way the stream is over, so the reason does not matter.
    let _ = poll_fn(|cx| stream.poll_reset(cx)).await;
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

//! A line to the relay: many messages over one call of gRPC `Stream`, acknowledged in any order.
//!
//! In: messages of one sender key. Out: the results of each, or why there are none. The call is
//! opened when the first message comes, and again after it ended: the relay ends it after an hour,
//! and when it stops. One attempt for each message; whoever sends owns the retry, under the same
//! id. A peer that answers no ping is given up. Never logs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use http::Uri;
use sns_proto::v1::relay_client::RelayClient;
use sns_proto::v1::stream_request::Message;
use sns_proto::v1::{self, StreamRequest, StreamResponse};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status, Streaming};

use super::transport::Calls;

/// A line; cheap to clone. It ends when the last clone is dropped.
#[derive(Clone)]
pub struct Line {
    errands: mpsc::Sender<Errand>,
    patience: Duration,
}

/// Why a message has no results.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The call could not be opened, or the relay refused it: the message was never sent.
    #[error("no call can be opened: {}", .0.message())]
    NotOpened(Status),
    /// The relay ended the call with an error; the message was perhaps heard.
    #[error("the relay ended the call: {}", .0.message())]
    Ended(Status),
    /// The call ended before the message was acknowledged.
    #[error("the call ended before the message was acknowledged")]
    Unacknowledged,
    /// No acknowledgement came in time.
    #[error("no acknowledgement came in time")]
    TimedOut,
    /// No token could be signed.
    #[error("no token can be signed")]
    NoToken,
}

/// Signs for a call when it is opened.
pub(super) type Signer = Arc<dyn Fn() -> Option<MetadataValue<Ascii>> + Send + Sync>;

struct Errand {
    message: Message,
    told: oneshot::Sender<Result<Vec<v1::Result>, LineError>>,
}

type Pending = HashMap<u64, oneshot::Sender<Result<Vec<v1::Result>, LineError>>>;

/// Messages that are not yet acknowledged; the relay reads no more than this either, by default.
const PENDING_MAX: usize = 256;

/// Opening takes at most this part of what a message may: it is told before it has to give up.
const OPEN_PART: u32 = 3;

// === impl Line ===

impl Line {
    /// Makes a line; nothing is opened yet. Must be called within a tokio runtime.
    pub(super) fn new(calls: Calls, origin: Uri, signer: Signer, patience: Duration) -> Self {
        let (errands, waiting) = mpsc::channel(PENDING_MAX);
        let client = RelayClient::with_origin(calls, origin);
        tokio::spawn(work(client, signer, patience, waiting));
        Self { errands, patience }
    }

    /// Sends a message and waits for its acknowledgement: one result for a push, one for each
    /// target of a notification, or one where it was refused as a whole.
    /// Errors: [`LineError`]; dropping the future does not call the message back.
    pub async fn send(&self, message: Message) -> Result<Vec<v1::Result>, LineError> {
        let (told, hears) = oneshot::channel();
        let exchange = async {
            let sent = self.errands.send(Errand { message, told }).await;
            sent.map_err(|_| LineError::Unacknowledged)?;
            hears.await.unwrap_or(Err(LineError::Unacknowledged))
        };
        timeout(self.patience, exchange).await.unwrap_or(Err(LineError::TimedOut))
    }
}

/// Opens a call whenever there is something to send, and converses until it ends. Who waits while
/// no call can be opened is told so: it would be knocking once for each of them otherwise.
async fn work(
    mut client: RelayClient<Calls>,
    signer: Signer,
    patience: Duration,
    mut waiting: mpsc::Receiver<Errand>,
) {
    while let Some(first) = waiting.recv().await {
        if first.told.is_closed() {
            continue;
        }
        // It never is full: there are no more messages on the way than it has room for.
        let (to_relay, outgoing) = mpsc::channel(PENDING_MAX);
        let opened = timeout(patience / OPEN_PART, open(&mut client, &signer, outgoing)).await;
        let too_slow = || LineError::NotOpened(Status::deadline_exceeded("no answer in time"));
        match opened.unwrap_or_else(|_| Err(too_slow())) {
            Ok(incoming) => converse(first, &mut waiting, to_relay, incoming).await,
            Err(error) => {
                tell(first.told, Err(error.clone()));
                while let Ok(errand) = waiting.try_recv() {
                    tell(errand.told, Err(error.clone()));
                }
            }
        }
    }
}

async fn open(
    client: &mut RelayClient<Calls>,
    signer: &Signer,
    outgoing: mpsc::Receiver<StreamRequest>,
) -> Result<Streaming<StreamResponse>, LineError> {
    let messages = unfold(outgoing, |mut outgoing| async {
        let message = outgoing.recv().await?;
        Some((message, outgoing))
    });
    let mut request = Request::new(messages);
    request.metadata_mut().insert("authorization", signer().ok_or(LineError::NoToken)?);
    Ok(client.stream(request).await.map_err(LineError::NotOpened)?.into_inner())
}

/// Carries messages and acknowledgements until the call ends; then nothing is pending.
async fn converse(
    first: Errand,
    waiting: &mut mpsc::Receiver<Errand>,
    to_relay: mpsc::Sender<StreamRequest>,
    mut incoming: Streaming<StreamResponse>,
) {
    let mut pending = Pending::new();
    let mut sequence = 0;
    let mut to_relay = Some(to_relay);
    let mut next = Some(first);
    let end = loop {
        if let (Some(errand), Some(to_relay)) = (next.take(), &to_relay) {
            sequence += 1;
            let request = StreamRequest { sequence, message: Some(errand.message) };
            pending.insert(sequence, errand.told);
            // Fails only when the call has ended, which shows below.
            let _ = to_relay.try_send(request);
        }
        tokio::select! {
            acknowledged = incoming.message() => match acknowledged {
                Ok(Some(StreamResponse { sequence, results })) => {
                    if let Some(told) = pending.remove(&sequence) {
                        tell(told, Ok(results));
                    }
                }
                Ok(None) => break LineError::Unacknowledged,
                Err(status) => break LineError::Ended(status),
            },
            errand = waiting.recv(), if to_relay.is_some() && pending.len() < PENDING_MAX => {
                match errand {
                    Some(errand) => next = Some(errand),
                    // Nobody has more: the relay acknowledges the rest and ends the call.
                    None => to_relay = None,
                }
            }
        }
    };
    for (_, told) in pending {
        tell(told, Err(end.clone()));
    }
}

fn tell(
    told: oneshot::Sender<Result<Vec<v1::Result>, LineError>>,
    results: Result<Vec<v1::Result>, LineError>,
) {
    // Whoever asked may have given up.
    let _ = told.send(results);
}

//! `Stream`: many messages over one call, one acknowledgement each, in any order.
//!
//! Bounded on all sides: calls of one sender, messages of one call that are in work or not yet
//! acknowledged, the age of a call. Above the bound the call reads no further message, so that
//! HTTP/2's flow control holds the sender back; a sender that does not read its acknowledgements
//! is thus slowed, not buffered for. A NAS that is stopped loses its open calls, wherever it was
//! stopped. A call that ends, however it ends, gives up what is in work.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use futures_util::stream::unfold;
use sns_proto::v1::stream_request::Message;
use sns_proto::v1::{self, StreamRequest, StreamResponse};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Status, Streaming};

use super::super::{Doors, Panicked, caught, not_now};
use super::calls::results_of;
use super::status::{result_of, status_of};
use super::words;
use crate::authenticate::Sender;
use crate::metrics::Door;
use crate::outcome::{Code, Outcome, Refusal};
use crate::relay::{Settled, Timing};
use crate::store::Changed;

/// How many calls of `Stream` each sender has open.
#[derive(Default)]
pub struct Streams {
    open: Arc<Mutex<HashMap<[u8; 32], usize>>>,
}

/// One call of `Stream`.
pub(super) struct Conversation {
    doors: Arc<Doors>,
    authorization: Arc<[u8]>,
    incoming: Streaming<StreamRequest>,
    work: JoinSet<StreamResponse>,
    /// The call's own deadline, and its age.
    deadline: Option<Instant>,
    ages_at: Instant,
    draining: watch::Receiver<bool>,
    /// Which NAS may be stopped now; of interest once this call has sent as one.
    changes: broadcast::Receiver<Changed>,
    is_nas: bool,
    sender: Sender,
    stage: Stage,
    _place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Messages are read.
    Reading,
    /// No more are read; those in work are acknowledged.
    Finishing(Ending),
    Ended,
}

/// How the call ends once all is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The sender has no more, or the call is old: OK.
    Done,
    /// The relay stops.
    Draining,
    /// A message did not decode.
    Malformed,
    /// A message was too long.
    TooLarge,
    /// The NAS was stopped, or is none any more.
    TurnedAway(Code),
}

/// A sender's right to one call; dropping it gives the right back.
struct Place {
    open: Arc<Mutex<HashMap<[u8; 32], usize>>>,
    sender: [u8; 32],
}

// === impl Conversation ===

impl Conversation {
    /// Opens a call for a sender that its authorization proves.
    /// Errors: `draining`, `too_many_streams`, `timeout_invalid` and those of VAPID.
    pub(super) fn open(
        doors: &Arc<Doors>,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Self, Outcome> {
        if doors.is_draining() {
            return Err(not_now(Code::Draining));
        }
        let authorization = words::authorization(request.metadata())?;
        let timeout = words::timeout(request.metadata())?;
        let relay = &doors.relay;
        let now_unix_s = relay.clock.unix_s();
        let sender = relay.authenticator.authenticate(authorization.as_deref(), now_unix_s)?;
        let streams_max = doors.limits.grpc_streams_per_sender_max;
        let place = doors.streams.enter(*sender.thumbprint().as_bytes(), streams_max);
        let place = place.ok_or_else(|| not_now(Code::TooManyStreams))?;
        let now = Instant::now();
        Ok(Self {
            doors: Arc::clone(doors),
            authorization: authorization.unwrap_or_default().into(),
            incoming: request.into_inner(),
            work: JoinSet::new(),
            deadline: timeout.map(|timeout| now + timeout),
            ages_at: now + doors.limits.grpc_stream_age_max,
            draining: doors.draining.subscribe(),
            changes: relay.store.changes(),
            is_nas: false,
            sender,
            stage: Stage::Reading,
            _place: place,
        })
    }

    /// Gives the acknowledgements as they come, then the call's end.
    pub(super) fn acknowledgements(
        self,
    ) -> impl Stream<Item = Result<StreamResponse, Status>> + Send {
        unfold(self, |mut conversation| async {
            let next = conversation.next().await?;
            Some((next, conversation))
        })
    }

    async fn next(&mut self) -> Option<Result<StreamResponse, Status>> {
        loop {
            if let Stage::Finishing(ending) = self.stage
                && self.work.is_empty()
            {
                self.stage = Stage::Ended;
                if let Some(outcome) = ending.outcome() {
                    return Some(Err(status_of(&outcome, None)));
                }
            }
            if self.stage == Stage::Ended {
                return None;
            }
            let reads = self.stage == Stage::Reading;
            let has_room = self.work.len() < self.doors.limits.grpc_stream_messages_max;
            tokio::select! {
                Some(done) = self.work.join_next() => match done {
                    Ok(acknowledgement) => return Some(Ok(acknowledgement)),
                    // Panics are caught inside, so only an abort comes here, and that is our drop.
                    Err(_) => continue,
                },
                message = self.incoming.message(), if reads && has_room => self.take(message),
                changed = self.changes.recv(), if reads && self.is_nas => {
                    if let Some(code) = self.turned_away(changed).await {
                        self.stage = Stage::Finishing(Ending::TurnedAway(code));
                    }
                }
                () = drained(&mut self.draining), if reads => {
                    self.stage = Stage::Finishing(Ending::Draining);
                }
                () = sleep_until(self.ages_at), if reads => {
                    self.stage = Stage::Finishing(Ending::Done);
                }
            }
        }
    }

    fn take(&mut self, message: Result<Option<StreamRequest>, Status>) {
        match message {
            Ok(Some(request)) => self.begin(request),
            Ok(None) => self.stage = Stage::Finishing(Ending::Done),
            Err(status) if status.code() == tonic::Code::OutOfRange => {
                self.stage = Stage::Finishing(Ending::TooLarge);
            }
            Err(_) => self.stage = Stage::Finishing(Ending::Malformed),
        }
    }

    /// Tells why the NAS may send no more, after a change that may concern it. What cannot be told
    /// now is told to its next message.
    async fn turned_away(&self, changed: Result<Changed, RecvError>) -> Option<Code> {
        match changed {
            Ok(Changed::Nas(key)) if key != *self.sender.thumbprint().as_bytes() => return None,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
        let relay = &self.doors.relay;
        match relay.enroller.nas(&relay.store, &self.sender).await {
            Err(Outcome::Refused(refusal)) => Some(refusal.code),
            _ => None,
        }
    }

    fn begin(&mut self, request: StreamRequest) {
        self.is_nas |= matches!(request.message, Some(Message::Notify(_)));
        let (doors, authorization) = (Arc::clone(&self.doors), Arc::clone(&self.authorization));
        let mut time = doors.timing(None);
        time.deadline = self.deadline.map_or(time.deadline, |own| own.min(time.deadline));
        let sequence = request.sequence;
        self.work.spawn(async move {
            let carried = pin!(carry(&doors, &authorization, request.message, time));
            let carried = caught(carried).await.unwrap_or_else(|Panicked| {
                doors.relay.metrics.panics.inc();
                Err(Outcome::Misconfigured { code: Code::InternalFault })
            });
            let (code, results) = match carried {
                Ok(results) => (Code::Accepted, results),
                Err(outcome) => (outcome.code(), vec![result_of(Settled::new(outcome))]),
            };
            doors.relay.metrics.answered(Door::GrpcStream, code);
            StreamResponse { sequence, results }
        });
    }
}

/// Waits until the doors close.
async fn drained(draining: &mut watch::Receiver<bool>) {
    // They are gone altogether when the sender is: that is no less a reason to stop.
    let _ = draining.wait_for(|draining| *draining).await;
}

/// Carries one message, with all that a call of its own would go through.
/// Errors: what is wrong with the message as a whole.
async fn carry(
    doors: &Arc<Doors>,
    authorization: &[u8],
    message: Option<Message>,
    time: Timing,
) -> Result<Vec<v1::Result>, Outcome> {
    let _in_work = doors.occupy()?;
    let relay = &doors.relay;
    match message {
        Some(Message::Push(request)) => {
            let (handle, push) = words::push(request)?;
            let errand = relay.take_in(Some(authorization), &handle, &push, time);
            drop((handle, push));
            Ok(vec![result_of(relay.carry(errand).await)])
        }
        Some(Message::Notify(request)) => {
            let targets = words::notice(request)?.targets(doors.limits.targets_max)?;
            Ok(results_of(relay.notify(Some(authorization), targets, time.deadline).await?))
        }
        None => Err(Refusal::of_field(Code::MemberMissing, "message").into()),
    }
}

// === impl Ending ===

impl Ending {
    fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Done => None,
            Self::Draining => Some(not_now(Code::Draining)),
            Self::Malformed => Some(Refusal::new(Code::MessageMalformed).into()),
            Self::TooLarge => Some(Refusal::new(Code::BodyTooLarge).into()),
            Self::TurnedAway(code) => Some(Refusal::of_field(code, "Authorization").into()),
        }
    }
}

// === impl Streams ===

impl Streams {
    fn enter(&self, sender: [u8; 32], streams_max: usize) -> Option<Place> {
        let mut open = lock(&self.open);
        let count = open.entry(sender).or_default();
        if *count >= streams_max {
            return None;
        }
        *count += 1;
        Some(Place { open: Arc::clone(&self.open), sender })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.sender) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.sender);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

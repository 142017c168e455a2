//! What a simulator saw: requests, outcomes, acceptances, deliveries.
//!
//! Whole requests and deliveries are kept for the last `ENTRIES_MAX`; counters are exact for the
//! whole run, also the count of acceptances per message, which is what finds lost and doubled ones
//! (it grows by 20 bytes a message and is the run's own measure of size). Nothing leaves the
//! process.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::sync::Notify;

use super::lock;

/// How many requests and deliveries are kept whole.
pub const ENTRIES_MAX: usize = 10_000;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The connection's number, from 1.
    pub connection: u64,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What became of it so far.
    pub outcome: StreamOutcome,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamOutcome {
    /// Not decided yet, or waiting out the latency.
    Pending,
    /// Answered with this status.
    Answered(u16),
    /// Left without an answer.
    Stalled,
    /// Refused or reset by the simulator.
    Reset,
    /// The connection was dropped instead of an answer.
    Dropped,
    /// A GOAWAY disowned it.
    Disowned,
    /// The client gave it up.
    Cancelled,
}

/// One message that the push service accepted and would hand to the device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Delivered {
    /// An APNs notification.
    Apns {
        /// `apns-id`, as answered.
        id: String,
        /// The JSON payload.
        payload: serde_json::Value,
        /// The request's headers.
        headers: HeaderMap,
    },
    /// An FCM data message.
    Fcm {
        /// The `data` map.
        data: BTreeMap<String, String>,
        /// The whole `message` object.
        message: serde_json::Value,
    },
    /// A Web Push message.
    WebPush {
        /// The encrypted body.
        body: Bytes,
        /// The request's headers.
        headers: HeaderMap,
    },
}

/// Identifies a message in the acceptance counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey(u128);

/// The shared handle; clones read the same books.
#[derive(Clone, Default)]
pub struct Journal {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

/// Names an entry, for settling it later.
#[derive(Clone, Copy)]
pub(crate) struct EntryId(u64);

/// What a service reports about one acceptance.
pub(crate) struct Acceptance {
    pub(crate) token: String,
    pub(crate) id: Option<MessageKey>,
    pub(crate) sealed: Option<MessageKey>,
    pub(crate) delivered: Delivered,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    requests: u64,
    accepted: u64,
    answers: BTreeMap<u16, u64>,
    by_id: HashMap<MessageKey, u32>,
    by_sealed: HashMap<MessageKey, u32>,
    delivered: VecDeque<(String, Delivered)>,
    credentials: HashSet<MessageKey>,
    token_fetches: u64,
}

impl MessageKey {
    /// The key of a message by its `apns-id`.
    pub fn uuid(id: uuid::Uuid) -> MessageKey {
        MessageKey(id.as_u128())
    }

    /// The key of a message by its sealed body: the first 16 bytes of SHA-256.
    pub fn sealed(body: &[u8]) -> MessageKey {
        let digest = digest(&SHA256, body);
        let first = digest.as_ref().iter().take(16);
        MessageKey(first.fold(0, |key, byte| (key << 8) | u128::from(*byte)))
    }
}

impl Journal {
    /// The last requests, oldest first, at most `ENTRIES_MAX`.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.state).entries.iter().cloned().collect()
    }

    /// How many requests arrived whole.
    pub fn requests(&self) -> u64 {
        lock(&self.state).requests
    }

    /// How many messages were accepted.
    pub fn accepted(&self) -> u64 {
        lock(&self.state).accepted
    }

    /// How many answers went out, by status.
    pub fn answers(&self) -> BTreeMap<u16, u64> {
        lock(&self.state).answers.clone()
    }

    /// How often each message was accepted, by sealed body (base64url in APNs and FCM decoded).
    pub fn acceptances(&self) -> HashMap<MessageKey, u32> {
        lock(&self.state).by_sealed.clone()
    }

    /// How often each message was accepted, by `apns-id`; APNs alone.
    pub fn acceptances_by_id(&self) -> HashMap<MessageKey, u32> {
        lock(&self.state).by_id.clone()
    }

    /// How many different valid credentials were seen: provider, access or VAPID tokens.
    pub fn credentials_seen(&self) -> usize {
        lock(&self.state).credentials.len()
    }

    /// How many requests for an access token arrived; FCM alone.
    pub fn token_fetches(&self) -> u64 {
        lock(&self.state).token_fetches
    }

    /// What was accepted for this device token (Web Push: endpoint), oldest first.
    pub fn delivered_to(&self, token: &str) -> Vec<Delivered> {
        let state = lock(&self.state);
        let mine = state.delivered.iter().filter(|(to, _)| to == token);
        mine.map(|(_, delivered)| delivered.clone()).collect()
    }

    /// Waits until `count` messages have been accepted; false when `limit` passes first.
    pub async fn wait_accepted(&self, count: u64, limit: Duration) -> bool {
        self.wait(limit, |state| state.accepted >= count).await
    }

    /// Waits until `count` requests have arrived; false when `limit` passes first.
    pub async fn wait_requests(&self, count: u64, limit: Duration) -> bool {
        self.wait(limit, |state| state.requests >= count).await
    }

    async fn wait(&self, limit: Duration, done: impl Fn(&State) -> bool) -> bool {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if done(&lock(&self.state)) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    pub(crate) fn record(&self, entry: Entry) -> EntryId {
        let state = &mut *lock(&self.state);
        let id = EntryId(state.requests);
        state.requests += 1;
        if state.entries.len() == ENTRIES_MAX {
            state.entries.pop_front();
        }
        state.entries.push_back(entry);
        self.changed.notify_waiters();
        id
    }

    pub(crate) fn settle(&self, id: EntryId, outcome: StreamOutcome) {
        let state = &mut *lock(&self.state);
        if let StreamOutcome::Answered(status) = outcome {
            *state.answers.entry(status).or_default() += 1;
        }
        let oldest = state.requests - state.entries.len() as u64;
        let place = id.0.checked_sub(oldest).and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| state.entries.get_mut(place)) {
            entry.outcome = outcome;
        }
    }

    pub(crate) fn accept(&self, acceptance: Acceptance) {
        let state = &mut *lock(&self.state);
        state.accepted += 1;
        if let Some(key) = acceptance.id {
            *state.by_id.entry(key).or_default() += 1;
        }
        if let Some(key) = acceptance.sealed {
            *state.by_sealed.entry(key).or_default() += 1;
        }
        if state.delivered.len() == ENTRIES_MAX {
            state.delivered.pop_front();
        }
        state.delivered.push_back((acceptance.token, acceptance.delivered));
        self.changed.notify_waiters();
    }

    pub(crate) fn credential(&self, token: &str) {
        lock(&self.state).credentials.insert(MessageKey::sealed(token.as_bytes()));
    }

    pub(crate) fn token_fetch(&self) {
        lock(&self.state).token_fetches += 1;
    }
}

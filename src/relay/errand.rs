//! What a message is while the corridor carries it.
//!
//! In: what a door parsed. Out: what became of it. Between the two, while the push service takes
//! its time, nothing is kept of the request but what goes out.

use std::time::Duration;

use tokio::time::Instant;

use super::Carrier;
use crate::authenticate::quota::{Budget, Permit};
use crate::metrics::Door;
use crate::outcome::Outcome;
use crate::push::Thumbprint;
use crate::route::Route;

/// What became of one message, and a fresh handle where the old one ages.
pub struct Settled {
    /// What became of it.
    pub outcome: Outcome,
    /// To be taken in place of the handle that was used.
    pub renewed_handle: Option<String>,
    /// The lifetime that the push service was given, in seconds.
    pub ttl_s: Option<u32>,
    /// What the sender may still send.
    pub budget: Option<Budget>,
}

/// When a message came in, and by when its outcome must be told.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// When it was whole.
    pub started: Instant,
    /// The sender's limit, or our own.
    pub deadline: Instant,
}

/// A message that was let in and is ready to be sent: of its request nothing else is kept while it
/// waits for the push service.
pub struct Errand<'a> {
    pub(super) door: Door,
    pub(super) time: Timing,
    pub(super) carrier: &'a Carrier,
    pub(super) route: Route,
    /// What stands for the device in memory.
    pub(super) tag: [u8; 32],
    /// The sender, where it gave the message an id, by which twins are known.
    pub(super) claims: Option<Thumbprint>,
    pub(super) renewed_handle: Option<String>,
    pub(super) budget: Option<Budget>,
    /// Gives its place back however it ends.
    pub(super) _permit: Permit<'a>,
}

/// What became of a message, when, and the push service's part of the time.
pub(super) struct Sent {
    pub(super) outcome: Outcome,
    pub(super) at: Instant,
    pub(super) upstream: Duration,
}

// === impl Settled ===

impl Settled {
    /// An outcome of a message that came no further.
    pub const fn new(outcome: Outcome) -> Self {
        Self { outcome, renewed_handle: None, ttl_s: None, budget: None }
    }
}

// === impl Sent ===

impl Sent {
    pub(super) const fn not_at_all(outcome: Outcome, at: Instant) -> Self {
        Self { outcome, at, upstream: Duration::ZERO }
    }
}

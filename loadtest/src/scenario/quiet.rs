//! Callers that are connected and say nothing, and what each costs in memory.
//!
//! In: a relay. Out: connections that end when this is dropped. They are what the senders' way
//! opens, HTTP/1.1 or HTTP/2, with TLS or without, and no request is ever sent on them; what an
//! open call `Stream` costs besides is measured by `sns-loadtest idle`.

use serde::Serialize;

use super::options::Way;
use super::progress::Bar;
use super::target::Target;
use super::watch::Watch;
use crate::measure::MeasureError;
use crate::measure::crowd::{Crowd, Protocol};

/// Quiet connections.
pub(super) struct Quiet {
    pub(super) cost: Cost,
    _crowds: Vec<Crowd>,
}

/// What they cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Cost {
    pub(super) connections: usize,
    pub(super) memory_before_kib: Option<u64>,
    pub(super) memory_with_kib: Option<u64>,
    pub(super) kib_per_connection: Option<f64>,
    /// Whether all were there, as far as the relay's sockets tell.
    pub(super) are_all_there: Option<bool>,
}

const AT_ONCE: usize = 250;

// === impl Quiet ===

impl Quiet {
    /// Opens them one after the other, the memory at rest before and after.
    /// Errors: the relay takes one not in.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub(super) async fn open(
        way: Way,
        target: &Target,
        connections: usize,
        mut watch: Option<&mut Watch>,
    ) -> Result<Quiet, MeasureError> {
        let protocol = match way {
            Way::Http1 => Protocol::Http1,
            Way::Http2 | Way::GrpcUnary | Way::GrpcStream => Protocol::Http2,
        };
        let before = match &mut watch {
            Some(watch) => Some((watch.settled_kib().await?, watch.look()?.sockets)),
            None => None,
        };
        let bar = Bar::new("connecting", connections as u64);
        let mut crowds = Vec::new();
        for first in (0..connections).step_by(AT_ONCE) {
            let count = AT_ONCE.min(connections - first);
            crowds.push(Crowd::connect(&target.url, &target.stage.ca, protocol, count).await?);
            (0..count).for_each(|_| bar.step());
        }
        drop(bar);
        let with = match &mut watch {
            Some(watch) => Some((watch.settled_kib().await?, watch.look()?.sockets)),
            None => None,
        };
        let both = before.zip(with);
        let growth = both.map(|((before, _), (with, _))| with.saturating_sub(before) as f64);
        let cost = Cost {
            connections,
            memory_before_kib: before.map(|(kib, _)| kib),
            memory_with_kib: with.map(|(kib, _)| kib),
            kib_per_connection: growth.map(|kib| kib / connections as f64),
            are_all_there: both.map(|((_, before), (_, with))| with >= before + connections as u64),
        };
        Ok(Quiet { cost, _crowds: crowds })
    }
}

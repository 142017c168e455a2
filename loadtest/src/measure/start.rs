//! How long the relay needs from its start until it is ready, with many identities in its store.
//!
//! In: a plan. Out: the time from the start of the process until /readyz answers 200: keys and
//! credentials read, the store open, connections to APNs and FCM made, ports bound. A store with
//! no identities beside it tells what they cost.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::value_parser;
use serde::Serialize;
use tokio::time::Instant;

use super::doors::process::Cores;
use super::doors::site::Site;
use super::enrolled::enrol;
use super::report::Judged;
use super::spread::{self, Spread};
use super::{MeasureError, beside};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// Identities in the store.
    #[arg(long, default_value_t = 1_000_000)]
    #[arg(value_parser = value_parser!(u32).range(0..=10_000_000))]
    identities: u32,
    /// Starts of each store, after one that is not counted.
    #[arg(long, default_value_t = 9, value_parser = value_parser!(u32).range(1..=1_000))]
    starts: u32,
    #[command(flatten)]
    cores: Cores,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// The figures of one measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    identities: u32,
    starts: u32,
    ready_ms: Option<Spread>,
    /// With an empty store.
    empty_ready_ms: Option<Spread>,
    memory_kib: u64,
    missed: Vec<String>,
}

// === impl Plan ===

impl Plan {
    /// Carries the plan out on this thread, which it keeps to the senders' core from then on.
    /// Errors: [`MeasureError`], also where a relay does not become ready.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        self.cores.work(self.measure())
    }

    async fn measure(&self) -> Result<Report, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let full = Site::prepare(&program, false, &[], self.cores).await?;
        enrol(&full, &[], self.identities as usize).await?;
        let empty = Site::prepare(&program, false, &[], self.cores).await?;
        let (mut full_ms, mut empty_ms, mut memory_kib) = (Vec::new(), Vec::new(), 0);
        for number in 0..=self.starts {
            let full = start(&full).await?;
            let empty = start(&empty).await?;
            memory_kib = full.1;
            // The first one reads the files from the disk, and makes the empty store.
            if number > 0 {
                full_ms.push(full.0);
                empty_ms.push(empty.0);
            }
        }
        Ok(Report {
            identities: self.identities,
            starts: self.starts,
            ready_ms: Spread::of(full_ms),
            empty_ready_ms: Spread::of(empty_ms),
            memory_kib,
            missed: Vec::new(),
        })
    }
}

/// Starts a relay and ends it; gives the milliseconds until it was ready and its memory then.
async fn start(site: &Site) -> Result<(f64, u64), MeasureError> {
    let begin = Instant::now();
    let mut relay = site.start()?;
    let ready = site.ready(&mut relay, begin).await?;
    let memory_kib = relay.memory_kib()?;
    relay.stop().await?;
    Ok((ready.as_secs_f64() * 1e3, memory_kib))
}

// === impl Report ===

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "ready after {} ms with {} identities, {} ms with none; {} KiB of memory",
            spread::text(self.ready_ms, 1),
            self.identities,
            spread::text(self.empty_ready_ms, 1),
            self.memory_kib
        )
    }
}

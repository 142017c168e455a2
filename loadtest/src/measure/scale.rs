//! Whether a message costs more where there are many: handles, or NAS.
//!
//! In: a plan. Out: the CPU per message of a relay with few and of one with many, in turn. Each
//! message of `many` goes to the next handle, or comes from the next NAS: the relay meets none of
//! them twice in a turn, and its caches have been filled with others before. Handles are measured
//! at the application door, NAS at the NAS door, each notification to one device.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clap::{ValueEnum, value_parser};
use serde::Serialize;
use sns_nas::seal::{self, BodyCap};

use super::compared::{Rounds, Row, Stand, faults, write_table};
use super::doors::house::{House, Post};
use super::doors::mail::{Form, Mail};
use super::doors::process::Cores;
use super::doors::site::Site;
use super::doors::turn::Seat;
use super::enrolled::enrol;
use super::letter::Sender;
use super::report::Judged;
use super::{MeasureError, beside};
use crate::device::{Device, DeviceKind};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// What there is few and many of.
    #[arg(long, value_enum, default_value_t = Kind::Handles)]
    of: Kind,
    /// How many are few.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=100_000))]
    few: u32,
    /// How many are many.
    #[arg(long, default_value_t = 1_000_000)]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000_000))]
    many: u32,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    cores: Cores,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What there is few and many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Distinct devices that get messages.
    Handles,
    /// NAS in the store, and NAS that send.
    Identities,
}

/// The figures of one measurement, with what they were taken at.
#[derive(Debug, Serialize)]
pub struct Report {
    of: Kind,
    few: u32,
    many: u32,
    messages: u32,
    in_flight: u32,
    rows: Vec<Row>,
    missed: Vec<String>,
}

/// 800 become 1,024 once they are sealed and padded.
const MESSAGE: [u8; 800] = [b'm'; 800];
/// More than the relay's caches of rates and tokens hold (`limits.keys_max`).
const WARM_UP_MAX: usize = 250_000;

// === impl Plan ===

impl Plan {
    /// Carries the plan out on this thread, which it keeps to the senders' core from then on.
    /// Errors: [`MeasureError`]; messages that fail are figures of the report.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        self.cores.work(self.measure())
    }

    async fn measure(&self) -> Result<Report, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let stands = match self.of {
            Kind::Handles => self.handles(&program).await?,
            Kind::Identities => self.identities(&program).await?,
        };
        let rows = self.rounds.compare(stands).await?;
        let Plan { of, few, many, rounds: Rounds { messages, in_flight, .. }, .. } = *self;
        let missed = faults(&rows);
        Ok(Report { of, few, many, messages, in_flight, rows, missed })
    }

    /// One sender and its devices.
    async fn handles(&self, program: &std::path::Path) -> Result<Vec<Stand>, MeasureError> {
        let mut stands = Vec::new();
        for count in [self.few, self.many] {
            let house = House::of_relay(program, false, &[], self.cores).await?;
            let senders = [house.sender()?];
            let posts = house.many_posts(&senders, count as usize, &sealed()?).await?;
            let post = posts.first().ok_or(MeasureError::Missing("a sender"))?;
            let mail = Mail::to_relay(Form::Http1, &house.origin, post)?;
            let seat = seat(house, mail);
            let next = self.warm_up(&seat, count as usize).await?;
            stands.push(Stand { name: format!("{count} handles"), seat, next });
        }
        Ok(stands)
    }

    /// NAS with one device each.
    async fn identities(&self, program: &std::path::Path) -> Result<Vec<Stand>, MeasureError> {
        let (few, many) = (self.few as usize, self.many as usize);
        let turns = self.rounds.rounds as usize + 1;
        // Of the many, only those that have a turn need keys.
        let speak = many.min(self.rounds.messages as usize * turns);
        let mut stands = Vec::new();
        for (count, speak) in [(few, few), (many, few), (many, speak)] {
            let site = Site::prepare(program, false, &[], self.cores).await?;
            let senders: Vec<Sender> =
                (0..speak).map(|_| site.sender()).collect::<Result<_, _>>()?;
            let keys: Vec<_> = senders.iter().map(|sender| sender.key().public()).collect();
            enrol(&site, &keys, count).await?;
            let house = site.open().await?;
            let posts: Vec<Post> = house.many_posts(&senders, 1, &sealed()?).await?;
            let mail = Mail::to_nas_door(Form::Http1, &house.origin, &posts, 1)?;
            let name =
                format!("{count} NAS, {} of them send", if speak == few { few } else { count });
            stands.push(Stand { name, seat: seat(house, mail), next: 0 });
        }
        Ok(stands)
    }

    /// Sends to each handle once, as far as the relay remembers; gives how many messages that were.
    async fn warm_up(&self, seat: &Seat, count: usize) -> Result<usize, MeasureError> {
        let messages = count.min(WARM_UP_MAX);
        seat.turn(self.rounds.load(0, messages)).await?;
        Ok(messages)
    }
}

fn seat(house: House, mail: Mail) -> Seat {
    let (house, mail) = (Arc::new(house), Arc::new(mail));
    Seat { house, mail, form: Form::Http1, kind: DeviceKind::Ios }
}

fn sealed() -> Result<Bytes, MeasureError> {
    let device = Device::new_ios()?;
    Ok(seal::seal(&device.keys().device(), &MESSAGE, BodyCap::default())?.into())
}

// === impl Report ===

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { messages, in_flight, .. } = self;
        writeln!(out, "{messages} messages a turn, {in_flight} in flight, medians")?;
        write_table(&self.rows, out)
    }
}

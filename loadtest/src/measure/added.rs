//! The time that a relay adds: messages at their moments straight to the push service, and the same
//! through the relay, the bare forwarder and nginx.
//!
//! In: a plan. Out: the times of each way, counted from the intended moments, and what each adds to
//! the time of no relay in the same round. All ways take turns in each round. To APNs; the relay
//! and the yardsticks are asked by HTTP/1.1.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ValueEnum, value_parser};
use comfy_table::{Table, presets};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::calm::Calm;
use super::child::own_cpu_us;
use super::doors::house::{House, Way};
use super::doors::line::Line;
use super::doors::mail::{Form, Mail};
use super::doors::process::{Cores, machine_cpu_us};
use super::doors::sealed_bytes;
use super::doors::yardstick::{certified, nginx};
use super::pace::Pace;
use super::report::{Judged, missed};
use super::spread::{self, Spread};
use super::{MeasureError, beside};
use crate::device::DeviceKind;
use crate::stage::Stage;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// Who takes turns; all that can, unless told otherwise. direct always does.
    #[arg(long, value_enum, value_delimiter = ',')]
    entries: Vec<Entry>,
    /// The program nginx; that of the system unless told otherwise. Without one it has no turns.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// Messages in a second.
    #[arg(long, default_value_t = 2_000, value_parser = value_parser!(u32).range(1..=100_000))]
    rate_per_s: u32,
    /// Seconds of one turn.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Milliseconds that the push service takes for each message.
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=10_000))]
    latency_ms: u32,
    /// Connections to the relay and the yardsticks: no fewer than are in flight.
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Devices, paired beforehand; each message goes to the next one.
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Rounds, after one that is not counted.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    #[command(flatten)]
    cores: Cores,
    #[command(flatten)]
    calm: Calm,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// By which way the messages reach the push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// No relay: one HTTP/2 connection to it.
    Direct,
    /// The relay.
    Relay,
    /// The bare forwarder.
    Floor,
    /// nginx.
    Nginx,
}

/// The figures of one measurement, with what they were taken at.
#[derive(Debug, Serialize)]
pub struct Report {
    rate_per_s: u32,
    seconds: u32,
    latency_ms: u32,
    connections: u32,
    rows: Vec<Row>,
    missed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    entry: Entry,
    p50_ms: Option<Spread>,
    p99_ms: Option<Spread>,
    /// To the time of no relay in the same round.
    added_p50_ms: Option<Spread>,
    added_p99_ms: Option<Spread>,
    turns: Vec<Turn>,
}

/// What one turn of one entry gave.
#[derive(Debug, Serialize)]
struct Turn {
    sent: u64,
    accepted: u64,
    /// Cores that other programs used meanwhile.
    others_cores: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// An entry where it is measured.
struct Seat {
    entry: Entry,
    place: Place,
    mail: Arc<Mail>,
}

enum Place {
    Direct(Box<Stage>, Box<Way>),
    House(Box<House>),
}

/// 800 become 1,024 once they are sealed and padded.
const MESSAGE: [u8; 800] = [b'm'; 800];
const PATIENCE: Duration = Duration::from_secs(60);

// === impl Plan ===

impl Plan {
    /// Carries the plan out on this thread, which it keeps to the senders' core from then on.
    /// Errors: [`MeasureError`]; messages that fail are figures of the report.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        self.cores.work(self.measure())
    }

    async fn measure(&self) -> Result<Report, MeasureError> {
        let seats = self.seats().await?;
        let mut all: Vec<Vec<Turn>> = seats.iter().map(|_| Vec::new()).collect();
        for round in 0..=self.rounds as usize {
            for turn in 0..seats.len() {
                // Nobody always follows the same one.
                let number = (turn + round) % seats.len();
                let seat = &seats[number];
                let take = async || self.turn(seat).await;
                let turn = self.calm.turn(take, |turn| turn.others_cores).await?;
                // The first round warms them up.
                if round > 0 {
                    all[number].push(turn);
                }
            }
        }
        let entries: Vec<Entry> = seats.iter().map(|seat| seat.entry).collect();
        for seat in seats {
            if let Place::House(house) = seat.place {
                house.process.stop().await?;
            }
        }
        Ok(self.report(entries, all))
    }

    async fn seats(&self) -> Result<Vec<Seat>, MeasureError> {
        let bytes = sealed_bytes(MESSAGE.len())?;
        let stage = certified().await?;
        let way = Way::to_apns(&stage, &stage.folder().join("identity.pem"))?;
        let origin = stage.apns.base_url().parse().map_err(|_| MeasureError::BadUrl)?;
        let mail = Arc::new(Mail::to_apns(&origin, bytes)?);
        let place = Place::Direct(Box::new(stage), Box::new(way));
        let mut seats = vec![Seat { entry: Entry::Direct, place, mail }];
        for entry in self.entries() {
            let house = self.house(entry).await?;
            let mail = if entry == Entry::Relay {
                let post = house.post(DeviceKind::Ios, self.devices as usize, &MESSAGE).await?;
                Mail::to_relay(Form::Http1, &house.origin, &post)?
            } else {
                Mail::to_yardstick(Form::Http1, &house.origin, bytes)?
            };
            let place = Place::House(Box::new(house));
            seats.push(Seat { entry, place, mail: Arc::new(mail) });
        }
        Ok(seats)
    }

    /// Gives who takes turns beside `direct`.
    fn entries(&self) -> Vec<Entry> {
        let all = match &self.entries[..] {
            [] => Entry::value_variants(),
            told => told,
        };
        let has_nginx = !self.entries.is_empty() || nginx(self.nginx.as_ref()).is_some();
        let others = all.iter().filter(|entry| **entry != Entry::Direct);
        others.filter(|entry| **entry != Entry::Nginx || has_nginx).copied().collect()
    }

    async fn house(&self, entry: Entry) -> Result<House, MeasureError> {
        match entry {
            Entry::Direct | Entry::Relay => {
                let relay = self.relay.clone().map_or_else(beside, Ok)?;
                House::of_relay(&relay, false, &[], self.cores).await
            }
            Entry::Floor => House::of_floor(&std::env::current_exe()?, false, self.cores).await,
            Entry::Nginx => {
                let nginx = nginx(self.nginx.as_ref()).ok_or(MeasureError::Missing("nginx"))?;
                House::of_nginx(&nginx, false, self.cores).await
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    async fn turn(&self, seat: &Seat) -> Result<Turn, MeasureError> {
        let (stage, way, form) = match &seat.place {
            Place::Direct(stage, way) => (&**stage, &**way, Form::Http2),
            Place::House(house) => (&house.stage, &house.way, Form::Http1),
        };
        let latency = Duration::from_millis(u64::from(self.latency_ms));
        stage.controls(DeviceKind::Ios).script.latency(latency);
        let connections = if form == Form::Http1 { self.connections as usize } else { 1 };
        let line = Line::open(way, form, &seat.mail, connections, connections).await?;
        let (cpu_us, begin) = (self.cpu_us(seat)?, Instant::now());
        let pace = Pace { rate_per_s: self.rate_per_s, seconds: self.seconds };
        let limit = PATIENCE + Duration::from_secs(u64::from(self.seconds));
        let kept = timeout(limit, line.keep_pace(&seat.mail, pace)).await;
        let tally = kept.map_err(|_| MeasureError::Missing("every answer in time"))??;
        let time_us = begin.elapsed().as_micros() as f64;
        let quantile = |q| tally.times_us.value_at_quantile(q) as f64 / 1_000.0;
        Ok(Turn {
            sent: u64::from(self.rate_per_s) * u64::from(self.seconds),
            accepted: tally.accepted,
            others_cores: ((self.cpu_us(seat)? - cpu_us) / time_us).max(0.0),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            max_ms: tally.times_us.max() as f64 / 1_000.0,
        })
    }

    /// Gives the CPU time of all other programs so far.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    fn cpu_us(&self, seat: &Seat) -> Result<f64, MeasureError> {
        let theirs_us = match &seat.place {
            Place::Direct(..) => 0.0,
            Place::House(house) => house.process.cpu()?.total_us(),
        };
        Ok(machine_cpu_us()? - own_cpu_us()? as f64 - theirs_us)
    }

    fn report(&self, entries: Vec<Entry>, all: Vec<Vec<Turn>>) -> Report {
        let p50 = |turns: &[Turn]| turns.iter().map(|turn| turn.p50_ms).collect::<Vec<_>>();
        let p99 = |turns: &[Turn]| turns.iter().map(|turn| turn.p99_ms).collect::<Vec<_>>();
        let direct = all.first().map(|turns| (p50(turns), p99(turns))).unwrap_or_default();
        let is_whole = all.iter().flatten().all(|turn| turn.accepted == turn.sent);
        let rows = entries.into_iter().zip(all).map(|(entry, turns)| {
            let added = |own: &[f64], direct: &[f64]| {
                (entry != Entry::Direct).then(|| Spread::of_differences(own, direct)).flatten()
            };
            Row {
                entry,
                p50_ms: Spread::of(p50(&turns)),
                p99_ms: Spread::of(p99(&turns)),
                added_p50_ms: added(&p50(&turns), &direct.0),
                added_p99_ms: added(&p99(&turns), &direct.1),
                turns,
            }
        });
        Report {
            rate_per_s: self.rate_per_s,
            seconds: self.seconds,
            latency_ms: self.latency_ms,
            connections: self.connections,
            rows: rows.collect(),
            missed: missed(&[(is_whole, "every message is accepted")]).collect(),
        }
    }
}

// === impl Report ===

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { rate_per_s, seconds, latency_ms, .. } = self;
        writeln!(
            out,
            "{rate_per_s} messages/s for {seconds} s, a push service of {latency_ms} ms; medians"
        )?;
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["way", "accepted", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms"]);
        for row in &self.rows {
            let sum = |figure: fn(&Turn) -> u64| row.turns.iter().map(figure).sum::<u64>();
            table.add_row([
                format!("{:?}", row.entry).to_lowercase(),
                format!("{} of {}", sum(|turn| turn.accepted), sum(|turn| turn.sent)),
                spread::text(row.p50_ms, 2),
                spread::text(row.p99_ms, 2),
                spread::text(row.added_p50_ms, 2),
                spread::text(row.added_p99_ms, 2),
            ]);
        }
        writeln!(out, "{table}")
    }
}

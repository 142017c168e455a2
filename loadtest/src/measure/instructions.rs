//! How many instructions of the relay's own a message takes, counted by valgrind's callgrind.
//!
//! In: a plan. Out: instructions per message, which no other program on the machine changes, so a
//! regression shows where times cannot be trusted. The kernel's part is not counted, and what the
//! processor does in one instruction that valgrind does not know (SHA) counts in full. The figures
//! that are bounds here are those of docs/performance.md.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ValueEnum, value_parser};
use serde::Serialize;
use tokio::process::Command;

use super::doors::house::House;
use super::doors::line::Line;
use super::doors::mail::{Form, Mail};
use super::doors::process::Cores;
use super::report::{Judged, missed};
use super::{MeasureError, beside};
use crate::device::DeviceKind;

/// What to count.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// The program valgrind; callgrind_control is beside it.
    #[arg(long, default_value = "/usr/bin/valgrind")]
    valgrind: PathBuf,
    /// By which way the messages come, to APNs.
    #[arg(long, value_enum, default_value_t = Way::Http1)]
    way: Way,
    /// Messages that are counted, after as many that are not.
    #[arg(long, default_value_t = 4_000, value_parser = value_parser!(u32).range(100..=1_000_000))]
    messages: u32,
    #[command(flatten)]
    cores: Cores,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// A way into the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A connection for each message in flight.
    Http1,
    /// One connection.
    Http2,
    /// One call Stream.
    GrpcStream,
}

/// The figures of one count.
#[derive(Debug, Serialize)]
pub struct Report {
    way: Way,
    messages: u32,
    instructions_per_message: u64,
    bound: u64,
    missed: Vec<String>,
}

const DEVICES: usize = 1_000;
const IN_FLIGHT: usize = 64;
/// 800 become 1,024 once they are sealed and padded.
const MESSAGE: [u8; 800] = [b'm'; 800];

// === impl Plan ===

impl Plan {
    /// Carries the plan out on this thread, which it keeps to the senders' core from then on.
    /// Errors: [`MeasureError`], also where valgrind is not there.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        self.cores.work(self.measure())
    }

    async fn measure(&self) -> Result<Report, MeasureError> {
        if !self.valgrind.is_file() {
            return Err(MeasureError::Missing("valgrind: sudo apt install valgrind"));
        }
        let relay = self.relay.clone().map_or_else(beside, Ok)?;
        let folder = tempfile::tempdir()?;
        let counts = folder.path().join("counts");
        let program = self.wrapped(&relay, &counts, folder.path())?;
        let house = House::of_relay(&program, false, &[], self.cores).await?;
        let post = house.post(DeviceKind::Ios, DEVICES, &MESSAGE).await?;
        let mail = Arc::new(Mail::to_relay(self.way.form(), &house.origin, &post)?);
        self.turn(&house, &mail).await?;
        self.switch(&house, "on").await?;
        self.turn(&house, &mail).await?;
        self.switch(&house, "off").await?;
        house.process.stop().await?;
        let total = total(&fs::read_to_string(counts)?)?;
        let instructions_per_message = total / u64::from(self.messages);
        let bound = self.way.bound();
        let holds = instructions_per_message <= bound;
        Ok(Report {
            way: self.way,
            messages: self.messages,
            instructions_per_message,
            bound,
            missed: missed(&[(holds, "no more instructions than are written down")]).collect(),
        })
    }

    /// Makes a program that is the relay, and `serve` under valgrind.
    fn wrapped(&self, relay: &Path, counts: &Path, at: &Path) -> Result<PathBuf, MeasureError> {
        let program = at.join("relay");
        let (valgrind, counts) = (self.valgrind.display(), counts.display());
        let options = "--tool=callgrind --instr-atstart=no";
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = serve ] && exec '{valgrind}' {options} \
             --callgrind-out-file='{counts}' '{relay}' \"$@\"\nexec '{relay}' \"$@\"\n",
            relay = relay.display(),
        );
        fs::write(&program, text)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
        Ok(program)
    }

    async fn turn(&self, house: &House, mail: &Arc<Mail>) -> Result<(), MeasureError> {
        let messages = self.messages as usize;
        let line = Line::open(&house.way, self.way.form(), mail, IN_FLIGHT, 1).await?;
        let tally = line.carry(mail, 0, messages, IN_FLIGHT).await?;
        let all = tally.accepted == u64::from(self.messages);
        if all { Ok(()) } else { Err(MeasureError::Missing("201 to every message")) }
    }

    async fn switch(&self, house: &House, state: &str) -> Result<(), MeasureError> {
        let control = self.valgrind.with_file_name("callgrind_control");
        let id = house.process.id()?.to_string();
        let done = Command::new(control).args(["-i", state, &id]).output().await?;
        if done.status.success() { Ok(()) } else { Err(MeasureError::Missing("callgrind's ear")) }
    }
}

// === impl Way ===

impl Way {
    const fn form(self) -> Form {
        match self {
            Self::Http1 => Form::Http1,
            Self::Http2 => Form::Http2,
            Self::GrpcStream => Form::GrpcStream,
        }
    }

    /// What was counted last, and 3 % more: how messages fall into batches is chance.
    const fn bound(self) -> u64 {
        match self {
            Self::Http1 => 97_000,
            Self::Http2 => 125_500,
            Self::GrpcStream => 79_000,
        }
    }
}

/// Reads callgrind's own sum.
fn total(counts: &str) -> Result<u64, MeasureError> {
    let lines = counts.lines().filter_map(|line| line.strip_prefix("totals: "));
    let total = lines.filter_map(|text| text.trim().parse().ok()).next_back();
    total.ok_or(MeasureError::Missing("callgrind's sum"))
}

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { messages, instructions_per_message, bound, .. } = self;
        let way = self
            .way
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned());
        writeln!(out, "{way}: {instructions_per_message} instructions for each of {messages}")?;
        writeln!(out, "bound: {bound}")
    }
}

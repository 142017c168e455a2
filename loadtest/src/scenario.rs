//! Loads that people know, played against a relay: a power cut, an update of the whole fleet, Apple
//! being slow; live at the terminal, and afterwards as a table, as JSON and as a page with plots.
//!
//! In: a plan. Out: a report. The population is enrolled and paired beforehand; every answer is
//! counted by its code, and every push service counts what it accepted. Figures of CPU and memory
//! are those of the relay's process alone.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::measure::MeasureError;
use crate::measure::idle::allow_files;
use books::Books;
use drive::{Drive, Errands};
use lanes::{Errand, Lanes};
use options::{Name, Settings};
use population::Population;
use progress::Bar;
use quiet::Quiet;
use report::{Report, Seen};
use target::Target;
use watch::{Watch, keep_watch};

pub mod house;

pub mod options;

pub mod report;

mod books;

mod course;

mod drive;

mod knee;

mod lanes;

mod page;

mod plot;

mod population;

mod progress;

mod quiet;

mod target;

mod timetable;

mod watch;

pub use options::Plan;

/// What both programs have open besides the quiet connections.
const OTHER_FILES: u64 = 3_000;
/// Both sides are ready when the first moment comes.
const AHEAD: Duration = Duration::from_millis(50);
const WARM_TIME: Duration = Duration::from_secs(1);
const WARM_PER_S: u32 = 20;
/// A relay that has met no push service for a while knocks at it only now and then.
const WARM_TRIES: usize = 20;

// === impl Plan ===

impl Plan {
    /// Carries the plan out, and writes the page where one is asked for.
    /// Errors: [`MeasureError`]; messages that fail are figures of the report.
    pub async fn carry_out(&self) -> Result<Report, MeasureError> {
        let settings = self.settings()?;
        // Better now than after a minute.
        let page = self.report.as_ref().map(File::create).transpose().map_err(|error| {
            MeasureError::BadOption { option: "--report", why: error.to_string() }
        })?;
        allow_files(u64::from(settings.connections.unwrap_or(0)) + OTHER_FILES)?;
        let target = Target::find(self, &settings).await?;
        let report = play(&settings, &target).await?;
        target.leave().await?;
        if let Some(mut page) = page {
            io::Write::write_all(&mut page, page::page(&report).as_bytes())?;
        }
        Ok(report)
    }
}

async fn play(settings: &Settings, target: &Target) -> Result<Report, MeasureError> {
    course::prepare(settings, &target.stage);
    let bar = Bar::new("pairing", u64::from(settings.nas) * u64::from(settings.devices_per_nas));
    let (client, stage) = (target.client()?, &target.stage);
    let paired = || bar.step();
    let people = Population::gather(settings, stage, &target.url, &client, paired).await?;
    let people = Arc::new(people);
    drop(bar);
    let lanes = Lanes::open(settings.way, &target.url, &stage.ca, Arc::clone(&people)).await?;
    let lanes = Arc::new(lanes);
    let errands = errands(settings, people);
    warm_up(&lanes, &errands).await?;
    let mut watch = target.pid.map(Watch::of);
    let quiet = match settings.connections {
        Some(connections) => {
            let connections = connections as usize;
            Some(Quiet::open(settings.way, target, connections, watch.as_mut()).await?)
        }
        None => None,
    };
    let mut seen = Seen::before(stage, target.version.clone(), quiet.as_ref());
    let first = watch.as_mut().map(Watch::look).transpose()?;
    let begin = Instant::now() + AHEAD;
    let books = Arc::new(Books::default());
    let drive = Drive { lanes, books: Arc::clone(&books), begin };
    let bar = Bar::new("running", u64::from(settings.seconds));
    seen.steps = tokio::select! {
        steps = course::run(settings, stage, &drive, &errands) => steps?,
        fault = keep_watch(&mut watch, &books, &bar, begin, &mut seen.samples) => {
            return Err(fault);
        }
    };
    seen.took = begin.elapsed();
    seen.first = first;
    seen.last = watch.as_mut().map(Watch::look).transpose()?;
    drop((bar, quiet));
    Ok(Report::new(*settings, stage, &books, seen))
}

/// Gives what each number stands for.
fn errands(settings: &Settings, people: Arc<Population>) -> Errands {
    let (notifies, is_alarm) = (settings.scenario.notifies(), settings.scenario == Name::Storm);
    Arc::new(move |number| {
        let (nas, device) = people.address(number);
        match notifies {
            true => Errand::Notify { nas, is_alarm },
            false => Errand::Push { nas, device },
        }
    })
}

/// Sends a few messages beforehand, until all of them are accepted, so that connections are open
/// and the relay has its tokens.
async fn warm_up(lanes: &Arc<Lanes>, errands: &Errands) -> Result<(), MeasureError> {
    let mut others = Vec::new();
    for _ in 0..WARM_TRIES {
        let (books, begin) = (Arc::new(Books::default()), Instant::now());
        let drive = Drive { lanes: Arc::clone(lanes), books: Arc::clone(&books), begin };
        let moments = timetable::even(WARM_PER_S, WARM_TIME);
        drive.open_loop(errands, moments, Duration::ZERO).await?;
        let figures = books.figures(0..usize::MAX, None);
        if figures.accepted == figures.sent {
            return Ok(());
        }
        others = figures.others.iter().map(|(code, count)| format!("{count} × {code}")).collect();
        sleep(WARM_TIME).await;
    }
    Err(MeasureError::Refused(others.join(", ")))
}

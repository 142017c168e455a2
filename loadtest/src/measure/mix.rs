//! A mixed load: ordinary messages at the application door and alarms at the NAS door, each at
//! rates of its own, and what became of every message, second by second.
//!
//! In: a relay with its stage. Out: courses, of which any stretch of time can be summed up, and
//! whether what was called accepted is at its push service. A message belongs to the second in
//! which it was due; throughput is counted in the second in which the answer came.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use sns_nas::client::RelayClient;
use sns_nas::client::message::Enrolment;
use tokio::time::Instant;
use uuid::Uuid;

use super::MeasureError;
use super::crowd::{Crowd, CrowdError, Protocol, Told};
use super::letter::Sender;
use super::pace::{Ended, Pace, drive_steps, label};
use super::stencil::Stencil;
use crate::device::DeviceKind;
use crate::sim::journal::{Journal, MessageKey};
use crate::sim::server::Controls;
use crate::stage::Stage;

pub(super) mod summary;

pub(super) use summary::{Summary, Verified};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Sealed messages at the application door.
    Ordinary,
    /// Notifications of level `error` at the NAS door, one device each.
    Alarm,
}

/// One stream of messages: one sender, one push service, connections of its own, so that no other
/// stream's answers hold it up at the driver.
pub(super) struct Flow {
    controls: Controls,
    crowd: Arc<Crowd>,
    stencils: Arc<[Stencil]>,
}

/// How senders connect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    /// What they speak.
    pub(super) protocol: Protocol,
    /// Connections of one flow.
    pub(super) connections: usize,
}

/// What became of one flow's messages.
#[derive(Default)]
pub(super) struct Course {
    seconds: Vec<Second>,
    /// When the accepted ones were answered, in milliseconds from the beginning, in no order.
    answered_ms: Vec<u32>,
    messages: Vec<(MessageKey, bool)>,
}

/// The messages that were due in one second.
#[derive(Clone, Debug, Default)]
struct Second {
    sent: u64,
    late: u64,
    gone: u64,
    /// The others, by status and code.
    others: BTreeMap<String, u64>,
    accepted_us: Vec<u32>,
    others_us: Vec<u32>,
}

/// What an answer means for its message.
enum Word {
    Accepted,
    Other { code: String, is_gone: bool },
}

const DEVICES: usize = 50;
const MESSAGE: &[u8] = &[b'm'; 800];
/// Clocks of two flows begin together.
const AHEAD: Duration = Duration::from_millis(50);
/// The way back of an answer that leaves at its deadline.
const GRACE: Duration = Duration::from_millis(250);

// === impl Flow ===

impl Flow {
    /// Makes a sender, enrols it where it sends alarms, pairs its devices and connects.
    /// Errors: [`MeasureError`].
    pub(super) async fn gather(
        kind: DeviceKind,
        class: Class,
        stage: &Stage,
        url: &str,
        access: Access,
    ) -> Result<Flow, MeasureError> {
        let client = RelayClient::new(url, None)?;
        let sender = Sender::new(url)?;
        if class == Class::Alarm {
            let model = "DS923+".to_owned();
            let enrolment = Enrolment { model, serial: "LOAD".to_owned(), ..Enrolment::default() };
            client.enrol(sender.key(), &enrolment).await?;
        }
        let make = match class {
            Class::Ordinary => Stencil::of_message,
            Class::Alarm => Stencil::of_alarm,
        };
        let mut stencils = Vec::new();
        for _ in 0..DEVICES {
            let (device, endpoint) = sender.pair(&client, stage, kind).await?;
            stencils.push(make(&sender, &device, &endpoint, MESSAGE)?);
        }
        let crowd = Crowd::connect(url, &stage.ca, access.protocol, access.connections).await?;
        let controls = stage.controls(kind);
        let (controls, stencils) = (controls.clone(), stencils.into());
        Ok(Flow { controls, crowd: Arc::new(crowd), stencils })
    }

    /// Gives what steers its push service.
    pub(super) fn controls(&self) -> &Controls {
        &self.controls
    }

    /// Gives one more letter, for whoever has a loop of his own.
    pub(super) fn letter(&self, number: usize) -> (super::letter::Letter, MessageKey) {
        self.stencils[number % self.stencils.len()].letter(Uuid::new_v4())
    }

    /// Gives its connections.
    pub(super) fn crowd(&self) -> &Arc<Crowd> {
        &self.crowd
    }

    /// Sends at one pace after the other; an answer is late `limit` after its intended moment.
    /// Errors: the clock's thread.
    pub(super) async fn run(
        &self,
        steps: &[Pace],
        begin: Instant,
        limit: Duration,
    ) -> Result<Course, MeasureError> {
        let mut course = Course::default();
        let stencils = Arc::clone(&self.stencils);
        let make = move |number: usize| stencils[number % stencils.len()].letter(Uuid::new_v4());
        drive_steps(steps, begin, &self.crowd, make, |ended| course.count(ended, limit)).await?;
        Ok(course)
    }
}

/// Gives the common beginning of flows that are about to run.
pub(super) fn soon() -> Instant {
    Instant::now() + AHEAD
}

// === impl Course ===

impl Course {
    pub(super) fn count(&mut self, ended: Ended<MessageKey>, limit: Duration) {
        let place = usize::try_from(ended.due.as_secs()).unwrap_or(0);
        if self.seconds.len() <= place {
            self.seconds.resize_with(place + 1, Second::default);
        }
        let second = &mut self.seconds[place];
        second.sent += 1;
        second.late += u64::from(ended.time > limit + GRACE);
        let time_us = u32::try_from(ended.time.as_micros()).unwrap_or(u32::MAX);
        let word = Word::of(ended.told);
        self.messages.push((ended.tag, matches!(word, Word::Accepted)));
        match word {
            Word::Accepted => {
                second.accepted_us.push(time_us);
                let answered = (ended.due + ended.time).as_millis();
                self.answered_ms.push(u32::try_from(answered).unwrap_or(u32::MAX));
            }
            Word::Other { code, is_gone } => {
                second.gone += u64::from(is_gone);
                second.others_us.push(time_us);
                *second.others.entry(code).or_default() += 1;
            }
        }
    }

    /// Takes in what became of another sender's messages.
    pub(super) fn absorb(&mut self, other: Course) {
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize_with(other.seconds.len(), Second::default);
        }
        for (second, more) in self.seconds.iter_mut().zip(other.seconds) {
            second.sent += more.sent;
            second.late += more.late;
            second.gone += more.gone;
            for (code, count) in more.others {
                *second.others.entry(code).or_default() += count;
            }
            second.accepted_us.extend(more.accepted_us);
            second.others_us.extend(more.others_us);
        }
        self.answered_ms.extend(other.answered_ms);
        self.messages.extend(other.messages);
    }

    /// Sums up the messages that were due in these seconds.
    pub(super) fn summary(&self, seconds: Range<usize>) -> Summary {
        Course::sum(&[self], seconds)
    }

    /// Does the same for several flows together.
    pub(super) fn sum(courses: &[&Course], seconds: Range<usize>) -> Summary {
        let within = |course: &Course| seconds.start.min(course.seconds.len());
        let parts = courses.iter().flat_map(|course| {
            let end = seconds.end.min(course.seconds.len());
            course.seconds[within(course)..end.max(within(course))].iter()
        });
        Summary::of(parts)
    }

    /// Counts the accepted answers that came in each second, the last of which is `seconds - 1`.
    pub(super) fn throughput(courses: &[&Course], seconds: usize) -> Vec<u64> {
        let mut counts = vec![0; seconds];
        for answered_ms in courses.iter().flat_map(|course| &course.answered_ms) {
            if let Some(count) = counts.get_mut(*answered_ms as usize / 1_000) {
                *count += 1;
            }
        }
        counts
    }

    /// Gives the first accepted answer at or after a time, in milliseconds from the beginning.
    pub(super) fn first_accepted_ms(&self, from_ms: u32) -> Option<u32> {
        self.answered_ms.iter().copied().filter(|at_ms| *at_ms >= from_ms).min()
    }

    /// Looks every message up at its push service.
    pub(super) fn verify(&self, journal: &Journal) -> Verified {
        let acceptances = journal.acceptances();
        let mut verified = Verified::default();
        for (key, accepted) in &self.messages {
            let times = acceptances.get(key).copied().unwrap_or(0);
            verified.lost += u64::from(*accepted && times == 0);
            verified.doubled += u64::from(times > 1);
        }
        verified.gone = self.seconds.iter().map(|second| second.gone).sum();
        verified
    }
}

// === impl Word ===

impl Word {
    fn of(told: Option<Result<Told, CrowdError>>) -> Word {
        let other = |code: String, is_gone| Word::Other { code, is_gone };
        match told {
            Some(Ok(told)) if told.status == StatusCode::CREATED => Word::Accepted,
            Some(Ok(told)) if told.status == StatusCode::OK => Word::of_results(&told),
            Some(Ok(told)) => other(label(&told), told.status == StatusCode::GONE),
            Some(Err(_)) => other("connection broke".to_owned(), false),
            None => other("no answer".to_owned(), false),
        }
    }

    /// The NAS door's answer: one result for one device.
    fn of_results(told: &Told) -> Word {
        let json: Value = serde_json::from_slice(&told.body).unwrap_or_default();
        let result = json.get("results").and_then(|results| results.get(0));
        let member = |name| result.and_then(|result| result.get(name)?.as_str());
        match member("outcome") {
            Some("accepted") => Word::Accepted,
            outcome => {
                let outcome = outcome.unwrap_or("no result");
                let code = format!("{outcome} {}", member("reason").unwrap_or_default());
                Word::Other { code: code.trim_end().to_owned(), is_gone: outcome == "gone" }
            }
        }
    }
}

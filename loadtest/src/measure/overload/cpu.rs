//! The machine as the limit: senders in a closed loop, first as many as reach the peak, then many
//! times more. What one message costs the driver and the push services is the same in both, so the
//! two figures compare.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::MeasureError;
use super::super::child::RelayChild;
use super::super::mix::{Access, Class, Course, Flow, soon};
use super::super::pace::{Ended, Pace};
use super::report::Report;
use super::{Plan, sample};
use crate::device::DeviceKind;
use crate::stage::Stage;

/// Senders of the rising loops.
const LEVELS: [usize; 3] = [32, 128, 512];
const LEVEL_S: usize = 6;
/// Enough that ordinary messages are turned away for the queue's length.
const FLOOD_SENDERS_MIN: usize = 5_000;
/// A sender that is told to come again does; the relay says one second or more.
const PAUSE: Duration = Duration::from_secs(1);
const ALARMS_PER_S: u32 = 25;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const STREAMS_PER_CONNECTION: usize = 200;

/// Measures the peak and the flood.
/// Errors: [`MeasureError`].
pub(super) async fn measure(
    plan: &Plan,
    relay: &RelayChild,
    stage: &Stage,
) -> Result<Report, MeasureError> {
    let flood_senders = FLOOD_SENDERS_MIN.max(LEVELS[1] * plan.factor as usize);
    let connections = flood_senders.div_ceil(STREAMS_PER_CONNECTION);
    let access = Access { connections, ..plan.access() };
    let flow = Flow::gather(DeviceKind::Ios, Class::Ordinary, stage, relay.url(), access).await?;
    let alarms = Flow::gather(DeviceKind::Ios, Class::Alarm, stage, relay.url(), plan.access());
    let (flow, alarms) = (Arc::new(flow), alarms.await?);
    let limit = plan.limit();
    let mut best: Option<(usize, Course)> = None;
    for senders in LEVELS {
        let course = closed_loop(&flow, senders, LEVEL_S, limit).await;
        let accepted = |course: &Course| course.summary(0..usize::MAX).accepted;
        if best.as_ref().is_none_or(|(_, best)| accepted(best) < accepted(&course)) {
            best = Some((senders, course));
        }
    }
    let best = best.ok_or(MeasureError::Missing("a peak"))?;
    let flood_s = plan.seconds as usize;
    let steps = [Pace { rate_per_s: ALARMS_PER_S, seconds: plan.seconds }];
    let begin = soon();
    let (flooded, alarm_course, memory) = tokio::join!(
        closed_loop(&flow, flood_senders, flood_s, limit),
        alarms.run(&steps, begin, limit),
        sample(relay, begin, flood_s),
    );
    let (alarm_course, memory) = (alarm_course?, memory?);
    let mut verified = flooded.verify(stage.apns.journal());
    verified += best.1.verify(stage.apns.journal());
    verified += alarm_course.verify(stage.apns.journal());
    let both = ((best.0, &best.1), (flood_senders, &flooded));
    Ok(Report::at_the_machine(plan, both, &alarm_course, (LEVEL_S, flood_s), &memory, verified))
}

/// So many senders, each with one message under way, for so many seconds.
async fn closed_loop(flow: &Arc<Flow>, senders: usize, seconds: usize, limit: Duration) -> Course {
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds as u64);
    let numbers = Arc::new(AtomicUsize::new(0));
    let mut loops = JoinSet::new();
    for _ in 0..senders {
        let (flow, numbers) = (Arc::clone(flow), Arc::clone(&numbers));
        loops.spawn(async move {
            let mut course = Course::default();
            while Instant::now() < end {
                let (letter, tag) = flow.letter(numbers.fetch_add(1, Ordering::Relaxed));
                let sent_at = Instant::now();
                let told = timeout(ANSWER_LIMIT, flow.crowd().post(&letter)).await.ok();
                let is_accepted =
                    matches!(&told, Some(Ok(told)) if told.status == StatusCode::CREATED);
                let (due, time) = (sent_at - begin, sent_at.elapsed());
                course.count(Ended { tag, due, time, told }, limit);
                if !is_accepted {
                    sleep(PAUSE).await;
                }
            }
            course
        });
    }
    let mut whole = Course::default();
    while let Some(ended) = loops.join_next().await {
        whole.absorb(ended.unwrap_or_default());
    }
    whole
}

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
use super::super::child::{RelayChild, own_cpu_us};
use super::super::mix::{Access, Class, Course, Flow, soon};
use super::super::pace::{Ended, Pace};
use super::report::Report;
use super::{Plan, sample};
use crate::device::DeviceKind;
use crate::stage::Stage;

/// One closed loop, over.
pub(super) struct Loop {
    pub(super) senders: usize,
    pub(super) seconds: usize,
    pub(super) course: Course,
    pub(super) relay_cpu_us: u64,
    /// The senders and the push services.
    pub(super) others_cpu_us: u64,
}

/// Senders of the rising loops.
const LEVELS: [usize; 4] = [32, 128, 512, 2_000];
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
    let mut loops = Vec::new();
    for senders in LEVELS {
        loops.push(closed_loop(relay, &flow, (senders, LEVEL_S), limit).await?);
    }
    let flood_s = plan.seconds as usize;
    let steps = [Pace { rate_per_s: ALARMS_PER_S, seconds: plan.seconds }];
    let begin = soon();
    let (flood, alarms, memory) = tokio::try_join!(
        closed_loop(relay, &flow, (flood_senders, flood_s), limit),
        alarms.run(&steps, begin, limit),
        sample(relay, begin, flood_s),
    )?;
    let mut verified = alarms.verify(stage.apns.journal());
    for closed in loops.iter().chain([&flood]) {
        verified += closed.course.verify(stage.apns.journal());
    }
    Ok(Report::at_the_machine(plan, (&loops, &flood), &alarms, &memory, verified))
}

/// So many senders, each with one message under way, for so many seconds.
async fn closed_loop(
    relay: &RelayChild,
    flow: &Arc<Flow>,
    (senders, seconds): (usize, usize),
    limit: Duration,
) -> Result<Loop, MeasureError> {
    let before_us = (relay.cpu_us()?, own_cpu_us()?);
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
    let mut course = Course::default();
    while let Some(ended) = loops.join_next().await {
        course.absorb(ended.unwrap_or_default());
    }
    let relay_cpu_us = relay.cpu_us()? - before_us.0;
    let others_cpu_us = own_cpu_us()? - before_us.1;
    Ok(Loop { senders, seconds, course, relay_cpu_us, others_cpu_us })
}

//! The relay as its real process, killed again and again while the NAS's daemon sends.

use std::time::Duration;

use sns_loadtest::stage::Stage;
use sns_nas::clock::now_unix_ms;
use sns_nas::journal::recall::Query;
use tokio::time;

use super::{KINDS, Nas, PATIENCE, is_done, room};
use crate::process::Process;

const NOTIFICATIONS: usize = 200;
const KILLS: usize = 6;
/// So many are handed in while the relay is away.
const MEANWHILE: usize = 5;
/// Long enough that something is on its way at each kill.
const LATENCY: Duration = Duration::from_millis(30);

/// Kills it as soon as it has got something through, with the rest of what was handed in on its
/// way; hands in also while it is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_killed_again_and_again_loses_nothing() {
    let mut process = Process::with(room).await;
    for kind in KINDS {
        process.stage.controls(kind).script.latency(LATENCY);
    }
    let mut nas = Nas::of(&process.stage, &process.url).await;
    nas.start().await;
    let mut expected = Vec::new();
    let part = NOTIFICATIONS / (KILLS + 1);
    for n in 0..NOTIFICATIONS {
        match n.checked_sub(part) {
            Some(since) if since % part == 0 && since < KILLS * part => {
                until_more_is_accepted(&process.stage).await;
                process.kill();
            }
            Some(since) if since % part == MEANWHILE && since < KILLS * part => {
                process.start().await;
            }
            _ => {}
        }
        let text = format!("notification {n:03}");
        nas.notify(&text).await;
        expected.push(text);
    }
    nas.until(is_done).await;
    for kind in KINDS {
        let inbox = nas.screen(&process.stage, kind);
        let mut texts = inbox.texts();
        texts.sort_unstable();
        assert_eq!(texts, expected, "{kind:?}");
    }
    let records = nas.journal().recall(&Query::default(), now_unix_ms()).unwrap();
    let fates: Vec<_> = records.iter().flat_map(|record| &record.deliveries).collect();
    assert_eq!(fates.len(), NOTIFICATIONS * KINDS.len());
    assert!(fates.iter().all(|fate| fate.state == "accepted"));
    assert!(fates.iter().any(|fate| fate.attempts > 1), "no kill met anything on its way");
}

/// Waits until the push services have accepted more than they have now.
async fn until_more_is_accepted(stage: &Stage) {
    let accepted = || KINDS.map(|kind| stage.controls(kind).journal.accepted()).iter().sum::<u64>();
    let before = accepted();
    let more = async {
        while accepted() == before {
            time::sleep(Duration::from_millis(2)).await;
        }
    };
    time::timeout(PATIENCE, more).await.expect("the relay lets something through");
}

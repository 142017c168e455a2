//! SIGKILL at random moments: nothing is lost, and each device can tell a double by its id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use sns_nas::client::message::Level;
use sns_nas::content::Content;
use sns_nas::daemon::{SocketError, hand_in};
use sns_nas::desk::Request;
use sns_nas::event::Raised;
use sns_nas::seal;
use tokio::time;
use uuid::Uuid;

use crate::relay::{Relay, Told, told};
use crate::{Nas, is_done};

const NOTIFICATIONS: usize = 2000;
const KILLS: usize = 20;
const DEVICES: [&str; 3] = ["phone", "tablet", "browser"];

/// Hands the notifications in over the socket while the daemon is killed again and again, at a
/// random moment in each of as many equal parts of them; a relay that breaks calls off and
/// throttles makes sure that something is always on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_again_and_again_loses_nothing() {
    let relay = Relay::start(|n, _| match n % 50 {
        17 => None,
        31 => Some(Told { outcome: "not_now", members: json!({"retry_after_s": 1}) }),
        _ => told("accepted"),
    })
    .await;
    let (mut nas, keys) = Nas::new(&relay.url, &DEVICES);
    nas.start().await;
    let socket = nas.socket();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let caller = tokio::spawn(async move {
        let mut ids = Vec::new();
        for n in 0..NOTIFICATIONS {
            ids.push(say(&socket, n).await);
            count.store(n + 1, Ordering::Relaxed);
        }
        ids
    });
    let part = NOTIFICATIONS / KILLS;
    for kill in 0..KILLS {
        let moment = kill * part + usize::from(Uuid::new_v4().as_bytes()[0]) % part;
        while taken.load(Ordering::Relaxed) < moment {
            time::sleep(Duration::from_micros(500)).await;
        }
        nas.kill();
        nas.start().await;
    }
    let ids: Vec<Uuid> = caller.await.unwrap();
    nas.until(is_done).await;
    nas.terminate();

    let mut accepted: BTreeMap<String, BTreeSet<Uuid>> = BTreeMap::new();
    let mut pushes = 0;
    for got in relay.got().iter().filter(|got| got.answer == Some("accepted")) {
        let device = DEVICES.iter().position(|name| sns_nas::base64url::encode(name) == got.handle);
        let opened = seal::open(&keys[device.unwrap()], &got.sealed).unwrap();
        let content = Content::decode(&opened).unwrap();
        assert_eq!(got.id, content.id.to_string(), "one id outside and inside");
        accepted.entry(got.handle.clone()).or_default().insert(content.id);
        pushes += 1;
    }
    let all: BTreeSet<Uuid> = ids.iter().copied().collect();
    assert_eq!(all.len(), NOTIFICATIONS);
    assert_eq!(accepted.len(), 3);
    for device in accepted.values() {
        assert!(*device == all, "{} of {NOTIFICATIONS} arrived", device.len());
    }
    let doubles = pushes - 3 * NOTIFICATIONS;
    assert!(doubles <= KILLS * 32 * 2, "{doubles} doubles for {KILLS} kills");
    let records = nas.records();
    assert_eq!(records.len(), NOTIFICATIONS);
    let fates = records.iter().flat_map(|record| &record.deliveries);
    assert!(fates.into_iter().all(|fate| fate.state == "accepted"));
}

/// Hands one notification in, under one id until it is taken.
async fn say(socket: &std::path::Path, n: usize) -> Uuid {
    let id = Uuid::new_v4();
    let raised = Raised {
        id: Some(id),
        level: Some(Level::ALL[n % 3]),
        tag: Some("StgMgrVolumeCrash".to_owned()),
        vars: [("VOLUME_NAME".to_owned(), json!(n))].into(),
        ..Raised::default()
    };
    let request = Request::Notify(raised);
    let taken = async {
        loop {
            match hand_in(socket, &request).await {
                Ok(taken) => break taken,
                // Killed before, during or after: the same id again tells which.
                Err(SocketError::Absent { .. } | SocketError::Io { .. }) => {
                    time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let taken = time::timeout(crate::PATIENCE, taken).await.expect("the daemon comes back");
    assert_eq!((taken.id, taken.devices), (id, 3));
    id
}

//! SIGKILL at random moments: nothing is lost, and each device can tell a double by its id.

use std::collections::{BTreeMap, BTreeSet};
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
const DEVICES: [&str; 3] = ["phone", "tablet", "browser"];

/// Hands the notifications in over the socket while the daemon is killed again and again; a relay
/// that is slow to answer, breaks connections off and throttles makes sure that something is always
/// on its way.
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
    let caller = tokio::spawn(async move {
        let mut ids = Vec::new();
        for n in 0..NOTIFICATIONS {
            ids.push(say(&socket, n).await);
        }
        ids
    });
    let mut kills = 0;
    while !caller.is_finished() {
        let pause_ms = 50 + u64::from(Uuid::new_v4().as_bytes()[0]) * 2;
        time::sleep(Duration::from_millis(pause_ms)).await;
        nas.kill();
        kills += 1;
        nas.start().await;
    }
    let ids: Vec<Uuid> = caller.await.unwrap();
    assert!(kills >= 5, "{kills} kills are too few to show anything");
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
    assert!(doubles <= kills * 32 * 2, "{doubles} doubles for {kills} kills");
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

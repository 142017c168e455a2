//! Several relays on one store: what one learns the others know, and a store that goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use sns_loadtest::device::DeviceKind;
use sns_loadtest::stage::{APP, Stage};
use sns_nas::key::SenderKey;
use sns_relay::clock::Clock;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use super::Place;
use crate::cluster::{Cluster, Database};
use crate::forge::{Forge, SERIAL, notification};
use crate::house::House;
use crate::process::Process;
use crate::wire::{Ask, PATIENCE, Told, ask_http1};

/// What the issue allows from a revocation to the last replica that knows it.
const REVOCATION_MAX: Duration = Duration::from_secs(2);

fn set(stage: &mut Stage, keys: &[(&'static str, String)]) {
    for (key, value) in keys {
        match value.parse::<i64>() {
            Ok(number) => stage.set_key(key, number),
            Err(_) => stage.set_key(key, value.as_str()),
        }
    }
}

/// A relay's program, and the same NAS as it is known there.
async fn replica(place: &[(&'static str, String)], key: &Forge) -> (Process, Forge) {
    let process = Process::with(|stage| set(stage, place)).await;
    let key = SenderKey::from_pem(key.key.pem().unwrap().as_bytes()).unwrap();
    let mut nas = Forge::new(process.url.clone(), Clock::system());
    nas.key = key;
    (process, nas)
}

async fn enrol(process: &Process, nas: &Forge) -> Told {
    let body = json!({ "model": "DS923+", "serial": SERIAL });
    ask_http1(process.address, &nas.json("POST", "/v1/nas", &body)).await
}

async fn record(process: &Process, nas: &Forge) -> Told {
    let ask = Ask::new("GET", "/v1/nas/self").header("authorization", nas.authorization());
    ask_http1(process.address, &ask).await
}

/// Waits until both replicas answer so; gives how long that took.
async fn until(replicas: &[(Process, Forge); 2], status: u16, code: &str) -> Duration {
    let started = Instant::now();
    for (process, nas) in replicas {
        loop {
            let told = record(process, nas).await;
            if told.status == status && (status == 200 || told.code() == code) {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{status} {code}: {}", told.text());
            time::sleep(Duration::from_millis(20)).await;
        }
    }
    started.elapsed()
}

/// Two programs on one store, a file and a server: enrolled at one, known at the other; stopped,
/// restored and erased by the operator's command, with both caches warm.
#[tokio::test(flavor = "multi_thread")]
async fn every_replica_knows_within_two_seconds_who_may_send() {
    for place in [Place::file(), Place::server().await] {
        let nas = Forge::new(String::new(), Clock::system());
        let replicas = [replica(&place.keys, &nas).await, replica(&place.keys, &nas).await];
        assert_eq!(enrol(&replicas[0].0, &replicas[0].1).await.status, 201);
        let ds_id = record(&replicas[1].0, &replicas[1].1).await.json()["ds_id"].clone();
        let ds_id = ds_id.as_str().unwrap();
        until(&replicas, 200, "").await;
        for (command, status, code) in [
            ("revoke", 403, "nas_suspended"),
            ("restore", 200, ""),
            ("revoke", 403, "nas_suspended"),
            ("erase", 403, "nas_not_enrolled"),
        ] {
            replicas[1].0.operate(&["nas", command, ds_id]);
            let took = until(&replicas, status, code).await;
            assert!(took < REVOCATION_MAX, "{}: {command} took {took:?}", place.name);
        }
    }
}

/// Rotates at one replica while the other has the old key in its cache.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_refused_at_every_replica() {
    let place = Place::server().await;
    let old = Forge::new(String::new(), Clock::system());
    let replicas = [replica(&place.keys, &old).await, replica(&place.keys, &old).await];
    let (process, nas) = &replicas[0];
    assert_eq!(enrol(process, nas).await.status, 201);
    until(&replicas, 200, "").await;
    let new = Forge::new(process.url.clone(), Clock::system());
    let body = json!({ "new_key": new.key.public_base64url(), "proof": new.authorization() });
    let rotated = ask_http1(process.address, &nas.json("PUT", "/v1/nas/self/key", &body)).await;
    assert_eq!(rotated.status, 200);
    let took = until(&replicas, 403, "nas_not_enrolled").await;
    assert!(took < REVOCATION_MAX, "{took:?}");
}

/// The server is killed: the cached NAS sends on, an unknown one is asked to wait, the application
/// door and readiness take no notice; back again, the unknown one is refused, and only now.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_refuses_nobody_and_stops_no_application() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let house = House::with(|stage| set(stage, &database.keys())).await;
    let (nas, stranger) = (Forge::for_house(&house), Forge::for_house(&house));
    assert_eq!(nas.enrol(&house).await.status, 201);
    let device = house.device(DeviceKind::Ios).await;
    let endpoint = nas.pair(&house, APP, &device).await;
    let strangers = stranger.pair(&house, APP, &device).await;
    let notify = async |nas: &Forge, endpoint: &str| {
        let ask = nas.json("POST", "/v1/notifications", &notification(endpoint));
        ask_http1(house.address(), &ask).await
    };
    assert_eq!(notify(&nas, &endpoint).await.json()["results"][0]["outcome"], "accepted");
    cluster.kill();
    assert_eq!(notify(&nas, &endpoint).await.json()["results"][0]["outcome"], "accepted");
    let told = notify(&stranger, &strangers).await;
    assert_eq!((told.status, told.code()), (503, "store_unavailable".to_owned()));
    assert!(told.header("retry-after").is_some(), "{}", told.text());
    assert_eq!(stranger.enrol(&house).await.code(), "store_unavailable");
    assert_eq!(ask_http1(house.address(), &stranger.push(&strangers)).await.status, 201);
    let ready = ask_http1(house.admin_address(), &Ask::new("GET", "/readyz")).await;
    assert_eq!(ready.status, 200);
    cluster.run().await;
    let back = async {
        while notify(&stranger, &strangers).await.code() != "nas_not_enrolled" {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(PATIENCE, back).await.expect("the store is asked again");
    assert_eq!(stranger.enrol(&house).await.status, 201);
}

/// Senders ask two programs without a break, half of them past the cache, while the server is
/// killed and started three times: each answer is the record or a wait. A NAS that is stopped just
/// after the server is back, when the notices may be missed, is refused all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_under_load_makes_no_wrong_refusal() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let mut cacheless = database.keys().to_vec();
    cacheless.push(("store.cache_entries_max", "0".to_owned()));
    let nas = Forge::new(String::new(), Clock::system());
    let replicas =
        Arc::new([replica(&database.keys(), &nas).await, replica(&cacheless, &nas).await]);
    assert_eq!(enrol(&replicas[0].0, &replicas[0].1).await.status, 201);
    let ended = Arc::new(AtomicBool::new(false));
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let mut senders = JoinSet::new();
    for sender in 0..4 {
        let (replicas, ended) = (Arc::clone(&replicas), Arc::clone(&ended));
        let counts = Arc::clone(&counts);
        senders.spawn(async move {
            let (process, nas) = &replicas[sender % 2];
            while !ended.load(Ordering::Relaxed) {
                let told = record(process, nas).await;
                let wait = told.status == 503 && told.code() == "store_unavailable";
                assert!(told.status == 200 || wait, "{}", told.text());
                counts[usize::from(wait)].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for _ in 0..3 {
        let waits = counts[1].load(Ordering::Relaxed);
        cluster.kill();
        let met = async {
            while counts[1].load(Ordering::Relaxed) == waits {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(PATIENCE, met).await.expect("somebody meets the gap");
        cluster.run().await;
        until(&replicas, 200, "").await;
    }
    ended.store(true, Ordering::Relaxed);
    senders.join_all().await;
    assert!(counts[0].load(Ordering::Relaxed) > 0);
    stop_by_hand(&database).await;
    let took = until(&replicas, 403, "nas_suspended").await;
    assert!(took < REVOCATION_MAX, "{took:?}");
}

/// The operator may use any tool: a trigger tells the replicas.
async fn stop_by_hand(database: &Database) {
    database.execute("UPDATE nas SET status = 'suspended'").await;
}

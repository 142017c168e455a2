//! The permanent record of a NAS: how it comes about, what it holds, and that it stays.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sns_loadtest::device::DeviceKind;
use sns_loadtest::stage::APP;
use sns_nas::base64url;
use sns_relay::clock::Clock;
use sns_relay::store::records::Records;
use tokio::sync::mpsc;

use crate::cluster::section;
use crate::forge::{Forge, SERIAL, handle_of, notification};
use crate::house::House;
use crate::process::Process;
use crate::wire::{Ask, Told, ask_http1};

const STORE: &str = "data/identities.sqlite3";

async fn enrol_with(house: &House, nas: &Forge, token: Option<&str>) -> Told {
    let mut body = json!({ "model": "DS923+", "serial": SERIAL });
    if let Some(token) = token {
        body["enrolment_token"] = json!(token);
    }
    ask_http1(house.address(), &nas.json("POST", "/v1/nas", &body)).await
}

async fn record(house: &House, nas: &Forge) -> Told {
    let ask = Ask::new("GET", "/v1/nas/self").header("authorization", nas.authorization());
    ask_http1(house.address(), &ask).await
}

async fn rotate(house: &House, old: &Forge, new_key: &Forge, proof: &Forge) -> Told {
    let new_key = new_key.key.public_base64url();
    let body = json!({ "new_key": new_key, "proof": proof.authorization() });
    ask_http1(house.address(), &old.json("PUT", "/v1/nas/self/key", &body)).await
}

/// Gives every byte of the store: the file, its log and its index.
fn store_bytes(folder: &Path) -> Vec<u8> {
    let files: Vec<_> = fs::read_dir(folder.join("data")).unwrap().map(Result::unwrap).collect();
    assert!(files.len() > 1, "the store is open, so it has a log beside it");
    files.iter().flat_map(|file| fs::read(file.path()).unwrap()).collect()
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// Design §4.2, field by field, against a record that was just made.
#[tokio::test(flavor = "multi_thread")]
async fn the_record_holds_exactly_the_named_fields() {
    let house = House::build().await;
    let nas = Forge::for_house(&house);
    let enrolled = nas.enrol(&house).await;
    assert_eq!(enrolled.status, 201);
    let told = record(&house, &nas).await;
    assert_eq!(told.status, 200);
    let record = told.json();
    let mut names: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected =
        ["ds_id", "enrolled_at", "key_thumbprint", "model", "public_key", "serial_tag", "status"];
    assert_eq!(names, expected);
    let enrolled = enrolled.json();
    assert_eq!(enrolled.as_object().unwrap().len(), 2);
    assert_eq!(record["ds_id"], enrolled["ds_id"]);
    assert_eq!(record["enrolled_at"], enrolled["enrolled_at"]);
    assert_eq!(record["public_key"], nas.key.public_base64url());
    assert_eq!(record["key_thumbprint"], base64url::encode(nas.key.thumbprint()));
    assert_eq!((&record["model"], &record["status"]), (&json!("DS923+"), &json!("active")));
    let ds_id = record["ds_id"].as_str().unwrap().strip_prefix("ds_").unwrap();
    assert!(ds_id.len() == 26 && ds_id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')));
    let tag = base64url::decode(record["serial_tag"].as_str().unwrap()).unwrap();
    assert_eq!(tag.len(), 32);
}

/// The key is the identity: the same one again, and another with the same serial.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_keeps_its_id_and_a_serial_proves_nothing() {
    let house = House::build().await;
    let (nas, claimant) = (Forge::for_house(&house), Forge::for_house(&house));
    let first = nas.enrol(&house).await;
    let body = json!({ "model": "RS1221+", "serial": "OTHER", "os_version": "DSM 7.3" });
    let again = ask_http1(house.address(), &nas.json("POST", "/v1/nas", &body)).await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.json(), again.json());
    let claimed = claimant.enrol(&house).await;
    assert_eq!(claimed.status, 201);
    assert_ne!(claimed.json()["ds_id"], first.json()["ds_id"]);
    let (one, other) = (record(&house, &nas).await.json(), record(&house, &claimant).await.json());
    assert_eq!(one["serial_tag"], other["serial_tag"]);
    assert_eq!(one["model"], "DS923+", "the record stays as it was made");
}

/// Every way to have no token, one to have it, and one to have had it.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_operator_enrols_one_nas() {
    let house = House::with(|stage| stage.set_key("enrolment.policy", "token")).await;
    let printed = Process::run(&house.config_file, &["enrolment-token", "mint", "--count", "2"]);
    let tokens: Vec<&str> = printed.lines().collect();
    assert_eq!(tokens.len(), 2);
    let (nas, late) = (Forge::for_house(&house), Forge::for_house(&house));
    let mut cut = tokens[0].to_owned();
    cut.pop();
    for wrong in [None, Some(""), Some("et_wrong"), Some(cut.as_str())] {
        let told = enrol_with(&house, &nas, wrong).await;
        assert_eq!((told.status, told.code()), (403, "enrolment_token_invalid".to_owned()));
        assert_eq!(told.json()["field"], "enrolment_token");
        assert_eq!(record(&house, &nas).await.code(), "nas_not_enrolled");
    }
    let enrolled = enrol_with(&house, &nas, Some(tokens[0])).await;
    assert_eq!(enrolled.status, 201);
    assert_eq!(enrol_with(&house, &late, Some(tokens[0])).await.status, 403, "used up");
    for token in [None, Some(tokens[0]), Some("et_wrong"), Some(tokens[1])] {
        let again = enrol_with(&house, &nas, token).await;
        assert_eq!((again.status, again.json()), (200, enrolled.json()), "enrolled already");
    }
    assert_eq!(enrol_with(&house, &late, Some(tokens[1])).await.status, 201, "and not used up");
    let bytes = store_bytes(house.stage.folder());
    assert!(tokens.iter().all(|token| !holds(&bytes, token)));
}

/// Eight NAS race for one token; the operator's command writes to the same store meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_enrols_one_nas_however_many_race_for_it() {
    let house = House::with(|stage| stage.set_key("enrolment.policy", "token")).await;
    let token = "et_contested";
    let file = house.stage.folder().join(STORE).to_str().unwrap().to_owned();
    let records = Records::open(&section(&[("store.file", file)])).await.unwrap();
    let hash = sns_relay::enrol::hash_enrolment_token(token);
    records.add_enrolment_tokens(vec![hash]).await.unwrap();
    let more = tokio::spawn(async move {
        for number in 0..20 {
            records.add_enrolment_tokens(vec![[number; 32]]).await.unwrap();
        }
    });
    let mut asks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let nas = Forge::for_house(&house);
        let body = json!({ "model": "DS923+", "serial": SERIAL, "enrolment_token": token });
        let (ask, address) = (nas.json("POST", "/v1/nas", &body), house.address());
        asks.spawn(async move { ask_http1(address, &ask).await.status });
    }
    let mut statuses = asks.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403, 403, 403, 403, 403, 403, 403]);
    more.await.unwrap();
}

/// Looks for what a NAS said of itself in every byte of the store.
#[tokio::test(flavor = "multi_thread")]
async fn the_serial_is_nowhere_in_the_store() {
    let house = House::build().await;
    let nas = Forge::for_house(&house);
    let body = json!({
        "model": "zqmodelzq", "serial": "zqserialzq", "os_version": "zqversionzq",
        "unique_ids": ["zquniquezq"], "enrolment_token": "zqtokenzq",
    });
    let told = ask_http1(house.address(), &nas.json("POST", "/v1/nas", &body)).await;
    assert_eq!(told.status, 201);
    let bytes = store_bytes(house.stage.folder());
    assert!(holds(&bytes, "zqmodelzq"), "the search finds what is there");
    for absent in ["zqserialzq", "zqversionzq", "zquniquezq", "zqtokenzq", "127.0.0.1"] {
        assert!(!holds(&bytes, absent), "{absent}");
    }
}

/// Rotates, and asks with both keys. Handles are bound to a key: under the new one they do not
/// open, so a NAS pairs its devices anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_keeps_the_id_and_ends_the_old_key_and_its_handles() {
    let house = House::build().await;
    let (old, new) = (Forge::for_house(&house), Forge::for_house(&house));
    assert_eq!(old.enrol(&house).await.status, 201);
    let before = record(&house, &old).await.json();
    let device = house.device(DeviceKind::Ios).await;
    let endpoint = old.pair(&house, APP, &device).await;
    let rotated = rotate(&house, &old, &new, &new).await;
    assert_eq!(rotated.status, 200);
    let mut expected = before.clone();
    expected["public_key"] = json!(new.key.public_base64url());
    expected["key_thumbprint"] = json!(base64url::encode(new.key.thumbprint()));
    assert_eq!(rotated.json(), expected);
    assert_eq!(record(&house, &new).await.json(), expected);
    assert_eq!(record(&house, &old).await.code(), "nas_not_enrolled");
    let notify = |nas: &Forge, endpoint: &str| {
        let ask = nas.json("POST", "/v1/notifications", &notification(endpoint));
        let address = house.address();
        async move { ask_http1(address, &ask).await }
    };
    assert_eq!(notify(&old, &endpoint).await.code(), "nas_not_enrolled");
    let result = notify(&new, &endpoint).await.json()["results"][0].clone();
    assert_eq!(
        (&result["reason"], &result["outcome"]),
        (&json!("handle_invalid"), &json!("refused"))
    );
    let endpoint = new.pair(&house, APP, &device).await;
    assert_eq!(notify(&new, &endpoint).await.json()["results"][0]["outcome"], "accepted");
    assert_eq!(rotate(&house, &old, &new, &new).await.code(), "nas_not_enrolled");
}

/// Who does not hold the new key, and keys that are another's; after each the old key still works.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_proved_or_is_anothers_is_refused() {
    let house = House::build().await;
    let [nas, other, new] = [(); 3].map(|()| Forge::for_house(&house));
    assert_eq!(nas.enrol(&house).await.status, 201);
    assert_eq!(other.enrol(&house).await.status, 201);
    let before = record(&house, &nas).await.json();
    for (new_key, proof, status, code, field) in [
        (&new, &nas, 403, "key_proof_invalid", "proof"),
        (&new, &other, 403, "key_proof_invalid", "proof"),
        (&other, &new, 403, "key_proof_invalid", "proof"),
        (&other, &other, 400, "key_in_use", "new_key"),
    ] {
        let told = rotate(&house, &nas, new_key, proof).await;
        assert_eq!((told.status, told.code()), (status, code.to_owned()));
        assert_eq!(told.json()["field"], field);
        assert_eq!(record(&house, &nas).await.json(), before);
    }
    let stranger = rotate(&house, &new, &Forge::for_house(&house), &new).await;
    assert_eq!((stranger.status, stranger.code()), (403, "nas_not_enrolled".to_owned()));
    let same = rotate(&house, &nas, &nas, &nas).await;
    assert_eq!((same.status, same.json()), (200, before), "its own key again changes nothing");
}

/// The operator suspends a NAS in the file, with the tools of the house; the cache is off.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_nas_may_not_send() {
    let house = House::with(|stage| stage.set_key("store.cache_entries_max", 0)).await;
    let nas = Forge::for_house(&house);
    assert_eq!(nas.enrol(&house).await.status, 201);
    assert_eq!(record(&house, &nas).await.status, 200);
    let file = rusqlite::Connection::open(house.stage.folder().join(STORE)).unwrap();
    assert_eq!(file.execute("UPDATE nas SET status = 'suspended'", []).unwrap(), 1);
    let device = house.device(DeviceKind::Ios).await;
    let body = notification(&nas.pair(&house, APP, &device).await);
    for ask in [
        nas.json("POST", "/v1/notifications", &body),
        Ask::new("GET", "/v1/nas/self").header("authorization", nas.authorization()),
    ] {
        let told = ask_http1(house.address(), &ask).await;
        assert_eq!((told.status, told.code()), (403, "nas_suspended".to_owned()));
    }
    let again = nas.enrol(&house).await;
    assert_eq!(again.status, 200, "its id is no secret to it");
    assert_eq!(house.stage.apns.journal().requests(), 0);
}

/// Stops the relay and starts it on the same file.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_and_a_handle_survive_a_restart() {
    let mut house = House::build().await;
    let nas = Forge::for_house(&house);
    assert_eq!(nas.enrol(&house).await.status, 201);
    let before = record(&house, &nas).await.json();
    let device = house.device(DeviceKind::Ios).await;
    let endpoint = nas.pair(&house, APP, &device).await;
    house.restart().await;
    assert_eq!(record(&house, &nas).await.json(), before);
    assert_eq!(ask_http1(house.address(), &nas.push(&endpoint)).await.status, 201);
    assert!(!handle_of(&endpoint).is_empty());
}

const ROUNDS: usize = 20;
const WRITERS: usize = 4;

/// Kills the program with SIGKILL while four senders enrol; every record that was acknowledged is
/// there when it runs again.
#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_record_is_lost_to_a_kill() {
    let mut process = Process::with(|_| {}).await;
    let mut known: Vec<(String, Value)> = Vec::new();
    for round in 0..ROUNDS {
        let (acknowledge, mut acknowledged) = mpsc::channel(64);
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..WRITERS {
            let (acknowledge, url) = (acknowledge.clone(), process.url.clone());
            let address = process.address;
            writers.spawn(async move { enrol_until_killed(url, address, &acknowledge).await });
        }
        for _ in 0..1 + round % 7 {
            known.push(acknowledged.recv().await.unwrap());
        }
        process.kill();
        drop(acknowledge);
        while let Some(pair) = acknowledged.recv().await {
            known.push(pair);
        }
        writers.join_all().await;
        process.start().await;
        for (authorization, ds_id) in known.iter().rev().take(WRITERS + 8) {
            assert_known(&process, authorization, ds_id).await;
        }
    }
    for (authorization, ds_id) in &known {
        assert_known(&process, authorization, ds_id).await;
    }
    assert!(known.len() >= ROUNDS);
}

async fn assert_known(process: &Process, authorization: &str, ds_id: &Value) {
    let ask = Ask::new("GET", "/v1/nas/self").header("authorization", authorization);
    let told = ask_http1(process.address, &ask).await;
    assert_eq!((told.status, &told.json()["ds_id"]), (200, ds_id));
}

async fn enrol_until_killed(
    url: String,
    address: std::net::SocketAddr,
    acknowledge: &mpsc::Sender<(String, Value)>,
) {
    use tokio::io::AsyncWriteExt as _;
    let body = json!({ "model": "DS923+", "serial": SERIAL });
    loop {
        let nas = Forge::new(url.clone(), Clock::system());
        let ask = nas.json("POST", "/v1/nas", &body);
        let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return };
        if stream.write_all(&ask.http1()).await.is_err() {
            return;
        }
        let Some(told) = crate::wire::read_answer(&mut stream).await else { return };
        assert_eq!(told.status, 201);
        let pair = (nas.authorization(), told.json()["ds_id"].clone());
        if acknowledge.send(pair).await.is_err() {
            return;
        }
    }
}

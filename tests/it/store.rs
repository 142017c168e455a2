//! The identity store through its own interface: the same questions to a file and to a server.

mod commands;

mod replicas;

use std::sync::Arc;

use sns_relay::push::SenderKey;
use sns_relay::store::records::Records;
use sns_relay::store::{Enrolled, NasIdentity, NasStatus, Rotated, Store, copy};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Database, section};

const IDENTITIES: u32 = 5_000;
const WRITERS: u32 = 8;

/// A store's place, and what keeps it.
struct Place {
    name: &'static str,
    keys: Vec<(&'static str, String)>,
    _folder: Option<TempDir>,
    _database: Option<Database>,
}

impl Place {
    /// Gives an empty file, and an empty database by each of its ways.
    async fn all() -> [Self; 3] {
        let database = Cluster::shared().await.database().await;
        let socket = Self {
            name: "PostgreSQL on a socket",
            keys: vec![("store.url", database.socket_url())],
            _folder: None,
            _database: Some(database),
        };
        [Self::file(), Self::server().await, socket]
    }

    async fn server() -> Self {
        let database = Cluster::shared().await.database().await;
        let (name, keys) = ("PostgreSQL over TLS", database.keys().into());
        Self { name, keys, _folder: None, _database: Some(database) }
    }

    fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("identities.sqlite3").to_str().unwrap().to_owned();
        let keys = vec![("store.file", file)];
        Self { name: "SQLite", keys, _folder: Some(folder), _database: None }
    }

    async fn store(&self, cache_entries_max: u64) -> Arc<Store> {
        let mut keys = self.keys.clone();
        keys.push(("store.cache_entries_max", cache_entries_max.to_string()));
        Arc::new(Store::open(&section(&keys)).await.unwrap())
    }

    async fn records(&self) -> Records {
        Records::open(&section(&self.keys)).await.unwrap()
    }
}

/// The store looks at no key, so a number will do for one.
fn key(number: u32) -> SenderKey {
    let mut point = [4; SenderKey::LENGTH_BYTES];
    point[1..5].copy_from_slice(&number.to_be_bytes());
    SenderKey::from_stored(point)
}

fn identity(number: u32) -> NasIdentity {
    NasIdentity {
        ds_id: format!("ds_{number:026}"),
        key: key(number),
        serial_tag: [number.to_be_bytes()[3]; 32],
        model: format!("DS{number}"),
        enrolled_at_unix_s: u64::from(number),
        status: NasStatus::Active,
    }
}

/// Panics unless each identity is found by its key, whole, and no other key finds one.
async fn assert_all_found(store: &Store, place: &str) {
    for number in 0..IDENTITIES {
        let found = store.nas_by_key(key(number).thumbprint()).await.unwrap();
        assert!(found == Some(identity(number)), "{place}: identity {number}");
    }
    for number in IDENTITIES..IDENTITIES + 100 {
        assert!(store.nas_by_key(key(number).thumbprint()).await.unwrap().is_none(), "{place}");
    }
}

/// Eight writers enrol five thousand; each is found, with the cache and without, and once reopened.
#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_identities_is_found_by_its_key() {
    for place in Place::all().await {
        let store = place.store(0).await;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                for number in (writer..IDENTITIES).step_by(WRITERS as usize) {
                    let enrolled = store.enrol(identity(number), None).await.unwrap();
                    assert!(matches!(enrolled, Enrolled::Created(_)), "identity {number}");
                }
            });
        }
        writers.join_all().await;
        assert_all_found(&store, place.name).await;
        drop(store);

        // The cache is smaller than the table, so that records leave it and come back.
        let store = place.store(1_000).await;
        assert_all_found(&store, place.name).await;
        assert_all_found(&store, place.name).await;
        let again = store.enrol(identity(7), None).await.unwrap();
        assert!(matches!(again, Enrolled::Known(known) if known == identity(7)));
    }
}

/// Eight enrol with one token at once, each with a key of its own, then all with the same key.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_enrols_one_nas_and_a_key_is_enrolled_once() {
    for place in Place::all().await {
        let store = place.store(0).await;
        let records = place.records().await;
        records.add_enrolment_tokens(vec![[1; 32], [2; 32], [2; 32]]).await.unwrap();
        assert_eq!(records.enrolment_tokens().await.unwrap(), [[1; 32], [2; 32]]);
        let race = |same_key: bool, token: [u8; 32]| {
            let mut race = JoinSet::new();
            for number in 0..8 {
                let mut nas = identity(number);
                if same_key {
                    nas.key = key(100);
                    nas.ds_id = format!("ds_{:026}", 100 + number);
                }
                let store = Arc::clone(&store);
                race.spawn(async move { store.enrol(nas, Some(token)).await.unwrap() });
            }
            race.join_all()
        };
        let count = |enrolled: &[Enrolled]| {
            let of = |wanted: fn(&Enrolled) -> bool| enrolled.iter().filter(|e| wanted(e)).count();
            [
                of(|enrolled| matches!(enrolled, Enrolled::Created(_))),
                of(|enrolled| matches!(enrolled, Enrolled::Known(_))),
                of(|enrolled| matches!(enrolled, Enrolled::TokenInvalid)),
            ]
        };
        assert_eq!(count(&race(false, [1; 32]).await), [1, 0, 7], "{}", place.name);
        assert_eq!(count(&race(true, [2; 32]).await), [1, 7, 0], "{}", place.name);
        assert!(records.enrolment_tokens().await.unwrap().is_empty(), "{}", place.name);
        records.add_enrolment_tokens(vec![[3; 32]]).await.unwrap();
        assert!(records.cancel_enrolment_token([3; 32]).await.unwrap());
        assert!(!records.cancel_enrolment_token([3; 32]).await.unwrap());
        let refused = store.enrol(identity(50), Some([3; 32])).await.unwrap();
        assert!(matches!(refused, Enrolled::TokenInvalid), "{}", place.name);
    }
}

/// Rotates to a free key, to its own, to another's, and from one that nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_unless_another_nas_has_it() {
    for place in Place::all().await {
        let store = place.store(100).await;
        for number in [1, 2] {
            store.enrol(identity(number), None).await.unwrap();
        }
        let rotate = |old, new| store.rotate_key(key(old).thumbprint(), key(new));
        let rotated = NasIdentity { key: key(3), ..identity(1) };
        assert!(store.nas_by_key(key(1).thumbprint()).await.unwrap().is_some());
        assert!(
            matches!(rotate(1, 3).await.unwrap(), Rotated::Done(nas) if nas == rotated),
            "{}",
            place.name
        );
        assert!(store.nas_by_key(key(1).thumbprint()).await.unwrap().is_none());
        assert!(store.nas_by_key(key(3).thumbprint()).await.unwrap() == Some(rotated));
        assert!(matches!(rotate(3, 3).await.unwrap(), Rotated::Done(_)), "{}", place.name);
        assert!(matches!(rotate(3, 2).await.unwrap(), Rotated::KeyInUse), "{}", place.name);
        assert!(matches!(rotate(1, 4).await.unwrap(), Rotated::NotEnrolled), "{}", place.name);
    }
}

/// Each question of an operator's, with an id that is there and one that is not.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_stops_restores_and_erases_single_records() {
    for place in Place::all().await {
        let (records, name) = (place.records().await, place.name);
        records.put(vec![identity(1), identity(2)]).await.unwrap();
        let (one, none) = (identity(1).ds_id, identity(9).ds_id);
        let status = async |ds_id: &str| {
            records.nas_by_id(ds_id).await.unwrap().map(|identity| identity.status)
        };
        assert!(records.nas_by_id(&one).await.unwrap() == Some(identity(1)), "{name}");
        assert_eq!(status(&none).await, None, "{name}");
        assert!(records.set_status(&one, NasStatus::Suspended).await.unwrap(), "{name}");
        assert_eq!(status(&one).await, Some(NasStatus::Suspended), "{name}");
        assert!(records.set_status(&one, NasStatus::Active).await.unwrap(), "{name}");
        assert_eq!(status(&one).await, Some(NasStatus::Active), "{name}");
        assert!(records.erase(&one).await.unwrap(), "{name}");
        assert_eq!(status(&one).await, None, "{name}");
        assert_eq!(status(&identity(2).ds_id).await, Some(NasStatus::Active), "{name}");
        assert!(!records.erase(&none).await.unwrap(), "{name}");
        assert!(!records.set_status(&none, NasStatus::Active).await.unwrap(), "{name}");
    }
}

/// From each place to each, then with one record changed, one removed and one added.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_the_same_record_by_record_and_a_difference_is_seen() {
    for from in Place::all().await {
        let all: Vec<_> = (0..2_500).map(identity).collect();
        let source = from.records().await;
        source.put(all).await.unwrap();
        source.add_enrolment_tokens(vec![[1; 32], [2; 32]]).await.unwrap();
        for to in Place::all().await {
            let (target, ways) = (to.records().await, format!("{} to {}", from.name, to.name));
            for _ in 0..2 {
                let count = copy::copy(&source, &target).await.unwrap();
                assert_eq!(count, copy::Count { identities: 2_500, tokens: 2 }, "{ways}");
            }
            let same = copy::compare(&source, &target).await.unwrap();
            assert!(same.is_same() && same.same == 2_500, "{ways}: {same:?}");
            assert_eq!(copy::check(&target).await.unwrap().identities, 2_500, "{ways}");
            target.set_status(&identity(3).ds_id, NasStatus::Suspended).await.unwrap();
            target.erase(&identity(2_499).ds_id).await.unwrap();
            target.put(vec![identity(9_000)]).await.unwrap();
            target.cancel_enrolment_token([1; 32]).await.unwrap();
            let found = copy::compare(&source, &target).await.unwrap();
            let ids = |number| copy::Ids { count: 1, named: vec![identity(number).ds_id] };
            let expected = copy::Comparison {
                same: 2_498,
                different: ids(3),
                missing: ids(2_499),
                surplus: ids(9_000),
                tokens: 1,
            };
            assert_eq!(found, expected, "{ways}");
            assert!(!found.is_same(), "{ways}");
        }
    }
}

/// Backs each place up and opens the file as a store; a second backup does not overwrite it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_sqlite_file_with_every_record() {
    use std::os::unix::fs::PermissionsExt as _;
    for place in Place::all().await {
        let (records, folder) = (place.records().await, tempfile::tempdir().unwrap());
        records.put((0..2_500).map(identity).collect()).await.unwrap();
        records.add_enrolment_tokens(vec![[1; 32]]).await.unwrap();
        let file = folder.path().join("backup.sqlite3");
        let count = copy::back_up(&records, &file).await.unwrap();
        assert_eq!(count, copy::Count { identities: 2_500, tokens: 1 }, "{}", place.name);
        assert!(copy::back_up(&records, &file).await.is_err(), "{}", place.name);
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "{}: nothing lies beside it", place.name);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", place.name);
        let keys = [("store.file", file.to_str().unwrap().to_owned())];
        let backup = Records::open(&section(&keys)).await.unwrap();
        assert!(copy::compare(&records, &backup).await.unwrap().is_same(), "{}", place.name);
    }
}

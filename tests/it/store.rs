//! The identity store with many identities, through its own interface.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sns_relay::config;
use sns_relay::push::SenderKey;
use sns_relay::store::{Enrolled, NasIdentity, NasStatus, Store};
use tokio::task::JoinSet;

const IDENTITIES: u32 = 5_000;
const WRITERS: u32 = 8;

fn open(folder: &Path, cache_entries_max: u64) -> Arc<Store> {
    let file = folder.join("identities.sqlite3");
    let cache_lifetime = Duration::from_secs(60);
    Arc::new(Store::open(&config::Store { file, cache_entries_max, cache_lifetime }).unwrap())
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
async fn assert_all_found(store: &Store) {
    for number in 0..IDENTITIES {
        let found = store.nas_by_key(key(number).thumbprint()).await.unwrap();
        assert!(found == Some(identity(number)), "identity {number}");
    }
    for number in IDENTITIES..IDENTITIES + 100 {
        assert!(store.nas_by_key(key(number).thumbprint()).await.unwrap().is_none());
    }
}

/// Eight writers enrol five thousand; each is found, with the cache and without, and once reopened.
#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_identities_is_found_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 0);
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
    assert_all_found(&store).await;
    drop(store);

    // The cache is smaller than the table, so that records leave it and come back.
    let store = open(folder.path(), 1_000);
    assert_all_found(&store).await;
    assert_all_found(&store).await;
    let again = store.enrol(identity(7), None).await.unwrap();
    assert!(matches!(again, Enrolled::Known(known) if known == identity(7)));
}

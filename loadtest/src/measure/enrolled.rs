//! A relay's store with many identities in it, written at once: enrolling a million NAS through the
//! door would take hours of commits.
//!
//! In: a relay's place. Out: the same place with a store of the relay's own schema, filled. Those
//! that speak later have keys; the others are only there.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, params};
use tokio::time::Instant;

use super::MeasureError;
use super::doors::site::Site;

/// An uncompressed P-256 point, as the store keeps it.
type Key = [u8; 65];

const STORE: &str = "data/identities.sqlite3";
const ENROLLED_AT_UNIX_S: i64 = 1_700_000_000;
/// The index on the keys is written in no order: it should fit.
const CACHE_KIB: i64 = 512 * 1_024;

/// Lets the relay make its store, and fills it up to `count` identities, with these keys first.
/// Errors: the relay does not start, or SQLite's.
pub(super) async fn enrol(site: &Site, keys: &[Key], count: usize) -> Result<(), MeasureError> {
    let mut relay = site.start()?;
    site.ready(&mut relay, Instant::now()).await?;
    relay.stop().await?;
    fill(&site.stage.folder().join(STORE), keys, count)
}

fn fill(file: &Path, keys: &[Key], count: usize) -> Result<(), MeasureError> {
    let mut store = Connection::open(file)?;
    store.pragma_update(None, "cache_size", -CACHE_KIB)?;
    store.pragma_update(None, "synchronous", "OFF")?;
    let transaction = store.transaction()?;
    {
        let mut insert =
            transaction.prepare("INSERT INTO nas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        for number in 0..count {
            let key = keys.get(number).copied().unwrap_or_else(|| silent(number));
            insert.execute(params![
                format!("ds_{number:026}"),
                digest(&SHA256, &key).as_ref(),
                key,
                [0x5a_u8; 32],
                "DS923+",
                ENROLLED_AT_UNIX_S,
                "active",
            ])?;
        }
    }
    transaction.commit()?;
    // What is in the write-ahead log would be the next start's to write.
    store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    store.close().map_err(|(_, error)| error.into())
}

/// A key that nobody has.
fn silent(number: usize) -> Key {
    let mut key = [4; 65];
    key[1..9].copy_from_slice(&(number as u64).to_be_bytes());
    key
}

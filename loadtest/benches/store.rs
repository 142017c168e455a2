//! What the embedded identity store costs as it grows: lookup, enrolment, memory.
//!
//! `cargo bench --bench store` prints one row for each size. Lookups and enrolments go through the
//! store's own interface; the table is filled beforehand in one transaction, which no relay needs.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};
use sns_relay::config::{self, StorePlace};
use sns_relay::push::SenderKey;
use sns_relay::store::{NasIdentity, NasStatus, Store};
use tokio::time::Instant;

const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
const LOOKUPS: u32 = 20_000;
const ENROLMENTS: u32 = 500;

type Fault = Box<dyn std::error::Error>;

/// The figures of one size.
struct Row {
    uncached_us: f64,
    cached_us: f64,
    enrolment_us: f64,
    memory_mib: f64,
    file_mib: f64,
}

fn main() -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut text = String::from(
        "| identities | lookup in the file, µs | in the cache, µs | enrolment, µs \
         | process memory, MiB | file, MiB |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for identities in SIZES {
        let Row { uncached_us, cached_us, enrolment_us, memory_mib, file_mib } =
            runtime.block_on(measure(identities))?;
        writeln!(
            text,
            "| {identities} | {uncached_us:.1} | {cached_us:.2} | {enrolment_us:.0} \
             | {memory_mib:.1} | {file_mib:.1} |"
        )?;
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

async fn measure(identities: u32) -> Result<Row, Fault> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("identities.sqlite3");
    drop(open(&file, 0).await?);
    fill(&file, identities)?;

    let store = open(&file, 0).await?;
    let uncached_us = look_up(&store, identities).await?;
    let store = open(&file, u64::from(identities) * 2).await?;
    for number in 0..identities {
        store.nas_by_key(key(number).thumbprint()).await?;
    }
    let cached_us = look_up(&store, identities).await?;
    let memory_mib = memory_mib()?;
    let begun = Instant::now();
    for number in identities..identities + ENROLMENTS {
        store.enrol(identity(number), None).await?;
    }
    let enrolment_us = micros_each(begun.elapsed(), ENROLMENTS);
    let file_mib = mib(std::fs::metadata(&file)?.len());
    Ok(Row { uncached_us, cached_us, enrolment_us, memory_mib, file_mib })
}

async fn open(file: &Path, cache_entries_max: u64) -> Result<Store, Fault> {
    let place = StorePlace::File(file.to_owned());
    let cache_lifetime = Duration::from_secs(3_600);
    Ok(Store::open(&config::Store { place, cache_entries_max, cache_lifetime }).await?)
}

fn fill(file: &Path, identities: u32) -> Result<(), Fault> {
    let mut connection = Connection::open(file)?;
    let transaction = connection.transaction()?;
    for number in 0..identities {
        let nas = identity(number);
        transaction
            .prepare_cached("INSERT INTO nas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                nas.ds_id,
                nas.key.thumbprint().as_bytes(),
                nas.key.as_bytes(),
                nas.serial_tag,
                nas.model,
                nas.enrolled_at_unix_s.cast_signed(),
                nas.status.label(),
            ])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Gives the mean of many lookups of different identities, one after the other, in microseconds.
async fn look_up(store: &Store, identities: u32) -> Result<f64, Fault> {
    // Thumbprints are hashes, so any order of numbers is a random order of rows.
    let keys: Vec<_> = (0..LOOKUPS)
        .map(|lookup| key(lookup.wrapping_mul(7_919) % identities).thumbprint())
        .collect();
    let begun = Instant::now();
    for key in keys {
        if store.nas_by_key(key).await?.is_none() {
            return Err("an identity is missing".into());
        }
    }
    Ok(micros_each(begun.elapsed(), LOOKUPS))
}

fn key(number: u32) -> SenderKey {
    let mut point = [4; SenderKey::LENGTH_BYTES];
    point[1..5].copy_from_slice(&number.to_be_bytes());
    SenderKey::from_stored(point)
}

fn identity(number: u32) -> NasIdentity {
    NasIdentity {
        ds_id: format!("ds_{number:026}"),
        key: key(number),
        serial_tag: [0x5a; 32],
        model: "DS923+".to_owned(),
        enrolled_at_unix_s: 1_700_000_000,
        status: NasStatus::Active,
    }
}

fn micros_each(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(count)
}

/// Gives what this process has resident.
fn memory_mib() -> Result<f64, Fault> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("no VmRSS")?;
    Ok(kib.trim().parse::<f64>()? / 1_024.0)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

//! The identity store: the few questions that rooms may ask about NAS identities.
//!
//! Invariant: it holds exactly the fields of [`NasIdentity`], and one-time enrolment tokens until
//! they are used: no device, no message, no address, no counter, no time of last contact (design
//! §2, promise 2). A bounded cache stands before the records, so that a busy NAS costs no read and
//! goes on for the cache's life when the store is away. What changes behind the cache, at another
//! replica or by an operator's command, is heard of at once and leaves it; no SQL leaves this room.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::broadcast;
use tokio::time;

use crate::config;
use crate::push::{SenderKey, Thumbprint};

pub mod copy;

mod faults;

pub mod postgres;

pub mod records;

pub mod sqlite;

pub use faults::StoreError;

use postgres::Notices;
use records::{Records, Token};
use sqlite::Sqlite;

/// The permanent record that identifies a NAS.
#[derive(Clone, PartialEq, Eq)]
pub struct NasIdentity {
    /// `ds_` and 26 characters of base32: 128 random bits.
    pub ds_id: String,
    /// The key that signs for the NAS.
    pub key: SenderKey,
    /// HMAC-SHA-256 of the serial under the pepper: never the serial.
    pub serial_tag: [u8; 32],
    /// The model's name.
    pub model: String,
    /// Seconds since 1970.
    pub enrolled_at_unix_s: u64,
    /// Whether it may send.
    pub status: NasStatus,
}

/// Whether a NAS may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NasStatus {
    /// It may.
    Active,
    /// The operator stopped it.
    Suspended,
}

/// What an enrolment came to.
pub enum Enrolled {
    /// A new record.
    Created(NasIdentity),
    /// The key was enrolled before: its record as it stands.
    Known(NasIdentity),
    /// The one-time token is not one of the operator's, or was used.
    TokenInvalid,
}

/// What a key rotation came to.
pub enum Rotated {
    /// The record under its new key.
    Done(NasIdentity),
    /// No NAS has the old key.
    NotEnrolled,
    /// Another NAS has the new key.
    KeyInUse,
}

/// Which record may be another one now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The one that has or had this key.
    Nas([u8; 32]),
    /// Any.
    Any,
}

/// Answers the rooms' questions.
pub struct Store {
    records: Records,
    known: Cache<Thumbprint, NasIdentity>,
    /// Counts what made the cache forget, so that an answer that was on its way is not kept.
    changes: AtomicU64,
    told: broadcast::Sender<Changed>,
}

/// The columns of a record, as both places give them.
struct Columns<'a> {
    ds_id: &'a str,
    key_thumbprint: &'a [u8],
    public_key: &'a [u8],
    serial_tag: &'a [u8],
    model: &'a str,
    enrolled_at: i64,
    status: &'a str,
}

/// Records that are read, written or looked at anew together.
const PAGE_RECORDS: usize = 1000;

/// Changes that one listener may be behind; further behind, anything may have changed.
const TOLD_MAX: usize = 1024;

/// How often a file is asked whether another program has written.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How long a server that was lost is left alone.
const LISTEN_PAUSE: Duration = Duration::from_millis(250);

// === impl Store ===

impl Store {
    /// Opens the store; makes what is missing in it.
    /// Errors: [`StoreError`] when it cannot be used.
    pub async fn open(config: &config::Store) -> Result<Self, StoreError> {
        let known = Cache::builder()
            .max_capacity(config.cache_entries_max)
            .time_to_live(config.cache_lifetime)
            .build();
        let records = Records::open(config).await?;
        let told = broadcast::Sender::new(TOLD_MAX);
        Ok(Self { records, known, changes: AtomicU64::new(0), told })
    }

    /// Which NAS has this key?
    pub async fn nas_by_key(&self, key: Thumbprint) -> Result<Option<NasIdentity>, StoreError> {
        if let Some(known) = self.known.get(&key) {
            return Ok(Some(known));
        }
        let changes = self.changes.load(Ordering::SeqCst);
        let found = self.records.nas_by_key(key).await?;
        // That there is none is not remembered: the NAS may enrol at another replica a moment
        // later.
        if let Some(identity) = &found {
            self.known.insert(key, identity.clone());
            if self.changes.load(Ordering::SeqCst) != changes {
                self.known.invalidate(&key);
            }
        }
        Ok(found)
    }

    /// Enrol this NAS, unless its key is enrolled; use up the one-time token where one is required.
    pub async fn enrol(
        &self,
        identity: NasIdentity,
        token: Option<Token>,
    ) -> Result<Enrolled, StoreError> {
        self.records.enrol(identity, token).await
    }

    /// Give the NAS with the old key a new one; its id stays.
    pub async fn rotate_key(&self, old: Thumbprint, new: SenderKey) -> Result<Rotated, StoreError> {
        let rotated = self.records.rotate_key(old, new).await;
        // Also without an answer: it may have happened all the same.
        self.forget(old);
        self.forget(new.thumbprint());
        rotated
    }

    /// Should this replica get traffic, as far as its store goes?
    /// A server that is away is away for all replicas, and the application door does without it; a
    /// file that is away is this replica's own fault.
    pub async fn readiness(&self) -> Result<(), StoreError> {
        match &self.records {
            Records::Sqlite(_) => self.records.ping().await,
            Records::Postgres(_) => Ok(()),
        }
    }

    /// Hears which records change from now on.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.told.subscribe()
    }

    /// Follows the changes that others make, for as long as the relay serves.
    pub async fn follow(&self) {
        match &self.records {
            Records::Sqlite(sqlite) => {
                let mut version = None;
                loop {
                    let found = records::ask(sqlite, Sqlite::data_version).await.ok();
                    if found.is_some() && found != version && self.look_again().await.is_ok() {
                        version = found;
                    }
                    time::sleep(POLL_INTERVAL).await;
                }
            }
            Records::Postgres(postgres) => loop {
                if let Ok(notices) = postgres.listen().await
                    && self.look_again().await.is_ok()
                {
                    tracing::info!("changes of NAS identities are heard of");
                    self.take(notices).await;
                    tracing::warn!("the identity store is away: what is cached goes on");
                }
                time::sleep(LISTEN_PAUSE).await;
            },
        }
    }

    /// Takes notices as long as they come.
    async fn take(&self, mut notices: Notices) {
        while let Ok(key) = notices.next().await {
            self.forget(key);
            // Nobody listens, then.
            let _ = self.told.send(Changed::Nas(*key.as_bytes()));
        }
    }

    /// Compares what is cached with the records, and forgets what is another one now: so the cache
    /// stays warm, whatever was missed. Its age stays too.
    async fn look_again(&self) -> Result<(), StoreError> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let cached: Vec<Thumbprint> = self.known.iter().map(|(key, _)| *key).collect();
        for keys in cached.chunks(PAGE_RECORDS) {
            let found = self.records.nas_by_keys(keys.to_vec()).await?;
            let found: HashMap<Thumbprint, NasIdentity> =
                found.into_iter().map(|nas| (nas.key.thumbprint(), nas)).collect();
            for key in keys {
                if self.known.get(key).as_ref() != found.get(key) {
                    self.forget(*key);
                }
            }
        }
        // Nobody listens, then.
        let _ = self.told.send(Changed::Any);
        Ok(())
    }

    fn forget(&self, key: Thumbprint) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.known.invalidate(&key);
    }
}

// === impl NasIdentity ===

impl NasIdentity {
    /// Gives the time of enrolment as it is stored.
    fn enrolled_at(&self) -> i64 {
        i64::try_from(self.enrolled_at_unix_s).unwrap_or(i64::MAX)
    }
}

// === impl Columns ===

impl Columns<'_> {
    /// Checks what was read.
    /// Errors: [`StoreError::Corrupt`].
    fn identity(&self) -> Result<NasIdentity, StoreError> {
        self.parse().ok_or_else(|| StoreError::Corrupt(self.ds_id.to_owned()))
    }

    fn parse(&self) -> Option<NasIdentity> {
        let key = SenderKey::from_stored(self.public_key.try_into().ok()?);
        (key.thumbprint().as_bytes() == self.key_thumbprint).then_some(())?;
        Some(NasIdentity {
            ds_id: self.ds_id.to_owned(),
            key,
            serial_tag: self.serial_tag.try_into().ok()?,
            model: self.model.to_owned(),
            enrolled_at_unix_s: u64::try_from(self.enrolled_at).ok()?,
            status: NasStatus::ALL.into_iter().find(|status| status.label() == self.status)?,
        })
    }
}

// === impl NasStatus ===

impl NasStatus {
    const ALL: [Self; 2] = [Self::Active, Self::Suspended];

    /// Gives the word that the contract and the store use.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

/// Gives the migrations that a store of schema `found` lacks, each with the schema it makes.
/// Errors: [`StoreError::Newer`].
fn due<'a>(
    found: i64,
    migrations: &'a [&'a str],
) -> Result<impl Iterator<Item = (&'a str, i64)>, StoreError> {
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    match usize::try_from(found) {
        Ok(done) if found <= known => Ok(migrations.iter().copied().zip(1..).skip(done)),
        _ => Err(StoreError::Newer { found, known }),
    }
}

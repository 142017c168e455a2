//! The identity store: the few questions that rooms may ask about NAS identities.
//!
//! Invariant: it holds exactly the fields of [`NasIdentity`], and one-time enrolment tokens until
//! they are used: no device, no message, no address, no counter, no time of last contact (design
//! §2, promise 2). A bounded cache stands before the file, so that a busy NAS costs no read; no SQL
//! leaves this room.

use std::sync::Arc;

use moka::sync::Cache;

use crate::config;
use crate::push::{SenderKey, Thumbprint};

pub mod sqlite;

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

/// The store could not answer. Blame: us.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened, read or written.
    #[error("the identity store cannot be used")]
    Sqlite(#[from] rusqlite::Error),
    /// The folder of the file could not be made.
    #[error("the identity store's folder cannot be made")]
    Folder(#[source] std::io::Error),
    /// The file is of a newer relay.
    #[error("the identity store has schema {found}, this relay knows up to {known}")]
    Newer {
        /// Schema number in the file.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// The file is no longer where it was: what is written to it would be lost.
    #[error("the identity store's file was moved, replaced or removed")]
    Moved,
    /// A record in the file is not one that this relay writes.
    #[error("the identity store holds a record that is not valid")]
    Corrupt,
    /// The worker thread is gone.
    #[error("the identity store is closed")]
    Closed,
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

/// Answers the rooms' questions.
pub struct Store {
    sqlite: Arc<Sqlite>,
    known: Cache<Thumbprint, NasIdentity>,
}

// === impl Store ===

impl Store {
    /// Opens the store, making the file when there is none.
    /// Errors: [`StoreError`] when it cannot be used.
    pub fn open(config: &config::Store) -> Result<Self, StoreError> {
        let known = Cache::builder()
            .max_capacity(config.cache_entries_max)
            .time_to_live(config.cache_lifetime)
            .build();
        Ok(Self { sqlite: Arc::new(Sqlite::open(&config.file)?), known })
    }

    /// Which NAS has this key?
    pub async fn nas_by_key(&self, key: Thumbprint) -> Result<Option<NasIdentity>, StoreError> {
        if let Some(known) = self.known.get(&key) {
            return Ok(Some(known));
        }
        let found = self.ask(move |sqlite| sqlite.nas_by_key(key)).await?;
        // That there is none is not remembered: the NAS may enrol at another replica a moment
        // later.
        if let Some(identity) = &found {
            self.known.insert(key, identity.clone());
        }
        Ok(found)
    }

    /// Enrol this NAS, unless its key is enrolled; use up the one-time token where one is required.
    pub async fn enrol(
        &self,
        identity: NasIdentity,
        token: Option<[u8; 32]>,
    ) -> Result<Enrolled, StoreError> {
        let key = identity.key.thumbprint();
        let enrolled = self.ask(move |sqlite| sqlite.enrol(&identity, token)).await?;
        self.known.invalidate(&key);
        Ok(enrolled)
    }

    /// Give the NAS with the old key a new one; its id stays.
    pub async fn rotate_key(&self, old: Thumbprint, new: SenderKey) -> Result<Rotated, StoreError> {
        let rotated = self.ask(move |sqlite| sqlite.rotate_key(old, &new)).await?;
        self.known.invalidate(&old);
        self.known.invalidate(&new.thumbprint());
        Ok(rotated)
    }

    /// Keep these hashes of one-time enrolment tokens until they are used.
    pub async fn add_enrolment_tokens(&self, hashes: Vec<[u8; 32]>) -> Result<(), StoreError> {
        self.ask(move |sqlite| sqlite.add_enrolment_tokens(&hashes)).await
    }

    /// Can the store answer?
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.ask(Sqlite::ping).await
    }

    /// A file is read on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Sqlite) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let sqlite = Arc::clone(&self.sqlite);
        let answer = tokio::task::spawn_blocking(move || question(&sqlite)).await;
        answer.map_err(|_| StoreError::Closed)?
    }
}

// === impl NasStatus ===

impl NasStatus {
    /// Gives the word that the contract and the store use.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

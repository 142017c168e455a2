//! The two places that identities may be in, asked alike and without a cache.
//!
//! SQLite is asked on a thread that may block. The same tests hold both to the same answers.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::{Enrolled, NasIdentity, NasStatus, Rotated, StoreError};
use crate::config::{self, StorePlace};
use crate::push::{SenderKey, Thumbprint};

/// Records in the order of their ids, or why there are no more.
pub type Page = Result<Vec<NasIdentity>, StoreError>;

/// The hash of a one-time enrolment token.
pub type Token = [u8; 32];

/// Pages that are read ahead.
const PAGES_AHEAD: usize = 4;

/// The records, wherever they are.
#[derive(Clone)]
pub enum Records {
    /// In a file.
    Sqlite(Arc<Sqlite>),
    /// At a server.
    Postgres(Arc<Postgres>),
}

// === impl Records ===

impl Records {
    /// Opens the store; makes what is missing in it.
    /// Errors: [`StoreError`] when it cannot be used.
    pub async fn open(config: &config::Store) -> Result<Self, StoreError> {
        match &config.place {
            StorePlace::File(file) => {
                let file = file.clone();
                let opened = tokio::task::spawn_blocking(move || Sqlite::open(&file)).await;
                Ok(Self::Sqlite(Arc::new(opened.map_err(|_| StoreError::Closed)??)))
            }
            StorePlace::Server(server) => {
                Ok(Self::Postgres(Arc::new(Postgres::open(server).await?)))
            }
        }
    }

    /// Which NAS has this key?
    pub async fn nas_by_key(&self, key: Thumbprint) -> Result<Option<NasIdentity>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => ask(sqlite, move |sqlite| sqlite.nas_by_key(key)).await,
            Self::Postgres(postgres) => postgres.nas_by_key(key).await,
        }
    }

    /// Which NAS have these keys?
    pub async fn nas_by_keys(&self, keys: Vec<Thumbprint>) -> Result<Vec<NasIdentity>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => ask(sqlite, move |sqlite| sqlite.nas_by_keys(&keys)).await,
            Self::Postgres(postgres) => postgres.nas_by_keys(&keys).await,
        }
    }

    /// Which NAS has this id?
    pub async fn nas_by_id(&self, ds_id: &str) -> Result<Option<NasIdentity>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => {
                let ds_id = ds_id.to_owned();
                ask(sqlite, move |sqlite| sqlite.nas_by_id(&ds_id)).await
            }
            Self::Postgres(postgres) => postgres.nas_by_id(ds_id).await,
        }
    }

    /// Enrol this NAS, unless its key is enrolled; use up the one-time token where one is required.
    pub async fn enrol(
        &self,
        identity: NasIdentity,
        token: Option<Token>,
    ) -> Result<Enrolled, StoreError> {
        match self {
            Self::Sqlite(sqlite) => ask(sqlite, move |sqlite| sqlite.enrol(&identity, token)).await,
            Self::Postgres(postgres) => postgres.enrol(&identity, token).await,
        }
    }

    /// Give the NAS with the old key a new one; its id stays.
    pub async fn rotate_key(&self, old: Thumbprint, new: SenderKey) -> Result<Rotated, StoreError> {
        match self {
            Self::Sqlite(sqlite) => ask(sqlite, move |sqlite| sqlite.rotate_key(old, &new)).await,
            Self::Postgres(postgres) => postgres.rotate_key(old, &new).await,
        }
    }

    /// Let this NAS send, or stop it. Gives `false` where there is none.
    pub async fn set_status(&self, ds_id: &str, status: NasStatus) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(sqlite) => {
                let ds_id = ds_id.to_owned();
                ask(sqlite, move |sqlite| sqlite.set_status(&ds_id, status)).await
            }
            Self::Postgres(postgres) => postgres.set_status(ds_id, status).await,
        }
    }

    /// Remove the record of this NAS. Gives `false` where there is none.
    pub async fn erase(&self, ds_id: &str) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(sqlite) => {
                let ds_id = ds_id.to_owned();
                ask(sqlite, move |sqlite| sqlite.erase(&ds_id)).await
            }
            Self::Postgres(postgres) => postgres.erase(ds_id).await,
        }
    }

    /// Keep these hashes of one-time enrolment tokens until they are used.
    pub async fn add_enrolment_tokens(&self, hashes: Vec<Token>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sqlite) => {
                ask(sqlite, move |sqlite| sqlite.add_enrolment_tokens(&hashes)).await
            }
            Self::Postgres(postgres) => postgres.add_enrolment_tokens(&hashes).await,
        }
    }

    /// Which tokens are not used yet? In the order of their hashes.
    pub async fn enrolment_tokens(&self) -> Result<Vec<Token>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => ask(sqlite, Sqlite::enrolment_tokens).await,
            Self::Postgres(postgres) => postgres.enrolment_tokens().await,
        }
    }

    /// Forget this token. Gives `false` where there is none.
    pub async fn cancel_enrolment_token(&self, hash: Token) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(sqlite) => {
                ask(sqlite, move |sqlite| sqlite.cancel_enrolment_token(&hash)).await
            }
            Self::Postgres(postgres) => postgres.cancel_enrolment_token(&hash).await,
        }
    }

    /// Write these records as they are, over those with the same ids, all or none.
    pub async fn put(&self, identities: Vec<NasIdentity>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sqlite) => ask(sqlite, move |sqlite| sqlite.put(&identities)).await,
            Self::Postgres(postgres) => postgres.put(&identities).await,
        }
    }

    /// Give every record, in the order of the ids and as they are at one moment.
    pub fn all(&self) -> mpsc::Receiver<Page> {
        let (pages, receiver) = mpsc::channel(PAGES_AHEAD);
        let records = self.clone();
        tokio::spawn(async move {
            let told = pages.clone();
            let read = match records {
                Self::Sqlite(sqlite) => ask(&sqlite, move |sqlite| sqlite.all(&pages)).await,
                Self::Postgres(postgres) => postgres.all(&pages).await,
            };
            if let Err(error) = read {
                // Nobody is left to read it, then.
                let _ = told.send(Err(error)).await;
            }
        });
        receiver
    }

    /// Does it answer?
    pub async fn ping(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sqlite) => ask(sqlite, Sqlite::ping).await,
            Self::Postgres(postgres) => postgres.ping().await,
        }
    }
}

/// A file is read on a thread that may block.
pub(super) async fn ask<T: Send + 'static>(
    sqlite: &Arc<Sqlite>,
    question: impl FnOnce(&Sqlite) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let sqlite = Arc::clone(sqlite);
    let answer = tokio::task::spawn_blocking(move || question(&sqlite)).await;
    answer.map_err(|_| StoreError::Closed)?
}

//! The store of several replicas: a PostgreSQL server, asked over a bounded pool of connections.
//!
//! Every wait has an end: for a turn, for a connection, for a statement (at the server, which gives
//! it up, and at the socket, which a broken network leaves open). A transaction is committed before
//! its answer. Changes of a record are told to every replica by a trigger (`migrations/`), whoever
//! makes them.

use deadpool_postgres::{Client, Pool};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::records::Token;
use super::{Columns, Enrolled, NasIdentity, Rotated, StoreError};
use crate::config::StoreServer;
use crate::push::{SenderKey, Thumbprint};

mod connect;

mod listen;

mod operator;

pub use listen::Notices;

use connect::Access;

const COLUMNS: &str =
    "ds_id, key_thumbprint, public_key, serial_tag, model, enrolled_at, status FROM nas";

/// The server.
pub struct Postgres {
    pool: Pool,
    access: Access,
}

// === impl Postgres ===

impl Postgres {
    /// Connects, and makes or renews the tables where that is due.
    /// Errors: [`StoreError::Newer`] for tables of a later relay, else what the server says.
    pub async fn open(server: &StoreServer) -> Result<Self, StoreError> {
        let access = Access::new(server)?;
        let postgres = Self { pool: access.pool(server)?, access };
        connect::migrate(&mut *postgres.client().await?).await?;
        Ok(postgres)
    }

    /// Looks a NAS up by its key.
    pub async fn nas_by_key(&self, key: Thumbprint) -> Result<Option<NasIdentity>, StoreError> {
        let client = self.client().await?;
        let select = format!("SELECT {COLUMNS} WHERE key_thumbprint = $1");
        let statement = client.prepare_cached(&select).await?;
        let row = client.query_opt(&statement, &[&&key.as_bytes()[..]]).await?;
        row.as_ref().map(identity).transpose()
    }

    /// Looks several up by their keys; those that are not there are left out.
    pub async fn nas_by_keys(&self, keys: &[Thumbprint]) -> Result<Vec<NasIdentity>, StoreError> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key.as_bytes()[..]).collect();
        let client = self.client().await?;
        let select = format!("SELECT {COLUMNS} WHERE key_thumbprint = ANY($1)");
        let statement = client.prepare_cached(&select).await?;
        client.query(&statement, &[&keys]).await?.iter().map(identity).collect()
    }

    /// Writes a new identity, or gives the one that the key has.
    /// The token is used up in the same transaction: it enrols one NAS, whatever fails on the way.
    pub async fn enrol(
        &self,
        identity: &NasIdentity,
        token: Option<Token>,
    ) -> Result<Enrolled, StoreError> {
        let key = identity.key.thumbprint();
        if let Some(known) = self.nas_by_key(key).await? {
            return Ok(Enrolled::Known(known));
        }
        let enrolled = self.insert(identity, token).await?;
        match enrolled {
            Some(enrolled) => Ok(enrolled),
            // Another replica has enrolled the same key, and maybe used the same token, meanwhile.
            None => match self.nas_by_key(key).await? {
                Some(known) => Ok(Enrolled::Known(known)),
                None => Ok(Enrolled::TokenInvalid),
            },
        }
    }

    /// Gives nothing where the key is taken or the token is not there.
    async fn insert(
        &self,
        identity: &NasIdentity,
        token: Option<Token>,
    ) -> Result<Option<Enrolled>, StoreError> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        if let Some(hash) = token {
            let delete = "DELETE FROM enrolment_token WHERE hash = $1";
            let statement = transaction.prepare_cached(delete).await?;
            if transaction.execute(&statement, &[&&hash[..]]).await? != 1 {
                return Ok(None);
            }
        }
        let insert = "INSERT INTO nas VALUES ($1, $2, $3, $4, $5, $6, $7) \
                      ON CONFLICT (key_thumbprint) DO NOTHING";
        let statement = transaction.prepare_cached(insert).await?;
        let thumbprint = identity.key.thumbprint();
        let inserted = transaction
            .execute(
                &statement,
                &[
                    &identity.ds_id,
                    &&thumbprint.as_bytes()[..],
                    &&identity.key.as_bytes()[..],
                    &&identity.serial_tag[..],
                    &identity.model,
                    &identity.enrolled_at(),
                    &identity.status.label(),
                ],
            )
            .await?;
        if inserted != 1 {
            return Ok(None);
        }
        transaction.commit().await?;
        Ok(Some(Enrolled::Created(identity.clone())))
    }

    /// Gives a NAS a new key.
    pub async fn rotate_key(
        &self,
        old: Thumbprint,
        new: &SenderKey,
    ) -> Result<Rotated, StoreError> {
        let client = self.client().await?;
        let update = "UPDATE nas SET key_thumbprint = $2, public_key = $3 \
                      WHERE key_thumbprint = $1 \
                      RETURNING ds_id, key_thumbprint, public_key, serial_tag, model, \
                      enrolled_at, status";
        let statement = client.prepare_cached(update).await?;
        let (old, thumbprint) = (old.as_bytes(), new.thumbprint());
        let (thumbprint, key) = (thumbprint.as_bytes(), new.as_bytes());
        let updated = client.query_opt(&statement, &[&&old[..], &&thumbprint[..], &&key[..]]).await;
        match updated {
            Ok(Some(row)) => Ok(Rotated::Done(identity(&row)?)),
            Ok(None) => Ok(Rotated::NotEnrolled),
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                Ok(Rotated::KeyInUse)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the server for nothing, to see that it answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.client().await?.simple_query("SELECT 1").await?;
        Ok(())
    }

    /// Hears of every record that changes from now on.
    pub async fn listen(&self) -> Result<Notices, StoreError> {
        Notices::open(&self.access).await
    }

    async fn client(&self) -> Result<Client, StoreError> {
        Ok(self.pool.get().await?)
    }
}

fn identity(row: &Row) -> Result<NasIdentity, StoreError> {
    let columns = Columns {
        ds_id: row.try_get(0)?,
        key_thumbprint: row.try_get(1)?,
        public_key: row.try_get(2)?,
        serial_tag: row.try_get(3)?,
        model: row.try_get(4)?,
        enrolled_at: row.try_get(5)?,
        status: row.try_get(6)?,
    };
    columns.identity()
}

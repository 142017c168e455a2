//! What an operator asks of the server: single records, tokens, and all of it at once.

use tokio::sync::mpsc;
use tokio_postgres::IsolationLevel;

use super::{COLUMNS, Postgres, identity};
use crate::store::records::{Page, Token};
use crate::store::{NasIdentity, NasStatus, PAGE_RECORDS, StoreError};

/// A record that is there as it is stays untouched, so that no replica hears of it.
const PUT: &str = "INSERT INTO nas SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], \
     $4::bytea[], $5::text[], $6::bigint[], $7::text[]) \
     ON CONFLICT (ds_id) DO UPDATE SET key_thumbprint = excluded.key_thumbprint, \
     public_key = excluded.public_key, serial_tag = excluded.serial_tag, \
     model = excluded.model, enrolled_at = excluded.enrolled_at, status = excluded.status \
     WHERE ROW(nas.*) IS DISTINCT FROM ROW(excluded.*)";

// === impl Postgres ===

impl Postgres {
    /// Looks a NAS up by its id.
    pub async fn nas_by_id(&self, ds_id: &str) -> Result<Option<NasIdentity>, StoreError> {
        let select = format!("SELECT {COLUMNS} WHERE ds_id = $1");
        let row = self.client().await?.query_opt(&select, &[&ds_id]).await?;
        row.as_ref().map(identity).transpose()
    }

    /// Lets a NAS send, or stops it; tells whether there is one.
    pub async fn set_status(&self, ds_id: &str, status: NasStatus) -> Result<bool, StoreError> {
        let update = "UPDATE nas SET status = $2 WHERE ds_id = $1";
        let client = self.client().await?;
        Ok(client.execute(update, &[&ds_id, &status.label()]).await? == 1)
    }

    /// Removes a record; tells whether there was one.
    pub async fn erase(&self, ds_id: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        Ok(client.execute("DELETE FROM nas WHERE ds_id = $1", &[&ds_id]).await? == 1)
    }

    /// Keeps hashes of one-time tokens.
    pub async fn add_enrolment_tokens(&self, hashes: &[Token]) -> Result<(), StoreError> {
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash[..]).collect();
        let insert =
            "INSERT INTO enrolment_token SELECT unnest($1::bytea[]) ON CONFLICT DO NOTHING";
        self.client().await?.execute(insert, &[&hashes]).await?;
        Ok(())
    }

    /// Gives the hashes of the tokens that are not used yet.
    pub async fn enrolment_tokens(&self) -> Result<Vec<Token>, StoreError> {
        let select = "SELECT hash FROM enrolment_token ORDER BY 1";
        let rows = self.client().await?.query(select, &[]).await?;
        let hash = |row: &tokio_postgres::Row| {
            let hash: &[u8] = row.try_get(0)?;
            hash.try_into().map_err(|_| StoreError::TokenCorrupt)
        };
        rows.iter().map(hash).collect()
    }

    /// Forgets a token; tells whether there was one.
    pub async fn cancel_enrolment_token(&self, hash: &Token) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let delete = "DELETE FROM enrolment_token WHERE hash = $1";
        Ok(client.execute(delete, &[&&hash[..]]).await? == 1)
    }

    /// Writes records as they are, over those with the same ids, all or none.
    pub async fn put(&self, identities: &[NasIdentity]) -> Result<(), StoreError> {
        let thumbprints: Vec<_> = identities.iter().map(|nas| nas.key.thumbprint()).collect();
        let ds_ids: Vec<&str> = identities.iter().map(|nas| nas.ds_id.as_str()).collect();
        let thumbprints: Vec<&[u8]> =
            thumbprints.iter().map(|print| &print.as_bytes()[..]).collect();
        let keys: Vec<&[u8]> = identities.iter().map(|nas| &nas.key.as_bytes()[..]).collect();
        let tags: Vec<&[u8]> = identities.iter().map(|nas| &nas.serial_tag[..]).collect();
        let models: Vec<&str> = identities.iter().map(|nas| nas.model.as_str()).collect();
        let times: Vec<i64> = identities.iter().map(NasIdentity::enrolled_at).collect();
        let statuses: Vec<&str> = identities.iter().map(|nas| nas.status.label()).collect();
        let client = self.client().await?;
        let statement = client.prepare_cached(PUT).await?;
        client
            .execute(&statement, &[&ds_ids, &thumbprints, &keys, &tags, &models, &times, &statuses])
            .await?;
        Ok(())
    }

    /// Gives every record in the order of the ids, as they were at one moment; each page is a
    /// statement of its own, so that none takes long.
    pub async fn all(&self, pages: &mpsc::Sender<Page>) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let snapshot = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let select =
            format!("SELECT {COLUMNS} WHERE ds_id > $1 ORDER BY ds_id LIMIT {PAGE_RECORDS}");
        let statement = snapshot.prepare(&select).await?;
        let mut last = String::new();
        loop {
            let rows = snapshot.query(&statement, &[&last]).await?;
            let page: Vec<NasIdentity> = rows.iter().map(identity).collect::<Result<_, _>>()?;
            let Some(nas) = page.last() else { return Ok(()) };
            last.clone_from(&nas.ds_id);
            if pages.send(Ok(page)).await.is_err() {
                return Ok(());
            }
        }
    }
}

//! What an operator asks of the file: single records, tokens, and all of it at once.

use std::path::Path;

use rusqlite::{OptionalExtension as _, params};
use tokio::sync::mpsc;

use super::{COLUMNS, Sqlite, connect, identity, lock};
use crate::store::records::{Page, Token};
use crate::store::{NasIdentity, NasStatus, PAGE_RECORDS, StoreError};

const PUT: &str = "INSERT INTO nas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
     ON CONFLICT (ds_id) DO UPDATE SET key_thumbprint = excluded.key_thumbprint, \
     public_key = excluded.public_key, serial_tag = excluded.serial_tag, \
     model = excluded.model, enrolled_at = excluded.enrolled_at, status = excluded.status";

// === impl Sqlite ===

impl Sqlite {
    /// Looks a NAS up by its id.
    pub fn nas_by_id(&self, ds_id: &str) -> Result<Option<NasIdentity>, StoreError> {
        let reader = lock(&self.reader);
        let mut statement = reader.prepare_cached(&format!("SELECT {COLUMNS} WHERE ds_id = ?1"))?;
        let found = statement.query_row([ds_id], |row| Ok(identity(row))).optional()?;
        found.transpose()
    }

    /// Lets a NAS send, or stops it; tells whether there is one.
    pub fn set_status(&self, ds_id: &str, status: NasStatus) -> Result<bool, StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = self.begin(&mut writer)?;
        let changed = transaction.execute(
            "UPDATE nas SET status = ?2 WHERE ds_id = ?1",
            params![ds_id, status.label()],
        )?;
        transaction.commit()?;
        Ok(changed == 1)
    }

    /// Removes a record and overwrites its bytes, in the log beside the file too; tells whether
    /// there was one.
    pub fn erase(&self, ds_id: &str) -> Result<bool, StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = self.begin(&mut writer)?;
        let erased = transaction.execute("DELETE FROM nas WHERE ds_id = ?1", [ds_id])?;
        transaction.commit()?;
        let in_use: bool =
            writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if in_use { Err(StoreError::LogInUse) } else { Ok(erased == 1) }
    }

    /// Keeps hashes of one-time tokens.
    pub fn add_enrolment_tokens(&self, hashes: &[Token]) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = self.begin(&mut writer)?;
        for hash in hashes {
            transaction.execute("INSERT OR IGNORE INTO enrolment_token VALUES (?1)", [hash])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Gives the hashes of the tokens that are not used yet.
    pub fn enrolment_tokens(&self) -> Result<Vec<Token>, StoreError> {
        let reader = lock(&self.reader);
        let mut statement = reader.prepare_cached("SELECT hash FROM enrolment_token ORDER BY 1")?;
        let hashes = statement.query_map([], |row| row.get(0))?;
        Ok(hashes.collect::<Result<_, _>>()?)
    }

    /// Forgets a token; tells whether there was one.
    pub fn cancel_enrolment_token(&self, hash: &Token) -> Result<bool, StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = self.begin(&mut writer)?;
        let gone = transaction.execute("DELETE FROM enrolment_token WHERE hash = ?1", [hash])?;
        transaction.commit()?;
        Ok(gone == 1)
    }

    /// Writes records as they are, over those with the same ids, all or none.
    pub fn put(&self, identities: &[NasIdentity]) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = self.begin(&mut writer)?;
        for identity in identities {
            transaction.prepare_cached(PUT)?.execute(params![
                identity.ds_id,
                identity.key.thumbprint().as_bytes(),
                identity.key.as_bytes(),
                identity.serial_tag,
                identity.model,
                identity.enrolled_at(),
                identity.status.label(),
            ])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Gives every record in the order of the ids, as they were at one moment.
    pub fn all(&self, pages: &mpsc::Sender<Page>) -> Result<(), StoreError> {
        // A connection of its own: readers go on meanwhile.
        let connection = connect(&self.path)?;
        let mut statement = connection.prepare(&format!("SELECT {COLUMNS} ORDER BY ds_id"))?;
        let mut rows = statement.query([])?;
        let mut page = Vec::with_capacity(PAGE_RECORDS);
        while let Some(row) = rows.next()? {
            page.push(identity(row)?);
            if page.len() == PAGE_RECORDS
                && pages.blocking_send(Ok(std::mem::take(&mut page))).is_err()
            {
                return Ok(());
            }
        }
        // Nobody is left to read it, then.
        let _ = pages.blocking_send(Ok(page));
        Ok(())
    }

    /// Writes a copy of the whole file, as it is at this moment and without what was erased.
    pub fn back_up(&self, file: &Path) -> Result<(), StoreError> {
        self.check_place()?;
        let reader = lock(&self.reader);
        reader.execute("VACUUM INTO ?1", [file.to_string_lossy()])?;
        Ok(())
    }
}

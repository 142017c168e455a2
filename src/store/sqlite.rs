//! The embedded store: one SQLite file, one writer, one reader, WAL, every commit on disk before
//! its answer.
//!
//! `synchronous = FULL` makes an acknowledged enrolment survive a crash and a power cut
//! (SQLite, "Atomic Commit In SQLite"; pragma `synchronous`). `secure_delete` overwrites what is
//! erased. A file that was removed or replaced under us is not written any more: SQLite itself
//! would go on in a file that no longer has a name.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::{Columns, Enrolled, NasIdentity, Rotated, StoreError};
use crate::push::{SenderKey, Thumbprint};

mod operator;

/// What makes each schema out of the one before: `PRAGMA user_version` counts them.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/sqlite-1.sql")];

const COLUMNS: &str =
    "ds_id, key_thumbprint, public_key, serial_tag, model, enrolled_at, status FROM nas";

/// The file, through two connections: readers need not wait for a commit to reach the disk.
pub struct Sqlite {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    path: PathBuf,
    place: Place,
}

/// Device and number of a file, whatever it is called.
type Place = (u64, u64);

// === impl Sqlite ===

impl Sqlite {
    /// Opens the file, makes its folder and tables when they are missing.
    /// Errors: [`StoreError::Newer`] for a file of a later relay, else what SQLite says.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(StoreError::Folder)?;
        }
        let mut writer = connect(file)?;
        migrate(&mut writer)?;
        let reader = connect(file)?;
        let place = place(file)?;
        let path = file.to_owned();
        Ok(Self { writer: Mutex::new(writer), reader: Mutex::new(reader), path, place })
    }

    /// Looks a NAS up by its key.
    pub fn nas_by_key(&self, key: Thumbprint) -> Result<Option<NasIdentity>, StoreError> {
        select(&lock(&self.reader), key)
    }

    /// Looks several up by their keys; those that are not there are left out.
    pub fn nas_by_keys(&self, keys: &[Thumbprint]) -> Result<Vec<NasIdentity>, StoreError> {
        let reader = lock(&self.reader);
        keys.iter().filter_map(|key| select(&reader, *key).transpose()).collect()
    }

    /// Writes a new identity, or gives the one that the key has.
    /// The token is used up in the same transaction: it enrols one NAS, whatever fails on the way.
    pub fn enrol(
        &self,
        identity: &NasIdentity,
        token: Option<[u8; 32]>,
    ) -> Result<Enrolled, StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = self.begin(&mut writer)?;
        let thumbprint = identity.key.thumbprint();
        if let Some(known) = select(&transaction, thumbprint)? {
            return Ok(Enrolled::Known(known));
        }
        if let Some(hash) = token {
            let used =
                transaction.execute("DELETE FROM enrolment_token WHERE hash = ?1", [hash])?;
            if used != 1 {
                return Ok(Enrolled::TokenInvalid);
            }
        }
        transaction.execute(
            "INSERT INTO nas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                identity.ds_id,
                thumbprint.as_bytes(),
                identity.key.as_bytes(),
                identity.serial_tag,
                identity.model,
                identity.enrolled_at(),
                identity.status.label(),
            ],
        )?;
        transaction.commit()?;
        Ok(Enrolled::Created(identity.clone()))
    }

    /// Gives a NAS a new key.
    pub fn rotate_key(&self, old: Thumbprint, new: &SenderKey) -> Result<Rotated, StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = self.begin(&mut writer)?;
        let Some(mut identity) = select(&transaction, old)? else {
            return Ok(Rotated::NotEnrolled);
        };
        match select(&transaction, new.thumbprint())? {
            Some(other) if other.ds_id != identity.ds_id => return Ok(Rotated::KeyInUse),
            _ => {}
        }
        transaction.execute(
            "UPDATE nas SET key_thumbprint = ?1, public_key = ?2 WHERE ds_id = ?3",
            params![new.thumbprint().as_bytes(), new.as_bytes(), identity.ds_id],
        )?;
        transaction.commit()?;
        identity.key = *new;
        Ok(Rotated::Done(identity))
    }

    /// Reads once, to see that the file answers and is still in its place.
    pub fn ping(&self) -> Result<(), StoreError> {
        self.check_place()?;
        let reader = lock(&self.reader);
        reader.query_row("SELECT count(*) FROM (SELECT 1 FROM nas LIMIT 1)", [], |_| Ok(()))?;
        Ok(())
    }

    /// Gives a number that differs from the last one when another program has written meanwhile.
    /// Source: SQLite, pragma `data_version`; our own writes go by the same connection.
    pub fn data_version(&self) -> Result<i64, StoreError> {
        Ok(lock(&self.writer).query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// Begins to write at once: a transaction that reads first cannot wait for another process's
    /// commit.
    fn begin<'a>(&self, writer: &'a mut Connection) -> Result<Transaction<'a>, StoreError> {
        self.check_place()?;
        Ok(writer.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }

    fn check_place(&self) -> Result<(), StoreError> {
        if place(&self.path)? == self.place { Ok(()) } else { Err(StoreError::Moved) }
    }
}

fn place(file: &Path) -> Result<Place, StoreError> {
    let metadata = std::fs::metadata(file).map_err(|_| StoreError::Moved)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

/// Two programs that open a new file at once do this one after the other.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for (migration, number) in super::due(found, &MIGRATIONS)? {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", number)?;
    }
    transaction.commit()?;
    Ok(())
}

fn select(connection: &Connection, key: Thumbprint) -> Result<Option<NasIdentity>, StoreError> {
    let select = format!("SELECT {COLUMNS} WHERE key_thumbprint = ?1");
    let mut statement = connection.prepare_cached(&select)?;
    let found = statement.query_row([key.as_bytes()], |row| Ok(identity(row))).optional()?;
    found.transpose()
}

fn identity(row: &Row<'_>) -> Result<NasIdentity, StoreError> {
    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let blob = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
    let columns = Columns {
        ds_id: text(0)?,
        key_thumbprint: blob(1)?,
        public_key: blob(2)?,
        serial_tag: blob(3)?,
        model: text(4)?,
        enrolled_at: row.get(5)?,
        status: text(6)?,
    };
    columns.identity()
}

/// A thread that panicked held no half-made change: a transaction that was not committed is undone.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

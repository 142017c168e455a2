//! The embedded store: one SQLite file, one writer, one reader, WAL, every commit on disk before
//! its answer.
//!
//! `synchronous = FULL` makes an acknowledged enrolment survive a crash and a power cut
//! (SQLite, "Atomic Commit In SQLite"; pragma `synchronous`). A file that was removed or replaced
//! under us is not written any more: SQLite itself would go on in a file that no longer has a name.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::{Enrolled, NasIdentity, NasStatus, Rotated, StoreError};
use crate::push::{SenderKey, Thumbprint};

/// The schema this relay writes: `PRAGMA user_version`.
const SCHEMA: i64 = 1;

const CREATE: &str = "
    CREATE TABLE nas (
        ds_id          TEXT PRIMARY KEY,
        key_thumbprint BLOB NOT NULL UNIQUE,
        public_key     BLOB NOT NULL,
        serial_tag     BLOB NOT NULL,
        model          TEXT NOT NULL,
        enrolled_at    INTEGER NOT NULL,
        status         TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE enrolment_token (hash BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

const SELECT: &str = "SELECT ds_id, public_key, serial_tag, model, enrolled_at, status \
                      FROM nas WHERE key_thumbprint = ?1";

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
                i64::try_from(identity.enrolled_at_unix_s).unwrap_or(i64::MAX),
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

    /// Keeps hashes of one-time tokens.
    pub fn add_enrolment_tokens(&self, hashes: &[[u8; 32]]) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = self.begin(&mut writer)?;
        for hash in hashes {
            transaction.execute("INSERT OR IGNORE INTO enrolment_token VALUES (?1)", [hash])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Reads once, to see that the file answers and is still in its place.
    pub fn ping(&self) -> Result<(), StoreError> {
        self.check_place()?;
        let reader = lock(&self.reader);
        reader.query_row("SELECT count(*) FROM (SELECT 1 FROM nas LIMIT 1)", [], |_| Ok(()))?;
        Ok(())
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
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        0 => transaction.execute_batch(CREATE)?,
        SCHEMA => {}
        _ => return Err(StoreError::Newer { found, known: SCHEMA }),
    }
    transaction.commit()?;
    Ok(())
}

fn select(connection: &Connection, key: Thumbprint) -> Result<Option<NasIdentity>, StoreError> {
    let mut statement = connection.prepare_cached(SELECT)?;
    let found = statement.query_row([key.as_bytes()], |row| Ok(identity(row))).optional()?;
    found.transpose()
}

fn identity(row: &Row<'_>) -> Result<NasIdentity, StoreError> {
    let status: String = row.get(5)?;
    let enrolled_at: i64 = row.get(4)?;
    Ok(NasIdentity {
        ds_id: row.get(0)?,
        key: SenderKey::from_stored(row.get(1)?),
        serial_tag: row.get(2)?,
        model: row.get(3)?,
        enrolled_at_unix_s: u64::try_from(enrolled_at).map_err(|_| StoreError::Corrupt)?,
        status: match status.as_str() {
            "active" => NasStatus::Active,
            "suspended" => NasStatus::Suspended,
            _ => return Err(StoreError::Corrupt),
        },
    })
}

/// A thread that panicked held no half-made change: a transaction that was not committed is undone.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

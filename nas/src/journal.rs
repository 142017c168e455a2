//! The journal: one SQLite file with all that a NAS keeps: keys, devices, rules, and every
//! notification of the last seven days with what became of it for each device.
//!
//! A notification is on disk before `take` returns, and is erased when it is seven days old. The
//! file has bounds: what is finished makes room first, then what is less grave than the newcomer;
//! nothing else is dropped. Time is a parameter everywhere. No SQL leaves this room; no error holds
//! content.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, ToSql};
use thiserror::Error;
use uuid::Uuid;

use crate::clock::DAY_MS;

pub mod devices;

pub mod record;

pub mod recall;

mod age;

mod schema;

pub(crate) mod settle;

/// How long a notification is kept, in milliseconds: seven days.
pub const KEPT_MS: u64 = 7 * DAY_MS;

/// The open file.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
    limits: Limits,
}

/// The bounds of the file.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Notifications kept at once.
    pub notifications_max: u64,
    /// What all notifications together may take, in bytes; the file may be twice as large.
    pub bytes_max: u64,
    /// Paired devices.
    pub devices_max: u64,
}

/// Why the journal could not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// There is no journal yet.
    #[error("there is no journal at {}: make one with sns-nas enrol", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file cannot be opened or made.
    #[error("cannot open the journal {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the file, and it holds keys.
    #[error("the journal {} has mode {mode:o}, not 600: others can read it", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is another program's.
    #[error("the file is not a journal of sns-nas")]
    NotOurs,
    /// The file is of a newer program.
    #[error("the journal has schema {found}, this program knows up to {known}")]
    Newer {
        /// Schema number in the file.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// The file system has no room, or the file may not grow.
    #[error("the disk is full: nothing was written; the records before are intact")]
    DiskFull,
    /// The file or its file system cannot be written.
    #[error("the journal cannot be written: it, its folder or its file system is read-only")]
    ReadOnly,
    /// The file is damaged.
    #[error("the journal is damaged")]
    Damaged,
    /// Another process writes, and did not end in time.
    #[error("another process keeps the journal locked")]
    Locked,
    /// Every record still waits for its delivery and is as grave as the new one.
    #[error("the journal is full of notifications that wait: nothing was taken")]
    Full,
    /// The caller's fault: this argument cannot be kept.
    #[error("{name} is not {expected}")]
    BadArgument {
        /// Which argument.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// There is no such device, sender, rule or notification.
    #[error("there is no {what} of that name")]
    Unknown {
        /// What was looked for.
        what: &'static str,
    },
    /// That name is taken.
    #[error("there is a {what} of that name already")]
    Exists {
        /// What it is.
        what: &'static str,
    },
    /// A record is not one that this program writes.
    #[error("the journal holds a record that is not valid")]
    Invalid,
    /// Anything else that SQLite says.
    #[error("the journal cannot be used")]
    Sqlite(#[source] rusqlite::Error),
}

// === impl Limits ===

impl Default for Limits {
    /// 20,000 notifications, 64 MiB, 64 devices.
    fn default() -> Self {
        Self { notifications_max: 20_000, bytes_max: 64 * 1024 * 1024, devices_max: 64 }
    }
}

impl Limits {
    /// The hard bound of the file, should our own count ever be wrong: pages of 4096 bytes.
    fn pages_max(self) -> u32 {
        u32::try_from(self.bytes_max * 2 / 4096).unwrap_or(u32::MAX).saturating_add(1024)
    }
}

// === impl Journal ===

impl Journal {
    /// Opens the journal, making the file (mode 0600) when there is none; its folder must be there.
    /// Errors: [`JournalError`]; a file that is not ours is not touched.
    pub fn open(file: &Path, limits: Limits) -> Result<Self, JournalError> {
        Self::connect(file, limits, true)
    }

    /// Opens a journal that is there. Errors: `Missing`, else as [`Journal::open`].
    pub fn open_existing(file: &Path, limits: Limits) -> Result<Self, JournalError> {
        if !file.exists() {
            return Err(JournalError::Missing { path: file.to_owned() });
        }
        Self::connect(file, limits, false)
    }

    /// Gives where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a setting of the NAS itself (`relay_url`), or none.
    pub fn setting(&self, name: &str) -> Result<Option<String>, JournalError> {
        let sql = "SELECT CAST(value AS TEXT) FROM setting WHERE name = ?1";
        Ok(self.connection.query_row(sql, [name], |row| row.get(0)).optional()?)
    }

    /// Keeps a setting of the NAS itself.
    pub fn set_setting(&mut self, name: &str, value: &str) -> Result<(), JournalError> {
        set(&self.connection, name, &value)
    }

    /// Gives the size of the file with its WAL, in bytes.
    pub fn file_bytes(&self) -> u64 {
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        size(&self.path) + size(&self.wal_path())
    }

    /// Lets the file grow to so many pages of 4096 bytes and no more: as on a disk that is full.
    pub fn bound_pages(&mut self, pages_max: u32) -> Result<(), JournalError> {
        Ok(self.connection.pragma_update(None, "max_page_count", pages_max)?)
    }

    fn wal_path(&self) -> PathBuf {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        wal.into()
    }

    fn connect(file: &Path, limits: Limits, create: bool) -> Result<Self, JournalError> {
        let connection = schema::open(file, create, limits.pages_max())?;
        schema::check_private(file)?;
        Ok(Self { connection, path: file.to_owned(), limits })
    }
}

fn set(connection: &Connection, name: &str, value: &dyn ToSql) -> Result<(), JournalError> {
    let sql = "INSERT INTO setting VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
    connection.prepare_cached(sql)?.execute((name, value))?;
    Ok(())
}

fn number(connection: &Connection, name: &str) -> Result<i64, JournalError> {
    let sql = "SELECT CAST(value AS INTEGER) FROM setting WHERE name = ?1";
    let found = connection.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?;
    Ok(found.unwrap_or(0))
}

/// SQLite's integers are signed; no time or size of ours comes near the difference.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn uuid_of(bytes: [u8; 16]) -> Uuid {
    Uuid::from_bytes(bytes)
}

// === impl JournalError ===

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::NotADatabase) => Self::NotOurs,
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            // A write that comes to nothing at the end of the space is told as a failed write.
            Some(ErrorCode::SystemIoFailure) if is_full(&error) => Self::DiskFull,
            _ => Self::Sqlite(error),
        }
    }
}

/// `SQLITE_IOERR_WRITE`, `_TRUNCATE`, `_FSYNC` and `_SHMSIZE`: what a file that may not grow gives.
fn is_full(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map_or(0, |error| error.extended_code);
    [778, 1546, 1034, 4874].contains(&extended)
}

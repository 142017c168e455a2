//! The journal's tables and how its file is opened.
//!
//! One SQLite file that its owner alone can read. WAL, because `recall` and `status` then never
//! hold up the daemon, and because a write that a power cut tears is found by the checksum of its
//! frame and left out, with every record before it intact. `synchronous = FULL`, because a
//! notification that was taken must survive that power cut. `secure_delete`, so that what is erased
//! is overwritten.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::JournalError;

/// The schema that this program writes: `PRAGMA user_version`.
pub(super) const SCHEMA: i64 = 1;

/// "SNSJ": tells our file from another program's.
const APPLICATION_ID: i64 = 0x534e_534a;

/// How long a command waits for another's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The WAL is folded into the file at about 1 MiB.
const CHECKPOINT_PAGES: u32 = 256;

/// Times are milliseconds since 1970. `seq` only grows: it is the content's sequence.
/// `lane`: contents of one lane go to one device one after the other.
const CREATE: &str = "
    CREATE TABLE setting (name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
    CREATE TABLE sender (
        name       TEXT PRIMARY KEY,
        key_pem    TEXT NOT NULL,
        created_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE device (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        name       TEXT NOT NULL UNIQUE,
        sender     TEXT NOT NULL REFERENCES sender(name),
        handle     TEXT NOT NULL,
        p256dh     TEXT,
        auth       TEXT,
        body_bytes_max INTEGER NOT NULL,
        paired_ms  INTEGER NOT NULL,
        gone_ms    INTEGER
    ) STRICT;
    CREATE TABLE notification (
        seq           INTEGER PRIMARY KEY,
        id            BLOB NOT NULL UNIQUE,
        kind          TEXT NOT NULL,
        original      BLOB,
        source        TEXT,
        level         INTEGER NOT NULL,
        written_ms    INTEGER NOT NULL,
        expires_ms    INTEGER NOT NULL,
        lane          TEXT NOT NULL,
        sound         INTEGER NOT NULL,
        content       BLOB NOT NULL,
        bytes         INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX notification_written ON notification(written_ms);
    CREATE INDEX notification_bytes ON notification(bytes);
    CREATE TABLE delivery (
        seq         INTEGER NOT NULL REFERENCES notification(seq) ON DELETE CASCADE,
        device      INTEGER NOT NULL,
        device_name TEXT NOT NULL,
        state       TEXT NOT NULL,
        lane        TEXT NOT NULL,
        level       INTEGER NOT NULL,
        attempts    INTEGER NOT NULL DEFAULT 0,
        next_ms     INTEGER NOT NULL,
        settled_ms  INTEGER,
        outcome     TEXT,
        reason      TEXT,
        provider_id TEXT,
        PRIMARY KEY (seq, device)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX delivery_pending ON delivery(level DESC, seq) WHERE state = 'pending';
    CREATE INDEX delivery_of ON delivery(seq) WHERE state = 'pending';
    CREATE INDEX delivery_lane ON delivery(device, lane, seq)
        WHERE state = 'pending';
    CREATE TABLE rule (
        position   INTEGER PRIMARY KEY AUTOINCREMENT,
        action     TEXT NOT NULL,
        device     TEXT,
        source     TEXT,
        level      INTEGER,
        category   TEXT,
        tag        TEXT,
        app        TEXT
    ) STRICT;
";

/// Opens the file; makes it, mode 0600, when there is none and `create` is set.
pub(super) fn open(file: &Path, create: bool, pages_max: u32) -> Result<Connection, JournalError> {
    if create {
        make_private(file)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Before the first table, or it has no effect.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "max_page_count", pages_max)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// A file that SQLite made would follow the umask; its WAL takes the file's own mode.
fn make_private(file: &Path) -> Result<(), JournalError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(JournalError::Open { path: file.to_owned(), source }),
    }
}

/// Refuses a file that others can read: it holds keys.
pub(super) fn check_private(file: &Path) -> Result<(), JournalError> {
    let opened = |source| JournalError::Open { path: file.to_owned(), source };
    let mode = std::fs::metadata(file).map_err(opened)?.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(JournalError::NotPrivate { path: file.to_owned(), mode }),
    }
}

fn migrate(connection: &mut Connection) -> Result<(), JournalError> {
    let number = |connection: &Connection, name: &str| -> rusqlite::Result<i64> {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    };
    if number(connection, "user_version")? == SCHEMA
        && number(connection, "application_id")? == APPLICATION_ID
    {
        return Ok(());
    }
    let transaction = begin(connection)?;
    let found = number(&transaction, "user_version")?;
    let owner = number(&transaction, "application_id")?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (found, owner, tables) {
        (0, 0, 0) => {
            transaction.execute_batch(CREATE)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", SCHEMA)?;
        }
        (SCHEMA, APPLICATION_ID, _) => {}
        (_, APPLICATION_ID, _) => return Err(JournalError::Newer { found, known: SCHEMA }),
        _ => return Err(JournalError::NotOurs),
    }
    Ok(transaction.commit()?)
}

/// Begins to write at once: a transaction that reads first cannot wait for another's commit.
pub(super) fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

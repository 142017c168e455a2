//! Why the store does not answer.

/// The store could not answer. Blame: us.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened, read or written.
    #[error("the identity store cannot be used")]
    Sqlite(#[from] rusqlite::Error),
    /// The server refused, or went away.
    #[error("the identity store's server cannot be used")]
    Postgres(#[from] tokio_postgres::Error),
    /// There was no turn on a connection to the server, or no connection.
    #[error("the identity store's server cannot be reached")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// The server does not answer.
    #[error("the identity store's server does not answer")]
    Silent,
    /// The authorities that may certify the server.
    #[error("the certificate authorities of the identity store's server cannot be read")]
    Roots,
    /// The folder of the file could not be made.
    #[error("the identity store's folder cannot be made")]
    Folder(#[source] std::io::Error),
    /// A backup's file.
    #[error("the backup cannot be written")]
    Backup(#[source] std::io::Error),
    /// The store is of a newer relay.
    #[error("the identity store has schema {found}, this relay knows up to {known}")]
    Newer {
        /// Schema number in the store.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// The file is no longer where it was: what is written to it would be lost.
    #[error("the identity store's file was moved, replaced or removed")]
    Moved,
    /// A record is not one that this relay writes.
    #[error("the identity store holds a record that is not valid: {0}")]
    Corrupt(String),
    /// A token's hash is not one that this relay writes.
    #[error("the identity store holds an enrolment token that is not valid")]
    TokenCorrupt,
    /// A reader holds the log beside the file.
    #[error("the record is gone, but a reader holds the log beside the file: erase it again")]
    LogInUse,
    /// The worker thread is gone.
    #[error("the identity store is closed")]
    Closed,
}

//! Measures the relay: how long a message takes on its way through it, and what it costs there.
//!
//! In: the relay's own release binary, run as an operator runs it, and the simulated push services
//! in this process. Out: a report, as a table or as JSON. The load is open loop: a message has its
//! moment whether or not the ones before it are done, and its time counts from that moment on.
//! Figures of one machine compare with figures of the same machine, taken in turn. `bench` takes
//! all that docs/performance.md shows.

use std::io;
use std::path::PathBuf;

use sns_nas::client::ClientError;
use sns_nas::daemon::SocketError;
use sns_nas::journal::JournalError;
use sns_nas::key::KeyError;
use sns_nas::seal::SealError;
use sns_nas::vapid::VapidError;

use crate::device::DeviceError;
use crate::stage::StageError;

pub mod letter;

pub mod crowd;

pub mod pace;

pub mod child;

pub mod push;

mod spread;

mod calm;

pub mod doors;

pub mod floor;

pub mod idle;

pub mod held;

pub mod added;

mod enrolled;

pub mod start;

pub mod cold;

mod compared;

pub mod scale;

pub mod workers;

pub mod instructions;

pub mod faults;

mod stencil;

mod mix;

pub mod overload;

pub mod outage;

pub mod soak;

mod nas_child;

mod arrived;

pub mod kill;

pub mod away;

pub mod bench;

mod document;

pub mod report;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The relay was not built.
    #[error("{} is missing: build it with cargo build --release --workspace", .0.display())]
    NoRelay(PathBuf),
    /// The process of the relay, or of the NAS, did not do what it was started for.
    #[error("{what}; the end of its log:\n{log}")]
    Relay {
        /// What it did not do.
        what: String,
        /// Its log.
        log: String,
    },
    /// An origin or an endpoint is not what it should be.
    #[error("not a URL with a host and a port")]
    BadUrl,
    /// The simulated push services.
    #[error("the stage cannot be set")]
    Stage(#[from] StageError),
    /// A device.
    #[error("a device cannot be made")]
    Device(#[from] DeviceError),
    /// The relay's answer to a pairing.
    #[error("the relay does not answer, or does not pair a device")]
    Client(#[from] ClientError),
    /// A sender key.
    #[error("a sender key cannot be made")]
    Key(#[from] KeyError),
    /// A token.
    #[error("a token cannot be signed")]
    Vapid(#[from] VapidError),
    /// A message.
    #[error("a message cannot be sealed")]
    Seal(#[from] SealError),
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A connection.
    #[error("a connection cannot be opened")]
    Crowd(#[from] crowd::CrowdError),
    /// An HTTP/1.1 connection.
    #[error("an HTTP/1.1 connection cannot be begun")]
    Http1(#[from] hyper::Error),
    /// An HTTP/2 connection, or the one stream on which everything goes.
    #[error("an HTTP/2 connection or stream breaks")]
    Http2(#[from] h2::Error),
    /// The histogram.
    #[error("the times cannot be counted")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// A file, a process or the network.
    #[error("a file, a process or a connection fails")]
    Io(#[from] io::Error),
    /// JSON.
    #[error("the report cannot be written")]
    Json(#[from] serde_json::Error),
    /// The document has no place for the table.
    #[error("{} has no place for the table: {}", .0.display(), .1)]
    NoPlace(PathBuf, String),
    /// The relay's store, filled beforehand.
    #[error("the relay's store cannot be filled")]
    Store(#[from] rusqlite::Error),
    /// The NAS's journal.
    #[error("the NAS's journal cannot be used")]
    Journal(#[from] JournalError),
    /// The NAS's socket.
    #[error("the NAS takes no notification")]
    Socket(#[from] SocketError),
    /// Something that must come has not.
    #[error("waited in vain for {0}")]
    Overdue(&'static str),
    /// An option that does not go with the others.
    #[error("{option}: {why}")]
    BadOption {
        /// Its name, as it is written.
        option: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Messages beforehand, which tell that all is well, are not accepted.
    #[error("the first messages are not accepted: {0}")]
    Refused(String),
    /// An answer that lacks a part.
    #[error("the relay did not give {0}")]
    Missing(&'static str),
}

/// Gives the relay's program where both were built: beside this one.
/// Errors: this program's own place is not known.
pub fn beside() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("sns-relay"))
}

//! The daemon's Unix socket: one request per line of JSON, one answer per line.
//!
//! In: `{"notify": {…}}` and the like (`desk::Request`), at most 64 KiB a line. Out: `{"id",
//! "devices", "is_new"}`, or `{"error", "is_callers"}`. An answer without error says that the
//! request is in the journal. Bounded: connections, line length, time.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time;
use uuid::Uuid;

use crate::desk::{DeskError, Request};
use crate::journal::record::Taken;

/// The listening socket; its file goes when it is dropped.
pub struct Socket {
    path: PathBuf,
    listener: JoinHandle<()>,
}

/// A request, and where its answer goes.
pub struct Ask {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Taken, DeskError>>,
}

/// Why a request could not be handed in over the socket.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Nobody listens there.
    #[error("no sns-nas runs at {}", path.display())]
    Absent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be made or used.
    #[error("cannot use the socket {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon says no.
    #[error("{text}")]
    Refused {
        /// Why.
        text: String,
        /// Whether it is the caller's fault.
        is_callers: bool,
    },
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Answer {
    Taken { id: Uuid, devices: u64, is_new: bool },
    Refused { error: String, is_callers: bool },
}

const LINE_BYTES_MAX: u64 = 64 * 1024;
const REST_BYTES_MAX: u64 = 1024 * 1024;
const CONNECTIONS_MAX: usize = 32;
const ASKS_MAX: usize = 64;

/// A connection that says nothing for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than the journal waits for a lock.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Hands a request to the daemon at `path` and waits for its answer.
/// Errors: `Absent` when there is none: the request can be written to the journal instead.
pub async fn hand_in(path: &Path, request: &Request) -> Result<Taken, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) => {
            let absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
            return Err(if absent {
                SocketError::Absent { path: path.to_owned() }
            } else {
                failed(error)
            });
        }
    };
    let exchange = async {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        let limited = (&mut stream).take(LINE_BYTES_MAX);
        BufReader::new(limited).read_line(&mut answer).await?;
        Ok::<Answer, io::Error>(serde_json::from_str(&answer)?)
    };
    let answer = time::timeout(ANSWER_TIMEOUT, exchange).await;
    let answer = answer.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    match answer.map_err(failed)? {
        Answer::Taken { id, devices, is_new } => Ok(Taken { id, devices, is_new }),
        Answer::Refused { error, is_callers } => {
            Err(SocketError::Refused { text: error, is_callers })
        }
    }
}

// === impl Socket ===

impl Socket {
    /// Listens at `path`, for the owner and the group (mode 0660). The caller holds the lock of the
    /// journal, so a socket that is there is a dead daemon's and is replaced.
    /// Errors: `Io`, also where the path is anything but a socket.
    pub fn listen(path: &Path) -> Result<(Self, mpsc::Receiver<Ask>), SocketError> {
        use std::os::unix::fs::FileTypeExt as _;
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => {
                fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => return Err(failed(ErrorKind::AlreadyExists.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
        let (asks, received) = mpsc::channel(ASKS_MAX);
        let listener = tokio::spawn(accept(listener, asks));
        Ok((Self { path: path.to_owned(), listener }, received))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.listener.abort();
        fs::remove_file(&self.path).unwrap_or_default();
    }
}

async fn accept(listener: UnixListener, asks: mpsc::Sender<Ask>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: some come back.
            time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let asks = asks.clone();
        tokio::spawn(async move {
            // A caller that went away or says nothing ends its own connection alone.
            serve(stream, &asks).await.unwrap_or_default();
            drop(permit);
        });
    }
}

async fn serve(stream: UnixStream, asks: &mpsc::Sender<Ask>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut line);
        if time::timeout(IDLE_TIMEOUT, read).await?? == 0 {
            return Ok(());
        }
        let is_whole = line.last() == Some(&b'\n');
        let answer = if is_whole {
            ask(&line, asks).await
        } else {
            refused("the request is not one line of at most 65536 bytes", true)
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        time::timeout(IDLE_TIMEOUT, writer.write_all(&bytes)).await??;
        if !is_whole {
            // Closing before all is read would break the answer off.
            let mut rest = (&mut reader).take(REST_BYTES_MAX);
            time::timeout(IDLE_TIMEOUT, tokio::io::copy(&mut rest, &mut tokio::io::sink()))
                .await??;
            return Ok(());
        }
    }
}

async fn ask(line: &[u8], asks: &mpsc::Sender<Ask>) -> Answer {
    let request = match serde_json::from_slice(line) {
        Ok(request) => request,
        // serde's own words may repeat a value.
        Err(error) => {
            return refused(&format!("not a request in JSON, column {}", error.column()), true);
        }
    };
    let (answer, told) = oneshot::channel();
    let stopping = "sns-nas is stopping";
    if asks.send(Ask { request, answer }).await.is_err() {
        return refused(stopping, false);
    }
    match told.await {
        Ok(Ok(taken)) => {
            Answer::Taken { id: taken.id, devices: taken.devices, is_new: taken.is_new }
        }
        Ok(Err(error)) => refused(&error.to_string(), error.is_callers()),
        Err(_) => refused(stopping, false),
    }
}

fn refused(error: &str, is_callers: bool) -> Answer {
    Answer::Refused { error: error.to_owned(), is_callers }
}

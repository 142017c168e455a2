//! Simulated push services on loopback: TLS with a test root, a free port, HTTP/2 frame by frame.
//!
//! A request walks: connection and stream limits (`server`, `wire`, `ledger`), the documented
//! checks of its service (`apns`, `fcm`, `webpush`), then the `script` a test has set, then the
//! `journal`. A check that fails is answered as the vendor documents and never reaches the script.
//! Sources: the vendors' pages, RFC 8030, 8188, 8291, 8292, 9113.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub mod script;

pub mod journal;

pub mod server;

pub mod apns;

pub mod fcm;

pub mod webpush;

pub mod smtp;

mod jws;

mod ledger;

mod wire;

/// What can go wrong while a simulator starts or credentials are made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// The certificates could not be made.
    #[error("the simulator's certificate could not be made")]
    Ca(#[from] crate::ca::CaError),
    /// The port could not be bound.
    #[error("the simulator's port could not be bound")]
    Bind(#[source] std::io::Error),
    /// A key could not be made.
    #[error("a key could not be made")]
    Key,
    /// The SMTP server does not do what it is there for.
    #[error("the SMTP server: {0}")]
    Smtp(&'static str),
    /// A file or a process.
    #[error("a file or a process of the simulator fails")]
    Io(#[from] std::io::Error),
}

/// The simulator's clock: the machine's, moved by what a test asked for; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Clock {
    ahead_s: Arc<AtomicI64>,
}

impl Clock {
    /// Unix time in whole seconds.
    pub(crate) fn now_s(&self) -> i64 {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(machine.as_secs()).unwrap_or(i64::MAX - (1 << 40))
            + self.ahead_s.load(Ordering::Relaxed)
    }

    pub(crate) fn ahead_s(&self) -> i64 {
        self.ahead_s.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ahead_s(&self, ahead_s: i64) {
        self.ahead_s.store(ahead_s, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, by: Duration) {
        let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX >> 8);
        self.ahead_s.fetch_add(seconds, Ordering::Relaxed);
    }
}

/// Locks even after a panic elsewhere: a failing test must not hide behind a poisoned lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

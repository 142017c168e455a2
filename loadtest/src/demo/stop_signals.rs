//! Ctrl-C, SIGTERM and the terminal's end: each asks the demo to stop, and the relay with it.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Caught from when it is made until it is dropped.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

// === impl StopSignals ===

impl StopSignals {
    /// Starts to catch them.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the first of them.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

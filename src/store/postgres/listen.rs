//! The server's notices: which records change, from one connection of its own.
//!
//! A connection that breaks, or does not answer a ping in time, ends the notices; what changed
//! until the next are heard must be looked at anew.

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time;
use tokio_postgres::{AsyncMessage, Client};

use super::connect::Access;
use crate::push::Thumbprint;
use crate::store::StoreError;

/// Notices that wait to be taken; above it the connection is read no further.
const WAITING_MAX: usize = 1024;

/// How often the connection is tried.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Hears of changes.
pub struct Notices {
    client: Client,
    changed: mpsc::Receiver<Thumbprint>,
    pings: time::Interval,
    ping_timeout: Duration,
}

// === impl Notices ===

impl Notices {
    pub(super) async fn open(access: &Access) -> Result<Self, StoreError> {
        let connecting = access.config.connect(access.tls.clone());
        let connected = time::timeout(access.connect_timeout, connecting).await;
        let (client, mut connection) = connected.map_err(|_| StoreError::Silent)??;
        let (tell, changed) = mpsc::channel(WAITING_MAX);
        // It ends with the client, or with the server.
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notice) = message
                    && let Some(key) = parse(notice.payload())
                    && tell.send(key).await.is_err()
                {
                    return;
                }
            }
        });
        client.batch_execute("LISTEN sns_relay_nas").await?;
        let pings = time::interval(PING_INTERVAL);
        Ok(Self { client, changed, pings, ping_timeout: access.statement_timeout })
    }

    /// Waits for the next change: the key that a record has or had.
    /// Errors: the connection is gone, and with it what it would have told.
    pub async fn next(&mut self) -> Result<Thumbprint, StoreError> {
        loop {
            tokio::select! {
                changed = self.changed.recv() => return changed.ok_or(StoreError::Silent),
                _ = self.pings.tick() => {
                    let ping = self.client.simple_query("");
                    time::timeout(self.ping_timeout, ping).await.map_err(|_| StoreError::Silent)??;
                }
            }
        }
    }
}

/// Reads a thumbprint in hexadecimal digits.
fn parse(text: &str) -> Option<Thumbprint> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(Thumbprint::from_bytes(bytes))
}

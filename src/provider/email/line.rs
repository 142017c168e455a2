//! One connection to the SMTP server, step by step, so that a fault is known by its step.
//!
//! The mail library speaks the protocol; which step it is in decides what a fault means. A future
//! that is dropped takes its line with it: no line is left in the middle of a mail.

use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp;
use lettre::transport::smtp::authentication::Mechanism;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use tokio::time::{Instant, timeout};

use super::ServerConfig;
use crate::config::EmailSecurity;
use crate::provider::upstream::PoolMetrics;

/// How far a mail has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Name, connection, TLS from the first byte, greeting and EHLO.
    Connect,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Login,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA, before the server has asked for the mail.
    Data,
    /// The mail itself: from here on the server may hold all of it.
    Content,
}

/// Why a step came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server said no, or the connection broke.
    Smtp(smtp::Error),
    /// No reply in time.
    Silence,
}

/// One mail with its envelope.
pub(super) struct Mail<'a> {
    pub(super) from: &'a lettre::Address,
    pub(super) to: lettre::Address,
    pub(super) content: &'a [u8],
}

/// A connection that is ready for a mail.
pub(super) struct Line {
    connection: AsyncSmtpConnection,
    reply_timeout: Duration,
    used_at: Instant,
    _counted: Counted,
}

/// An open line, in the metrics.
struct Counted(Arc<PoolMetrics>);

/// The mechanisms that a login may use; inside TLS they are all the same.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

// === impl Line ===

impl Line {
    /// Connects, protects the connection and logs in.
    pub(super) async fn open(
        config: &ServerConfig,
        metrics: &Arc<PoolMetrics>,
        step: &mut Step,
    ) -> Result<Self, Fault> {
        let reply_timeout = config.reply_timeout;
        *step = Step::Connect;
        let at_once = match &config.tls {
            Some((EmailSecurity::Tls, tls)) => Some(tls.clone()),
            _ => None,
        };
        let server = (config.host.as_str(), config.port);
        let hello = &config.hello_name;
        let connected = AsyncSmtpConnection::connect_tokio1(server, None, hello, at_once, None);
        let mut connection = in_time(reply_timeout, connected).await?;
        let counted = Counted::new(metrics);
        if let Some((EmailSecurity::StartTls, tls)) = &config.tls {
            *step = Step::StartTls;
            in_time(reply_timeout, connection.starttls(tls.clone(), hello)).await?;
        }
        if let Some(login) = &config.login {
            *step = Step::Login;
            in_time(reply_timeout, connection.auth(&MECHANISMS, login)).await?;
        }
        Ok(Self { connection, reply_timeout, used_at: Instant::now(), _counted: counted })
    }

    /// Names the sender.
    pub(super) async fn begin(&mut self, mail: &Mail<'_>, step: &mut Step) -> Result<(), Fault> {
        *step = Step::Sender;
        let from = MailFrom::new(Some(mail.from.clone()), Vec::new());
        in_time(self.reply_timeout, self.connection.command(from)).await?;
        Ok(())
    }

    /// Names the recipient and hands the mail over.
    pub(super) async fn send(&mut self, mail: &Mail<'_>, step: &mut Step) -> Result<(), Fault> {
        *step = Step::Recipient;
        let to = Rcpt::new(mail.to.clone(), Vec::new());
        in_time(self.reply_timeout, self.connection.command(to)).await?;
        *step = Step::Data;
        in_time(self.reply_timeout, self.connection.command(Data)).await?;
        *step = Step::Content;
        in_time(self.reply_timeout, self.connection.message(mail.content)).await?;
        self.used_at = Instant::now();
        Ok(())
    }

    pub(super) fn is_fresh(&self, idle_timeout: Duration) -> bool {
        self.used_at.elapsed() < idle_timeout
    }
}

// === impl Counted ===

impl Counted {
    fn new(metrics: &Arc<PoolMetrics>) -> Self {
        metrics.opened.inc();
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

async fn in_time<T>(
    limit: Duration,
    reply: impl Future<Output = Result<T, smtp::Error>>,
) -> Result<T, Fault> {
    match timeout(limit, reply).await {
        Ok(reply) => reply.map_err(Fault::Smtp),
        Err(_) => Err(Fault::Silence),
    }
}

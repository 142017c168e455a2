//! Electronic mail: a route becomes one mail, submitted to the operator's SMTP server.
//!
//! All apps share the lines to that one server: a bounded number of them, kept open between mails,
//! and a breaker before them. A line that failed is never used again. A mail is said to be unknown
//! only from the moment on at which the server may hold all of it; before that, nothing was sent.
//! Sources: RFC 5321, RFC 3207, RFC 8314, RFC 4954.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config;
use crate::outcome::{Code, Outcome};
use crate::provider::upstream::{Gate, Limits, PoolMetrics, Verdict};
use crate::provider::{Attempt, BUSY_WAIT, Provider, RETRY_AFTER_MAX, RETRY_AFTER_MIN, SetupError};
use crate::push::{Address, Mailbox};
use crate::route::{Route, mail};

pub mod answer;

mod line;

use line::{Fault, Line, Mail, Step};

/// E-mail for one app.
pub struct Email {
    server: Arc<MailServer>,
    from: lettre::Address,
}

/// The operator's SMTP server, shared by the apps.
pub struct MailServer {
    config: ServerConfig,
    lines: Semaphore,
    idle: Mutex<Vec<Line>>,
    gate: Gate,
    metrics: Arc<PoolMetrics>,
}

/// How a line is opened.
struct ServerConfig {
    host: String,
    port: u16,
    tls: Option<(config::EmailSecurity, TlsParameters)>,
    login: Option<Credentials>,
    hello_name: ClientId,
    idle_timeout: Duration,
    reply_timeout: Duration,
}

// === impl Email ===

impl Email {
    /// Makes a provider for an app's sender.
    /// Errors: [`SetupError::Text`].
    pub fn new(from: &Mailbox, server: Arc<MailServer>) -> Result<Self, SetupError> {
        let from = mail::address(from).ok_or(SetupError::Text("the sender's address"))?;
        Ok(Self { server, from })
    }
}

impl Provider for Email {
    async fn send(&self, route: &Route, deadline: Instant) -> Attempt {
        let Address::Email { mailbox } = route.address() else { return Attempt::impossible() };
        let Some(to) = mail::address(mailbox) else { return Attempt::impossible() };
        let mail = Mail { from: &self.from, to, content: route.body() };
        self.server.submit(&mail, route.message_id().hyphenated().to_string(), deadline).await
    }

    /// The login is the operator's; there is no other one to take.
    async fn renew_credential(&self, _spent: &Attempt, _deadline: Instant) -> bool {
        false
    }

    /// A line is opened when there is a mail.
    async fn warm(&self, _deadline: Instant) {}
}

// === impl MailServer ===

impl MailServer {
    /// Takes the server's address and its limits; nothing is dialled yet.
    /// Errors: [`SetupError::MailTls`].
    pub fn new(
        email: &config::Email,
        ca_pem: Option<&str>,
        limits: &Limits,
        metrics: Arc<PoolMetrics>,
    ) -> Result<Self, SetupError> {
        let tls = match email.security {
            config::EmailSecurity::Cleartext => None,
            security => Some((security, tls(&email.host, ca_pem)?)),
        };
        let login = email.login.as_ref();
        let login = login
            .map(|login| Credentials::new(login.username.clone(), login.password.expose().clone()));
        Ok(Self {
            config: ServerConfig {
                host: email.host.clone(),
                port: email.port,
                tls,
                login,
                hello_name: ClientId::Domain(email.hello_name.clone()),
                idle_timeout: email.idle_timeout,
                reply_timeout: email.reply_timeout,
            },
            lines: Semaphore::new(email.connections_max),
            idle: Mutex::default(),
            gate: Gate::new(limits.breaker(), Arc::clone(&metrics.breakers)),
            metrics,
        })
    }

    /// Submits one mail; `id` is what it is known by.
    async fn submit(self: &Arc<Self>, mail: &Mail<'_>, id: String, deadline: Instant) -> Attempt {
        let pass = match self.gate.enter() {
            Ok(pass) => pass,
            Err(wait) => return Attempt::unsent(unreachable(wait)),
        };
        let Ok(Ok(_line)) = timeout_at(deadline, self.lines.acquire()).await else {
            let busy = Outcome::NotNow { code: Code::PushServiceBusy, retry_after: BUSY_WAIT };
            return Attempt::unsent(busy);
        };
        let started = Instant::now();
        let mut step = Step::Connect;
        let done = timeout_at(deadline, self.walk(mail, &mut step)).await;
        let (outcome, verdict) = match done.unwrap_or(Err(Fault::Silence)) {
            Ok(()) => (Outcome::Accepted { provider_message_id: Some(id) }, Verdict::Alive),
            Err(fault) => answer::read(step, &fault),
        };
        self.gate.leave(pass, verdict);
        let upstream = (verdict == Verdict::Alive).then(|| started.elapsed());
        Attempt { outcome, upstream, credential: None }
    }

    /// Takes an idle line or opens one; puts it back once the mail is the server's.
    /// A server may have closed an idle line: what fails on it before any mail goes on a new one.
    async fn walk(self: &Arc<Self>, mail: &Mail<'_>, step: &mut Step) -> Result<(), Fault> {
        let mut kept = self.take_idle();
        if let Some(line) = &mut kept
            && line.begin(mail, step).await.is_err()
        {
            kept = None;
        }
        let mut line = match kept {
            Some(line) => line,
            None => {
                let mut line = Line::open(&self.config, &self.metrics, step).await?;
                line.begin(mail, step).await?;
                line
            }
        };
        line.send(mail, step).await?;
        lock(&self.idle).push(line);
        self.close_idle_later();
        Ok(())
    }

    /// Closes what is idle for too long, also where no other mail comes.
    fn close_idle_later(self: &Arc<Self>) {
        let server = Arc::downgrade(self);
        let idle_timeout = self.config.idle_timeout;
        tokio::spawn(async move {
            sleep(idle_timeout).await;
            if let Some(server) = server.upgrade() {
                lock(&server.idle).retain(|line| line.is_fresh(idle_timeout));
            }
        });
    }

    fn take_idle(&self) -> Option<Line> {
        let mut idle = lock(&self.idle);
        idle.retain(|line| line.is_fresh(self.config.idle_timeout));
        idle.pop()
    }
}

fn tls(host: &str, ca_pem: Option<&str>) -> Result<TlsParameters, SetupError> {
    let mut tls = TlsParameters::builder(host.to_owned());
    if let Some(pem) = ca_pem {
        let certificate = Certificate::from_pem(pem.as_bytes()).map_err(SetupError::MailTls)?;
        tls = tls.add_root_certificate(certificate);
    }
    tls.build_rustls().map_err(SetupError::MailTls)
}

fn unreachable(wait: Duration) -> Outcome {
    let retry_after = wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
    Outcome::NotNow { code: Code::PushServiceUnreachable, retry_after }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The caretaker: builds the rooms, binds the ports, and drains on SIGTERM or SIGINT.
//!
//! In: a checked [`Config`]. Everything that can fail fails before a port is bound. State is built
//! once here and passed on; there are no globals.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_rustls::TlsAcceptor;

use crate::admin::Admin;
use crate::authenticate::Authenticator;
use crate::authenticate::quota::Quota;
use crate::clock::Clock;
use crate::config::{Config, ServerTls, files};
use crate::duplicates::Duplicates;
use crate::enrol::Enroller;
use crate::feedback::complaints::Complaints;
use crate::ingress::Doors;
use crate::keys::{HandleKeys, KeysError, SerialPepper};
use crate::metrics::Metrics;
use crate::pair::Pairer;
use crate::pair::farewell::Farewells;
use crate::pair::seal::{Ring, RingKey, Unopened};
use crate::provider::SetupError;
use crate::relay::Relay;
use crate::route::Router;
use crate::store::{Store, StoreError};

mod listen;

mod providers;

use listen::Port;

/// Why a relay does not start. Blame: the operator's set-up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A key file.
    #[error("keys.directory")]
    Keys(#[from] KeysError),
    /// A handle key that the cipher refuses.
    #[error("keys.directory: a handle key is not valid")]
    HandleKey,
    /// The identity store.
    #[error("store")]
    Store(#[from] StoreError),
    /// A push service's credential or certificate authority.
    #[error("{key}")]
    Provider {
        /// The section of the configuration.
        key: String,
        /// What is wrong.
        source: SetupError,
    },
    /// The certificate of the doors.
    #[error("server.tls: the certificate or its key cannot be used")]
    Tls,
    /// A port.
    #[error("{key} {address} cannot be bound")]
    Bind {
        /// The key of the configuration.
        key: &'static str,
        /// What it says.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The metrics, the runtime or the signals: a fault of this program or of the system.
    #[error("the relay cannot be set up")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A relay that is serving.
pub struct Running {
    /// Where the doors are.
    pub address: SocketAddr,
    /// Where the admin port is.
    pub admin_address: SocketAddr,
    stop: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    doors: Arc<Doors>,
    serving: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

/// Serves until SIGTERM or SIGINT, then drains.
/// Errors: [`ServeError`].
pub fn run(config: Config) -> Result<(), ServeError> {
    let setup = |error: std::io::Error| ServeError::Setup(error.into());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(setup)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(setup)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(setup)?;
        let running = start(config, Clock::system()).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
        running.stop().await;
        tracing::info!("stopped");
        Ok(())
    })
}

/// Builds the rooms, binds both ports and serves in the background.
/// Errors: [`ServeError`]; nothing is left bound then.
pub async fn start(config: Config, clock: Clock) -> Result<Running, ServeError> {
    let metrics = Metrics::new(config.apps.keys()).map_err(|e| ServeError::Setup(e.into()))?;
    let metrics = Arc::new(metrics);
    let tls = config.server.tls.as_ref().map(|tls| acceptor(tls, &metrics)).transpose()?;
    let relay = Arc::new(build(&config, clock, Arc::clone(&metrics)).await?);
    if config.upstream.prewarm > 0 {
        // Nobody is told to come before the connections are there, or have failed.
        let deadline = time::Instant::now() + config.upstream.connect_timeout;
        providers::warm(&relay.carriers, deadline).await;
    }
    let doors = Arc::new(Doors::new(Arc::clone(&relay), config.server.clone()));
    let listener = bind("server.listen", config.server.listen).await?;
    let admin_listener = bind("admin.listen", config.admin.listen).await?;
    let local = |listener: &TcpListener| {
        listener.local_addr().map_err(|error| ServeError::Setup(error.into()))
    };
    let (address, admin_address) = (local(&listener)?, local(&admin_listener)?);
    let (stop, stopped) = watch::channel(false);
    let (stop_admin, admin_stopped) = watch::channel(false);
    let port = Arc::new(Port::new(Arc::clone(&doors), metrics, tls, &config.server));
    let serving = tokio::spawn(port.serve(listener, stopped, config.server.drain_timeout));
    let admin = Arc::new(Admin { relay: Arc::clone(&relay), doors: Arc::clone(&doors) });
    let keys = config.keys;
    let tasks = vec![
        tokio::spawn(admin.serve(admin_listener, admin_stopped)),
        tokio::spawn(follow_store(Arc::clone(&relay))),
        tokio::spawn(follow_ring(relay, keys.directory, keys.reload_interval)),
    ];
    tracing::info!(%address, %admin_address, "serving");
    Ok(Running { address, admin_address, stop, stop_admin, doors, serving, tasks })
}

// === impl Running ===

impl Running {
    /// Takes no more connections, waits for the requests in work, and closes the ports.
    pub async fn stop(mut self) {
        self.doors.drain();
        self.stop.send_replace(true);
        if (&mut self.serving).await.is_err() {
            tracing::error!("the listener panicked");
        }
        self.stop_admin.send_replace(true);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Builds the rooms.
async fn build(config: &Config, clock: Clock, metrics: Arc<Metrics>) -> Result<Relay, ServeError> {
    let pepper = SerialPepper::load(&config.keys.directory)?;
    let ring = load_ring(&config.keys.directory)?;
    let (carriers, host_guard) = providers::build(config, &clock, &metrics)?;
    let farewells = Farewells::new(&derived(pepper.expose(), b"sns-relay farewell 1"));
    let farewells = Arc::new(farewells);
    Ok(Relay {
        authenticator: Authenticator::new(
            &config.authenticate,
            config.server.public_url.origin.clone(),
        ),
        enroller: Enroller::new(config.enrolment, pepper.expose()),
        pairer: Pairer::new(ring, config.pairing.handle_lifetime),
        router: Router::new(
            &config.apps,
            &derived(pepper.expose(), b"sns-relay collapse alias 1"),
            Arc::clone(&farewells),
            &config.server.public_url.origin,
        ),
        farewells,
        carriers,
        quota: Quota::new(&config.limits, &config.pairing),
        duplicates: Duplicates::new(&config.duplicates),
        host_guard,
        store: Store::open(&config.store).await?,
        metrics,
        clock,
        complaints: Complaints::new(config.log.repeat),
    })
}

/// The alias of a topic and the links of mails have secrets of their own, derived so that replicas
/// need not share more files.
fn derived(pepper: &[u8; 32], label: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, pepper);
    let mut secret = [0; 32];
    secret.copy_from_slice(hmac::sign(&key, label).as_ref());
    secret
}

fn load_ring(directory: &Path) -> Result<Ring, ServeError> {
    let keys = HandleKeys::load(directory)?;
    let key = |key: &crate::keys::HandleKey| {
        RingKey::new(key.id, key.key.expose(), key.seals_from_unix_s)
    };
    let keys: Result<Vec<RingKey>, Unopened> = keys.iter().map(key).collect();
    keys.and_then(Ring::new).map_err(|Unopened| ServeError::HandleKey)
}

async fn follow_store(relay: Arc<Relay>) {
    relay.store.follow().await;
}

/// Reads the ring again and again, so that a rotation reaches every replica without a restart.
/// A ring that cannot be read is no reason to forget the one that was.
async fn follow_ring(relay: Arc<Relay>, directory: PathBuf, interval: Duration) {
    let mut ticks = time::interval(interval);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let directory = directory.clone();
        match tokio::task::spawn_blocking(move || load_ring(&directory)).await {
            Ok(Ok(ring)) => relay.pairer.replace_ring(ring),
            Ok(Err(_)) | Err(_) => {
                tracing::error!("the handle keys cannot be read; the ones in memory stay");
            }
        }
    }
}

fn acceptor(tls: &ServerTls, metrics: &Metrics) -> Result<TlsAcceptor, ServeError> {
    let pem = std::fs::read(&tls.certificate_file).map_err(|_| ServeError::Tls)?;
    if let Some(expiry) = files::certificate_expiry_unix_s(&pem) {
        metrics.certificate_expires(None, expiry);
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|_| ServeError::Tls)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key_file).map_err(|_| ServeError::Tls)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| ServeError::Tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|_| ServeError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServeError::Bind { key, address, source })
}

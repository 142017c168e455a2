//! The checked configuration: durations, sizes, URLs and secrets, one struct per room.
//!
//! `config/relay.default.toml` is embedded and is the reference: unit, range, default of every key.
//! A file lies over it, `SNS_RELAY__SECTION__KEY` variables lie over the file, and all faults are
//! listed at once. Whoever holds a [`Config`] holds values that were checked; nobody checks them
//! again. Nothing here binds a port or makes a file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::push::AppName;

pub mod fault;

pub mod files;

mod layers;

mod proxy;

mod reader;

pub mod secret;

pub mod app;

mod apps;

pub mod email;

mod sections;

pub mod store;

mod upstream;

mod url;

pub use app::{ApnsCredential, App, AppApns, AppFcm, AppWebPush};
pub use apps::VAPID_KEY_FILE;
pub use email::{AppEmail, Email, EmailLogin, EmailSecurity};
pub use fault::{Fault, Faults};
pub use proxy::{Proxy, ProxyKind, ProxyLogin};
pub use secret::Secret;
pub use store::{StorePlace, StoreServer};

use layers::Layers;
use reader::Reader;

/// Everything that an operator says.
pub struct Config {
    /// The doors.
    pub server: Server,
    /// The admin port.
    pub admin: Admin,
    /// The log.
    pub log: Log,
    /// The identity store.
    pub store: Store,
    /// The files that replicas share.
    pub keys: Keys,
    /// VAPID verification.
    pub authenticate: Authenticate,
    /// Who may enrol.
    pub enrolment: Enrolment,
    /// Handles.
    pub pairing: Pairing,
    /// Rates and room.
    pub limits: Limits,
    /// What answers teach.
    pub feedback: Feedback,
    /// Notifications that come twice.
    pub duplicates: Duplicates,
    /// Connections to push services.
    pub upstream: Upstream,
    /// Apple's service.
    pub apns: Apns,
    /// Google's service.
    pub fcm: Fcm,
    /// The browsers' services.
    pub webpush: WebPush,
    /// The SMTP server; none where no app sends mail.
    pub email: Option<Email>,
    /// The published apps by name.
    pub apps: BTreeMap<AppName, Arc<App>>,
    /// What is right but dangerous, for the log.
    pub warnings: Vec<Fault>,
}

/// Section `server`.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address and port of both doors.
    pub listen: SocketAddr,
    /// What senders call us by: scheme and authority, no path; the `aud` of their VAPID tokens.
    pub public_url: PublicUrl,
    /// Certificate chain and key, PEM; without them the doors are cleartext.
    pub tls: Option<ServerTls>,
    /// Connections open at once.
    pub connections_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_per_connection_max: u32,
    /// Requests of one connection, after which it is closed so that balancers spread the load anew.
    pub requests_per_connection_max: u64,
    /// An HTTP/2 connection without requests is closed after this.
    pub idle_timeout: Duration,
    /// Bytes of one request's headers.
    pub header_bytes_max: u32,
    /// From the first byte of a connection or request to the end of its headers; also the TLS
    /// handshake.
    pub header_timeout: Duration,
    /// Bytes of a JSON body.
    pub body_bytes_max: usize,
    /// From the end of the headers to the end of the body.
    pub body_timeout: Duration,
    /// From the end of the body to the answer: the deadline of the push.
    pub request_timeout: Duration,
    /// Requests in work at once, over all connections.
    pub in_flight_max: usize,
    /// Targets of one notification.
    pub targets_max: usize,
    /// Calls of gRPC `Stream` that one sender has open.
    pub grpc_streams_per_sender_max: usize,
    /// Messages of one such call that are in work or not yet acknowledged.
    pub grpc_stream_messages_max: usize,
    /// Such a call is ended after this, so that balancers spread the load anew.
    pub grpc_stream_age_max: Duration,
    /// How long the drain waits for requests in work.
    pub drain_timeout: Duration,
}

/// A relay's public URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// Without a trailing slash and without a default port: `https://push.example.com`.
    pub origin: String,
}

/// Files of the doors' TLS.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// PEM chain, leaf first.
    pub certificate_file: PathBuf,
    /// PEM key.
    pub key_file: PathBuf,
}

/// Section `admin`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Address and port of `/metrics`, `/livez`, `/readyz`.
    pub listen: SocketAddr,
}

/// Section `log`.
#[derive(Debug, Clone)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`.
    pub level: String,
    /// One JSON object per line instead of text.
    pub json: bool,
    /// A complaint is repeated no sooner.
    pub repeat: Duration,
}

/// Section `store`.
pub struct Store {
    /// Where the identities are.
    pub place: StorePlace,
    /// Records in the cache before it.
    pub cache_entries_max: u64,
    /// Life of a cached record.
    pub cache_lifetime: Duration,
}

/// Section `keys`: the folder that `sns-relay keys init` makes.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The folder.
    pub directory: PathBuf,
    /// How often the handle key ring is looked at for a change.
    pub reload_interval: Duration,
}

/// Section `authenticate`.
#[derive(Debug, Clone)]
pub struct Authenticate {
    /// Verified tokens remembered until they expire.
    pub token_cache_entries_max: u64,
    /// Longest life of a token, from now (RFC 8292 §2: 24 h).
    pub token_lifetime_max: Duration,
    /// How far a sender's clock may be off.
    pub clock_skew: Duration,
}

/// Section `enrolment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolment {
    /// Who may enrol.
    pub policy: EnrolmentPolicy,
}

/// Who may enrol (design §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrolmentPolicy {
    /// Everyone: the serial proves nothing, the identity is the key.
    Open,
    /// Whoever holds a one-time token of the operator's.
    Token,
}

/// Section `pairing`.
#[derive(Debug, Clone)]
pub struct Pairing {
    /// Life of a handle.
    pub handle_lifetime: Duration,
    /// Mails with a new handle that go to one address in an hour.
    pub proofs_per_address_per_hour: u64,
    /// Such mails to all addresses together in a minute.
    pub proofs_per_minute: u64,
}

/// Section `limits`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Messages in work at once.
    pub messages_in_flight_max: usize,
    /// All senders together.
    pub everybody: RatePair,
    /// Each sender.
    pub sender: RatePair,
    /// Each device.
    pub device: RatePair,
    /// Senders, and devices, whose rate is remembered.
    pub keys_max: usize,
}

/// A rate for ordinary messages, and one for alarms that ordinary messages cannot use up.
#[derive(Debug, Clone, Copy)]
pub struct RatePair {
    /// Low and ordinary messages.
    pub ordinary: Rate,
    /// Alarms.
    pub alarm: Rate,
}

/// A sustained rate and what may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Messages a minute.
    pub per_minute: u64,
    /// Messages at once.
    pub burst: u64,
}

/// Section `feedback`.
#[derive(Debug, Clone)]
pub struct Feedback {
    /// Longest time that a device or credential is left alone; zero leaves none alone.
    pub hold_max: Duration,
    /// Throttled devices that are remembered, for each app and push service.
    pub device_holds_max: u64,
    /// Devices that may be reported gone within ten minutes, whatever their share.
    pub gone_burst_max: u32,
    /// Share of "gone" among accepted and gone, above which a burst is not believed, in percent.
    pub gone_share_percent_max: u32,
}

/// Section `duplicates`.
#[derive(Debug, Clone)]
pub struct Duplicates {
    /// Accepted messages that are remembered.
    pub entries_max: u64,
    /// For how long.
    pub lifetime: Duration,
}

/// Section `upstream`: the limits of every connection pool.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Connections of one pool.
    pub connections_max: usize,
    /// Connections of one pool that are opened at start.
    pub prewarm: usize,
    /// A connection is replaced at the latest after this.
    pub connection_age_max: Duration,
    /// Streams that we open at most on one connection, whatever the peer allows.
    pub streams_per_connection_max: usize,
    /// Messages that wait for a stream.
    pub waiting_max: usize,
    /// How long the first of them may have waited before no more are taken, alarms excepted.
    pub waiting: Duration,
    /// DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// A connection without streams is closed after this.
    pub idle_timeout: Duration,
    /// How often a connection is pinged.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub ping_timeout: Duration,
    /// A connection that answers nothing for so long while messages wait is replaced.
    pub wedge: Duration,
    /// So is one with so many missed deadlines in a row.
    pub wedge_misses_max: u32,
    /// A missed deadline counts only when it was no shorter.
    pub patience: Duration,
    /// First wait after a failed dial.
    pub backoff_min: Duration,
    /// Longest wait after failed dials.
    pub backoff_max: Duration,
    /// Failures in a row that open a pool's breaker.
    pub breaker_failures: u32,
    /// Failures of a hundred messages that open it.
    pub breaker_failure_percent: u32,
    /// First wait of an open breaker.
    pub breaker_open_min: Duration,
    /// Longest wait of an open breaker.
    pub breaker_open_max: Duration,
    /// How often a credential that was refused is tried again.
    pub credential_probe: Duration,
    /// The least that measured latency leaves of the messages in flight; none does not measure.
    pub adaptive_floor: Option<usize>,
    /// The way out; none dials directly.
    pub proxy: Option<Arc<Proxy>>,
    /// Replays of a request that was provably not processed.
    pub replays_max: u32,
    /// Bytes of an answer that are read.
    pub answer_bytes_max: usize,
    /// HTTP/1.1 connections of one Web Push origin.
    pub http1_connections_max: usize,
}

/// Where a push service is: an https URL without a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceUrl {
    /// DNS name or address.
    pub host: String,
    /// Port; 443 by default.
    pub port: u16,
}

/// Section `apns`.
#[derive(Debug, Clone)]
pub struct Apns {
    /// Apple's production service.
    pub production_url: ServiceUrl,
    /// Apple's sandbox.
    pub sandbox_url: ServiceUrl,
    /// PEM file of roots to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Section `fcm`.
#[derive(Debug, Clone)]
pub struct Fcm {
    /// Google's service.
    pub base_url: ServiceUrl,
    /// PEM file of roots to trust beside the system's, for FCM and for its token endpoint.
    pub ca_file: Option<PathBuf>,
}

/// Section `webpush`.
#[derive(Debug, Clone)]
pub struct WebPush {
    /// Hosts that a subscription may be at: an exact name, or `.suffix`.
    pub allow_hosts: Vec<String>,
    /// `host:port` pairs that are let past the guard: any port, any address. For tests alone.
    pub danger_allow_origins: Vec<String>,
    /// PEM file of roots to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Origins with connections at once.
    pub origins_max: usize,
}

// === impl Config ===

impl Config {
    /// Reads the configuration: defaults, then the file, then the environment.
    /// Relative names start at the file's folder; those of variables, at the working folder.
    /// Errors: every fault by key, never a value.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let mut reader = Reader::new(Layers::load(file, environment)?);
        let config = Self::read(&mut reader);
        let warnings = reader.finish()?;
        // A missing part without a fault would be a fault of the reader's own.
        let missing = || Faults(vec![Fault::new("configuration", "could not be read")]);
        config.map(|config| Self { warnings, ..config }).ok_or_else(missing)
    }

    fn read(r: &mut Reader) -> Option<Self> {
        let server = sections::server(r);
        let admin = sections::admin(r);
        if let (Some(server), Some(admin)) = (&server, &admin) {
            sections::check_together(r, server, admin);
        }
        let log = sections::log(r);
        let store = store::store(r);
        let keys = sections::keys(r);
        let authenticate = sections::authenticate(r);
        let enrolment = sections::enrolment(r);
        let pairing = sections::pairing(r);
        let limits = sections::limits(r);
        let feedback = sections::feedback(r);
        let duplicates = sections::duplicates(r);
        let upstream = upstream::upstream(r);
        let apns = sections::apns(r);
        let fcm = sections::fcm(r);
        let webpush = sections::webpush(r);
        let email = email::email(r);
        let apps = apps::apps(r, keys.as_ref());
        if let (Some(email), Some(server)) = (&email, &server) {
            let mailing = apps.values().filter(|app| app.email.is_some());
            let mailing = mailing.map(|app| (&app.name as &dyn fmt::Display, app.allow_plain));
            email::check_with_apps(r, email.is_some(), &server.public_url.origin, mailing);
        }
        Some(Self {
            server: server?,
            admin: admin?,
            log: log?,
            store: store?,
            keys: keys?,
            authenticate: authenticate?,
            enrolment: enrolment?,
            pairing: pairing?,
            limits: limits?,
            feedback: feedback?,
            duplicates: duplicates?,
            upstream: upstream?,
            apns: apns?,
            fcm: fcm?,
            webpush: webpush?,
            email: email?,
            apps,
            warnings: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_reference_has_the_keys_that_are_read_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        let whole = layers::reference_with_app();
        std::fs::write(&file, &whole).unwrap();
        let layers = Layers::load(Some(&file), std::iter::empty()).unwrap();
        let written: BTreeSet<String> = layers.values.keys().cloned().collect();
        let mut reader = Reader::new(layers);
        assert!(Config::read(&mut reader).is_some(), "the example app's faults are its own");
        assert_eq!(reader.asked(), &written);
    }

    #[test]
    fn every_key_of_the_reference_has_a_comment() {
        let whole = layers::reference_with_app();
        let lines: Vec<&str> = whole.lines().collect();
        let is_key = |line: &str| line.contains(" = ") && !line.starts_with('#');
        let mut keys = 0;
        for pair in lines.windows(2).filter(|pair| is_key(pair[1])) {
            assert!(pair[0].starts_with("# "), "{} has no comment", pair[1]);
            keys += 1;
        }
        assert!(keys > 40, "{keys} keys were seen");
    }
}

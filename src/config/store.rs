//! Section `store`: where the NAS identities are, and the limits of the way there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::Host;

use super::reader::Reader;
use super::{Secret, Store, files};

/// Where the identities are.
pub enum StorePlace {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL server.
    Server(Box<StoreServer>),
}

/// A PostgreSQL server, and how it is reached.
pub struct StoreServer {
    /// User, hosts, ports and database; no password.
    pub address: tokio_postgres::Config,
    /// The proof; none where the server asks for none.
    pub password: Option<Secret<String>>,
    /// Whether connections are under TLS.
    pub tls: bool,
    /// PEM file of roots to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Connections at once.
    pub connections_max: usize,
    /// For a new connection, and for a turn on an open one.
    pub connect_timeout: Duration,
    /// For one statement.
    pub statement_timeout: Duration,
}

/// What a URL may say beside user, host, port and database; the rest have keys of their own.
const PARAMETERS: [&str; 2] = ["target_session_attrs", "load_balance_hosts"];

/// Bytes of a password file's content.
const PASSWORD_BYTES_MAX: usize = 1024;

pub(super) fn store(r: &mut Reader) -> Option<Store> {
    let file = r.path("store.file");
    let url = r.text("store.url");
    let is_server = url.as_deref().is_some_and(|url| !url.is_empty());
    let address = url.and_then(|url| if is_server { address(r, &url) } else { None });
    let password_file = r.optional_path("store.password_file");
    let password = password_file.map(|file| password(r, &file));
    let tls = |text: &str| match text {
        "tls" => Some(true),
        "cleartext" => Some(false),
        _ => None,
    };
    let tls = r.parsed("store.security", tls, "tls or cleartext");
    let ca_file = r.optional_file("store.ca_file", files::check_authorities);
    let connections_max = r.integer("store.connections_max", 1..=1000);
    let connect_timeout = r.milliseconds("store.connect_timeout_ms", 100..=60_000);
    let statement_timeout = r.milliseconds("store.statement_timeout_ms", 100..=60_000);
    let cache_entries_max = r.integer("store.cache_entries_max", 0..=10_000_000);
    let cache_lifetime = r.seconds("store.cache_lifetime_s", 1..=3600);
    let place = if is_server {
        let (address, tls) = (address?, tls?);
        let on_socket = is_socket(&address);
        if !tls && !on_socket && password.is_some() {
            r.fault("store.security", "must be tls, or the password shows on the way");
            return None;
        }
        StorePlace::Server(Box::new(StoreServer {
            address,
            password: password.map_or(Some(None), |password| password.map(Some))?,
            tls: tls && !on_socket,
            ca_file,
            connections_max: connections_max?,
            connect_timeout: connect_timeout?,
            statement_timeout: statement_timeout?,
        }))
    } else {
        StorePlace::File(file?)
    };
    Some(Store { place, cache_entries_max: cache_entries_max?, cache_lifetime: cache_lifetime? })
}

fn address(r: &mut Reader, url: &str) -> Option<tokio_postgres::Config> {
    const EXPECTED: &str = "a URL like postgresql://user@host:5432/database";
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let mut names = parameters.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    if !parameters.is_empty() && names.any(|name| !PARAMETERS.contains(&name)) {
        r.fault("store.url", format!("may have no parameter but {}", PARAMETERS.join(" and ")));
        return None;
    }
    let is_url = ["postgresql://", "postgres://"].iter().any(|scheme| url.starts_with(scheme));
    let address = is_url.then(|| url.parse::<tokio_postgres::Config>().ok()).flatten();
    if address.as_ref().is_some_and(|address| address.get_password().is_some()) {
        r.fault("store.url", "must not have a password in it; it belongs in store.password_file");
        return None;
    }
    let address = address.filter(|address| {
        let named = address.get_user().is_some() && address.get_dbname().is_some();
        let all_alike = address.get_hosts().iter().all(|host| is_path(host) == is_socket(address));
        named && all_alike && !address.get_hosts().is_empty()
    });
    r.expect("store.url", address, EXPECTED)
}

fn is_socket(address: &tokio_postgres::Config) -> bool {
    address.get_hosts().first().is_some_and(is_path)
}

const fn is_path(host: &Host) -> bool {
    matches!(host, Host::Unix(_))
}

fn password(r: &mut Reader, file: &Path) -> Option<Secret<String>> {
    let text = r.secret_file("store.password_file", file)?;
    let password = text.expose().trim_end_matches(['\r', '\n']);
    let fits = (1..=PASSWORD_BYTES_MAX).contains(&password.len());
    let plain = fits && !password.contains(char::is_control);
    let password = plain.then(|| Secret::new(password.to_owned()));
    r.expect("store.password_file", password, "a file with one line: the password")
}

// === impl StorePlace ===

impl StorePlace {
    /// Names the place for the operator; nothing secret is in it.
    pub fn name(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Server(server) => {
                let database = server.address.get_dbname().unwrap_or_default();
                let host = |host: &Host| match host {
                    Host::Tcp(name) => name.clone(),
                    Host::Unix(folder) => folder.display().to_string(),
                };
                let hosts: Vec<String> = server.address.get_hosts().iter().map(host).collect();
                format!("PostgreSQL database {database} at {}", hosts.join(", "))
            }
        }
    }
}

//! The way to the server: address, TLS, limits; and the tables that it must have.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::StoreServer;
use crate::store::{StoreError, due};

/// What makes each schema out of the one before.
const MIGRATIONS: [&str; 1] = [include_str!("../migrations/postgres-1.sql")];

/// Whose turn it is to migrate, of all relays at one database: "sns-rela" in ASCII.
const MIGRATION_LOCK: i64 = 0x736e_732d_7265_6c61;

/// How a connection is made.
pub(super) struct Access {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: MakeRustlsConnect,
    pub(super) connect_timeout: Duration,
    pub(super) statement_timeout: Duration,
}

// === impl Access ===

impl Access {
    pub(super) fn new(server: &StoreServer) -> Result<Self, StoreError> {
        let StoreServer { connect_timeout, statement_timeout, .. } = *server;
        let mut config = server.address.clone();
        if let Some(password) = &server.password {
            config.password(password.expose());
        }
        let milliseconds = statement_timeout.as_millis();
        // A transaction whose relay is gone must not hold its locks.
        let limits = format!(
            "-c statement_timeout={milliseconds} \
             -c idle_in_transaction_session_timeout={}",
            2 * milliseconds
        );
        config
            .ssl_mode(if server.tls { SslMode::Require } else { SslMode::Disable })
            .options(limits)
            .application_name("sns-relay")
            .connect_timeout(connect_timeout)
            .tcp_user_timeout(statement_timeout + connect_timeout);
        let tls = tls(server.tls.then_some(server.ca_file.as_deref()))?;
        Ok(Self { config, tls, connect_timeout, statement_timeout })
    }

    pub(super) fn pool(&self, server: &StoreServer) -> Result<Pool, StoreError> {
        let recycling_method = RecyclingMethod::Fast;
        let config = ManagerConfig { recycling_method };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), config);
        Pool::builder(manager)
            .max_size(server.connections_max)
            .wait_timeout(Some(self.connect_timeout))
            .create_timeout(Some(self.connect_timeout))
            .recycle_timeout(Some(self.connect_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| StoreError::Closed)
    }
}

/// Takes the roots to trust beside the system's; nothing where there is no TLS.
fn tls(ca_file: Option<Option<&Path>>) -> Result<MakeRustlsConnect, StoreError> {
    let mut roots = RootCertStore::empty();
    if let Some(ca_file) = ca_file {
        // Single unreadable system certificates are no reason to stop: the rest still vouch.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = ca_file {
            let certificates =
                CertificateDer::pem_file_iter(file).map_err(|_| StoreError::Roots)?;
            for certificate in certificates {
                let certificate = certificate.map_err(|_| StoreError::Roots)?;
                roots.add(certificate).map_err(|_| StoreError::Roots)?;
            }
        }
        if roots.is_empty() {
            return Err(StoreError::Roots);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| StoreError::Roots)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Makes or renews the tables; relays that start at once do it one after the other.
/// Where nothing is due nothing is locked, and no right to make tables is needed.
pub(super) async fn migrate(client: &mut tokio_postgres::Client) -> Result<(), StoreError> {
    if due(schema(client).await?, &MIGRATIONS)?.next().is_none() {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute("SET LOCAL statement_timeout = '60s'").await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    let create = "CREATE TABLE IF NOT EXISTS sns_relay_schema (number bigint PRIMARY KEY)";
    transaction.batch_execute(create).await?;
    let found = schema(transaction.client()).await?;
    for (migration, number) in due(found, &MIGRATIONS)? {
        transaction.batch_execute(migration).await?;
        transaction.execute("INSERT INTO sns_relay_schema VALUES ($1)", &[&number]).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn schema(client: &tokio_postgres::Client) -> Result<i64, StoreError> {
    let exists = "SELECT to_regclass('sns_relay_schema') IS NOT NULL";
    if !client.query_one(exists, &[]).await?.try_get(0)? {
        return Ok(0);
    }
    let newest = "SELECT coalesce(max(number), 0) FROM sns_relay_schema";
    Ok(client.query_one(newest, &[]).await?.try_get(0)?)
}

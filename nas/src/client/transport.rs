//! Carries one request to the relay and one answer back: HTTP/1.1 and HTTP/2, TLS or not; and gRPC
//! calls over a connection of their own.
//!
//! In: a request and the time it may take. Out: the whole answer, at most 4 MiB. Follows no
//! redirect and retries nothing but a connection that died before the request went out.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::answer::ClientError;

/// A pooled client; cheap to clone.
#[derive(Clone)]
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    calls: Calls,
}

/// A client for gRPC calls: HTTP/2 alone, pinged, so that a dead peer is noticed.
pub(super) type Calls = Client<HttpsConnector<HttpConnector>, tonic::body::Body>;

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A kept connection is given up after this: before the relay's `server.header_timeout_ms` (10 s by
/// default) closes it, which a request would meet half-way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);

const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

// === impl Transport ===

impl Transport {
    /// Trusts the machine's own CAs and those of `extra_ca_pem`. Errors: `BadCa`.
    pub(super) fn new(extra_ca_pem: Option<&[u8]>) -> Result<Self, ClientError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = extra_ca_pem {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| ClientError::BadCa)?;
                roots.add(certificate).map_err(|_| ClientError::BadCa)?;
            }
            if roots.len() == before {
                return Err(ClientError::BadCa);
            }
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let tls = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|_| ClientError::BadCa)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector.clone());
        let calls = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_only(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector);
        Ok(Self { client, calls })
    }

    /// Gives the client for gRPC calls.
    pub(super) fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Sends a request and reads the whole answer.
    /// Errors: `Unreachable`, `TimedOut`, `Malformed` for an answer over 4 MiB.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let exchange = async {
            let unreachable = |source| ClientError::Unreachable { source };
            let response =
                self.client.request(request).await.map_err(|error| unreachable(error.into()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(unreachable)?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let timed_out = ClientError::TimedOut { timeout_s: timeout.as_secs_f32() };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(timed_out))
    }
}

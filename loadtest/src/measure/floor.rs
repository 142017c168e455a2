//! The yardstick: a forwarder that does nothing but forward.
//!
//! In: any request over HTTP/1.1 or HTTP/2, in clear text or TLS. Out: its body as a notification
//! to one device over one HTTP/2 connection to APNs, and the status of its answer. It checks,
//! counts and limits nothing: what it costs is what hyper, h2, rustls and the kernel cost any relay
//! that is built on them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::MeasureError;
use super::doors::yardstick::DEVICE_PATH;

/// Where it stands and where it forwards to.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// The origin of APNs: https://localhost:2197.
    #[arg(long)]
    upstream: Uri,
    /// PEM file: who certifies it.
    #[arg(long)]
    ca: PathBuf,
    /// PEM file: the client certificate and its key.
    #[arg(long)]
    identity: PathBuf,
    /// The bundle that it is for.
    #[arg(long)]
    topic: String,
    /// PEM file: its own certificate; without it the door is in clear text.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file: the key of that.
    #[arg(long)]
    key: Option<PathBuf>,
}

/// What every request needs.
struct Way {
    upstream: SendRequest<Bytes>,
    head: Request<()>,
}

/// As many as the relay is given where it is compared.
const STREAMS_MAX: u32 = 10_000;

// === impl Plan ===

impl Plan {
    /// Forwards until it is ended.
    /// Errors: the upstream or a file is not there, or the port cannot be bound.
    pub async fn carry_out(&self) -> Result<(), MeasureError> {
        let acceptor = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
            _ => None,
        };
        let way = Arc::new(Way { upstream: self.connect().await?, head: self.head()? });
        let listener = TcpListener::bind(self.listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let way = Arc::clone(&way);
            match acceptor.clone() {
                None => tokio::spawn(serve(stream, way)),
                Some(acceptor) => tokio::spawn(async move {
                    // A caller that fails has seen it itself.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, way).await;
                    }
                }),
            };
        }
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, MeasureError> {
        let (host, port) = (self.upstream.host(), self.upstream.port_u16());
        let (host, port) = host.zip(port).ok_or(MeasureError::BadUrl)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate)?;
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&self.identity)?, key(&self.identity)?)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(host.to_owned()).map_err(|_| MeasureError::BadUrl)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let io = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (sender, connection) = h2::client::handshake(io).await?;
        // Its end shows at the next request.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn head(&self) -> Result<Request<()>, MeasureError> {
        let origin = self.upstream.to_string();
        Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("{}{DEVICE_PATH}", origin.trim_end_matches('/')))
            .header("apns-topic", &self.topic)
            .header("apns-push-type", "alert")
            .header("apns-priority", "10")
            .body(())
            .map_err(|_| MeasureError::BadUrl)
    }
}

// === impl Way ===

impl Way {
    async fn forward(&self, request: Request<Incoming>) -> Result<StatusCode, MeasureError> {
        let body = request.into_body().collect().await?.to_bytes();
        let mut upstream = self.upstream.clone().ready().await?;
        let (answer, mut stream) = upstream.send_request(self.head.clone(), false)?;
        stream.send_data(body, true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(head.status)
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, way: Arc<Way>) {
    let service = service_fn(move |request| {
        let way = Arc::clone(&way);
        async move {
            let status = way.forward(request).await.unwrap_or(StatusCode::BAD_GATEWAY);
            let mut answer = Response::new(Empty::<Bytes>::new());
            *answer.status_mut() = status;
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(STREAMS_MAX);
    // A caller that fails has seen it itself.
    let _ = builder.serve_connection(TokioIo::new(io), service).await;
}

fn acceptor(certificate: &Path, key_file: &Path) -> Result<TlsAcceptor, MeasureError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, key(key_file)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Reads a chain of certificates.
/// Errors: the file is none.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, MeasureError> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>();
    read().map_err(|_: rustls_pki_types::pem::Error| MeasureError::Missing("a certificate's file"))
}

/// Reads a key.
/// Errors: the file is none.
pub(super) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, MeasureError> {
    PrivateKeyDer::from_pem_file(file).map_err(|_| MeasureError::Missing("a key's file"))
}

//! A client that does just what a test says, also what no good client does.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use sns_loadtest::ca::{ClientCertificate, TestCa};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Client {
    base_url: String,
    sender: SendRequest<Bytes>,
}

/// Longer than any pause that is not for ever.
const SILENCE: std::time::Duration = std::time::Duration::from_millis(500);

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and the `reason` of Apple's errors.
    pub(crate) fn reason(&self) -> (u16, String) {
        let reason = match self.body.is_empty() {
            true => String::new(),
            false => self.json()["reason"].as_str().unwrap().to_owned(),
        };
        (self.status.as_u16(), reason)
    }
}

impl Client {
    pub(crate) async fn connect(ca: &TestCa, base_url: &str) -> Client {
        Client::connect_as(ca, base_url, None).await
    }

    pub(crate) async fn connect_as(
        ca: &TestCa,
        base_url: &str,
        certificate: Option<&ClientCertificate>,
    ) -> Client {
        let io = tls(ca, base_url, "h2", certificate).await;
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false);
        let (sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        Client { base_url: base_url.to_owned(), sender }
    }

    /// Opens a stream whatever the server's limit; the body goes out at once.
    pub(crate) fn open(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> ResponseFuture {
        let mut request = Request::post(format!("{}{path}", self.base_url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (answer, mut stream) =
            self.sender.send_request(request.body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
        answer
    }

    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Got, h2::Error> {
        self.sender = self.sender.clone().ready().await?;
        finish(self.open(path, headers, body)).await
    }
}

pub(crate) async fn finish(answer: ResponseFuture) -> Result<Got, h2::Error> {
    let (head, mut body) = answer.await?.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(Got { status: head.status, headers: head.headers, body: bytes.freeze() })
}

/// One request over HTTP/1.1 on a connection of its own.
pub(crate) async fn post_http1(
    ca: &TestCa,
    base_url: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Got {
    use http_body_util::{BodyExt as _, Full};
    let io = hyper_util::rt::TokioIo::new(tls(ca, base_url, "http/1.1", None).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(body));
    let (head, body) = sender.send_request(request.body(body).unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Got { status: head.status, headers: head.headers, body }
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    Broken,
    Silent,
}

/// One request on a connection of its own, by either protocol; reads whatever comes of the answer.
pub(crate) async fn post_and_watch(
    ca: &TestCa,
    (base_url, alpn): (&str, &str),
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (StatusCode, Vec<u8>, End) {
    use http_body_util::{BodyExt as _, Full};
    if alpn == "h2" {
        let mut client = Client::connect(ca, base_url).await;
        let (head, mut body) = client.open(path, headers, body).await.unwrap().into_parts();
        let next = async || {
            let chunk = body.data().await.map(Result::ok);
            if let Some(Some(chunk)) = &chunk {
                body.flow_control().release_capacity(chunk.len()).unwrap();
            }
            chunk
        };
        return watch(head.status, next).await;
    }
    let io = hyper_util::rt::TokioIo::new(tls(ca, base_url, alpn, None).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let (head, mut body) = sender.send_request(request).await.unwrap().into_parts();
    let next = async || Some(body.frame().await?.ok().and_then(|frame| frame.into_data().ok()));
    watch(head.status, next).await
}

/// Reads chunks: none is the end, an empty one a broken connection.
async fn watch(
    status: StatusCode,
    mut next: impl AsyncFnMut() -> Option<Option<Bytes>>,
) -> (StatusCode, Vec<u8>, End) {
    let mut bytes = Vec::new();
    loop {
        match tokio::time::timeout(SILENCE, next()).await {
            Err(_) => return (status, bytes, End::Silent),
            Ok(None) => return (status, bytes, End::Whole),
            Ok(Some(None)) => return (status, bytes, End::Broken),
            Ok(Some(Some(chunk))) => bytes.extend_from_slice(&chunk),
        }
    }
}

pub(crate) async fn tls(
    ca: &TestCa,
    base_url: &str,
    alpn: &str,
    certificate: Option<&ClientCertificate>,
) -> TlsStream<TcpStream> {
    let io = try_tls(ca, base_url, alpn, certificate).await.unwrap();
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
    io
}

pub(crate) async fn try_tls(
    ca: &TestCa,
    base_url: &str,
    alpn: &str,
    certificate: Option<&ClientCertificate>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let port: u16 = base_url.rsplit_once(':').unwrap().1.parse().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::from_pem_slice(own.certificate_pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

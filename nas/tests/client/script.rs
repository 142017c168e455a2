//! A relay that answers from a script, over HTTP/1.1 on loopback, and keeps what it was asked.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The certificate of `start_tls`, for 127.0.0.1, good for a hundred years.
pub(crate) const CERTIFICATE_PEM: &[u8] = include_bytes!("../tls/server.pem");
const KEY_PEM: &[u8] = include_bytes!("../tls/server-key.pem");

/// One scripted relay; it stops when dropped.
pub(crate) struct Script {
    /// Where it listens, without a slash at the end.
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Request>>>,
    server: JoinHandle<()>,
}

/// One answer of the script.
#[derive(Clone)]
pub(crate) struct Answer {
    head: String,
    body: Vec<u8>,
}

/// One request as it came.
pub(crate) struct Request {
    /// The request line.
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Script {
    /// Listens on a free port and gives the answers in order, over any number of connections.
    pub(crate) fn start(answers: Vec<Answer>) -> Self {
        Self::listen("http", None, answers)
    }

    /// The same over TLS.
    pub(crate) fn start_tls(answers: Vec<Answer>) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE_PEM).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(KEY_PEM).unwrap();
        let config = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self::listen("https", Some(Arc::new(config).into()), answers)
    }

    /// Gives what was asked so far, once.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn listen(scheme: &str, tls: Option<TlsAcceptor>, answers: Vec<Answer>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let server = tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answers, kept) = (tls.clone(), answers.clone(), kept.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, &answers, &kept).await,
                        Some(tls) => {
                            // A client that does not trust us hangs up.
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &answers, &kept).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, asked, server }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Answer {
    pub(crate) fn new(status: u16, content_type: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Type: {content_type}\r\n");
        Self { head, body: body.to_vec() }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string().as_bytes())
    }

    pub(crate) fn problem(status: u16, body: &Value) -> Self {
        Self::new(status, "application/problem+json", body.to_string().as_bytes())
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }
}

impl Request {
    /// Gives a header's value, empty where it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answers: &Mutex<std::vec::IntoIter<Answer>>,
    asked: &Mutex<Vec<Request>>,
) {
    while let Some(request) = read(&mut stream).await {
        asked.lock().unwrap().push(request);
        let Some(Answer { head, body }) = answers.lock().unwrap().next() else { return };
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
            return;
        }
        stream.flush().await.ok();
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let headers = headers.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let mut request = Request { line: line.to_owned(), headers, body: Vec::new() };
    request.body.resize(request.header("content-length").parse().unwrap_or(0), 0);
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

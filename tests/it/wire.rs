//! A sender that checks nothing: raw HTTP/1.1 and HTTP/2, whatever bytes a test wants to send.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;

/// Longer than any wait of a relay in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One request, as it goes on the wire.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// One answer, as it came.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

// === impl Ask ===

impl Ask {
    pub(crate) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// Sets a header in the place of all that it has of that name.
    pub(crate) fn header(self, name: &'static str, value: impl Into<String>) -> Self {
        self.without(name).and(name, value)
    }

    /// Adds a header, also a second one of its name.
    pub(crate) fn and(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Gives request line and headers, with the end of the headers; without `Content-Length`.
    pub(crate) fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    }

    /// Gives the whole request for HTTP/1.1.
    pub(crate) fn http1(&self) -> Vec<u8> {
        let length = self.clone().and("content-length", self.body.len().to_string());
        [length.head().as_bytes(), &self.body].concat()
    }

    /// Gives the head for HTTP/2.
    pub(crate) fn http2(&self) -> Request<()> {
        let uri = format!("http://localhost{}", self.path);
        let mut request = Request::builder().method(self.method).uri(uri).body(()).unwrap();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(HeaderName::from_static(name), value);
        }
        request
    }
}

// === impl Told ===

impl Told {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Gives all that was told as text, to search it.
    pub(crate) fn text(&self) -> String {
        format!("{:?}\n{}", self.headers, String::from_utf8_lossy(&self.body))
    }
}

/// Asks over a new HTTP/1.1 connection.
pub(crate) async fn ask_http1(address: SocketAddr, ask: &Ask) -> Told {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&ask.http1()).await.unwrap();
    read_answer(&mut stream).await.expect("an answer")
}

/// Asks over a new HTTP/2 connection, with prior knowledge.
pub(crate) async fn ask_http2(address: SocketAddr, ask: &Ask) -> Told {
    let (mut sender, _connection) = http2(TcpStream::connect(address).await.unwrap()).await;
    send_http2(&mut sender, ask).await.unwrap()
}

/// Opens an HTTP/2 connection; its task ends with the connection and gives what ended it.
pub(crate) async fn http2<S>(
    stream: S,
) -> (h2::client::SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// Sends one request and reads its answer.
pub(crate) async fn send_http2(
    sender: &mut h2::client::SendRequest<Bytes>,
    ask: &Ask,
) -> Result<Told, h2::Error> {
    let talk = async {
        let mut ready = sender.clone().ready().await?;
        let (answer, mut body) = ready.send_request(ask.http2(), ask.body.is_empty())?;
        if !ask.body.is_empty() {
            // A refusal by the headers alone may be here before the body is on its way.
            let _refused_already = body.send_data(Bytes::from(ask.body.clone()), true);
        }
        told_http2(answer).await
    };
    time::timeout(PATIENCE, talk).await.expect("an answer in time")
}

/// Reads the answer of one stream.
pub(crate) async fn told_http2(answer: h2::client::ResponseFuture) -> Result<Told, h2::Error> {
    let (head, mut stream) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(Told { status: head.status.as_u16(), headers: head.headers, body })
}

/// Reads one HTTP/1.1 answer; nothing when the peer closes without one.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<Told> {
    time::timeout(PATIENCE, read_in_time(stream)).await.expect("an answer or an end in time")
}

async fn read_in_time(stream: &mut (impl AsyncRead + Unpin)) -> Option<Told> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let length = headers.get("content-length").map(|length| length.to_str().unwrap());
    let mut body = vec![0; length.unwrap_or("0").parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Told { status, headers, body })
}

/// Waits until the peer has closed; gives what it sent before.
pub(crate) async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let end = time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    let _reset_or_closed = end.expect("an end in time");
    all
}

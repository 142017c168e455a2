//! A push service that speaks HTTP/2 frame by frame, so that a test decides about every frame and
//! sees what is on the wire: SETTINGS at any time, GOAWAY with any last-stream-id, resets, silence.
//!
//! It answers by a script from the request's body, which is the request's number in text.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// What the peer does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Answer {
        after: Duration,
        status: u16,
        body: Vec<u8>,
    },
    /// RST_STREAM with this code.
    Reset(u32),
    /// Nothing, for ever.
    Hold,
}

/// What a test orders, for every open connection.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    MaxStreams(u32),
    /// GOAWAY; streams above `last` (absolute, or the highest seen) are not processed.
    GoAway {
        last: Option<u32>,
        code: u32,
        debug: &'static str,
    },
    Kill,
}

pub(crate) type Script = dyn Fn(&Seen, u64) -> Reply + Send + Sync;

/// What has been on the wire.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) handshakes_at_once_max: AtomicUsize,
    handshakes: AtomicUsize,
    pub(crate) open_max: AtomicUsize,
    /// Streams opened beyond the acknowledged limit.
    pub(crate) violations: AtomicUsize,
    pub(crate) resets: AtomicUsize,
    pub(crate) pings: AtomicUsize,
    /// Numbers of the requests that were processed, in order.
    pub(crate) processed: Mutex<Vec<u64>>,
    /// Numbers of the requests that arrived whole, processed or not.
    pub(crate) arrived: Mutex<Vec<u64>>,
    /// No PONG while set.
    pub(crate) withhold_pongs: AtomicBool,
    /// No answers to anything while set, and nothing is read.
    pub(crate) mute: AtomicBool,
}

pub(crate) struct Peer {
    pub(crate) port: u16,
    pub(crate) seen: Arc<Seen>,
    orders: broadcast::Sender<Order>,
    max_streams: Arc<AtomicU32>,
    script: Arc<Script>,
}

struct Conn {
    seen: Arc<Seen>,
    script: Arc<Script>,
    out: mpsc::Sender<Vec<u8>>,
    state: Arc<Mutex<Streams>>,
}

struct Streams {
    open: BTreeSet<u32>,
    bodies: std::collections::HashMap<u32, Vec<u8>>,
    /// Limits sent; the front one is acknowledged, the others are not yet.
    limits: VecDeque<u32>,
    highest: u32,
    last: u32,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

pub(crate) const REFUSED_STREAM: u32 = 7;

pub(crate) fn answer(after_ms: u64) -> Reply {
    Reply::Answer { after: Duration::from_millis(after_ms), status: 200, body: Vec::new() }
}

impl Peer {
    /// A peer without a socket, for `serve`.
    pub(crate) fn offline(max_streams: u32, script: Box<Script>) -> Self {
        Self {
            port: 0,
            seen: Arc::default(),
            orders: broadcast::channel(64).0,
            max_streams: Arc::new(AtomicU32::new(max_streams)),
            script: Arc::from(script),
        }
    }

    /// A peer on loopback behind TLS.
    pub(crate) async fn start(tls: TlsAcceptor, max_streams: u32, script: Box<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = Self::offline(max_streams, script);
        peer.port = listener.local_addr().unwrap().port();
        let (seen, script) = (peer.seen.clone(), peer.script.clone());
        let (orders, limit) = (peer.orders.clone(), peer.max_streams.clone());
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let (seen, script, tls) = (seen.clone(), script.clone(), tls.clone());
                let (orders, limit) = (orders.subscribe(), limit.clone());
                let at_once = seen.handshakes.fetch_add(1, Ordering::SeqCst) + 1;
                seen.handshakes_at_once_max.fetch_max(at_once, Ordering::SeqCst);
                tokio::spawn(async move {
                    // Long enough that dials which run together are seen together.
                    sleep(Duration::from_millis(20)).await;
                    let accepted = tls.accept(tcp).await;
                    seen.handshakes.fetch_sub(1, Ordering::SeqCst);
                    if let Ok(io) = accepted {
                        let _ = serve(io, seen, script, orders, &limit).await;
                    }
                });
            }
        });
        peer
    }

    /// Serves one connection over any bytes.
    pub(crate) fn serve<I>(&self, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (seen, script) = (self.seen.clone(), self.script.clone());
        let (orders, limit) = (self.orders.subscribe(), self.max_streams.clone());
        tokio::spawn(async move { serve(io, seen, script, orders, &limit).await });
    }

    pub(crate) fn order(&self, order: Order) {
        if let Order::MaxStreams(limit) = order {
            self.max_streams.store(limit, Ordering::SeqCst);
        }
        let _ = self.orders.send(order);
    }

    pub(crate) fn count(&self, of: impl Fn(&Seen) -> &AtomicUsize) -> usize {
        of(&self.seen).load(Ordering::SeqCst)
    }

    /// Sorted numbers of the processed requests.
    pub(crate) fn processed(&self) -> Vec<u64> {
        let mut numbers = self.processed_in_order();
        numbers.sort_unstable();
        numbers
    }

    /// Numbers of the processed requests, first come first.
    pub(crate) fn processed_in_order(&self) -> Vec<u64> {
        self.seen.processed.lock().unwrap().clone()
    }
}

impl Seen {
    /// How often this request has arrived so far, this time included.
    pub(crate) fn times(&self, number: u64) -> usize {
        self.arrived.lock().unwrap().iter().filter(|seen| **seen == number).count()
    }
}

async fn serve<I>(
    mut io: I,
    seen: Arc<Seen>,
    script: Arc<Script>,
    mut orders: broadcast::Receiver<Order>,
    limit: &AtomicU32,
) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut preface = [0; 24];
    io.read_exact(&mut preface).await?;
    seen.connections.fetch_add(1, Ordering::SeqCst);
    let limit = limit.load(Ordering::SeqCst);
    io.write_all(&frame(SETTINGS, 0, 0, &max_streams(limit))).await?;
    let (mut read, write) = tokio::io::split(io);
    let (out, frames) = mpsc::channel::<Vec<u8>>(4_096);
    // Until our SETTINGS are acknowledged, RFC 9113 knows no limit.
    let limits = VecDeque::from([u32::MAX, limit]);
    let state = Streams {
        open: BTreeSet::new(),
        bodies: Default::default(),
        limits,
        highest: 0,
        last: u32::MAX,
    };
    let conn = Conn { seen, script, out, state: Arc::new(Mutex::new(state)) };
    let seen = conn.seen.clone();
    tokio::spawn(write_all(write, frames));
    let mut head = [0; 9];
    let mut have = 0;
    loop {
        tokio::select! {
            // `read_exact` would lose half a head to an order that comes meanwhile.
            got = read.read(&mut head[have..]) => {
                match got? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    bytes => have += bytes,
                }
            }
            order = orders.recv() => {
                match order {
                    Ok(Order::Kill) | Err(_) => {
                        // An empty frame list ends the writer too.
                        let _ = conn.out.send(Vec::new()).await;
                        return Ok(());
                    }
                    Ok(order) => conn.obey(order).await,
                }
                continue;
            }
        }
        if have < head.len() {
            continue;
        }
        have = 0;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        read.read_exact(&mut payload).await?;
        while seen.mute.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(50)).await;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        conn.receive(head[3], head[4], stream, payload).await;
    }
}

/// Writes what comes; an empty frame ends it.
async fn write_all<I: AsyncWrite + Unpin>(mut write: I, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = frames.recv().await {
        if bytes.is_empty() || write.write_all(&bytes).await.is_err() {
            break;
        }
        let _ = write.flush().await;
    }
    let _ = write.shutdown().await;
}

impl Conn {
    async fn receive(&self, kind: u8, flags: u8, stream: u32, payload: Vec<u8>) {
        match kind {
            SETTINGS if flags & ACK == 0 => self.send(frame(SETTINGS, ACK, 0, &[])).await,
            SETTINGS => {
                self.state.lock().unwrap().limits.pop_front();
            }
            PING if flags & ACK == 0 => {
                self.seen.pings.fetch_add(1, Ordering::SeqCst);
                while self.seen.withhold_pongs.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(10)).await;
                }
                self.send(frame(PING, ACK, 0, &payload)).await;
            }
            RST_STREAM => {
                self.seen.resets.fetch_add(1, Ordering::SeqCst);
                self.state.lock().unwrap().open.remove(&stream);
            }
            HEADERS => self.open(stream),
            DATA => {
                if !payload.is_empty() {
                    let size = (payload.len() as u32).to_be_bytes();
                    self.send(frame(WINDOW_UPDATE, 0, 0, &size)).await;
                }
                let body = {
                    let mut state = self.state.lock().unwrap();
                    let body = state.bodies.entry(stream).or_default();
                    body.extend(payload);
                    body.clone()
                };
                if flags & END_STREAM != 0 {
                    self.process(stream, &body).await;
                }
            }
            _ => {}
        }
    }

    fn open(&self, stream: u32) {
        let mut state = self.state.lock().unwrap();
        let allowed = state.limits.iter().copied().max().unwrap_or(0) as usize;
        if state.open.len() >= allowed {
            self.seen.violations.fetch_add(1, Ordering::SeqCst);
        }
        state.open.insert(stream);
        state.highest = stream;
        self.seen.open_max.fetch_max(state.open.len(), Ordering::SeqCst);
    }

    async fn process(&self, stream: u32, body: &[u8]) {
        if stream > self.state.lock().unwrap().last {
            return;
        }
        let number = std::str::from_utf8(body).unwrap().trim().parse().unwrap();
        self.seen.arrived.lock().unwrap().push(number);
        match (self.script)(&self.seen, number) {
            Reply::Hold => self.seen.processed.lock().unwrap().push(number),
            Reply::Reset(code) => {
                self.state.lock().unwrap().open.remove(&stream);
                self.send(frame(RST_STREAM, 0, stream, &code.to_be_bytes())).await;
            }
            Reply::Answer { after, status, body } => {
                self.seen.processed.lock().unwrap().push(number);
                let (state, out) = (self.state.clone(), self.out.clone());
                let answer = answer_frames(stream, status, &body);
                if after.is_zero() {
                    state.lock().unwrap().open.remove(&stream);
                    let _ = out.send(answer).await;
                    return;
                }
                tokio::spawn(async move {
                    sleep(after).await;
                    if state.lock().unwrap().open.remove(&stream) {
                        let _ = out.send(answer).await;
                    }
                });
            }
        }
    }

    async fn obey(&self, order: Order) {
        match order {
            Order::MaxStreams(limit) => {
                self.state.lock().unwrap().limits.push_back(limit);
                self.send(frame(SETTINGS, 0, 0, &max_streams(limit))).await;
            }
            Order::GoAway { last, code, debug } => {
                let last = {
                    let mut state = self.state.lock().unwrap();
                    // RFC 9113 §6.8: a later GOAWAY must not name a higher stream.
                    state.last = state.last.min(last.unwrap_or(state.highest));
                    state.last
                };
                let mut payload = last.to_be_bytes().to_vec();
                payload.extend(code.to_be_bytes());
                payload.extend(debug.as_bytes());
                self.send(frame(GOAWAY, 0, 0, &payload)).await;
            }
            Order::Kill => {}
        }
    }

    async fn send(&self, bytes: Vec<u8>) {
        let _ = self.out.send(bytes).await;
    }
}

fn answer_frames(stream: u32, status: u16, body: &[u8]) -> Vec<u8> {
    // HPACK (RFC 7541): 200 is entry 8 of the static table, else a literal with the name of it.
    let block = match status {
        200 => vec![0x88],
        _ => [vec![0x08, 0x03], status.to_string().into_bytes()].concat(),
    };
    let flags = 0x4 | if body.is_empty() { END_STREAM } else { 0 };
    let mut frames = frame(HEADERS, flags, stream, &block);
    let chunks = body.chunks(16_384).count();
    for (place, chunk) in body.chunks(16_384).enumerate() {
        let flags = if place + 1 == chunks { END_STREAM } else { 0 };
        frames.extend(frame(DATA, flags, stream, chunk));
    }
    frames
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn max_streams(limit: u32) -> Vec<u8> {
    [vec![0, 3], limit.to_be_bytes().to_vec()].concat()
}

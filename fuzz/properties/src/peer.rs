//! A push service that says anything at all: every request ends, with an answer or without, and
//! what the relay writes is frames in order.
//!
//! The input is what the peer sends, from its first byte on. Three requests are under way; the peer
//! speaks once it has been sent to, and then closes. Time moves when nobody has anything to do.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::{IntCounter, IntGauge};
use sns_relay::provider::upstream::{
    AddressGuard, BreakerMetrics, Counters, Egress, Fields, Keep, Label, Limits, Names, Origin,
    Pool, PoolMetrics, Post,
};
use sns_relay::push::Class;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout};

/// The preface of RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest frame that a peer allows which has said nothing.
const FRAME_BYTES_MAX: usize = 16_384;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

const ANSWER_BYTES_MAX: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(5);

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime starts"),
    );
}

/// Checks one peer.
pub fn peer(data: &[u8]) {
    RUNTIME.with_borrow(|runtime| runtime.block_on(play(data)));
}

async fn play(data: &[u8]) {
    let pool = pool();
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    pool.adopt(ours);
    let deadline = Instant::now() + DEADLINE;
    let sends = async {
        let (one, two, three) = tokio::join!(
            send(&pool, 0, deadline),
            send(&pool, 1, deadline),
            send(&pool, 2, deadline),
        );
        for answer in [one, two, three].into_iter().flatten() {
            assert!(answer.len() <= ANSWER_BYTES_MAX, "more of an answer than was wanted");
        }
    };
    let (written, ()) = tokio::join!(speak(theirs, data), async {
        timeout(DEADLINE * 2, sends).await.expect("a request went on beyond its deadline");
    });
    assert_frames(&written, says_sizes(data));
    timeout(DEADLINE, async {
        while pool.status().streams_in_use > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("a stream of a closed connection is still in use");
}

async fn send(pool: &Pool, number: usize, deadline: Instant) -> Option<Bytes> {
    let fields = |fields: &mut dyn Fields| fields.put("apns-topic", b"com.example", Keep::Field);
    let body = Bytes::from(vec![b'b'; number * 1_000]);
    let post = Post { path: "/3/device/1", body, fields: &fields };
    pool.send(&post, Class::Ordinary, deadline).await.ok().map(|answer| answer.body)
}

/// Speaks once something has come, closes, and gives all that came.
async fn speak(mut theirs: DuplexStream, data: &[u8]) -> Vec<u8> {
    let mut written = vec![0; PREFACE.len()];
    theirs.read_exact(&mut written).await.expect("the relay speaks first");
    // It may have hung up at what it heard; then the rest says nothing.
    let _ = theirs.write_all(data).await;
    let _ = timeout(Duration::from_secs(1), theirs.read_to_end(&mut written)).await;
    written
}

/// Whether the peer may have allowed larger frames.
fn says_sizes(data: &[u8]) -> bool {
    data.get(3) == Some(&SETTINGS)
}

/// Asserts that what was written is whole frames, and that new streams have rising odd numbers.
fn assert_frames(written: &[u8], may_be_larger: bool) {
    let mut rest = written.strip_prefix(PREFACE).expect("the preface comes first");
    let mut last = 0;
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(may_be_larger || length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if head[3] == HEADERS {
            assert!(stream > last && stream % 2 == 1, "stream {stream} after {last}");
            last = stream;
        }
        // A connection that breaks off may do so within a frame.
        rest = after.get(length..).unwrap_or_default();
    }
}

fn pool() -> Arc<Pool> {
    let origin = Origin::new("push.example", 443).expect("a host");
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let nowhere = Names::Table(Arc::new(|_: &str| Vec::new()));
    let egress = Egress { guard: AddressGuard::Any, proxy: None, names: nowhere };
    let limits = Limits { answer_bytes_max: ANSWER_BYTES_MAX, ..Limits::default() };
    Pool::new(origin, Arc::new(tls), egress, limits, Arc::new(metrics()))
}

fn metrics() -> PoolMetrics {
    fn gauge() -> IntGauge {
        IntGauge::new("gauge", "help").expect("a gauge")
    }
    fn counter() -> IntCounter {
        IntCounter::new("counter", "help").expect("a counter")
    }
    fn counters<L: Label>() -> Counters<L> {
        Counters::resolve(|_| counter())
    }
    PoolMetrics {
        connections: gauge(),
        streams_in_use: gauge(),
        waiting: gauge(),
        opened: counter(),
        closed: counters(),
        sheds: counters(),
        replays: counters(),
        goaways: counters(),
        dial_failures: counters(),
        breakers: Arc::new(BreakerMetrics { open: gauge(), events: counters() }),
    }
}

//! Section `upstream`: the limits of every connection pool, and the way out.

use std::sync::Arc;
use std::time::Duration;

use super::reader::Reader;
use super::{Proxy, Upstream};

const SECONDS_PER_DAY: u64 = 86400;

pub(super) fn upstream(r: &mut Reader) -> Option<Upstream> {
    let connections_max = r.integer("upstream.connections_max", 1..=1000);
    let prewarm = r.integer("upstream.prewarm", 0..=1000);
    let connection_age_max = r.seconds("upstream.connection_age_s_max", 60..=SECONDS_PER_DAY);
    let streams_per_connection_max = r.integer("upstream.streams_per_connection_max", 1..=10_000);
    let waiting_max = r.integer("upstream.waiting_max", 1..=1_000_000);
    let waiting = r.milliseconds("upstream.waiting_ms_max", 1..=600_000);
    let connect_timeout = r.milliseconds("upstream.connect_timeout_ms", 100..=60_000);
    let idle_timeout = r.seconds("upstream.idle_timeout_s", 1..=SECONDS_PER_DAY);
    let ping_interval = r.seconds("upstream.ping_interval_s", 1..=3600);
    let ping_timeout = r.seconds("upstream.ping_timeout_s", 1..=600);
    let wedge = r.milliseconds("upstream.wedge_ms", 100..=600_000);
    let wedge_misses_max = r.integer("upstream.wedge_misses_max", 1..=1000);
    let patience = r.milliseconds("upstream.patience_ms", 1..=60_000);
    let (backoff_min, backoff_max) =
        pauses(r, "upstream.backoff_min_ms", "upstream.backoff_max_ms");
    let breaker_failures = r.integer("upstream.breaker_failures", 1..=1_000_000);
    let breaker_failure_percent = r.integer("upstream.breaker_failure_percent", 1..=100);
    let (breaker_open_min, breaker_open_max) =
        pauses(r, "upstream.breaker_open_min_ms", "upstream.breaker_open_max_ms");
    let credential_probe = r.seconds("upstream.credential_probe_s", 1..=3600);
    let adaptive_floor: Option<usize> = r.integer("upstream.adaptive_floor", 0..=1_000_000);
    let replays_max = r.integer("upstream.replays_max", 0..=10);
    let answer_bytes_max = r.integer("upstream.answer_bytes_max", 1024..=1_048_576);
    let http1_connections_max = r.integer("upstream.http1_connections_max", 1..=10_000);
    let proxy = proxy(r)?;
    Some(Upstream {
        connections_max: connections_max?,
        prewarm: prewarm?,
        connection_age_max: connection_age_max?,
        streams_per_connection_max: streams_per_connection_max?,
        waiting_max: waiting_max?,
        waiting: waiting?,
        connect_timeout: connect_timeout?,
        idle_timeout: idle_timeout?,
        ping_interval: ping_interval?,
        ping_timeout: ping_timeout?,
        wedge: wedge?,
        wedge_misses_max: wedge_misses_max?,
        patience: patience?,
        backoff_min: backoff_min?,
        backoff_max: backoff_max?,
        breaker_failures: breaker_failures?,
        breaker_failure_percent: breaker_failure_percent?,
        breaker_open_min: breaker_open_min?,
        breaker_open_max: breaker_open_max?,
        credential_probe: credential_probe?,
        adaptive_floor: Some(adaptive_floor?).filter(|floor| *floor > 0),
        proxy,
        replays_max: replays_max?,
        answer_bytes_max: answer_bytes_max?,
        http1_connections_max: http1_connections_max?,
    })
}

/// Reads a first and a longest pause, in milliseconds.
fn pauses(r: &mut Reader, min_key: &str, max_key: &str) -> (Option<Duration>, Option<Duration>) {
    let (min, max) = (r.milliseconds(min_key, 1..=60_000), r.milliseconds(max_key, 1..=3_600_000));
    if min.zip(max).is_some_and(|(min, max)| max < min) {
        r.fault(max_key, format!("must not be below {min_key}"));
    }
    (min, max)
}

/// Gives nothing inside where none is set.
fn proxy(r: &mut Reader) -> Option<Option<Arc<Proxy>>> {
    let expected = "empty, http://host:port or socks5://host:port, with user:password@ before the \
                    host where the proxy wants it";
    let parse = |text: &str| match text {
        "" => Some(None),
        _ => Proxy::parse(text).map(|proxy| Some(Arc::new(proxy))),
    };
    r.parsed("upstream.proxy_url", parse, expected)
}

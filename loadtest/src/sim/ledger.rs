//! What one HTTP/2 connection has open, counted from the frames themselves.
//!
//! In: each frame head that `wire` sees. Out: which streams were opened beyond the limit, which
//! frames to slip in (SETTINGS, GOAWAY), and the figures for the journal. A stream counts as excess
//! only when the peer had acknowledged a limit and no larger one was on its way, so a peer is never
//! accused wrongly; other surplus streams are `early`. RFC 9113 §5.1.2, §6.8.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Notify;

use super::lock;
use super::script::{Cut, GoAway};
use super::server::ConnectionStats;

/// The first nine bytes of a frame. RFC 9113 §4.1.
#[derive(Clone, Copy)]
pub(crate) struct FrameHead {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

/// What to do with a frame.
pub(crate) enum Passage {
    Pass,
    Drop,
    /// Let it pass with this SETTINGS_MAX_CONCURRENT_STREAMS added.
    AddLimit(u32),
}

/// What a test has told the connection to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Serve,
    Freeze,
    Drop,
}

/// Marks the connection closed when dropped; must go before the socket does, so that whoever sees
/// the socket closed sees it in the figures too.
pub(crate) struct Presence(pub(crate) Arc<Ledger>);

/// One connection's books.
pub(crate) struct Ledger {
    pub(crate) changed: Notify,
    state: Mutex<State>,
}

struct State {
    command: Command,
    stats: ConnectionStats,
    advertised: u32,
    acknowledged: Option<u32>,
    unacknowledged: VecDeque<Setting>,
    slips: VecDeque<Slip>,
    limit_after: Option<(u32, u32)>,
    open: HashMap<u32, Half>,
    surplus: HashSet<u32>,
    highest: u32,
    processed: u32,
    processed_count: u32,
    cut: Option<u32>,
}

#[derive(Default)]
struct Half {
    local_closed: bool,
    remote_closed: bool,
}

struct Setting {
    slipped: bool,
    limit: Option<u32>,
}

enum Slip {
    Limit(u32),
    GoAway(GoAway),
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;

impl Ledger {
    pub(crate) fn new(number: u64, limit: u32) -> Ledger {
        let state = State {
            command: Command::Serve,
            stats: ConnectionStats::new(number, limit),
            advertised: limit,
            acknowledged: None,
            unacknowledged: VecDeque::new(),
            slips: VecDeque::new(),
            limit_after: None,
            open: HashMap::new(),
            surplus: HashSet::new(),
            highest: 0,
            processed: 0,
            processed_count: 0,
            cut: None,
        };
        Ledger { changed: Notify::new(), state: Mutex::new(state) }
    }

    pub(crate) fn incoming(&self, head: FrameHead) -> Passage {
        let state = &mut *lock(&self.state);
        match head.kind {
            SETTINGS if head.flags & ACK != 0 => {
                let Some(setting) = state.unacknowledged.pop_front() else { return Passage::Pass };
                if let Some(limit) = setting.limit {
                    state.acknowledged = Some(limit);
                }
                if setting.slipped {
                    return Passage::Drop;
                }
            }
            HEADERS if head.stream > state.highest => state.opened(head.stream),
            RST_STREAM => {
                state.open.remove(&head.stream);
            }
            PING if head.flags & ACK == 0 => state.stats.pings += 1,
            _ => {}
        }
        if matches!(head.kind, HEADERS | DATA) && head.flags & END_STREAM != 0 {
            state.half_closed(head.stream, |half| half.remote_closed = true);
        }
        Passage::Pass
    }

    pub(crate) fn outgoing(&self, head: FrameHead) -> Passage {
        let state = &mut *lock(&self.state);
        match head.kind {
            SETTINGS if head.flags & ACK == 0 => {
                let first = state.acknowledged.is_none() && state.unacknowledged.is_empty();
                let limit = first.then_some(state.advertised);
                state.unacknowledged.push_back(Setting { slipped: false, limit });
                if let Some(limit) = limit {
                    return Passage::AddLimit(limit);
                }
            }
            HEADERS | DATA if head.flags & END_STREAM != 0 => {
                state.half_closed(head.stream, |half| half.local_closed = true);
                if let Some((stream, limit)) = state.limit_after
                    && stream == head.stream
                {
                    state.limit_after = None;
                    state.slips.push_back(Slip::Limit(limit));
                }
            }
            RST_STREAM => {
                state.open.remove(&head.stream);
            }
            _ => {}
        }
        if state.cut.is_some() {
            self.changed.notify_one();
        }
        Passage::Pass
    }

    /// The next frame to slip in between two frames of the HTTP/2 library.
    pub(crate) fn next_slip(&self) -> Option<Bytes> {
        let state = &mut *lock(&self.state);
        match state.slips.pop_front()? {
            Slip::Limit(limit) => {
                state.advertised = limit;
                state.stats.stream_limit = limit;
                state.unacknowledged.push_back(Setting { slipped: true, limit: Some(limit) });
                let mut frame = head(6, SETTINGS, 0);
                frame.put_u16(MAX_CONCURRENT_STREAMS);
                frame.put_u32(limit);
                Some(frame.freeze())
            }
            Slip::GoAway(go_away) => {
                let last = match go_away.cut {
                    Cut::AfterSeen => state.highest,
                    Cut::AfterProcessed => state.processed,
                };
                // A later GOAWAY must not raise the identifier.
                let last = state.cut.map_or(last, |earlier| earlier.min(last));
                state.cut = Some(last);
                state.stats.going_away = true;
                self.changed.notify_one();
                let mut frame = head(8 + go_away.debug.len(), GOAWAY, 0);
                frame.put_u32(last);
                frame.put_u32(go_away.reason.into());
                frame.put_slice(&go_away.debug);
                Some(frame.freeze())
            }
        }
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        lock(&self.state).slips.push_back(Slip::Limit(limit));
        self.changed.notify_one();
    }

    /// Changes the limit as soon as the answer of this stream is written.
    pub(crate) fn set_limit_after(&self, stream: u32, limit: u32) {
        lock(&self.state).limit_after = Some((stream, limit));
    }

    pub(crate) fn go_away(&self, go_away: GoAway) {
        lock(&self.state).slips.push_back(Slip::GoAway(go_away));
        self.changed.notify_one();
    }

    pub(crate) fn command(&self, command: Command) {
        lock(&self.state).command = command;
        self.changed.notify_one();
    }

    pub(crate) fn commanded(&self) -> Command {
        lock(&self.state).command
    }

    /// Whether a stream was opened beyond the advertised limit; asked once per stream.
    pub(crate) fn take_surplus(&self, stream: u32) -> bool {
        lock(&self.state).surplus.remove(&stream)
    }

    /// Marks a stream as processed and gives how many are; `None` when a GOAWAY has disowned it.
    pub(crate) fn process(&self, stream: u32) -> Option<u32> {
        let state = &mut *lock(&self.state);
        if state.cut.is_some_and(|last| stream > last) {
            return None;
        }
        state.processed = state.processed.max(stream);
        state.processed_count += 1;
        Some(state.processed_count)
    }

    /// Whether a GOAWAY is out and every stream it kept has ended.
    pub(crate) fn is_drained(&self) -> bool {
        let state = lock(&self.state);
        state.cut.is_some_and(|last| state.open.keys().all(|stream| *stream > last))
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        let state = lock(&self.state);
        ConnectionStats { streams_open: state.open.len(), ..state.stats.clone() }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let state = &mut *lock(&self.0.state);
        state.open.clear();
        state.stats.live = false;
    }
}

impl State {
    fn opened(&mut self, stream: u32) {
        self.highest = stream;
        self.stats.streams_opened += 1;
        if self.cut.is_some() {
            self.stats.streams_after_go_away += 1;
        }
        let count = self.open.len() + 1;
        self.open.insert(stream, Half::default());
        if count <= self.advertised as usize {
            self.stats.streams_max = self.stats.streams_max.max(count);
            return;
        }
        self.surplus.insert(stream);
        let on_the_way = self.unacknowledged.iter().filter_map(|setting| setting.limit).max();
        let allowed = self.acknowledged.map(|known| known.max(on_the_way.unwrap_or(0)));
        if allowed.is_some_and(|limit| count > limit as usize) {
            self.stats.excess_streams += 1;
        } else {
            self.stats.early_streams += 1;
        }
    }

    fn half_closed(&mut self, stream: u32, close: impl FnOnce(&mut Half)) {
        let Some(half) = self.open.get_mut(&stream) else { return };
        close(half);
        if half.local_closed && half.remote_closed {
            self.open.remove(&stream);
        }
    }
}

fn head(payload_bytes: usize, kind: u8, flags: u8) -> BytesMut {
    let mut frame = BytesMut::with_capacity(9 + payload_bytes);
    frame.put_uint(payload_bytes as u64, 3);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(0);
    frame
}

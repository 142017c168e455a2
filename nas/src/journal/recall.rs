//! What was sent in the last seven days, to which devices, with what outcome.
//!
//! In: what to look for. Out: records, the newest first. Reads only; never gives a record that is
//! seven days old, erased or not.

use uuid::Uuid;

use super::{Journal, JournalError, KEPT_MS, number, sql, unsigned, uuid_of};
use crate::client::message::{Level, Source};
use crate::content::{Body, Content};

/// What to look for; `Default` is everything.
#[derive(Clone, Default)]
pub struct Query {
    /// Written at this time or later, in milliseconds since 1970.
    pub since_ms: u64,
    /// From this system alone.
    pub source: Option<Source>,
    /// As grave as this, or graver.
    pub level_min: Option<Level>,
    /// With these words in title, text, tag, category, app or a variable; in any case of letters.
    pub search: Option<String>,
    /// This one alone.
    pub id: Option<Uuid>,
    /// The newest so many; 0 for all.
    pub count_max: usize,
}

/// One notification as it was sent.
#[derive(Clone)]
pub struct Record {
    /// What was sent.
    pub content: Content,
    /// How grave it was taken.
    pub level: Level,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: u64,
    /// When it stops being worth sending.
    pub expires_ms: u64,
    /// What became of it, for each device.
    pub deliveries: Vec<Fate>,
}

/// What became of a notification for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The device's name at that time.
    pub device: String,
    /// `pending`, `accepted`, `gone`, `refused`, `expired`, `withdrawn`, `superseded`, `removed`.
    pub state: String,
    /// How often it was sent.
    pub attempts: u64,
    /// The last outcome (docs/errors.md), or none yet.
    pub outcome: Option<String>,
    /// Its code.
    pub reason: Option<String>,
    /// The push service's own id.
    pub provider_id: Option<String>,
    /// When it was settled, in milliseconds since 1970.
    pub settled_ms: Option<u64>,
    /// When it is tried next, while it waits.
    pub next_ms: Option<u64>,
}

/// The journal in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Notifications that are kept.
    pub notifications: u64,
    /// Deliveries by state.
    pub deliveries: Vec<(String, u64)>,
    /// Notifications that were dropped, unsent, for graver ones.
    pub dropped: u64,
    /// What the notifications take, in bytes.
    pub bytes: u64,
    /// The oldest that waits, in milliseconds since 1970.
    pub oldest_pending_ms: Option<u64>,
}

// === impl Journal ===

impl Journal {
    /// Gives what matches, the newest first.
    pub fn recall(&self, query: &Query, now_ms: u64) -> Result<Vec<Record>, JournalError> {
        // A record of exactly seven days is too old, as for `erase`.
        let kept_ms = now_ms.checked_sub(KEPT_MS).map_or(0, |last_ms| last_ms + 1);
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, level, written_ms, expires_ms, content FROM notification
             WHERE written_ms >= ?1 AND (?2 IS NULL OR source = ?2) AND level >= ?3
                 AND (?4 IS NULL OR id = ?4 OR original = ?4)
             ORDER BY seq DESC",
        )?;
        let mut rows = statement.query((
            sql(query.since_ms.max(kept_ms)),
            query.source.map(Source::label),
            query.level_min.map_or(0, Level::rank),
            query.id.map(Uuid::into_bytes),
        ))?;
        let wanted = query.search.as_ref().map(|words| words.to_lowercase());
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let content = Content::decode(row.get_ref(4)?.as_blob().unwrap_or_default())
                .map_err(|_| JournalError::Invalid)?;
            if wanted.as_ref().is_some_and(|words| !mentions(&content, words)) {
                continue;
            }
            records.push(Record {
                content,
                level: Level::of_rank(row.get(1)?),
                written_ms: unsigned(row.get(2)?),
                expires_ms: unsigned(row.get(3)?),
                deliveries: self.fates(row.get(0)?)?,
            });
            if records.len() == query.count_max {
                break;
            }
        }
        Ok(records)
    }

    /// Counts what is kept.
    pub fn counts(&self) -> Result<Counts, JournalError> {
        let select = "SELECT count(*), coalesce(sum(bytes), 0) FROM notification";
        let (notifications, bytes): (i64, i64) =
            self.connection.query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let select = "SELECT state, count(*) FROM delivery GROUP BY state ORDER BY state";
        let mut statement = self.connection.prepare(select)?;
        let states = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
        let states: Vec<(String, i64)> = states.collect::<Result<_, _>>()?;
        let oldest: Option<i64> = self.connection.query_row(
            "SELECT min(n.written_ms) FROM delivery d JOIN notification n ON n.seq = d.seq
             WHERE d.state = 'pending'",
            [],
            |row| row.get(0),
        )?;
        Ok(Counts {
            notifications: unsigned(notifications),
            deliveries: states.into_iter().map(|(state, n)| (state, unsigned(n))).collect(),
            dropped: unsigned(number(&self.connection, "dropped")?),
            bytes: unsigned(bytes),
            oldest_pending_ms: oldest.map(unsigned),
        })
    }

    /// Gives the ids of all that is kept, the oldest first.
    pub fn ids(&self) -> Result<Vec<Uuid>, JournalError> {
        let mut statement = self.connection.prepare("SELECT id FROM notification ORDER BY seq")?;
        let ids = statement.query_map([], |row| Ok(uuid_of(row.get(0)?)))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    fn fates(&self, sequence: i64) -> Result<Vec<Fate>, JournalError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT device_name, state, attempts, outcome, reason, provider_id, settled_ms, next_ms
             FROM delivery WHERE seq = ?1 ORDER BY device",
        )?;
        let fates = statement.query_map([sequence], |row| {
            let state: String = row.get(1)?;
            let next_ms = Some(unsigned(row.get(7)?)).filter(|_| state == "pending");
            Ok(Fate {
                device: row.get(0)?,
                state,
                attempts: unsigned(row.get(2)?),
                outcome: row.get(3)?,
                reason: row.get(4)?,
                provider_id: row.get(5)?,
                settled_ms: row.get::<_, Option<i64>>(6)?.map(unsigned),
                next_ms,
            })
        })?;
        Ok(fates.collect::<Result<_, _>>()?)
    }
}

fn mentions(content: &Content, words: &str) -> bool {
    let has = |text: &str| text.to_lowercase().contains(words);
    match &content.body {
        Body::Message(letter) => has(&letter.title) || has(&letter.text) || has(&letter.app),
        Body::Notification(event) | Body::Replace(_, event) => {
            [&event.title, &event.text, &event.tag, &event.category, &event.app]
                .into_iter()
                .chain(event.vars.values())
                .any(|text| has(text))
        }
        Body::Withdraw(_) => false,
    }
}

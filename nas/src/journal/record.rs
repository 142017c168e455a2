//! Takes notifications: on disk before the caller is told, within the bounds of the file.
//!
//! In: what to say and to which devices. Out: its id. An id that is known already is taken once. Of
//! one *lane* (a collapse key, or an original with all that withdraws or replaces it) what is newer
//! makes what still waits superfluous, unless that is graver. Nothing is sent from here.

use rusqlite::{OptionalExtension as _, Transaction};
use uuid::Uuid;

use super::schema::begin;
use super::{Journal, JournalError, KEPT_MS, Limits, number, set, sql, unsigned, uuid_of};
use crate::client::message::{Level, Source};
use crate::content::{Body, Content, Event};

/// The longest life of a notification, in seconds: as long as it is kept.
pub const TTL_S_MAX: u32 = (KEPT_MS / 1000) as u32;

/// The life of a notification where nothing else is said, in seconds.
pub const TTL_S_DEFAULT: u32 = 24 * 60 * 60;

/// What to take.
#[derive(Clone)]
pub struct Draft {
    /// The caller's own id, for a caller who may ask twice; `None` for a new one.
    pub id: Option<Uuid>,
    /// What it says.
    pub body: Body,
    /// How grave it is.
    pub level: Level,
    /// How long it is worth sending, in seconds: 1 to [`TTL_S_MAX`].
    pub ttl_s: u32,
    /// Whether the device may make a sound.
    pub sound: bool,
}

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The name by which it is recalled, withdrawn or replaced.
    pub id: Uuid,
    /// To how many devices it goes.
    pub devices: u64,
    /// False for an id that was known already: nothing was done.
    pub is_new: bool,
}

/// An original, as `withdraw` and `replace` find it.
struct Original {
    id: Uuid,
    level: Level,
    lane: String,
    collapse_key: Option<String>,
    source: Option<String>,
    devices: Vec<i64>,
}

const OVERHEAD_BYTES: u64 = 256;
const DELIVERY_BYTES: u64 = 192;

// === impl Journal ===

impl Journal {
    /// Takes a notification or a message for these devices; durable when it returns.
    /// Errors: `Full` when everything that is kept waits and is as grave; `BadArgument`; else the
    /// file's. Then nothing was taken.
    pub fn take(
        &mut self,
        draft: &Draft,
        devices: &[i64],
        now_ms: u64,
    ) -> Result<Taken, JournalError> {
        let id = draft.id.unwrap_or_else(Uuid::new_v4);
        let lane = match draft.body.collapse_key() {
            Some(key) => format!("key:{key}"),
            None => format!("id:{id}"),
        };
        let source = draft.body.event().map(|event| event.source.label().to_owned());
        let limits = self.limits;
        let transaction = begin(&mut self.connection)?;
        let entry = Entry { id, draft, original: None, lane, source, devices };
        let taken = insert(&transaction, limits, &entry, now_ms)?;
        transaction.commit()?;
        Ok(taken)
    }

    /// Takes back what was taken under this id: where it still waits it is not sent, and every
    /// device that it went to is told. Errors: `Unknown`, else as [`Journal::take`].
    pub fn withdraw(&mut self, id: Uuid, now_ms: u64) -> Result<Taken, JournalError> {
        self.follow(id, now_ms, false, |original| Body::Withdraw(original.id))
    }

    /// Puts an event in the place of what was taken under this id, on the same devices and under
    /// the same collapse key. Errors: as [`Journal::withdraw`].
    pub fn replace(
        &mut self,
        id: Uuid,
        event: &Event,
        sound: bool,
        now_ms: u64,
    ) -> Result<Taken, JournalError> {
        self.follow(id, now_ms, sound, |original| {
            let collapse_key = original.collapse_key.clone();
            Body::Replace(original.id, Event { collapse_key, ..event.clone() })
        })
    }

    fn follow(
        &mut self,
        id: Uuid,
        now_ms: u64,
        sound: bool,
        body: impl FnOnce(&Original) -> Body,
    ) -> Result<Taken, JournalError> {
        let limits = self.limits;
        let transaction = begin(&mut self.connection)?;
        let original = original(&transaction, id)?;
        let body = body(&original);
        let level = body.event().map_or(original.level, |event| event.level.max(original.level));
        let draft = Draft { id: None, body, level, ttl_s: TTL_S_MAX, sound };
        let entry = Entry {
            id: Uuid::new_v4(),
            draft: &draft,
            original: Some(original.id),
            lane: original.lane,
            source: original.source,
            devices: &original.devices,
        };
        let taken = insert(&transaction, limits, &entry, now_ms)?;
        transaction.commit()?;
        Ok(taken)
    }
}

/// One row to be, with its deliveries.
struct Entry<'a> {
    id: Uuid,
    draft: &'a Draft,
    original: Option<Uuid>,
    lane: String,
    source: Option<String>,
    devices: &'a [i64],
}

fn insert(
    transaction: &Transaction<'_>,
    limits: Limits,
    entry: &Entry<'_>,
    now_ms: u64,
) -> Result<Taken, JournalError> {
    let Entry { id, draft, original, lane, source, devices } = entry;
    if !(1..=TTL_S_MAX).contains(&draft.ttl_s) {
        return Err(JournalError::BadArgument { name: "ttl_s", expected: "1 to 604800" });
    }
    if let Some(devices) = known(transaction, *id)? {
        return Ok(Taken { id: *id, devices, is_new: false });
    }
    // A clock that was set back does not set the sequence back.
    let sequence = (unsigned(number(transaction, "sequence_last")?) + 1).max(now_ms);
    let content =
        Content { id: *id, sequence, written_at_unix_ms: now_ms, body: draft.body.clone() };
    let content = content.encode_within(usize::MAX).map_err(|_| JournalError::Invalid)?;
    let bytes = content.len() as u64 + OVERHEAD_BYTES + DELIVERY_BYTES * devices.len() as u64;
    make_room(transaction, limits, draft.level, bytes)?;
    transaction
        .prepare_cached(
            "INSERT INTO notification (seq, id, kind, original, source, level, written_ms,
                 expires_ms, lane, sound, content, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(rusqlite::params![
            sql(sequence),
            id.as_bytes(),
            draft.body.kind(),
            original.map(Uuid::into_bytes),
            source,
            draft.level.rank(),
            sql(now_ms),
            sql(now_ms.saturating_add(u64::from(draft.ttl_s) * 1000)),
            lane,
            draft.sound,
            content,
            sql(bytes),
        ])?;
    let mut count = 0;
    for device in *devices {
        outdate(transaction, *device, lane, draft, now_ms)?;
        count += transaction
            .prepare_cached(
                "INSERT INTO delivery (seq, device, device_name, state, lane, level, next_ms)
                 SELECT ?1, id, name, 'pending', ?3, ?4, ?5 FROM device
                 WHERE id = ?2 AND gone_ms IS NULL",
            )?
            .execute((sql(sequence), device, lane, draft.level.rank(), sql(now_ms)))?;
    }
    set(transaction, "sequence_last", &sql(sequence))?;
    Ok(Taken { id: *id, devices: count as u64, is_new: true })
}

/// What still waits in the lane need not be sent any more, unless it is graver than the newcomer.
fn outdate(
    transaction: &Transaction<'_>,
    device: i64,
    lane: &str,
    draft: &Draft,
    now_ms: u64,
) -> Result<(), JournalError> {
    let (state, rank_max) = match draft.body {
        Body::Withdraw(_) => ("withdrawn", Level::Error.rank()),
        _ => ("superseded", draft.level.rank()),
    };
    transaction
        .prepare_cached(
            "UPDATE delivery SET state = ?1, settled_ms = ?2
             WHERE state = 'pending' AND device = ?3 AND lane = ?4 AND level <= ?5",
        )?
        .execute((state, sql(now_ms), device, lane, rank_max))?;
    Ok(())
}

/// Gives to how many devices a known id went.
fn known(transaction: &Transaction<'_>, id: Uuid) -> Result<Option<u64>, JournalError> {
    let devices = transaction
        .prepare_cached(
            "SELECT (SELECT count(*) FROM delivery d WHERE d.seq = n.seq)
             FROM notification n WHERE id = ?1",
        )?
        .query_row([id.as_bytes()], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(devices.map(unsigned))
}

/// Erases what is finished, the oldest first; then what waits and is less grave than the newcomer.
/// Errors: `Full` when that is not enough.
fn make_room(
    transaction: &Transaction<'_>,
    limits: Limits,
    level: Level,
    bytes: u64,
) -> Result<(), JournalError> {
    loop {
        let (count, total): (i64, i64) = transaction
            .prepare_cached("SELECT count(*), coalesce(sum(bytes), 0) FROM notification")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let fits = unsigned(count) < limits.notifications_max
            && unsigned(total).saturating_add(bytes) <= limits.bytes_max;
        if fits {
            return Ok(());
        }
        let finished: Option<i64> = transaction
            .prepare_cached(
                "SELECT seq FROM notification n WHERE NOT EXISTS
                     (SELECT 1 FROM delivery d WHERE d.seq = n.seq AND d.state = 'pending')
                 ORDER BY seq LIMIT 1",
            )?
            .query_row([], |row| row.get(0))
            .optional()?;
        let victim = match finished {
            Some(sequence) => sequence,
            None => {
                let lesser = transaction
                    .prepare_cached(
                        "SELECT seq FROM delivery WHERE state = 'pending' AND level < ?1
                         ORDER BY level, seq LIMIT 1",
                    )?
                    .query_row([level.rank()], |row| row.get(0))
                    .optional()?
                    .ok_or(JournalError::Full)?;
                let dropped = number(transaction, "dropped")?;
                set(transaction, "dropped", &(dropped + 1))?;
                lesser
            }
        };
        transaction.prepare_cached("DELETE FROM notification WHERE seq = ?1")?.execute([victim])?;
    }
}

/// Finds an original by its own id, or by the id of what replaced it.
fn original(transaction: &Transaction<'_>, id: Uuid) -> Result<Original, JournalError> {
    let unknown = JournalError::Unknown { what: "notification" };
    let select = "SELECT coalesce(original, id) FROM notification WHERE id = ?1";
    let found: Option<[u8; 16]> =
        transaction.query_row(select, [id.as_bytes()], |row| row.get(0)).optional()?;
    let id = uuid_of(found.ok_or(unknown)?);
    // Where the original was erased, what replaced it stands for it.
    let (sequence, level, lane, source, content) = transaction.query_row(
        "SELECT seq, level, lane, source, content FROM notification
         WHERE id = ?1 OR original = ?1 ORDER BY seq LIMIT 1",
        [id.as_bytes()],
        |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, Option<String>>(3)?,
                row.get::<_, Vec<u8>>(4)?,
            ))
        },
    )?;
    let content = Content::decode(&content).map_err(|_| JournalError::Invalid)?;
    let mut statement = transaction.prepare(
        "SELECT v.id FROM delivery d JOIN device v ON v.id = d.device
         WHERE d.seq = ?1 AND v.gone_ms IS NULL AND v.p256dh IS NOT NULL",
    )?;
    let devices = statement.query_map([sequence], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let collapse_key = content.body.collapse_key().map(str::to_owned);
    let level = Level::of_rank(level);
    Ok(Original { id, level, lane, collapse_key, source, devices })
}

// === impl Body ===

impl Body {
    /// Gives the name of its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Notification(_) => "notification",
            Self::Withdraw(_) => "withdraw",
            Self::Replace(..) => "replace",
        }
    }
}

// === impl Draft ===

impl Draft {
    /// An event as the NAS raises it.
    pub fn of_event(event: Event) -> Self {
        let level = event.level;
        let body = Body::Notification(event);
        Self { id: None, body, level, ttl_s: TTL_S_DEFAULT, sound: true }
    }

    /// Gives which system speaks, where it is an event.
    pub fn source(&self) -> Option<Source> {
        self.body.event().map(|event| event.source)
    }
}

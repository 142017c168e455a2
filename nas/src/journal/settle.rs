//! The outbox's questions: what waits, and how it ended.
//!
//! In: the time and the verdicts of the outbox. Out: pending deliveries in the order in which they
//! go. Each `settle` is one durable transaction, with all that follows from an outcome: a renewed
//! handle, a device that is gone.

use rusqlite::{Row, Transaction};

use super::devices::device_of;
use super::schema::begin;
use super::{Journal, JournalError, sql, unsigned};
use crate::client::message::{Level, Outcome, TargetResult};
use crate::content::Content;
use crate::outbox::{Delivery, End, Verdict, WAIT_MS_MAX};

/// The first of each device and lane, if its time has come; the gravest first, then the oldest.
/// A wait longer than any that is given was given under a clock that was set back since.
const SELECT_DUE: &str = "
    SELECT v.id, v.name, v.sender, v.handle, v.p256dh, v.auth, v.body_bytes_max, v.paired_ms,
        v.gone_ms, d.level, d.attempts, d.lane, n.sound, n.expires_ms, n.content
    FROM delivery d JOIN notification n ON n.seq = d.seq JOIN device v ON v.id = d.device
    WHERE d.state = 'pending' AND (d.next_ms <= ?1 OR d.next_ms > ?2)
        AND n.expires_ms > ?1
        AND NOT EXISTS (SELECT 1 FROM delivery e WHERE e.state = 'pending'
            AND e.device = d.device AND e.lane = d.lane AND e.seq < d.seq)
    ORDER BY d.level DESC, d.seq, d.device";

// === impl Journal ===

impl Journal {
    /// Gives each delivery that is due to `take`, until that has enough.
    pub(crate) fn each_due(
        &self,
        now_ms: u64,
        mut take: impl FnMut(Delivery) -> bool,
    ) -> Result<(), JournalError> {
        let mut statement = self.connection.prepare_cached(SELECT_DUE)?;
        let mut rows = statement.query([sql(now_ms), sql(now_ms.saturating_add(WAIT_MS_MAX))])?;
        while let Some(row) = rows.next()? {
            if !take(delivery_of(row)?) {
                break;
            }
        }
        Ok(())
    }

    /// Ends what is not worth sending any more, unless it is on its way.
    pub(crate) fn expire(
        &mut self,
        now_ms: u64,
        on_the_way: impl Fn(u64, i64) -> bool,
    ) -> Result<(), JournalError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT d.seq, d.device FROM delivery d JOIN notification n ON n.seq = d.seq
             WHERE d.state = 'pending' AND n.expires_ms <= ?1",
        )?;
        let over = statement.query_map([sql(now_ms)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut over: Vec<(i64, i64)> = over.collect::<Result<_, _>>()?;
        drop(statement);
        over.retain(|(sequence, device)| !on_the_way(unsigned(*sequence), *device));
        if over.is_empty() {
            return Ok(());
        }
        let transaction = begin(&mut self.connection)?;
        for (sequence, device) in over {
            transaction
                .prepare_cached(
                    "UPDATE delivery SET state = 'expired', settled_ms = ?3
                     WHERE state = 'pending' AND seq = ?1 AND device = ?2",
                )?
                .execute((sequence, device, sql(now_ms)))?;
        }
        Ok(transaction.commit()?)
    }

    /// Writes down outcomes and all that follows from them: all of them, or none.
    pub(crate) fn settle(
        &mut self,
        told: &[(Delivery, TargetResult)],
        verdict: impl Fn(&Delivery, &TargetResult) -> Verdict,
        now_ms: u64,
    ) -> Result<(), JournalError> {
        let transaction = begin(&mut self.connection)?;
        for (delivery, result) in told {
            settle_one(&transaction, delivery, result, verdict(delivery, result), now_ms)?;
        }
        Ok(transaction.commit()?)
    }

    /// Writes down why a delivery still waits that never left.
    pub(crate) fn explain(
        &mut self,
        delivery: &Delivery,
        reason: &str,
    ) -> Result<(), JournalError> {
        self.connection
            .prepare_cached(
                "UPDATE delivery SET outcome = ?3, reason = ?4
                 WHERE state = 'pending' AND seq = ?1 AND device = ?2",
            )?
            .execute((
                sql(delivery.content.sequence),
                delivery.device.id,
                Outcome::NotNow.label(),
                reason,
            ))?;
        Ok(())
    }

    /// Gives when the next delivery is due, but for those that are on their way.
    pub(crate) fn next_ms(
        &self,
        now_ms: u64,
        on_the_way: impl Fn(i64, &str) -> bool,
    ) -> Result<Option<u64>, JournalError> {
        // SQLite gives the other columns of the row that has the minimum: the lane's first.
        let mut statement = self.connection.prepare_cached(
            "SELECT device, lane, next_ms, min(seq) FROM delivery WHERE state = 'pending'
             GROUP BY device, lane",
        )?;
        let mut rows = statement.query([])?;
        let mut soonest = None;
        while let Some(row) = rows.next()? {
            if !on_the_way(row.get(0)?, row.get_ref(1)?.as_str().unwrap_or_default()) {
                let next_ms = unsigned(row.get(2)?);
                let plausible = next_ms <= now_ms.saturating_add(WAIT_MS_MAX);
                let next_ms = if plausible { next_ms } else { now_ms };
                soonest = Some(soonest.map_or(next_ms, |soonest: u64| soonest.min(next_ms)));
            }
        }
        Ok(soonest)
    }
}

fn settle_one(
    transaction: &Transaction<'_>,
    delivery: &Delivery,
    result: &TargetResult,
    verdict: Verdict,
    now_ms: u64,
) -> Result<(), JournalError> {
    let (state, next_ms) = match verdict {
        Verdict::Done(End::Accepted) => ("accepted", None),
        // That was said of a pairing which is no longer: the new one gets it.
        Verdict::Done(_) if has_other_handle(transaction, delivery)? => {
            ("pending", Some(sql(now_ms)))
        }
        Verdict::Done(End::Gone) => ("gone", None),
        Verdict::Done(End::Refused) => ("refused", None),
        Verdict::Wait(wait_ms) => ("pending", Some(sql(now_ms.saturating_add(wait_ms)))),
    };
    // What was withdrawn, superseded or removed meanwhile stays so, unless it arrived.
    transaction
        .prepare_cached(
            "UPDATE delivery SET
                     state = CASE WHEN state = 'pending' OR ?3 = 'accepted' THEN ?3 ELSE state END,
                     next_ms = coalesce(?4, next_ms), attempts = attempts + 1, outcome = ?5,
                     reason = ?6, provider_id = ?7,
                     settled_ms = CASE WHEN ?3 = 'pending' THEN settled_ms ELSE ?8 END
                 WHERE seq = ?1 AND device = ?2",
        )?
        .execute((
            sql(delivery.content.sequence),
            delivery.device.id,
            state,
            next_ms,
            result.outcome.label(),
            &result.reason,
            &result.provider_message_id,
            sql(now_ms),
        ))?;
    if state == "gone" {
        bury(transaction, delivery.device.id, now_ms)?;
    }
    if let Some(renewed) = &result.renewed_handle {
        // A pairing that was made anew meanwhile is newer than the renewal.
        transaction.execute(
            "UPDATE device SET handle = ?1 WHERE id = ?2 AND handle = ?3",
            (renewed, delivery.device.id, &delivery.device.handle),
        )?;
    }
    Ok(())
}

/// Whether the device was paired anew, or its handle renewed, while the delivery was on its way.
fn has_other_handle(
    transaction: &Transaction<'_>,
    delivery: &Delivery,
) -> Result<bool, JournalError> {
    let select = "SELECT EXISTS (SELECT 1 FROM device WHERE id = ?1 AND handle <> ?2)";
    let known = (delivery.device.id, &delivery.device.handle);
    Ok(transaction.prepare_cached(select)?.query_row(known, |row| row.get(0))?)
}

/// A device that is gone gets nothing more, and what waits for it ends with it.
fn bury(transaction: &Transaction<'_>, device: i64, now_ms: u64) -> Result<(), JournalError> {
    transaction.execute(
        "UPDATE device SET gone_ms = ?2 WHERE id = ?1 AND gone_ms IS NULL",
        (device, sql(now_ms)),
    )?;
    transaction.execute(
        "UPDATE delivery SET state = 'gone', settled_ms = ?2
         WHERE state = 'pending' AND device = ?1",
        (device, sql(now_ms)),
    )?;
    Ok(())
}

fn delivery_of(row: &Row<'_>) -> Result<Delivery, JournalError> {
    let content = Content::decode(row.get_ref(14)?.as_blob().unwrap_or_default());
    Ok(Delivery {
        device: device_of(row)?,
        level: Level::of_rank(row.get(9)?),
        attempts: unsigned(row.get(10)?),
        lane: row.get(11)?,
        sound: row.get(12)?,
        expires_ms: unsigned(row.get(13)?),
        content: content.map_err(|_| JournalError::Invalid)?,
    })
}

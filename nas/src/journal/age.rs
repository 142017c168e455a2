//! Seven days, then erased: by the clock, whatever the clock does.
//!
//! Erased means overwritten with zeros (`secure_delete`), given back to the file system (a bounded
//! number of pages at a time) and gone from the WAL. A clock that was set forward erases early,
//! never late. A record that is dated later than now, since the clock was set back, is dated now.

use super::schema::begin;
use super::{Journal, JournalError, KEPT_MS, sql};

/// Records erased in one transaction, so that nobody waits long for the file.
const ERASED_AT_ONCE: i64 = 500;

/// Pages given back in one call: 4 MiB.
const VACUUM_PAGES: u32 = 1024;

// === impl Journal ===

impl Journal {
    /// Erases every record that is seven days old; gives how many.
    pub fn erase(&mut self, now_ms: u64) -> Result<u64, JournalError> {
        let mut erased = 0;
        while let Some(last_ms) = now_ms.checked_sub(KEPT_MS) {
            let transaction = begin(&mut self.connection)?;
            let count = transaction
                .prepare_cached(
                    "DELETE FROM notification WHERE seq IN
                         (SELECT seq FROM notification WHERE written_ms <= ?1 LIMIT ?2)",
                )?
                .execute((sql(last_ms), ERASED_AT_ONCE))?;
            transaction.commit()?;
            erased += count as u64;
            if count == 0 {
                break;
            }
        }
        if erased > 0 || self.pages_free()? > 0 {
            self.give_back()?;
        }
        Ok(erased)
    }

    /// Dates what is later than now to now, so that it too is erased in seven days. Gives how many.
    /// To be called when the clock is believed to be right again.
    pub fn redate(&mut self, now_ms: u64) -> Result<u64, JournalError> {
        let future = "SELECT EXISTS (SELECT 1 FROM notification WHERE written_ms > ?1)";
        if !self.connection.query_row(future, [sql(now_ms)], |row| row.get::<_, bool>(0))? {
            return Ok(0);
        }
        let count = self.connection.execute(
            "UPDATE notification SET written_ms = ?1, expires_ms = expires_ms - (written_ms - ?1)
             WHERE written_ms > ?1",
            [sql(now_ms)],
        )?;
        Ok(count as u64)
    }

    /// Moves what was written between two times, as a clock then said that was wrong by `by_ms`.
    /// Shape: `from_ms` to `to_ms` by the wrong clock; `by_ms` is what the clock was set forward.
    pub fn shift(&mut self, from_ms: u64, to_ms: u64, by_ms: i64) -> Result<(), JournalError> {
        let transaction = begin(&mut self.connection)?;
        let span = (by_ms, sql(from_ms), sql(to_ms));
        // What waits because the relay refused the wrong time need not wait any longer.
        transaction.execute(
            "UPDATE delivery SET next_ms = ?3 + ?1 WHERE state = 'pending'
             AND seq IN (SELECT seq FROM notification WHERE written_ms BETWEEN ?2 AND ?3)",
            span,
        )?;
        transaction.execute(
            "UPDATE delivery SET settled_ms = settled_ms + ?1 WHERE settled_ms BETWEEN ?2 AND ?3",
            span,
        )?;
        transaction.execute(
            "UPDATE notification SET written_ms = written_ms + ?1, expires_ms = expires_ms + ?1
             WHERE written_ms BETWEEN ?2 AND ?3",
            span,
        )?;
        transaction.execute(
            "UPDATE device SET paired_ms = paired_ms + ?1 WHERE paired_ms BETWEEN ?2 AND ?3",
            span,
        )?;
        Ok(transaction.commit()?)
    }

    fn pages_free(&self) -> Result<i64, JournalError> {
        Ok(self.connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?)
    }

    fn give_back(&mut self) -> Result<(), JournalError> {
        // One step gives one page back.
        let vacuum = format!("PRAGMA incremental_vacuum({VACUUM_PAGES})");
        let mut statement = self.connection.prepare(&vacuum)?;
        let mut steps = statement.query([])?;
        while steps.next()?.is_some() {}
        drop(steps);
        drop(statement);
        // What was erased is still in the WAL; a reader in another process may put this off.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

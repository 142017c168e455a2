//! A whole store at once: copied into another, compared with it, checked, or backed up.
//!
//! Records go page by page, so memory does not grow with the store; a relay may serve from either
//! side meanwhile.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::records::{Page, Records, ask};
use super::sqlite::Sqlite;
use super::{NasIdentity, StoreError};

/// Ids of a comparison that are named; the rest are counted.
const NAMED_MAX: usize = 20;

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// NAS identities.
    pub identities: u64,
    /// Enrolment tokens that are not used yet.
    pub tokens: u64,
}

/// How two stores differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Identities that are the same in both, field by field.
    pub same: u64,
    /// Those that are not.
    pub different: Ids,
    /// Those that only the first has.
    pub missing: Ids,
    /// Those that only the second has.
    pub surplus: Ids,
    /// Tokens that only one of them has.
    pub tokens: u64,
}

/// Some ids, the first of them by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub named: Vec<String>,
}

/// A store's records one by one.
struct Reader {
    pages: mpsc::Receiver<Page>,
    page: std::vec::IntoIter<NasIdentity>,
}

/// Writes every record and token of one store into another, over those with the same ids; what
/// only the other has stays.
/// Errors: [`StoreError`]; a second run goes on where the first ended.
pub async fn copy(from: &Records, to: &Records) -> Result<Count, StoreError> {
    let mut count = Count { identities: 0, tokens: 0 };
    let mut pages = from.all();
    while let Some(page) = pages.recv().await {
        let page = page?;
        count.identities += page.len() as u64;
        to.put(page).await?;
    }
    let tokens = from.enrolment_tokens().await?;
    count.tokens = tokens.len() as u64;
    to.add_enrolment_tokens(tokens).await?;
    Ok(count)
}

/// Reads every record, and holds each to the form that this relay writes.
/// Errors: [`StoreError::Corrupt`] with the first that is not.
pub async fn check(records: &Records) -> Result<Count, StoreError> {
    let mut count = Count { identities: 0, tokens: 0 };
    let mut pages = records.all();
    while let Some(page) = pages.recv().await {
        count.identities += page?.len() as u64;
    }
    count.tokens = records.enrolment_tokens().await?.len() as u64;
    Ok(count)
}

/// Compares two stores record by record and field by field.
/// Errors: [`StoreError`] when one cannot be read.
pub async fn compare(first: &Records, second: &Records) -> Result<Comparison, StoreError> {
    let mut comparison = Comparison::default();
    let (mut first_reader, mut second_reader) = (Reader::new(first), Reader::new(second));
    let mut one = first_reader.next().await?;
    let mut other = second_reader.next().await?;
    loop {
        let (takes_one, takes_other) = match (&one, &other) {
            (None, None) => break,
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            (Some(one), Some(other)) => (one.ds_id <= other.ds_id, other.ds_id <= one.ds_id),
        };
        let left = if takes_one { one.take() } else { None };
        let right = if takes_other { other.take() } else { None };
        if takes_one {
            one = first_reader.next().await?;
        }
        if takes_other {
            other = second_reader.next().await?;
        }
        match (left, right) {
            (Some(left), Some(right)) if left == right => comparison.same += 1,
            (Some(left), Some(_)) => comparison.different.add(left),
            (Some(left), None) => comparison.missing.add(left),
            (None, Some(right)) => comparison.surplus.add(right),
            (None, None) => {}
        }
    }
    let (one, other) = (first.enrolment_tokens().await?, second.enrolment_tokens().await?);
    let alone = |some: &[[u8; 32]], others: &[[u8; 32]]| {
        some.iter().filter(|token| others.binary_search(token).is_err()).count() as u64
    };
    comparison.tokens = alone(&one, &other) + alone(&other, &one);
    Ok(comparison)
}

/// Writes a backup: a SQLite file of its own, whatever the store is, as it is at one moment.
/// It is there whole or not at all, for its owner alone, and no other file is overwritten.
pub async fn back_up(records: &Records, file: &Path) -> Result<Count, StoreError> {
    let written = PathBuf::from(format!("{}.part", file.display()));
    // Nobody else may read it, not even while it is written.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&written);
    drop(made.map_err(StoreError::Backup)?);
    let done = write_backup(records, &written, file).await;
    if done.is_err() {
        // What cannot be removed either is told by the fault at hand.
        let _ = fs::remove_file(&written);
    }
    done
}

async fn write_backup(records: &Records, written: &Path, file: &Path) -> Result<Count, StoreError> {
    if let Records::Sqlite(sqlite) = records {
        let written = written.to_owned();
        ask(sqlite, move |sqlite| sqlite.back_up(&written)).await?;
    }
    let backup = Records::Sqlite(Arc::new(Sqlite::open(written)?));
    let count = match records {
        Records::Sqlite(_) => check(&backup).await?,
        Records::Postgres(_) => copy(records, &backup).await?,
    };
    // With the last connection the log beside the file goes into it.
    drop(backup);
    let synced = File::open(written).and_then(|file| file.sync_all());
    synced.map_err(StoreError::Backup)?;
    // A link, unlike a new name, does not take the place of another file.
    fs::hard_link(written, file).map_err(StoreError::Backup)?;
    fs::remove_file(written).map_err(StoreError::Backup)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
    synced.map_err(StoreError::Backup)?;
    Ok(count)
}

// === impl Reader ===

impl Reader {
    fn new(records: &Records) -> Self {
        Self { pages: records.all(), page: Vec::new().into_iter() }
    }

    async fn next(&mut self) -> Result<Option<NasIdentity>, StoreError> {
        loop {
            if let Some(identity) = self.page.next() {
                return Ok(Some(identity));
            }
            match self.pages.recv().await {
                Some(page) => self.page = page?.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

// === impl Ids ===

impl Ids {
    fn add(&mut self, identity: NasIdentity) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(identity.ds_id);
        }
    }
}

// === impl Comparison ===

impl Comparison {
    /// Tells whether the two stores are the same.
    pub const fn is_same(&self) -> bool {
        let differing = self.different.count + self.missing.count + self.surplus.count;
        differing == 0 && self.tokens == 0
    }
}

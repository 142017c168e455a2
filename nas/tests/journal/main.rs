//! The journal and the outbox over real files: seven days, bounds, crashes, damage.

#![expect(clippy::unwrap_used, reason = "a test may fail that way")]

mod age;
mod bounds;
mod damage;
mod lanes;
mod random;

use std::path::PathBuf;

use sns_nas::base64url;
use sns_nas::client::message::{Level, Source};
use sns_nas::content::{Event, Letter};
use sns_nas::journal::devices::{NAS, NewDevice};
use sns_nas::journal::recall::{Query, Record};
use sns_nas::journal::record::Draft;
use sns_nas::journal::{Journal, Limits};
use sns_nas::key::SenderKey;
use sns_nas::seal::ReceiverKeys;
use tempfile::TempDir;

/// A Tuesday in November 2026.
pub(crate) const NOW_MS: u64 = 1_795_500_000_000;

/// A journal with three devices, in a folder of its own.
pub(crate) struct Desk {
    pub(crate) folder: TempDir,
    pub(crate) journal: Journal,
    pub(crate) devices: Vec<i64>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let folder = folder();
        let mut journal = Journal::open(&folder.path().join("nas.sqlite3"), limits).unwrap();
        journal.add_sender(NAS, &SenderKey::generate().unwrap(), NOW_MS).unwrap();
        let mut devices = Vec::new();
        for name in ["phone", "tablet", "browser"] {
            devices.push(journal.add_device(&new_device(name), NOW_MS).unwrap().id);
        }
        Self { folder, journal, devices }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("nas.sqlite3")
    }

    /// Opens the file anew, as after a crash: nothing of the old connection is tidied up first.
    pub(crate) fn reopen(&mut self) {
        self.journal = Journal::open_existing(&self.file(), Limits::default()).unwrap();
    }

    pub(crate) fn take(&mut self, draft: &Draft, now_ms: u64) -> uuid::Uuid {
        self.journal.take(draft, &self.devices.clone(), now_ms).unwrap().id
    }

    pub(crate) fn recall(&self, now_ms: u64) -> Vec<Record> {
        self.journal.recall(&Query::default(), now_ms).unwrap()
    }

    pub(crate) fn states(&self, id: uuid::Uuid, now_ms: u64) -> Vec<String> {
        let query = Query { id: Some(id), ..Query::default() };
        let records = self.journal.recall(&query, now_ms).unwrap();
        let record = records.iter().find(|record| record.content.id == id).unwrap();
        record.deliveries.iter().map(|fate| fate.state.clone()).collect()
    }
}

/// Makes a folder, in memory where the machine has such a place: no test here cuts the power, and a
/// thousand syncs of a busy disk take minutes.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn new_device(name: &str) -> NewDevice {
    let receiver = ReceiverKeys::generate().unwrap();
    NewDevice {
        name: name.to_owned(),
        sender: NAS.to_owned(),
        handle: base64url::encode(format!("handle of {name}")),
        keys: Some((base64url::encode(receiver.p256dh()), base64url::encode(receiver.auth()))),
        body_bytes_max: 2744,
    }
}

pub(crate) fn event(level: Level, text: &str, collapse_key: Option<&str>) -> Draft {
    Draft::of_event(Event {
        source: Source::Dsm,
        level,
        tag: "StorageDegraded".into(),
        category: "storage".into(),
        app: "SYNO.SDS.StorageManager".into(),
        title: "Storage".into(),
        text: text.into(),
        vars: Default::default(),
        collapse_key: collapse_key.map(str::to_owned),
    })
}

pub(crate) fn letter(text: &str) -> Draft {
    let letter = Letter { app: "chat".into(), text: text.into(), ..Letter::default() };
    Draft { body: sns_nas::content::Body::Message(letter), ..event(Level::Info, text, None) }
}

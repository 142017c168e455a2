//! The bounds of the file: who makes room for whom.

use std::os::unix::fs::PermissionsExt as _;

use sns_nas::client::message::{Level, TargetResult};
use sns_nas::journal::{Journal, JournalError, Limits};
use sns_nas::outbox::{Jitter, Outbox};

use crate::{Desk, NOW_MS, event};

fn limits(notifications_max: u64) -> Limits {
    Limits { notifications_max, ..Limits::default() }
}

fn texts(desk: &Desk) -> Vec<String> {
    let records = desk.recall(NOW_MS + 1000);
    records.iter().rev().map(|r| r.content.body.event().unwrap().text.clone()).collect()
}

/// Delivers the oldest notification to all its devices.
fn deliver(desk: &mut Desk, outbox: &mut Outbox, text: &str) {
    for delivery in outbox.due(&mut desk.journal, NOW_MS + 1000, 1000).unwrap() {
        if delivery.content.body.event().unwrap().text == text {
            let told = [(delivery, TargetResult::accepted())];
            outbox.settle(&mut desk.journal, &told, NOW_MS + 1000, Jitter::default).unwrap();
        }
    }
    *outbox = Outbox::default();
}

#[test]
fn what_was_accepted_makes_room_first_and_the_oldest_of_it() {
    let mut desk = Desk::with(limits(4));
    let mut outbox = Outbox::default();
    for (n, text) in ["a", "b", "c", "d"].into_iter().enumerate() {
        desk.take(&event(Level::Info, text, None), NOW_MS + n as u64);
    }
    deliver(&mut desk, &mut outbox, "b");
    deliver(&mut desk, &mut outbox, "d");
    desk.take(&event(Level::Info, "e", None), NOW_MS + 10);
    assert_eq!(texts(&desk), ["a", "c", "d", "e"]);
    desk.take(&event(Level::Info, "f", None), NOW_MS + 11);
    assert_eq!(texts(&desk), ["a", "c", "e", "f"]);
    let full = desk.journal.take(&event(Level::Info, "g", None), &desk.devices, NOW_MS + 12);
    assert!(matches!(full, Err(JournalError::Full)));
    assert_eq!(texts(&desk), ["a", "c", "e", "f"], "what waits is not dropped for its equal");
    assert_eq!(desk.journal.counts().unwrap().dropped, 0);
}

#[test]
fn an_alarm_is_never_dropped_for_an_info_and_an_info_is_for_an_alarm() {
    let mut desk = Desk::with(limits(3));
    for (n, level) in [Level::Error, Level::Warn, Level::Info].into_iter().enumerate() {
        desk.take(&event(level, level.label(), None), NOW_MS + n as u64);
    }
    let mut try_take = |level, text| {
        desk.journal.take(&event(level, text, None), &desk.devices, NOW_MS + 50).is_ok()
    };
    assert!(!try_take(Level::Info, "info 2"));
    assert!(try_take(Level::Error, "error 2"), "for the info");
    assert!(!try_take(Level::Warn, "warn 2"));
    assert!(try_take(Level::Error, "error 3"), "for the warning");
    assert!(!try_take(Level::Error, "error 4"));
    assert_eq!(texts(&desk), ["error", "error 2", "error 3"]);
    assert_eq!(desk.journal.counts().unwrap().dropped, 2);
}

#[test]
fn the_bytes_are_bounded_like_the_number() {
    let bytes_max = 200_000;
    let mut desk = Desk::with(Limits { bytes_max, ..Limits::default() });
    let mut outbox = Outbox::default();
    for n in 0..200 {
        let text = format!("{n} {}", "x".repeat(4000));
        desk.take(&event(Level::Info, &text, None), NOW_MS + n);
        deliver(&mut desk, &mut outbox, &text);
        assert!(desk.journal.counts().unwrap().bytes <= bytes_max);
    }
    let kept = desk.journal.counts().unwrap().notifications;
    assert!((30..50).contains(&kept), "{kept}");
    assert!(desk.journal.file_bytes() < 3 * bytes_max + (4 << 20));
    let huge = event(Level::Error, &"x".repeat(300_000), None);
    let refused = desk.journal.take(&huge, &desk.devices, NOW_MS + 900);
    assert!(matches!(refused, Err(JournalError::Full)));
    assert_eq!(desk.journal.counts().unwrap().notifications, kept, "nothing was dropped for it");
}

#[test]
fn the_file_is_its_owners_alone() {
    let desk = Desk::new();
    for suffix in ["", "-wal", "-shm"] {
        let mut file = desk.file().into_os_string();
        file.push(suffix);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file:?}");
    }
    std::fs::set_permissions(desk.file(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let opened = Journal::open_existing(&desk.file(), Limits::default());
    assert!(matches!(opened, Err(JournalError::NotPrivate { mode: 0o640, .. })));
}

#[test]
fn an_id_that_is_known_is_taken_once() {
    let mut desk = Desk::new();
    let id = uuid::Uuid::from_u128(7);
    let draft =
        sns_nas::journal::record::Draft { id: Some(id), ..event(Level::Warn, "once", None) };
    let first = desk.journal.take(&draft, &desk.devices, NOW_MS).unwrap();
    let again = desk.journal.take(&draft, &desk.devices, NOW_MS + 5).unwrap();
    assert_eq!((first.id, first.devices, first.is_new), (id, 3, true));
    assert_eq!((again.id, again.devices, again.is_new), (id, 3, false));
    assert_eq!(desk.journal.ids().unwrap(), [id]);
}

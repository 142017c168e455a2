//! Seven days, then erased; over a clock that is set back and forward.

use std::collections::BTreeSet;
use std::fs;

use sns_nas::client::message::Level;
use sns_nas::journal::KEPT_MS;

use crate::{Desk, NOW_MS, event};

/// One millisecond before seven days, at seven days, and with a younger one beside it.
#[test]
fn a_record_is_kept_for_seven_days_to_the_millisecond() {
    let mut desk = Desk::new();
    desk.take(&event(Level::Error, "old", None), NOW_MS);
    desk.take(&event(Level::Error, "young", None), NOW_MS + 1);
    assert_eq!(desk.journal.erase(NOW_MS + KEPT_MS - 1).unwrap(), 0);
    assert_eq!(desk.recall(NOW_MS + KEPT_MS - 1).len(), 2);
    assert_eq!(desk.recall(NOW_MS + KEPT_MS).len(), 1, "not shown, though not yet erased");
    assert_eq!(desk.journal.erase(NOW_MS + KEPT_MS).unwrap(), 1);
    let left = desk.recall(NOW_MS + KEPT_MS);
    assert_eq!(left[0].content.body.event().unwrap().text, "young");
    assert_eq!(desk.journal.erase(NOW_MS + KEPT_MS + 1).unwrap(), 1);
    assert!(desk.journal.ids().unwrap().is_empty());
}

/// Searches the file and its WAL for the words of two thousand notifications, a page's worth each.
#[test]
fn what_is_erased_is_in_no_byte_of_the_files_and_its_room_is_given_back() {
    let mut desk = Desk::new();
    for n in 0..2000 {
        let text = format!("MARKER-{n:04} {}", "volume ".repeat(1 + n % 300));
        desk.take(&event(Level::Info, &text, None), NOW_MS + n as u64);
    }
    assert_eq!(found(&desk).len(), 2000);
    let full = desk.journal.file_bytes();
    // Half of it first: what is left must not keep what was beside it.
    assert_eq!(desk.journal.erase(NOW_MS + KEPT_MS + 999).unwrap(), 1000);
    let left = found(&desk);
    assert_eq!((left.len(), left.first()), (1000, Some(&1000)));
    assert_eq!(desk.journal.erase(NOW_MS + KEPT_MS + 1999).unwrap(), 1000);
    assert!(found(&desk).is_empty());
    assert!(desk.journal.file_bytes() < full / 4, "{} of {full}", desk.journal.file_bytes());
}

/// Gives the numbers of the markers that are in any file of the journal.
fn found(desk: &Desk) -> BTreeSet<u32> {
    let files = fs::read_dir(desk.folder.path()).unwrap();
    let bytes: Vec<u8> = files.flat_map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    let text = String::from_utf8_lossy(&bytes);
    let number = |rest: &str| rest.get(..4).and_then(|digits| digits.parse().ok());
    text.split("MARKER-").skip(1).filter_map(number).collect()
}

#[test]
fn a_clock_that_is_set_back_keeps_nothing_for_longer_than_seven_days() {
    let mut desk = Desk::new();
    let year_ms = 365 * 86_400_000;
    desk.take(&event(Level::Info, "from the future", None), NOW_MS + year_ms);
    let id = desk.take(&event(Level::Info, "after the clock was set back", None), NOW_MS);
    let sequences: Vec<u64> = desk.recall(NOW_MS).iter().map(|r| r.content.sequence).collect();
    assert!(sequences[0] > sequences[1], "the sequence only grows");
    assert_eq!(desk.recall(NOW_MS)[0].content.id, id, "the newest first, by the sequence");
    assert_eq!(desk.journal.redate(NOW_MS).unwrap(), 1);
    assert_eq!(desk.journal.redate(NOW_MS).unwrap(), 0);
    assert_eq!(desk.journal.erase(NOW_MS + KEPT_MS - 1).unwrap(), 0);
    assert_eq!(desk.journal.erase(NOW_MS + KEPT_MS).unwrap(), 2);
}

/// A NAS without a battery for its clock wakes in 1970; then the network tells it the time.
#[test]
fn what_was_written_under_a_wrong_clock_is_moved_with_it() {
    let mut desk = Desk::new();
    let (boot_ms, minute_ms) = (10_000, 60_000);
    let before = desk.take(&event(Level::Info, "before the power cut", None), NOW_MS - minute_ms);
    let wrong = desk.take(&event(Level::Error, "right after the boot", None), boot_ms);
    let by_ms = i64::try_from(NOW_MS - 2 * boot_ms).unwrap();
    desk.journal.shift(boot_ms, 2 * boot_ms, by_ms).unwrap();
    let records = desk.recall(NOW_MS);
    let written = |id| records.iter().find(|r| r.content.id == id).unwrap().written_ms;
    assert_eq!(written(before), NOW_MS - minute_ms);
    assert_eq!(written(wrong), NOW_MS - boot_ms);
    assert_eq!(desk.journal.erase(NOW_MS).unwrap(), 0, "nothing is lost by the jump");
    let mut outbox = sns_nas::outbox::Outbox::default();
    let due = outbox.due(&mut desk.journal, NOW_MS, 10).unwrap();
    assert_eq!(due.len(), 6, "nor is its time over");
    assert!(due[0].content.id == wrong && due[0].expires_ms > NOW_MS);
}

#[test]
fn a_clock_that_is_set_forward_erases_early_and_never_late() {
    let mut desk = Desk::new();
    desk.take(&event(Level::Info, "today", None), NOW_MS);
    assert_eq!(desk.journal.erase(NOW_MS + 1000 * KEPT_MS).unwrap(), 1);
    desk.take(&event(Level::Info, "next", None), 5);
    assert_eq!(desk.journal.erase(0).unwrap(), 0);
}

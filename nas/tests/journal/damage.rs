//! A journal that was cut, that is another's, or that may not grow: a clear error, and every record
//! that was there before is there still.

use std::fs;

use rusqlite::Connection;
use sns_nas::client::message::Level;
use sns_nas::journal::{Journal, JournalError, Limits};

use crate::{Desk, NOW_MS, event, folder};

/// Cuts the WAL, where the last write is, after every 97th byte and at both ends.
#[test]
fn a_write_that_was_cut_loses_nothing_that_was_there_before() {
    let mut desk = Desk::new();
    let mut ids = Vec::new();
    // Each size of the WAL was on disk when one more record had been taken.
    let mut sizes = vec![wal(&desk).len()];
    for n in 0..12 {
        ids.push(desk.take(&event(Level::Info, &format!("record {n}"), None), NOW_MS + n));
        sizes.push(wal(&desk).len());
    }
    let (whole_file, whole_wal) = (fs::read(desk.file()).unwrap(), wal(&desk));
    assert_eq!(whole_wal.len(), sizes[12], "the WAL was not folded into the file meanwhile");
    let cuts = (sizes[0]..whole_wal.len()).step_by(97).chain(sizes.clone());
    for cut in cuts {
        let folder = folder();
        let file = folder.path().join("nas.sqlite3");
        fs::write(&file, &whole_file).unwrap();
        private(&file);
        fs::write(folder.path().join("nas.sqlite3-wal"), &whole_wal[..cut]).unwrap();
        let mut journal = Journal::open_existing(&file, Limits::default()).unwrap();
        let whole = sizes.iter().filter(|size| **size <= cut).count() - 1;
        assert_eq!(journal.ids().unwrap(), &ids[..whole], "cut at {cut}");
        assert_eq!(journal.devices().unwrap().len(), 3);
        let draft = event(Level::Error, "and it goes on", None);
        journal.take(&draft, &[1, 2, 3], NOW_MS + 100).unwrap();
        assert_eq!(journal.ids().unwrap().len(), whole + 1);
    }
}

/// One bit of each frame of the last write, and of the frames before.
#[test]
fn a_write_that_was_garbled_loses_only_itself_and_what_came_after() {
    let mut desk = Desk::new();
    let ids = [
        desk.take(&event(Level::Info, "first", None), NOW_MS),
        desk.take(&event(Level::Info, "second", None), NOW_MS + 1),
    ];
    let whole_file = fs::read(desk.file()).unwrap();
    let first = wal(&desk).len();
    let third = desk.take(&event(Level::Info, "third", None), NOW_MS + 2);
    let whole_wal = wal(&desk);
    for at in (first..whole_wal.len()).step_by(211) {
        let folder = folder();
        let file = folder.path().join("nas.sqlite3");
        fs::write(&file, &whole_file).unwrap();
        private(&file);
        let mut garbled = whole_wal.clone();
        garbled[at] ^= 4;
        fs::write(folder.path().join("nas.sqlite3-wal"), &garbled).unwrap();
        let found = Journal::open_existing(&file, Limits::default()).unwrap().ids().unwrap();
        assert_eq!(found, ids, "garbled at {at}");
        assert!(!found.contains(&third));
    }
}

#[test]
fn a_file_that_is_cut_or_overwritten_is_named_as_damaged_and_not_touched() {
    let mut desk = Desk::new();
    for n in 0..200 {
        desk.take(&event(Level::Info, &"text ".repeat(100), None), NOW_MS + n);
    }
    // Folds the WAL into the file.
    Connection::open(desk.file())
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let whole = fs::read(desk.file()).unwrap();
    let check = |bytes: &[u8], expect: fn(&JournalError) -> bool| {
        let folder = folder();
        let file = folder.path().join("nas.sqlite3");
        fs::write(&file, bytes).unwrap();
        private(&file);
        let opened = Journal::open_existing(&file, Limits::default());
        let error = match opened.and_then(|journal| journal.ids().map(drop)) {
            Ok(()) => panic!("{} bytes were read", bytes.len()),
            Err(error) => error,
        };
        assert!(expect(&error), "{error:?}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "the file is as it was");
    };
    let damaged = |error: &JournalError| matches!(error, JournalError::Damaged);
    let not_ours = |error: &JournalError| matches!(error, JournalError::NotOurs);
    check(&whole[..whole.len() / 2], damaged);
    check(
        b"this is a text file, and longer than a header of SQLite is, which has 100 bytes ...",
        not_ours,
    );
    check(&[0xa5; 5000], not_ours);
}

#[test]
fn a_file_of_another_program_or_of_a_newer_one_is_refused() {
    let folder = folder();
    let other = folder.path().join("other.sqlite3");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE mine (x); ").unwrap();
    private(&other);
    let opened = Journal::open(&other, Limits::default());
    assert!(matches!(opened, Err(JournalError::NotOurs)));
    let desk = Desk::new();
    Connection::open(desk.file()).unwrap().pragma_update(None, "user_version", 9).unwrap();
    let opened = Journal::open_existing(&desk.file(), Limits::default());
    assert!(matches!(opened, Err(JournalError::Newer { found: 9, known: 1 })));
    let missing = Journal::open_existing(&folder.path().join("none"), Limits::default());
    assert!(matches!(missing, Err(JournalError::Missing { .. })));
    let nowhere = Journal::open(&folder.path().join("no/such/folder"), Limits::default());
    assert!(matches!(nowhere, Err(JournalError::Open { .. })));
}

/// The file may not grow any more, as on a full disk.
#[test]
fn a_full_disk_is_named_and_keeps_all_that_was_there() {
    let mut desk = Desk::new();
    let first = desk.take(&event(Level::Info, "before", None), NOW_MS);
    let pages: u32 = Connection::open(desk.file())
        .unwrap()
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    desk.journal.bound_pages(pages + 4).unwrap();
    let mut taken = vec![first];
    let error = loop {
        match desk.journal.take(&event(Level::Info, &"x".repeat(4000), None), &desk.devices, NOW_MS)
        {
            Ok(one) => taken.push(one.id),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::DiskFull), "{error:?}");
    assert_eq!(desk.journal.ids().unwrap(), taken);
    desk.reopen();
    assert_eq!(desk.journal.ids().unwrap(), taken);
    desk.take(&event(Level::Info, "there is room again", None), NOW_MS);
}

fn wal(desk: &Desk) -> Vec<u8> {
    let mut wal = desk.file().into_os_string();
    wal.push("-wal");
    fs::read(wal).unwrap()
}

fn private(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

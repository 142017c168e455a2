//! The outbox: order, retries, lifetime, withdrawals, renewed handles, devices that are gone.

use sns_nas::base64url;
use sns_nas::client::message::{Level, Outcome, TargetResult};
use sns_nas::clock;
use sns_nas::content::Body;
use sns_nas::journal::JournalError;
use sns_nas::outbox::{Delivery, Jitter, Outbox, WAIT_MS_MAX};

use crate::{Desk, NOW_MS, event, letter};

fn result(outcome: Outcome) -> TargetResult {
    TargetResult { outcome, ..TargetResult::accepted() }
}

fn texts(due: &[Delivery]) -> Vec<&str> {
    due.iter().map(text).collect()
}

fn text(delivery: &Delivery) -> &str {
    match &delivery.content.body {
        Body::Message(letter) => &letter.text,
        Body::Notification(event) | Body::Replace(_, event) => &event.text,
        Body::Withdraw(_) => "withdraw",
    }
}

fn settle(
    desk: &mut Desk,
    outbox: &mut Outbox,
    delivery: &Delivery,
    result: &TargetResult,
    now_ms: u64,
) {
    let told = [(delivery.clone(), result.clone())];
    outbox.settle(&mut desk.journal, &told, now_ms, Jitter::default).unwrap();
}

/// A desk with one device, and an outbox.
fn one_device() -> (Desk, Outbox) {
    let mut desk = Desk::new();
    desk.devices.truncate(1);
    (desk, Outbox::default())
}

#[test]
fn alarms_go_first_then_the_oldest() {
    let (mut desk, mut outbox) = one_device();
    for (n, (level, text)) in [
        (Level::Info, "info"),
        (Level::Warn, "warn"),
        (Level::Error, "error 1"),
        (Level::Error, "error 2"),
    ]
    .into_iter()
    .enumerate()
    {
        desk.take(&event(level, text, None), NOW_MS + n as u64);
    }
    let first = outbox.due(&mut desk.journal, NOW_MS + 9, 2).unwrap();
    assert_eq!(texts(&first), ["error 1", "error 2"]);
    let rest = outbox.due(&mut desk.journal, NOW_MS + 9, 9).unwrap();
    assert_eq!(texts(&rest), ["warn", "info"], "what is on its way is not due");
    assert_eq!(outbox.next_ms(&desk.journal, NOW_MS).unwrap(), None);
    assert_eq!(outbox.in_flight(), 4);
}

/// An info does not make an alarm of the same key superfluous: it waits behind it.
#[test]
fn one_key_has_one_delivery_at_a_time_and_keeps_its_order() {
    let (mut desk, mut outbox) = one_device();
    let key = Some("volume1");
    let alarm = desk.take(&event(Level::Error, "crashed", key), NOW_MS);
    desk.take(&event(Level::Info, "repairing", key), NOW_MS + 1);
    desk.take(&event(Level::Info, "repaired", key), NOW_MS + 2);
    let due = outbox.due(&mut desk.journal, NOW_MS + 9, 9).unwrap();
    assert_eq!(texts(&due), ["crashed"]);
    let wait = TargetResult { retry_after_s: Some(60), ..result(Outcome::NotNow) };
    settle(&mut desk, &mut outbox, &due[0], &wait, NOW_MS + 10);
    assert!(outbox.due(&mut desk.journal, NOW_MS + 60_009, 9).unwrap().is_empty());
    let next_ms = outbox.next_ms(&desk.journal, NOW_MS).unwrap();
    assert_eq!(next_ms, Some(NOW_MS + 60_010), "the time of the first of the lane");
    let due = outbox.due(&mut desk.journal, NOW_MS + 60_010, 9).unwrap();
    assert_eq!((texts(&due), due[0].attempts), (vec!["crashed"], 1));
    let accepted = result(Outcome::Accepted);
    settle(&mut desk, &mut outbox, &due[0], &accepted, NOW_MS + 60_020);
    let due = outbox.due(&mut desk.journal, NOW_MS + 60_030, 9).unwrap();
    assert_eq!(texts(&due), ["repaired"], "the one between was superseded");
    assert_eq!(desk.states(alarm, NOW_MS + 60_030), ["accepted"]);
}

#[test]
fn a_graver_one_of_the_same_key_does_not_wait_for_a_lesser() {
    let (mut desk, mut outbox) = one_device();
    let hot = desk.take(&event(Level::Warn, "hot", Some("disk1")), NOW_MS);
    let due = outbox.due(&mut desk.journal, NOW_MS, 9).unwrap();
    desk.take(&event(Level::Error, "failed", Some("disk1")), NOW_MS + 1);
    assert!(outbox.due(&mut desk.journal, NOW_MS + 2, 9).unwrap().is_empty(), "one at a time");
    let unknown = result(Outcome::Unknown);
    settle(&mut desk, &mut outbox, &due[0], &unknown, NOW_MS + 3);
    assert_eq!(desk.states(hot, NOW_MS + 3), ["superseded"]);
    assert_eq!(texts(&outbox.due(&mut desk.journal, NOW_MS + 4, 9).unwrap()), ["failed"]);
}

#[test]
fn each_outcome_does_what_the_contract_says() {
    let check = |outcome: Outcome, state: &str, wait_ms: Option<u64>| {
        let (mut desk, mut outbox) = one_device();
        let id = desk.take(&event(Level::Warn, "text", None), NOW_MS);
        let due = outbox.due(&mut desk.journal, NOW_MS, 9).unwrap();
        let told = result(outcome);
        settle(&mut desk, &mut outbox, &due[0], &told, NOW_MS);
        assert_eq!(desk.states(id, NOW_MS), [state], "{outcome:?}");
        let next_ms = outbox.next_ms(&desk.journal, NOW_MS).unwrap();
        assert_eq!(next_ms, wait_ms.map(|wait_ms| NOW_MS + wait_ms), "{outcome:?}");
        if let Some(wait_ms) = wait_ms {
            desk.reopen();
            let mut outbox = Outbox::default();
            let again = outbox.due(&mut desk.journal, NOW_MS + wait_ms, 9).unwrap();
            assert!(again[0].content.id == id, "the same id");
        }
    };
    check(Outcome::Accepted, "accepted", None);
    check(Outcome::Refused, "refused", None);
    check(Outcome::Gone, "gone", None);
    check(Outcome::NotNow, "pending", Some(5_000));
    check(Outcome::Unknown, "pending", Some(2_000));
    check(Outcome::Misconfigured, "pending", Some(900_000));
}

#[test]
fn a_device_that_is_gone_gets_nothing_more_unless_it_was_paired_since() {
    let (mut desk, mut outbox) = one_device();
    let first = desk.take(&event(Level::Warn, "first", None), NOW_MS);
    let second = desk.take(&event(Level::Warn, "second", None), NOW_MS + 1);
    let due = outbox.due(&mut desk.journal, NOW_MS + 2, 1).unwrap();
    let before = clock::rfc3339(NOW_MS - 5_000);
    let gone = TargetResult { gone_since: Some(before), ..result(Outcome::Gone) };
    settle(&mut desk, &mut outbox, &due[0], &gone, NOW_MS + 3);
    assert_eq!(desk.states(first, NOW_MS + 3), ["pending"], "it was paired after that");
    let due = outbox.due(&mut desk.journal, NOW_MS + 1_000_000, 1).unwrap();
    let after = clock::rfc3339(NOW_MS + 5_000);
    let gone = TargetResult { gone_since: Some(after), ..result(Outcome::Gone) };
    settle(&mut desk, &mut outbox, &due[0], &gone, NOW_MS + 1_000_001);
    let now_ms = NOW_MS + 1_000_002;
    assert_eq!(desk.states(first, now_ms), ["gone"]);
    assert_eq!(desk.states(second, now_ms), ["gone"], "what waited for it ends with it");
    assert!(desk.journal.device("phone").unwrap().unwrap().gone_ms.is_some());
    let third = desk.journal.take(&event(Level::Error, "third", None), &desk.devices, now_ms);
    assert_eq!(third.unwrap().devices, 0);
}

#[test]
fn a_lifetime_ends_a_delivery_but_not_one_that_is_on_its_way() {
    let (mut desk, mut outbox) = one_device();
    let mut draft = event(Level::Warn, "short", None);
    draft.ttl_s = 10;
    let (waits, travels) = (desk.take(&draft, NOW_MS), desk.take(&draft, NOW_MS + 1));
    let due = outbox.due(&mut desk.journal, NOW_MS + 9_999, 1).unwrap();
    assert!(due[0].content.id == waits);
    assert!(outbox.due(&mut desk.journal, NOW_MS + 11_000, 9).unwrap().is_empty());
    assert_eq!(desk.states(waits, NOW_MS + 11_000), ["pending"]);
    assert_eq!(desk.states(travels, NOW_MS + 11_000), ["expired"]);
    let unknown = result(Outcome::Unknown);
    settle(&mut desk, &mut outbox, &due[0], &unknown, NOW_MS + 11_001);
    assert!(outbox.due(&mut desk.journal, NOW_MS + 20_000, 9).unwrap().is_empty());
    assert_eq!(desk.states(waits, NOW_MS + 20_000), ["expired"]);
    for ttl_s in [0, 604_801] {
        draft.ttl_s = ttl_s;
        let refused = desk.journal.take(&draft, &desk.devices, NOW_MS);
        assert!(matches!(refused, Err(JournalError::BadArgument { name: "ttl_s", .. })));
    }
}

#[test]
fn a_renewed_handle_is_taken_unless_the_device_was_paired_anew() {
    let (mut desk, mut outbox) = one_device();
    desk.take(&event(Level::Warn, "text", None), NOW_MS);
    desk.take(&event(Level::Warn, "text", None), NOW_MS + 1);
    let due = outbox.due(&mut desk.journal, NOW_MS + 2, 9).unwrap();
    let (first, second) = (base64url::encode("first"), base64url::encode("second"));
    for (delivery, renewed) in due.iter().zip([&first, &second]) {
        let renewed =
            TargetResult { renewed_handle: Some(renewed.clone()), ..result(Outcome::Accepted) };
        settle(&mut desk, &mut outbox, delivery, &renewed, NOW_MS + 3);
    }
    assert_eq!(desk.journal.device("phone").unwrap().unwrap().handle, first, "the first renewal");
}

#[test]
fn what_is_withdrawn_is_not_sent_any_more_and_its_devices_are_told() {
    let (mut desk, mut outbox) = one_device();
    let id = desk.take(&event(Level::Error, "false alarm", None), NOW_MS);
    let due = outbox.due(&mut desk.journal, NOW_MS, 9).unwrap();
    let unknown = result(Outcome::Unknown);
    settle(&mut desk, &mut outbox, &due[0], &unknown, NOW_MS + 1);
    let withdrawal = desk.journal.withdraw(id, NOW_MS + 2).unwrap();
    assert_eq!(withdrawal.devices, 1);
    assert_eq!(desk.states(id, NOW_MS + 3), ["withdrawn"]);
    let due = outbox.due(&mut desk.journal, NOW_MS + 900_000, 9).unwrap();
    assert_eq!(texts(&due), ["withdraw"]);
    assert!(matches!(due[0].content.body, Body::Withdraw(original) if original == id));
    assert_eq!(due[0].level, Level::Error, "as urgent as the alarm was");
    let unknown = desk.journal.withdraw(uuid::Uuid::nil(), NOW_MS);
    assert!(matches!(unknown, Err(JournalError::Unknown { what: "notification" })));
}

#[test]
fn a_replacement_keeps_the_name_and_the_key_of_its_original() {
    let (mut desk, mut outbox) = one_device();
    let id = desk.take(&event(Level::Error, "1 of 4 disks", Some("raid")), NOW_MS);
    let Body::Notification(event) = event(Level::Info, "2 of 4 disks", None).body else {
        unreachable!()
    };
    let second = desk.journal.replace(id, &event, false, NOW_MS + 1).unwrap();
    assert_eq!(desk.states(id, NOW_MS + 1), ["superseded"]);
    let third = desk.journal.replace(second.id, &event, false, NOW_MS + 2).unwrap();
    let due = outbox.due(&mut desk.journal, NOW_MS + 3, 9).unwrap();
    assert_eq!(due.len(), 1);
    assert!(due[0].content.id == third.id);
    let Body::Replace(original, event) = &due[0].content.body else { panic!("another kind") };
    assert_eq!((*original, event.collapse_key.as_deref()), (id, Some("raid")));
}

#[test]
fn a_device_that_is_removed_gets_nothing_more_and_its_name_is_free_again() {
    let (mut desk, mut outbox) = one_device();
    let id = desk.take(&letter("hello"), NOW_MS);
    desk.journal.remove_device("phone", NOW_MS + 1).unwrap();
    assert!(outbox.due(&mut desk.journal, NOW_MS + 2, 9).unwrap().is_empty());
    assert_eq!(desk.states(id, NOW_MS + 2), ["removed"]);
    let again = desk.journal.add_device(&crate::new_device("phone"), NOW_MS + 3).unwrap();
    assert!(!desk.devices.contains(&again.id));
    let missing = desk.journal.remove_device("toaster", NOW_MS);
    assert!(matches!(missing, Err(JournalError::Unknown { what: "device" })));
}

/// A retry that waits until next year, because the clock was wrong when it was set.
#[test]
fn a_wait_that_no_outcome_gives_is_over() {
    let (mut desk, mut outbox) = one_device();
    let late_ms = NOW_MS + 2 * WAIT_MS_MAX;
    desk.take(&event(Level::Warn, "text", None), late_ms);
    assert_eq!(outbox.next_ms(&desk.journal, NOW_MS).unwrap(), Some(NOW_MS));
    assert_eq!(outbox.due(&mut desk.journal, NOW_MS, 9).unwrap().len(), 1);
}

/// What is said of the old pairing is no word against the new one.
#[test]
fn a_device_that_is_paired_anew_gets_what_was_on_its_way_to_the_old_pairing() {
    for outcome in [Outcome::Gone, Outcome::Refused] {
        let (mut desk, mut outbox) = one_device();
        let id = desk.take(&event(Level::Error, "text", None), NOW_MS);
        let due = outbox.due(&mut desk.journal, NOW_MS, 9).unwrap();
        let mut again = crate::new_device("phone");
        again.handle = base64url::encode("another handle");
        let device = desk.journal.pair_again(&again, NOW_MS + 5).unwrap();
        assert_eq!(device.id, desk.devices[0]);
        settle(&mut desk, &mut outbox, &due[0], &result(outcome), NOW_MS + 6);
        assert_eq!(desk.states(id, NOW_MS + 6), ["pending"]);
        let due = outbox.due(&mut desk.journal, NOW_MS + 7, 9).unwrap();
        assert_eq!(due[0].device.handle, again.handle);
        settle(&mut desk, &mut outbox, &due[0], &result(Outcome::Gone), NOW_MS + 8);
        assert!(desk.journal.device("phone").unwrap().unwrap().gone_ms.is_some());
        let device = desk.journal.pair_again(&again, NOW_MS + 9).unwrap();
        assert_eq!((device.gone_ms, device.paired_ms), (None, NOW_MS + 9));
    }
    let stranger = crate::new_device("toaster");
    let unknown = one_device().0.journal.pair_again(&stranger, NOW_MS);
    assert!(matches!(unknown, Err(JournalError::Unknown { what: "device" })));
}

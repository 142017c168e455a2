//! The properties that are fuzzed, on seeds, on damaged seeds, and on input made by rule.
//!
//! Each property is a function of `sns-properties`; docs/fuzzing.md says how to run them longer.
//! A failing input is printed; kept as a file under fuzz/seeds it is tested for ever.

#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::test_runner::{Config, TestRunner};
use sns_properties::{ALL, Property};

mod damage;

mod requests;

/// Inputs tried of each property, so that all of them take seconds.
const CASES: u32 = 512;

/// Tries a property on damaged seeds.
fn holds(name: &str) {
    let (_, property) = ALL.into_iter().find(|(known, _)| *known == name).unwrap();
    runner()
        .run(&damage::damaged(seeds(name)), |data| {
            property(&data);
            Ok(())
        })
        .unwrap();
}

/// Leaves no files behind.
fn runner() -> TestRunner {
    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() })
}

fn fuzz(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder)
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = fuzz("seeds").join(name);
    let mut files: Vec<PathBuf> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Gives the names in a folder, without what follows a dot.
fn names_in(folder: &str) -> BTreeSet<String> {
    let name = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    fuzz(folder).read_dir().unwrap().map(|entry| name(entry.unwrap().path())).collect()
}

/// Method: every file under fuzz/seeds is given to its property as it is.
#[test]
fn every_seed_holds() {
    for (name, property) in ALL {
        let property: Property = property;
        let seeds = seeds(name);
        assert!(seeds.len() >= 10, "{name} has {} seeds", seeds.len());
        seeds.iter().for_each(|seed| property(seed));
    }
}

/// Method: the folders of seeds and targets are compared with the list of properties.
#[test]
fn every_property_has_a_target_and_seeds() {
    let properties: BTreeSet<String> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in("seeds"), properties);
    assert_eq!(names_in("targets"), properties);
    let manifest = std::fs::read_to_string(fuzz("Cargo.toml")).unwrap();
    for name in properties {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
    }
}

/// Method: every seed of an answer is read under every status that HTTP can have.
#[test]
fn no_status_makes_a_good_device_gone() {
    for (name, property) in ALL.into_iter().filter(|(name, _)| name.ends_with("_answer")) {
        for seed in seeds(name) {
            for status in 100..=999 {
                property(&[status.to_string().as_bytes(), &seed[3..]].concat());
            }
        }
    }
}

/// Method: seeds are damaged at random, 512 times.
#[test]
fn no_answer_of_apples_makes_a_good_device_gone() {
    holds("apns_answer");
}

/// Method: seeds are damaged at random, 512 times.
#[test]
fn no_answer_of_googles_makes_a_good_device_gone() {
    holds("fcm_answer");
}

/// Method: seeds are damaged at random, 512 times.
#[test]
fn no_answer_of_a_browsers_service_makes_a_good_device_gone() {
    holds("webpush_answer");
}

/// Method: seeds are damaged at random, 512 times, and said to a connection with three requests.
#[test]
fn whatever_a_peer_says_every_request_ends() {
    holds("peer");
}

/// Method: seeds are damaged at random, 512 times.
#[test]
fn every_goaway_has_a_reason_of_a_closed_set() {
    holds("goaway");
}

/// Method: seeds are damaged at random, 512 times, and loaded with a secret in every text.
#[test]
fn every_fault_of_a_configuration_names_a_key_and_no_value() {
    holds("config");
}

/// Method: seeds are damaged at random, 512 times.
#[test]
fn only_a_header_of_one_aes128gcm_record_passes() {
    holds("content");
}

/// Method: seeds are damaged at random, 512 times; half of them are sealed under the ring's key.
#[test]
fn only_what_was_sealed_opens_and_it_seals_back() {
    holds("handle");
}

/// Method: seeds are damaged at random, 512 times; half of them are signed after the damage.
#[test]
fn only_a_signature_that_verifies_gives_a_sender() {
    holds("vapid");
}

/// Method: seeds are damaged at random, 512 times.
#[test]
fn a_refused_notification_is_told_in_names_alone() {
    holds("notification");
}

/// Method: seeds are damaged at random, 512 times.
#[test]
fn a_refused_pairing_is_told_in_names_alone() {
    holds("pairing");
}

//! What the documents name is there: files, functions, tests, keys, codes.

use std::collections::BTreeSet;

use sns_relay::outcome::Code;

use crate::generated::sections;
use crate::source::{
    Source, backticked, code, expect_none, files, first_word, places_of, read, root,
};

/// The promises of docs/privacy.md.
const PROMISES: usize = 7;

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut wrong = Vec::new();
    for Source { path, text } in files("md") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let target = target.0;
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { format!("{folder}/{file}") };
            let place = root().join(file.trim_start_matches('/'));
            let Ok(found) = place.canonicalize() else {
                wrong.push(format!("{path}: {target} is not there"));
                continue;
            };
            let is_document = found.extension().is_some_and(|extension| extension == "md");
            if is_document && !anchor.is_empty() {
                let headings = std::fs::read_to_string(found).unwrap();
                if !headings.lines().any(|line| anchor_of(line).as_deref() == Some(anchor)) {
                    wrong.push(format!("{path}: {target} has no such heading"));
                }
            }
        }
    }
    expect_none(wrong, "links lead somewhere");
}

/// As GitHub makes it: lower case, spaces to hyphens, the rest dropped.
fn anchor_of(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let keep = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    Some(heading.chars().filter_map(keep).collect())
}

/// In documents, comments and messages alike: `docs/errors.md`.
#[test]
fn every_document_that_is_named_is_there() {
    let mut wrong = Vec::new();
    for Source { path, text } in files("md").into_iter().chain(files("rs")) {
        for (at, _) in text.match_indices("docs/") {
            let is_path = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let name = text[at..].split(|c| !is_path(c)).next().unwrap_or_default();
            let name = name.trim_end_matches('.');
            let is_own = !text[..at].ends_with(|c: char| is_path(c) || c == ':');
            if is_own && !name.ends_with('/') && !root().join(name).exists() {
                wrong.push(format!("{path}: {name} is not there"));
            }
        }
    }
    expect_none(wrong, "documents that are named are there");
}

/// `src/relay.rs:carry` is a function of that file, `src/relay.rs` a file.
#[test]
fn every_function_and_file_that_a_document_names_is_there() {
    let mut wrong = Vec::new();
    for Source { path, text } in files("md") {
        for reference in backticked(&text).filter(|text| is_source(text)) {
            let (file, function) = reference.split_once(':').unwrap_or((reference, ""));
            let Ok(source) = std::fs::read_to_string(root().join(file)) else {
                wrong.push(format!("{path}: {file} is not there"));
                continue;
            };
            let code = code(&source);
            let mut functions = places_of(&code, "fn")
                .into_iter()
                .map(|at| first_word(code[at + 2..].trim_start()));
            if !function.is_empty() && !functions.any(|name| name == function) {
                wrong.push(format!("{path}: {reference} is not there"));
            }
        }
    }
    expect_none(wrong, "what documents name is there");
}

fn is_source(text: &str) -> bool {
    let file = text.split(':').next().unwrap_or_default();
    let folders = ["src/", "tests/", "nas/", "loadtest/", "proto/"];
    file.ends_with(".rs") && !file.contains('*') && folders.iter().any(|f| file.starts_with(f))
}

/// A section for each promise, and in each the tests that prove it.
#[test]
fn every_promise_of_privacy_md_names_the_tests_that_prove_it() {
    let text = read("docs/privacy.md");
    for number in 1..=PROMISES {
        let start = format!("\n### {number}. ");
        let (_, after) = text.split_once(&start).unwrap_or_else(|| panic!("no promise {number}"));
        let section = after.split("\n#").next().unwrap_or_default();
        let is_test = |text: &&str| is_source(text) && text.contains(':');
        assert!(backticked(section).any(|text| is_test(&text)), "promise {number} has no test");
    }
}

#[test]
fn every_key_that_a_document_names_is_one_of_the_reference() {
    let sections = sections();
    let keys: BTreeSet<&str> =
        sections.iter().flat_map(|section| &section.keys).map(|key| key.name.as_str()).collect();
    let names: BTreeSet<&str> = sections.iter().map(|section| section.name.as_str()).collect();
    let mut wrong = Vec::new();
    for Source { path, text } in files("md") {
        for name in backticked(&text) {
            let section = name.rsplit_once('.').map_or("", |(section, _)| section);
            if names.contains(section) && !keys.contains(name) && !names.contains(name) {
                wrong.push(format!("{path}: {name}"));
            }
        }
    }
    expect_none(wrong, "keys that are named are there");
}

#[test]
fn every_code_of_a_push_service_that_a_document_names_is_one() {
    let labels: BTreeSet<&str> = Code::ALL.iter().map(|code| code.label()).collect();
    let is_vendors = |name: &&str| {
        let vendor = ["apns_", "fcm_", "webpush_", "vapid_"].iter().any(|v| name.starts_with(v));
        vendor && name.len() == first_word(name).len()
    };
    let mut wrong = Vec::new();
    for Source { path, text } in files("md") {
        for name in backticked(&text).filter(is_vendors).filter(|name| !labels.contains(name)) {
            wrong.push(format!("{path}: {name}"));
        }
    }
    expect_none(wrong, "codes that are named are there");
}

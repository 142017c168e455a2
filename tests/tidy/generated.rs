//! The parts of docs/ that are made from the code, and the check that they say what it says.
//!
//! A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest is by hand.

use std::fmt::Write as _;
use std::fs;

use sns_relay::ingress::openapi;
use sns_relay::outcome::{Code, Kind};
use sns_relay::reply::{self, Row};

use crate::source::{read, root};

const START: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

/// Whoever sees this test fail: `SNS_RELAY_BLESS=1 cargo test --test tidy` writes the file anew.
#[test]
fn the_codes_of_errors_md_are_those_of_the_code_with_their_outcome_and_status() {
    let parts = ["relay", "apns", "fcm", "webpush", "email"];
    let part = |name: &str| parts.contains(&name).then(|| codes(name));
    check_parts("docs/errors.md", &parts, part);
}

#[test]
fn the_keys_of_configuration_md_are_those_of_the_reference_with_their_defaults() {
    let sections = sections();
    let names: Vec<&str> = sections.iter().map(|section| section.name.as_str()).collect();
    let part = |name: &str| {
        sections.iter().find(|section| section.name == name).map(|section| section.table())
    };
    check_parts("docs/configuration.md", &names, part);
}

#[test]
fn the_openapi_description_is_the_one_that_the_relay_gives() {
    check_file("docs/openapi.json", &(openapi::text() + "\n"));
}

/// Writes each part into its place and checks that every part has one.
fn check_parts(path: &str, names: &[&str], part: impl Fn(&str) -> Option<String>) {
    let text = read(path);
    let mut fresh = String::with_capacity(text.len());
    let mut seen = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(START) {
        let (name, after) = after.split_once(" -->\n").expect("a name and ` -->`");
        let (_, after) = after.split_once(END).expect("an end");
        let made = part(name).unwrap_or_else(|| panic!("{path}: there is no part {name}"));
        write!(fresh, "{before}{START}{name} -->\n{made}{END}").unwrap();
        seen.push(name);
        rest = after;
    }
    fresh.push_str(rest);
    assert_eq!(seen, names, "{path} has each part once, in this order");
    check_file(path, &fresh);
}

/// Writes one part into its place; the file may have others, made elsewhere.
pub(crate) fn check_part(path: &str, name: &str, part: &str) {
    let text = read(path);
    let start = format!("{START}{name} -->\n");
    let (before, after) = text.split_once(&start).unwrap_or_else(|| panic!("{path} has no {name}"));
    let (_, after) = after.split_once(END).expect("an end");
    check_file(path, &format!("{before}{start}{part}{END}{after}"));
}

fn check_file(path: &str, fresh: &str) {
    if std::env::var_os("SNS_RELAY_BLESS").is_some() {
        fs::write(root().join(path), fresh).unwrap();
    }
    let old = fs::read_to_string(root().join(path)).unwrap_or_default();
    if old != fresh {
        let differs = old.lines().zip(fresh.lines()).find(|(old, fresh)| old != fresh);
        panic!(
            "{path} is not what the code says: run SNS_RELAY_BLESS=1 cargo test --test tidy\n\
             first difference (there, then expected): {differs:#?}"
        );
    }
}

// === codes ===

fn codes(part: &str) -> String {
    let mut table = "| code | outcome | HTTP | gRPC | what happened | what the sender does |\n\
                     | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for code in Code::ALL.iter().copied().filter(|code| part_of(*code) == part) {
        let row @ Row { kind, http, text } = reply::row(code);
        let (label, outcome, does) = (code.label(), kind.label(), sender_does(kind, code));
        let grpc = screaming(&format!("{:?}", row.grpc()));
        writeln!(table, "| `{label}` | {outcome} | {http} | {grpc} | {text} | {does} |").unwrap();
    }
    table
}

fn part_of(code: Code) -> &'static str {
    let services = ["apns", "fcm", "webpush", "email"];
    let vendor = code.label().split('_').next().unwrap_or_default();
    services.into_iter().find(|service| *service == vendor).unwrap_or("relay")
}

fn sender_does(kind: Kind, code: Code) -> &'static str {
    match kind {
        Kind::Accepted => "nothing more",
        Kind::Gone => "drops the pairing, unless it was made after `gone_since`",
        Kind::NotNow => "keeps the message and retries after `retry_after_s`",
        // The one refusal that is not about what was sent but about how long it took.
        Kind::Refused if code == Code::BodyTimeout => "sends the whole body in time",
        Kind::Refused => "mends it; a retry as it is ends the same",
        Kind::Misconfigured => "retries much later; the operator must mend it",
        Kind::Unknown => "retries with the same id: it may have arrived",
    }
}

/// `NotFound` is `NOT_FOUND` on the wire.
fn screaming(name: &str) -> String {
    let mut text = String::new();
    for (place, letter) in name.char_indices() {
        if place > 0 && letter.is_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

// === keys ===

/// One section of the reference.
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) keys: Vec<Key>,
}

pub(crate) struct Key {
    /// Dotted; an app's name is `<app>`.
    pub(crate) name: String,
    comment: String,
    default: String,
}

/// Reads config/relay.default.toml, the commented app included.
pub(crate) fn sections() -> Vec<Section> {
    let text = read("config/relay.default.toml");
    let mut sections: Vec<Section> = Vec::new();
    let mut comment = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let name = name.replace("apps.example", "apps.<app>");
            sections.push(Section { name, keys: Vec::new() });
        } else if let Some(text) = line.strip_prefix("# ") {
            comment.push_str(text);
            comment.push(' ');
            continue;
        } else if let Some((key, value)) = line.split_once(" = ") {
            let mut default = value.to_owned();
            while default.starts_with('[') && !default.ends_with(']') {
                default.push_str(lines.next().expect("the end of the list").trim());
            }
            let section = sections.last_mut().expect("a section");
            let name = format!("{}.{key}", section.name);
            let comment = comment.trim().replace('|', "or");
            section.keys.push(Key { name, comment, default: default.replace(",]", "]") });
        }
        comment.clear();
    }
    sections
}

fn is_toml(line: &str) -> bool {
    let is_key = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    line.starts_with("[apps.") || line.split_once(" = ").is_some_and(|(name, _)| is_key(name))
}

// === impl Section ===

impl Section {
    fn table(&self) -> String {
        let mut table =
            "| key | what it says, unit, range | default |\n| --- | --- | --- |\n".to_owned();
        for Key { name, comment, default } in &self.keys {
            let comment = comment.replace('<', "&lt;");
            writeln!(table, "| `{name}` | {comment} | `{default}` |").unwrap();
        }
        table
    }
}

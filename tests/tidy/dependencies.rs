//! One TLS stack, one cryptography, one of each crate that speaks HTTP.

use std::collections::BTreeMap;
use std::process::Command;

use crate::source::{expect_none, root};

/// A second implementation of what aws-lc and rustls do.
const BANNED: [&str; 5] = ["native-tls", "openssl", "openssl-sys", "ring", "schannel"];

/// Two versions of one of these would not speak to each other.
const SINGLE: [&str; 8] =
    ["aws-lc-rs", "h2", "http", "http-body", "hyper", "rustls", "tokio", "tokio-rustls"];

/// Asks cargo for what the relay is built of, tests left out.
#[test]
fn the_relay_has_one_tls_stack_and_one_version_of_each_http_crate() {
    let arguments = "tree --offline --locked --package sns-relay --edges normal,build \
                     --prefix none --format {p}";
    let cargo = Command::new(env!("CARGO")).args(arguments.split(' ')).current_dir(root()).output();
    let cargo = cargo.unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let tree = String::from_utf8(cargo.stdout).unwrap();
    for line in tree.lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            let known = versions.entry(name).or_default();
            if !known.contains(&version) {
                known.push(version);
            }
        }
    }
    let banned = BANNED.iter().filter(|name| versions.contains_key(*name));
    let mut wrong: Vec<String> = banned.map(|name| format!("{name} is in the tree")).collect();
    for name in SINGLE {
        let found = versions.get(name).map_or(&[][..], Vec::as_slice);
        if found.len() != 1 {
            wrong.push(format!("{name} is there in these versions: {found:?}"));
        }
    }
    expect_none(wrong, "the relay is built of one stack");
}

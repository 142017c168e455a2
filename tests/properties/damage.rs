//! Seeds with random damage: what a fuzzer does first.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What parsers trip over.
const TOKENS: &[&str] = &[
    "\"",
    "'",
    "\\",
    "\\u0000",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "=",
    ".",
    "__",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    "#",
    "@",
    "null",
    "true",
    "-1",
    "0",
    "1e400",
    "18446744073709551616",
    "é",
    "\u{feff}",
    "=\"\"",
    "t=",
    "k=",
    "410",
    "404",
    "reason",
];

/// One change: a kind, two places, and bytes.
type Change = (u8, Index, Index, Vec<u8>);

/// Gives seeds, each changed up to six times, and now and then mere noise.
pub(crate) fn damaged(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![
        vec(any::<u8>(), 1..8),
        select(TOKENS).prop_map(|token| token.as_bytes().to_vec()),
    ];
    let change = (any::<u8>(), any::<Index>(), any::<Index>(), bytes);
    let other = select(seeds.clone());
    let changed =
        (select(seeds), other, vec(change, 0..6)).prop_map(|(mut data, other, changes)| {
            changes.iter().for_each(|each| change_one(&mut data, &other, each));
            data
        });
    prop_oneof![9 => changed, 1 => vec(any::<u8>(), 0..600)]
}

fn change_one(data: &mut Vec<u8>, other: &[u8], (kind, from, to, bytes): &Change) {
    let from = from.index(data.len() + 1);
    let end = from + to.index(data.len() - from + 1);
    match kind % 6 {
        // In place of as many bytes.
        0 => {
            let end = (from + bytes.len()).min(data.len());
            data.splice(from..end, bytes.iter().copied());
        }
        1 => drop(data.splice(from..from, bytes.iter().copied())),
        2 => drop(data.drain(from..end)),
        3 => data.truncate(from),
        4 => drop(data.splice(end..end, data[from..end].to_vec())),
        // The end of another seed.
        _ => {
            data.truncate(from);
            data.extend_from_slice(&other[other.len().min(from)..]);
        }
    }
}

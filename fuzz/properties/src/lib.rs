//! What must hold for every input that comes from outside, one function for each kind of input.
//!
//! In: bytes, of any origin. Out: nothing, or a panic that names the property that does not hold.
//! The fuzz targets (`fuzz/targets`) and the property tests (`tests/properties`) call the same
//! functions, so a property is written once. Inputs are laid out so that seeds can be read; each
//! module says how. Nothing here knows libFuzzer, and time stands still.

#![expect(clippy::expect_used, reason = "a property says what it expects")]

mod answer;
mod config;
mod content;
mod goaway;
mod handle;
mod json;
mod peer;
mod sender;
mod vapid;

pub use answer::{apns_answer, fcm_answer, webpush_answer};
pub use config::config;
pub use content::content;
pub use goaway::goaway;
pub use handle::handle;
pub use json::{notification, pairing};
pub use peer::peer;
pub use vapid::vapid;

/// A property of every input.
pub type Property = fn(&[u8]);

/// Every property, by the name of its fuzz target and of its folder of seeds.
pub const ALL: [(&str, Property); 11] = [
    ("apns_answer", apns_answer),
    ("config", config),
    ("content", content),
    ("fcm_answer", fcm_answer),
    ("goaway", goaway),
    ("handle", handle),
    ("notification", notification),
    ("pairing", pairing),
    ("peer", peer),
    ("vapid", vapid),
    ("webpush_answer", webpush_answer),
];

/// The time of every property, in seconds since 1970.
const NOW_UNIX_S: u64 = 1_700_000_000;

/// Takes the letter that starts an input and says how the rest is meant: one of `count`.
fn mode(data: &[u8], count: u8) -> Option<(u8, &[u8])> {
    data.split_first().map(|(letter, rest)| (letter % count, rest))
}

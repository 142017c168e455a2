//! The simulators against a small HTTP/2 client: they are as strict as the documentation says, and
//! their faults are the faults asked for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod apns;

mod client;

mod connection;

mod faults;

mod fcm;

mod floor;

mod raw;

mod scenario;

mod sign;

mod webpush;

//! The relay from outside: real doors, real TLS and HTTP/2 to the simulated push services.

#![expect(clippy::unwrap_used, reason = "a test may fail that way")]

mod answers;
mod house;
mod walk;

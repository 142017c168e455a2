//! The relay from outside: real doors, real TLS and HTTP/2 to the simulated push services.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test may fail that way")]

mod answers;
mod bad_input;
mod cluster;
mod connections;
mod doors;
mod email;
mod faults;
mod forge;
mod frames;
mod grpc;
mod handles;
mod hardening;
mod house;
mod identity;
mod library;
mod load;
mod nas;
mod pressure;
mod privacy;
mod process;
mod rest;
mod store;
mod walk;
mod wire;

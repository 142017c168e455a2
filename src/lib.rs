//! sns-relay.

pub mod push;

pub mod outcome;

pub mod config;

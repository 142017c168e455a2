//! sns-relay.

pub mod push;

pub mod outcome;

pub mod config;

pub mod clock;

pub mod keys;

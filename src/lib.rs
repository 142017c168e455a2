//! sns-relay.

pub mod authenticate;

pub mod enrol;

pub mod pair;

pub mod route;

pub mod provider;

pub mod reply;

pub mod store;

pub mod outcome;

pub mod push;

pub mod config;

pub mod keys;

pub mod clock;

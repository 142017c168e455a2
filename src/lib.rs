//! sns-relay.

pub mod authenticate;

pub mod enrol;

pub mod pair;

pub mod route;

pub mod store;

pub mod push;

pub mod reply;

pub mod outcome;

pub mod config;

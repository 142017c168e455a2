//! sns-relay.

pub mod authenticate;

pub mod pair;

pub mod route;

pub mod provider;

pub mod push;

pub mod outcome;

pub mod config;

pub mod clock;

//! sns-relay.

pub mod provider;

//! sns-relay.

//! Header compression (RFC 7541): what a client says to a push service, and what it hears.
//!
//! The encoder keeps in the peer's table what stays the same from message to message, so that it
//! costs a byte; the decoder takes whatever a peer may say. Neither does I/O.

mod decoder;
mod encoder;
mod huffman;
mod table;

pub(super) use decoder::{Decoder, Field};
pub(super) use encoder::Encoder;

/// Bytes of a table that nobody has changed (RFC 9113 §6.5.2).
const TABLE_BYTES: usize = 4_096;

/// Bytes that an entry counts for beside its text (RFC 7541 §4.1).
const ENTRY_BYTES: usize = 32;

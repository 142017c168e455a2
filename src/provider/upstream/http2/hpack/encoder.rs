//! Writes the header fields of requests.
//!
//! Text goes out as it is, without the Huffman code, which costs more time than the bytes are
//! worth. What is kept in the peer's table is for the caller to say, field by field.

use std::collections::VecDeque;

use super::super::super::request::Keep;
use super::table::index_of;
use super::{ENTRY_BYTES, TABLE_BYTES};

/// The encoder of one connection, with a copy of the peer's table.
#[derive(Debug)]
pub(in super::super) struct Encoder {
    /// The newest first, as its index says.
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    /// The peer has set another size, and the next block says so first.
    announces: bool,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    value: Box<[u8]>,
}

/// How a field is written (RFC 7541 §6), with the bits of its first byte's integer.
const INDEXED: (u8, u8) = (0x80, 7);
const LITERAL_KEPT: (u8, u8) = (0x40, 6);
const TABLE_SIZE: (u8, u8) = (0x20, 5);
const LITERAL: (u8, u8) = (0x00, 4);
const TEXT: (u8, u8) = (0x00, 7);

/// Entries of the static table stand before those of ours.
const STATIC_ENTRIES: usize = 61;

// === impl Encoder ===

impl Encoder {
    /// Begins with the table that both sides have before any SETTINGS.
    pub(in super::super) const fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES, announces: false }
    }

    /// Follows the peer's `SETTINGS_HEADER_TABLE_SIZE`, up to what we use.
    pub(in super::super) fn resize(&mut self, bytes_max: usize) {
        let bytes_max = bytes_max.min(TABLE_BYTES);
        if bytes_max != self.bytes_max {
            self.bytes_max = bytes_max;
            self.announces = true;
            self.make_room(0);
        }
    }

    /// Begins a block.
    pub(in super::super) fn begin(&mut self, out: &mut Vec<u8>) {
        if self.announces {
            self.announces = false;
            put_integer(out, TABLE_SIZE, self.bytes_max);
        }
        // `:method: POST` and `:scheme: https` of the static table.
        out.extend_from_slice(&[0x83, 0x87]);
    }

    /// Writes a field.
    pub(in super::super) fn field(
        &mut self,
        out: &mut Vec<u8>,
        name: &'static str,
        value: &[u8],
        keep: Keep,
    ) {
        let mut named = None;
        for (place, entry) in self.entries.iter().enumerate() {
            if entry.name == name {
                let index = STATIC_ENTRIES + 1 + place;
                if *entry.value == *value {
                    return put_integer(out, INDEXED, index);
                }
                named.get_or_insert(index);
            }
        }
        let named = index_of(name).or(named);
        let is_kept = match keep {
            Keep::Field => true,
            // Once, so that from then on the name has an index.
            Keep::Name => named.is_none(),
            Keep::Nothing => false,
        };
        put_integer(out, if is_kept { LITERAL_KEPT } else { LITERAL }, named.unwrap_or(0));
        if named.is_none() {
            put_text(out, name.as_bytes());
        }
        put_text(out, value);
        if is_kept {
            self.insert(name, value);
        }
    }

    fn insert(&mut self, name: &'static str, value: &[u8]) {
        let bytes = name.len() + value.len() + ENTRY_BYTES;
        self.make_room(bytes);
        // What is larger than the table empties it, and is not in it (RFC 7541 §4.4).
        if bytes <= self.bytes_max {
            self.bytes += bytes;
            self.entries.push_front(Entry { name, value: value.into() });
        }
    }

    fn make_room(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max {
            let Some(entry) = self.entries.pop_back() else { return };
            self.bytes -= entry.name.len() + entry.value.len() + ENTRY_BYTES;
        }
    }
}

/// RFC 7541 §5.1.
fn put_integer(out: &mut Vec<u8>, (pattern, bits): (u8, u8), value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return out.push(pattern | low_byte(value));
    }
    out.push(pattern | low_byte(most));
    let mut rest = value - most;
    while rest >= 128 {
        out.push(low_byte(rest % 128) | 128);
        rest /= 128;
    }
    out.push(low_byte(rest));
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_integer(out, TEXT, text.len());
    out.extend_from_slice(text);
}

const fn low_byte(value: usize) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Field};
    use super::*;

    const FIELDS: [(&str, &str, Keep); 6] = [
        (":authority", "push.example", Keep::Field),
        (":path", "/3/device/1", Keep::Nothing),
        ("apns-topic", "com.example", Keep::Field),
        ("apns-expiration", "1700000000", Keep::Name),
        ("authorization", "bearer x", Keep::Nothing),
        ("content-length", "10", Keep::Nothing),
    ];

    fn block(encoder: &mut Encoder, fields: &[(&'static str, &str, Keep)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value, keep) in fields {
            encoder.field(&mut out, name, value.as_bytes(), *keep);
        }
        out
    }

    fn read(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let each = &mut |field: Field| {
            if let Field::Header(name, value) = field {
                fields.push((name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
            }
        };
        decoder.decode(block, each).unwrap();
        fields
    }

    fn expected(fields: &[(&str, &str, Keep)]) -> Vec<(String, String)> {
        let plain = fields.iter().filter(|field| !field.0.starts_with(':'));
        plain.map(|field| (field.0.to_owned(), field.1.to_owned())).collect()
    }

    /// RFC 7541, Appendix C.1.
    #[test]
    fn integers_are_those_of_the_rfc() {
        let rows: [((u8, u8), usize, &[u8]); 3] =
            [((0, 5), 10, &[10]), ((0, 5), 1337, &[31, 154, 10]), ((0, 8), 42, &[42])];
        for (prefix, value, bytes) in rows {
            let mut out = Vec::new();
            put_integer(&mut out, prefix, value);
            assert_eq!(out, bytes, "{value}");
        }
    }

    /// What stays the same is a byte from the second message on.
    #[test]
    fn a_kept_field_costs_one_byte_the_next_time() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let first = block(&mut encoder, &FIELDS);
        let second = block(&mut encoder, &FIELDS);
        // Two kept fields, the name of one, and one that was kept with its value.
        let texts = "/3/device/1".len() + "bearer x".len() + "10".len();
        assert_eq!(second.len(), 2 + 3 + texts + 3 * 2 + 2);
        for block in [first, second] {
            assert_eq!(read(&mut decoder, &block), expected(&FIELDS));
        }
    }

    /// Values of all sizes in a table that overflows, shrinks, goes and comes back: the peer reads
    /// what was written.
    #[test]
    fn the_peer_follows_whatever_becomes_of_the_table() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for (turn, size) in [4_096, 200, 0, 64, 4_096, 100_000].into_iter().enumerate() {
            encoder.resize(size);
            for length in [0, 1, 126, 127, 128, 300, 4_063, 5_000] {
                let value = "v".repeat(length) + &turn.to_string();
                let fields = [
                    ("apns-topic", value.as_str(), Keep::Field),
                    ("apns-id", "1", Keep::Name),
                    ("apns-topic", "same", Keep::Field),
                    ("ttl", value.as_str(), Keep::Nothing),
                ];
                let block = block(&mut encoder, &fields);
                assert_eq!(read(&mut decoder, &block), expected(&fields), "{size} {length}");
            }
        }
    }
}

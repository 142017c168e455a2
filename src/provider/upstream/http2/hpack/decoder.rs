//! Reads the header fields of answers.
//!
//! Every rule of RFC 7541 is kept, because a peer that breaks one can no longer be understood. A
//! field that is well compressed and not well formed as HTTP is told apart: it spoils its answer,
//! not the connection.

use std::collections::VecDeque;

use http::{HeaderName, HeaderValue, StatusCode};

use super::table::STATIC;
use super::{ENTRY_BYTES, TABLE_BYTES, huffman};

/// The decoder of one connection.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    /// The newest first, as its index says.
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    /// The text that is being read.
    value: Vec<u8>,
}

/// One field of an answer.
#[derive(Clone, Debug)]
pub(in super::super) enum Field {
    /// `:status`.
    Status(StatusCode),
    /// A header field.
    Header(HeaderName, HeaderValue),
    /// What HTTP/2 does not allow in an answer.
    Wrong,
}

#[derive(Debug)]
struct Entry {
    field: Field,
    name_bytes: usize,
    bytes: usize,
}

/// The block cannot be read, and neither can those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Malformed;

/// What is left of a block.
struct Reader<'a>(&'a [u8]);

/// Indices stay far below it, and so do lengths.
const INTEGER_MAX: usize = 1 << 24;

// === impl Decoder ===

impl Decoder {
    /// Begins with the table that both sides have; we never change its size.
    pub(in super::super) const fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES, value: Vec::new() }
    }

    /// Reads a whole block, field by field.
    /// Errors: [`Malformed`].
    pub(in super::super) fn decode(
        &mut self,
        block: &[u8],
        each: &mut dyn FnMut(Field),
    ) -> Result<(), Malformed> {
        let mut reader = Reader(block);
        let mut is_first = true;
        while let Some(byte) = reader.0.first().copied() {
            match byte {
                0x80.. => each(self.entry(reader.integer(7)?)?.0),
                0x40.. => {
                    let entry = self.literal(&mut reader, 6)?;
                    each(entry.field.clone());
                    self.insert(entry);
                }
                0x20.. => {
                    // RFC 7541 §4.2: at a block's beginning only.
                    let bytes_max = reader.integer(5)?;
                    if !is_first || bytes_max > TABLE_BYTES {
                        return Err(Malformed);
                    }
                    self.bytes_max = bytes_max;
                    self.make_room(0);
                    continue;
                }
                _ => each(self.literal(&mut reader, 4)?.field),
            }
            is_first = false;
        }
        Ok(())
    }

    fn literal(&mut self, reader: &mut Reader<'_>, bits: u8) -> Result<Entry, Malformed> {
        let index = reader.integer(bits)?;
        let mut name = Vec::new();
        let known = if index == 0 {
            reader.text(&mut name)?;
            None
        } else {
            Some(self.entry(index)?)
        };
        self.value.clear();
        reader.text(&mut self.value)?;
        let value = self.value.as_slice();
        let (field, name_bytes) = match known {
            None => (Field::read(&name, value), name.len()),
            Some((field, name_bytes)) => (field.with(value), name_bytes),
        };
        Ok(Entry { field, name_bytes, bytes: name_bytes + value.len() + ENTRY_BYTES })
    }

    /// Gives an entry of either table, and the bytes of its name.
    fn entry(&self, index: usize) -> Result<(Field, usize), Malformed> {
        let place = index.checked_sub(1).ok_or(Malformed)?;
        if let Some((name, value)) = STATIC.get(place) {
            let field = Field::read(name.as_bytes(), value.as_bytes());
            return Ok((field, name.len()));
        }
        let entry = self.entries.get(place - STATIC.len()).ok_or(Malformed)?;
        Ok((entry.field.clone(), entry.name_bytes))
    }

    fn insert(&mut self, entry: Entry) {
        self.make_room(entry.bytes);
        if entry.bytes <= self.bytes_max {
            self.bytes += entry.bytes;
            self.entries.push_front(entry);
        }
    }

    fn make_room(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max {
            let Some(entry) = self.entries.pop_back() else { return };
            self.bytes -= entry.bytes;
        }
    }
}

// === impl Field ===

impl Field {
    fn read(name: &[u8], value: &[u8]) -> Self {
        match name {
            b":status" => Self::status(value),
            // Small letters only, so no pseudo-header field of requests either.
            _ => Self::header(HeaderName::from_lowercase(name).ok(), value),
        }
    }

    fn header(name: Option<HeaderName>, value: &[u8]) -> Self {
        let value = HeaderValue::from_bytes(value).ok();
        name.zip(value).map_or(Self::Wrong, |(name, value)| Self::Header(name, value))
    }

    fn status(value: &[u8]) -> Self {
        StatusCode::from_bytes(value).map_or(Self::Wrong, Self::Status)
    }

    /// Gives a field of the same name.
    fn with(self, value: &[u8]) -> Self {
        match self {
            Self::Header(name, _) => Self::header(Some(name), value),
            Self::Status(_) => Self::status(value),
            Self::Wrong => Self::Wrong,
        }
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// RFC 7541 §5.1.
    fn integer(&mut self, bits: u8) -> Result<usize, Malformed> {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            value += usize::from(byte & 127) << shift;
            shift += 7;
            if value > INTEGER_MAX || shift > 28 {
                return Err(Malformed);
            }
            if byte < 128 {
                return Ok(value);
            }
        }
    }

    /// RFC 7541 §5.2.
    fn text(&mut self, text: &mut Vec<u8>) -> Result<(), Malformed> {
        let is_coded = self.0.first().is_some_and(|byte| *byte >= 128);
        let length = self.integer(7)?;
        let (coded, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        if is_coded {
            return huffman::decode(coded, text).ok_or(Malformed);
        }
        text.extend_from_slice(coded);
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads blocks, given in hex, one after the other; a field is `name: value`.
    fn read(blocks: &[&str]) -> Result<Vec<String>, Malformed> {
        let mut decoder = Decoder::new();
        let mut fields = Vec::new();
        for hex in blocks {
            let hex: String = hex.split_whitespace().collect();
            let block: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            decoder.decode(&block, &mut |field| fields.push(shown(&field)))?;
        }
        Ok(fields)
    }

    fn shown(field: &Field) -> String {
        match field {
            Field::Status(status) => format!(":status: {}", status.as_u16()),
            Field::Header(name, value) => format!("{name}: {}", value.to_str().unwrap()),
            Field::Wrong => "wrong".to_owned(),
        }
    }

    /// RFC 7541, Appendix C.6: three answers, with entries that fall out of the table in between
    /// (there its size is 256 bytes, which the first byte of the first block says here).
    #[test]
    fn the_answers_of_the_rfc_are_read() {
        let blocks = [
            "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad
             94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160
             65c0 03ed 4ee5 b106 3d50 07",
        ];
        let date = |second| format!("date: Mon, 21 Oct 2013 20:13:{second} GMT");
        let (cache, location) = ("cache-control: private", "location: https://www.example.com");
        let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        let (first, last) = (date(21), date(22));
        let expected = [
            ":status: 302",
            cache,
            &first,
            location, //
            ":status: 307",
            cache,
            &first,
            location, //
            ":status: 200",
            cache,
            &last,
            location,
            "content-encoding: gzip",
            cookie,
        ];
        assert_eq!(read(&blocks).unwrap(), expected);
    }

    /// What breaks a rule of compression ends the connection.
    #[test]
    fn a_block_that_breaks_a_rule_is_refused() {
        let rows = [
            ("80", "index 0"),
            ("be", "an index that is not there"),
            ("ff ffff ffff 7f", "an integer without end"),
            ("00", "no name"),
            ("40 0161 05 61", "a value that is too short"),
            ("88 20", "a size after a field"),
            ("3f e2 1f", "a size above ours"),
            ("00 81ff 00", "padding of a whole byte"),
        ];
        for (block, why) in rows {
            assert_eq!(read(&[block]), Err(Malformed), "{why}");
        }
    }

    /// A field that HTTP/2 does not allow is told apart, and its entry counts in the table.
    #[test]
    fn a_wrong_field_spoils_no_table() {
        let fields = read(&["40 0141 0161 be 40 0161 0162 bf be"]).unwrap();
        assert_eq!(fields, ["wrong", "wrong", "a: b", "wrong", "a: b"]);
        assert_eq!(read(&["84 00 0161 01 0a"]).unwrap(), ["wrong", "wrong"]);
    }
}

//! The Huffman code of RFC 7541, Appendix B, for reading.
//!
//! The code is canonical: the lengths alone give it. Symbols of one length have numbers in a row,
//! and the first of a length follows from the last of the one before.

/// Bits of each symbol's code; the last one ends a string and must not occur in one.
const BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const BITS_MIN: usize = 5;
const BITS_MAX: usize = 30;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Row {
    first_code: u32,
    /// Where its symbols begin in `SYMBOLS`.
    at: u16,
    count: u16,
}

const ROWS: [Row; BITS_MAX + 1] = rows();

/// In order of length, then of value.
const SYMBOLS: [u16; 257] = symbols();

/// The symbol that a byte begins with and its bits; no bits where the code is longer.
const SHORT: [(u8, u8); 256] = short();

const fn rows() -> [Row; BITS_MAX + 1] {
    let mut rows = [Row { first_code: 0, at: 0, count: 0 }; BITS_MAX + 1];
    let mut symbol = 0;
    while symbol < BITS.len() {
        rows[BITS[symbol] as usize].count += 1;
        symbol += 1;
    }
    let mut bits = 1;
    while bits <= BITS_MAX {
        let before = rows[bits - 1];
        rows[bits].first_code = (before.first_code + before.count as u32) << 1;
        rows[bits].at = before.at + before.count;
        bits += 1;
    }
    rows
}

const fn symbols() -> [u16; 257] {
    let mut symbols = [0; 257];
    let (mut at, mut bits) = (0, BITS_MIN);
    while bits <= BITS_MAX {
        let mut symbol = 0;
        while symbol < BITS.len() {
            if BITS[symbol] as usize == bits {
                symbols[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    symbols
}

const fn short() -> [(u8, u8); 256] {
    let mut short = [(0, 0); 256];
    let mut byte = 0;
    while byte < short.len() {
        let mut bits = BITS_MIN;
        while bits <= 8 {
            let place = (byte >> (8 - bits)) as u32;
            let row = ROWS[bits];
            if place < row.first_code + row.count as u32 && place >= row.first_code {
                let symbol = SYMBOLS[row.at as usize + (place - row.first_code) as usize];
                short[byte] = (symbol as u8, bits as u8);
                break;
            }
            bits += 1;
        }
        byte += 1;
    }
    short
}

/// Reads a string onto the end of `text`; None where it is not well formed.
pub(super) fn decode(coded: &[u8], text: &mut Vec<u8>) -> Option<()> {
    text.reserve(coded.len() * 8 / BITS_MIN);
    // The next bits stand at the top.
    let (mut held, mut bits) = (0_u64, 0_u32);
    let mut coded = coded.iter();
    loop {
        if bits < 32 {
            while bits <= 56
                && let Some(byte) = coded.next()
            {
                held |= u64::from(*byte) << (56 - bits);
                bits += 8;
            }
        }
        let (mut symbol, mut length) = SHORT[(held >> 56) as usize];
        if length == 0 || u32::from(length) > bits {
            // RFC 7541 §5.2: less than a byte of ones.
            if bits < 8 && held == u64::MAX.checked_shl(64 - bits).unwrap_or(0) {
                return Some(());
            }
            (symbol, length) = long(held)?;
            if u32::from(length) > bits {
                return None;
            }
        }
        held <<= length;
        bits -= u32::from(length);
        text.push(symbol);
    }
}

/// Gives the symbol of more than eight bits that `held` begins with, and their number.
fn long(held: u64) -> Option<(u8, u8)> {
    (9..=BITS_MAX).find_map(|bits| {
        let row = ROWS[bits];
        let code = u32::try_from(held >> (64 - bits)).ok()?;
        let place = code.checked_sub(row.first_code)?;
        if place >= u32::from(row.count) {
            return None;
        }
        let symbol = SYMBOLS[usize::from(row.at) + place as usize];
        // The end of the string has no byte.
        Some((u8::try_from(symbol).ok()?, u8::try_from(bits).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hex: &str) -> Option<String> {
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let mut text = Vec::new();
        decode(&bytes, &mut text)?;
        Some(String::from_utf8(text).unwrap())
    }

    /// RFC 7541, Appendix C.4 and C.6.
    #[test]
    fn the_strings_of_the_rfc_are_read() {
        let rows = [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            ("640eff", "307"),
            ("9bd9ab", "gzip"),
        ];
        for (hex, text) in rows {
            assert_eq!(read(hex).as_deref(), Some(text), "{hex}");
        }
    }

    /// RFC 7541 §5.2: eight bits of padding, padding of zeros, and the end of the string.
    #[test]
    fn what_is_not_well_formed_is_refused() {
        for hex in ["ff", "1fff", "18", "fffffffc", "ffffffff"] {
            assert_eq!(read(hex), None, "{hex}");
        }
        assert_eq!(read("").as_deref(), Some(""));
    }

    /// The code has no gaps: what is read of random bytes is read bit by bit too.
    #[test]
    fn every_symbol_has_its_place() {
        assert_eq!(SYMBOLS[0], u16::from(b'0'));
        assert_eq!(SYMBOLS[256], 256, "the end of a string");
        let row = ROWS[BITS_MAX];
        assert_eq!(row.first_code + u32::from(row.count), 1 << BITS_MAX);
    }
}

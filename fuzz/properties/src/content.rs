//! Sealed bodies: what passes has the header of one aes128gcm record, and passes unchanged.

use bytes::Bytes;
use sns_relay::outcome::{Code, Refusal};
use sns_relay::push::Sealed;

/// salt(16) ‖ record size(4) ‖ length of the key id(1) ‖ key id(65).
const HEADER_BYTES: usize = 86;

/// Checks one body.
/// Source: RFC 8188 §2.1, RFC 8291 §4.
pub fn content(body: &[u8]) {
    let result = Sealed::parse(Bytes::copy_from_slice(body));
    assert_eq!(result.is_ok(), is_one_record(body), "the header says otherwise");
    match result {
        Ok(sealed) => {
            assert_eq!(sealed.as_bytes().as_ref(), body, "a body passes unchanged");
            let readable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
            assert!(!body.iter().all(readable), "plain text passes for a sealed message");
        }
        Err(refusal) => {
            let too_large = body.len() > Sealed::BODY_BYTES_MAX;
            let code = if too_large { Code::ContentTooLarge } else { Code::BodyNotAes128gcm };
            assert_eq!(refusal, Refusal::new(code));
        }
    }
}

/// Reads the header for a second time, its own way.
fn is_one_record(body: &[u8]) -> bool {
    let (Some(size), Some(key_id)) = (body.get(16..20), body.get(20..22)) else { return false };
    let size = size.iter().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    // A tag of 16 bytes and the delimiter are the least that a record holds.
    let record = body.len().saturating_sub(HEADER_BYTES) as u64;
    let is_whole = (17..=size).contains(&record) && size >= 18;
    key_id == [65, 4] && is_whole && body.len() <= 4096
}

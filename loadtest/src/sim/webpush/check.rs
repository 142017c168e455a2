//! The headers and the body of one Web Push request.
//!
//! In: a request whose sender is known. Out: its time to live, or the fault. The body is never
//! opened, only measured: RFC 8188 header, a 65-byte key on the curve, exactly one record.
//! RFC 8030 §5; RFC 8188 §2.1; RFC 8291 §4.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use super::super::server::Received;
use super::answer::Fault;

/// What a good request says.
pub(crate) struct Accepted {
    pub(crate) ttl_s: u64,
}

const TTL_MAX_S: u64 = 2_592_000;
const TOPIC_CHARACTERS_MAX: usize = 32;
const BODY_BYTES_MAX: usize = 4096;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 65;
const HEADER_BYTES: usize = SALT_BYTES + 4 + 1 + KEY_BYTES;
const RECORD_BYTES_MIN: usize = 18;
/// Delimiter and tag, the record of an empty message.
const EMPTY_RECORD_BYTES: usize = 17;

/// Checks everything but the sender.
pub(crate) fn check(received: &Received) -> Result<Accepted, Fault> {
    let headers = &received.headers;
    let ttl_s = ttl_s(headers)?;
    check_urgency(headers)?;
    check_topic(headers)?;
    check_encoding(headers)?;
    check_length(headers, received.body.len())?;
    if received.body.len() > BODY_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    check_body(&received.body)?;
    Ok(Accepted { ttl_s })
}

fn ttl_s(headers: &HeaderMap) -> Result<u64, Fault> {
    let digits = only(headers, "ttl").map_err(|()| Fault::BadTtl)?.ok_or(Fault::BadTtl)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::BadTtl);
    }
    let seconds: u64 = digits.parse().map_err(|_| Fault::BadTtl)?;
    Ok(seconds.min(TTL_MAX_S))
}

fn check_urgency(headers: &HeaderMap) -> Result<(), Fault> {
    match only(headers, "urgency") {
        Ok(None | Some("very-low" | "low" | "normal" | "high")) => Ok(()),
        _ => Err(Fault::BadUrgency),
    }
}

fn check_topic(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(topic) = only(headers, "topic").map_err(|()| Fault::BadTopic)? else { return Ok(()) };
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_good =
        (1..=TOPIC_CHARACTERS_MAX).contains(&topic.len()) && topic.bytes().all(is_allowed);
    if is_good { Ok(()) } else { Err(Fault::BadTopic) }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Fault> {
    let encoding = only(headers, CONTENT_ENCODING.as_str()).map_err(|()| Fault::BadEncryption)?;
    let has_old_draft = headers.contains_key("encryption") || headers.contains_key("crypto-key");
    if encoding == Some("aes128gcm") && !has_old_draft { Ok(()) } else { Err(Fault::BadEncryption) }
}

fn check_length(headers: &HeaderMap, body_bytes: usize) -> Result<(), Fault> {
    let length = only(headers, CONTENT_LENGTH.as_str()).map_err(|()| Fault::LengthMissing)?;
    let length: usize = length.and_then(|text| text.parse().ok()).ok_or(Fault::LengthMissing)?;
    if length == body_bytes { Ok(()) } else { Err(Fault::LengthMissing) }
}

fn check_body(body: &[u8]) -> Result<(), Fault> {
    let (header, record) = body.split_at_checked(HEADER_BYTES).ok_or(Fault::BadEncryption)?;
    let (_salt, rest) = header.split_at(SALT_BYTES);
    let (size, rest) = rest.split_at(4);
    let (key_bytes, key) = rest.split_at(1);
    let record_bytes = size.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
    let is_one_record = (EMPTY_RECORD_BYTES..=record_bytes).contains(&record.len());
    let is_point = key_bytes == [65] && key.first() == Some(&4);
    let on_curve = || ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).is_ok();
    if record_bytes >= RECORD_BYTES_MIN && is_one_record && is_point && on_curve() {
        Ok(())
    } else {
        Err(Fault::BadEncryption)
    }
}

/// The one value of a header; `Err` when it is there twice or not text.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    value.to_str().map(Some).map_err(|_| ())
}

//! Seals a message for one device and opens it there: RFC 8291 over RFC 8188 (`aes128gcm`).
//!
//! In: the device's public key and auth secret, and plain bytes. Out: one body, padded to a size
//! class so that its length tells nothing about the message. Each message has its own ephemeral
//! key and salt. Every failure to open is one and the same error. Never logs, never keeps a byte.
//!
//! ```text
//! body = salt(16) ‖ record_bytes(4) ‖ 65(1) ‖ ephemeral public key(65) ‖ record
//! record = AES-128-GCM( message ‖ 0x02 ‖ zero padding ) ‖ tag(16)
//! ```

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, ParsedPublicKey, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, rand};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::base64url;

/// The largest body that any push service of the relay takes, in bytes.
pub const BODY_BYTES_MAX: usize = 4096;

/// What sealing adds to a message: header 86, delimiter 1, tag 16, in bytes.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// Where a device lets itself be written to: its public key and its auth secret.
/// Whoever has both can seal for the device, so neither is printable.
#[derive(Clone)]
pub struct DeviceKeys {
    p256dh: [u8; POINT_BYTES],
    auth: Zeroizing<[u8; AUTH_BYTES]>,
}

/// The device's own half: the private key and the auth secret. Not printable.
pub struct ReceiverKeys {
    private: PrivateKey,
    p256dh: [u8; POINT_BYTES],
    auth: Zeroizing<[u8; AUTH_BYTES]>,
}

/// The largest body an app takes (its `max_body_bytes`), in bytes; 2744 unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyCap(usize);

/// Why a message could not be sealed or opened.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealError {
    /// The device's key is not what it should be; `field` is `p256dh` or `auth`.
    #[error("{field} is not {expected}")]
    BadKey {
        /// Which of the device's keys.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The cap leaves no room for a message, or is larger than any push service takes.
    #[error("a body cap of {cap_bytes} bytes is outside {OVERHEAD_BYTES}..={BODY_BYTES_MAX}")]
    BadCap {
        /// The cap that was asked for, in bytes.
        cap_bytes: usize,
    },
    /// The message does not fit.
    #[error("the message has {message_bytes} bytes, {message_bytes_max} fit")]
    TooLong {
        /// The message, in bytes.
        message_bytes: usize,
        /// The longest message under this cap, in bytes.
        message_bytes_max: usize,
    },
    /// The body is damaged, forged, or not for this receiver.
    #[error("the body does not open")]
    Unreadable,
    /// The machine's random source or crypto library failed.
    #[error("the crypto library failed")]
    Crypto,
}

/// Seals a message for a device under a fresh key and salt.
/// Shape: gives the whole `aes128gcm` body, exactly as long as its size class.
/// Errors: `TooLong`; `Crypto` when the machine has no randomness.
/// Source: RFC 8291 §3.
pub fn seal(device: &DeviceKeys, message: &[u8], cap: BodyCap) -> Result<Vec<u8>, SealError> {
    let body_bytes = cap.class_of(message.len())?;
    let ephemeral = PrivateKey::generate(&ECDH_P256).map_err(crypto)?;
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(crypto)?;
    seal_under(device, message, body_bytes, &ephemeral, salt)
}

/// Seals without padding under a key and salt that the caller names: for test vectors only, since
/// using a pair twice gives both messages away.
/// Errors: `BadKey` for a private key out of range; `TooLong`.
/// Source: RFC 8291 §5.
pub fn seal_with(
    device: &DeviceKeys,
    message: &[u8],
    as_private: &[u8; 32],
    salt: [u8; SALT_BYTES],
) -> Result<Vec<u8>, SealError> {
    BodyCap(BODY_BYTES_MAX).class_of(message.len())?;
    let ephemeral = private_key(as_private)?;
    seal_under(device, message, message.len() + OVERHEAD_BYTES, &ephemeral, salt)
}

/// Opens a body that was sealed for this receiver.
/// Shape: exactly one record, as RFC 8291 §4 demands; gives the message without its padding.
/// Errors: `Unreadable` for every failure alike.
pub fn open(receiver: &ReceiverKeys, body: &[u8]) -> Result<Vec<u8>, SealError> {
    let parts = Parts::parse(body)?;
    if parts.records.len() > parts.record_bytes {
        return Err(SealError::Unreadable);
    }
    let sender: [u8; POINT_BYTES] = parts.key_id.try_into().map_err(|_| SealError::Unreadable)?;
    let ikm = message_key(&receiver.private, &sender, &receiver.auth, [&receiver.p256dh, &sender])
        .map_err(|Unspecified| SealError::Unreadable)?;
    parts.open(ikm.as_slice())
}

/// Opens a body of any number of records under input keying material known beforehand.
/// Errors: `Unreadable` for every failure alike.
/// Source: RFC 8188 §2.
pub fn open_records(ikm: &[u8], body: &[u8]) -> Result<Vec<u8>, SealError> {
    Parts::parse(body)?.open(ikm)
}

const POINT_BYTES: usize = 65;
const AUTH_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const KEY_ID_AT: usize = SALT_BYTES + 4 + 1;
const HEADER_BYTES: usize = KEY_ID_AT + POINT_BYTES;
const RECORD_BYTES: u32 = 4096;
const DELIMITER_LAST: u8 = 2;
const DELIMITER_MORE: u8 = 1;
const BODY_CLASSES: [usize; 3] = [512, 1024, 2048];

/// An `aes128gcm` body taken apart (RFC 8188 §2.1).
struct Parts<'a> {
    salt: &'a [u8],
    record_bytes: usize,
    key_id: &'a [u8],
    records: &'a [u8],
}

/// A length in bytes, in the form that the HKDF asks for.
struct LengthBytes(usize);

// === impl DeviceKeys ===

impl DeviceKeys {
    /// Takes the keys as bytes.
    /// Errors: `BadKey` unless `p256dh` is an uncompressed point on P-256.
    pub fn new(p256dh: [u8; POINT_BYTES], auth: [u8; AUTH_BYTES]) -> Result<Self, SealError> {
        if p256dh[0] != 4 || parse_point(&p256dh).is_err() {
            return Err(BAD_P256DH);
        }
        Ok(DeviceKeys { p256dh, auth: Zeroizing::new(auth) })
    }

    /// Reads the keys as a browser hands them out (`PushSubscription.toJSON().keys`).
    /// Shape: base64url or base64, padded or not; 65 and 16 bytes.
    /// Errors: `BadKey` naming the one that is wrong, never its value.
    pub fn parse(p256dh: &str, auth: &str) -> Result<Self, SealError> {
        let point = base64url::decode(p256dh).and_then(|bytes| bytes.try_into().ok());
        let secret = base64url::decode(auth).map(Zeroizing::new);
        let secret = secret.and_then(|bytes| bytes.as_slice().try_into().ok());
        DeviceKeys::new(point.ok_or(BAD_P256DH)?, secret.ok_or(BAD_AUTH)?)
    }
}

// === impl ReceiverKeys ===

impl ReceiverKeys {
    /// Makes a fresh pair of keys. Errors: `Crypto`.
    pub fn generate() -> Result<Self, SealError> {
        let mut auth = [0; AUTH_BYTES];
        rand::fill(&mut auth).map_err(crypto)?;
        ReceiverKeys::of(PrivateKey::generate(&ECDH_P256).map_err(crypto)?, auth)
    }

    /// Takes keys made elsewhere: the private scalar, big-endian, and the auth secret.
    /// Errors: `BadKey` for a scalar out of range.
    pub fn from_raw(private: &[u8; 32], auth: [u8; AUTH_BYTES]) -> Result<Self, SealError> {
        ReceiverKeys::of(private_key(private)?, auth)
    }

    /// Gives the public key, an uncompressed point.
    pub fn p256dh(&self) -> [u8; POINT_BYTES] {
        self.p256dh
    }

    /// Gives the auth secret.
    pub fn auth(&self) -> [u8; AUTH_BYTES] {
        *self.auth
    }

    /// Gives the half that the sender needs.
    pub fn device(&self) -> DeviceKeys {
        DeviceKeys { p256dh: self.p256dh, auth: self.auth.clone() }
    }

    fn of(private: PrivateKey, auth: [u8; AUTH_BYTES]) -> Result<Self, SealError> {
        let p256dh = public_point(&private)?;
        Ok(ReceiverKeys { private, p256dh, auth: Zeroizing::new(auth) })
    }
}

// === impl BodyCap ===

impl Default for BodyCap {
    /// 2744 bytes: what fits, in base64url, into every push service's payload.
    fn default() -> Self {
        BodyCap(2744)
    }
}

impl BodyCap {
    /// Takes an app's `max_body_bytes`. Errors: `BadCap` outside 103..=4096.
    pub fn new(cap_bytes: usize) -> Result<Self, SealError> {
        if !(OVERHEAD_BYTES..=BODY_BYTES_MAX).contains(&cap_bytes) {
            return Err(SealError::BadCap { cap_bytes });
        }
        Ok(BodyCap(cap_bytes))
    }

    /// Gives the longest message that fits, in bytes.
    pub fn message_bytes_max(self) -> usize {
        self.0 - OVERHEAD_BYTES
    }

    /// Gives the body length for a message: the smallest of 512, 1024, 2048 and the cap.
    fn class_of(self, message_bytes: usize) -> Result<usize, SealError> {
        let message_bytes_max = self.message_bytes_max();
        if message_bytes > message_bytes_max {
            return Err(SealError::TooLong { message_bytes, message_bytes_max });
        }
        let needed = message_bytes + OVERHEAD_BYTES;
        let class = BODY_CLASSES.into_iter().find(|class| *class >= needed && *class < self.0);
        Ok(class.unwrap_or(self.0))
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    fn parse(body: &'a [u8]) -> Result<Parts<'a>, SealError> {
        let parts = || {
            let (salt, rest) = body.split_at_checked(SALT_BYTES)?;
            let (record_bytes, rest) = rest.split_first_chunk::<4>()?;
            let (key_id_bytes, rest) = rest.split_first()?;
            let (key_id, records) = rest.split_at_checked(usize::from(*key_id_bytes))?;
            let record_bytes = usize::try_from(u32::from_be_bytes(*record_bytes)).ok()?;
            // RFC 8188 §2.1: smaller records could not hold a byte.
            (record_bytes >= TAG_BYTES + 2 && !records.is_empty()).then_some(Parts {
                salt,
                record_bytes,
                key_id,
                records,
            })
        };
        parts().ok_or(SealError::Unreadable)
    }

    fn open(&self, ikm: &[u8]) -> Result<Vec<u8>, SealError> {
        let (key, nonce) =
            content_key(ikm, self.salt).map_err(|Unspecified| SealError::Unreadable)?;
        let records = self.records.chunks(self.record_bytes);
        let last = records.len() - 1;
        let mut message = Vec::with_capacity(self.records.len());
        for (sequence, record) in records.enumerate() {
            let mut record = Zeroizing::new(record.to_vec());
            let nonce = Nonce::assume_unique_for_key(nonce_of(&nonce, sequence));
            let padded = key
                .open_in_place(nonce, Aad::empty(), &mut record)
                .map_err(|Unspecified| SealError::Unreadable)?;
            let end = padded.iter().rposition(|byte| *byte != 0).ok_or(SealError::Unreadable)?;
            let delimiter = if sequence == last { DELIMITER_LAST } else { DELIMITER_MORE };
            if padded[end] != delimiter {
                return Err(SealError::Unreadable);
            }
            message.extend_from_slice(&padded[..end]);
        }
        Ok(message)
    }
}

// === impl LengthBytes ===

impl hkdf::KeyType for LengthBytes {
    fn len(&self) -> usize {
        self.0
    }
}

const BAD_P256DH: SealError =
    SealError::BadKey { field: "p256dh", expected: "an uncompressed P-256 point in base64url" };
const BAD_AUTH: SealError = SealError::BadKey { field: "auth", expected: "16 bytes in base64url" };

fn seal_under(
    device: &DeviceKeys,
    message: &[u8],
    body_bytes: usize,
    ephemeral: &PrivateKey,
    salt: [u8; SALT_BYTES],
) -> Result<Vec<u8>, SealError> {
    let sender = public_point(ephemeral)?;
    let ikm = message_key(ephemeral, &device.p256dh, &device.auth, [&device.p256dh, &sender])
        .map_err(crypto)?;
    let (key, nonce) = content_key(ikm.as_slice(), &salt).map_err(crypto)?;

    let mut body = Vec::with_capacity(body_bytes);
    body.extend_from_slice(&salt);
    body.extend_from_slice(&RECORD_BYTES.to_be_bytes());
    body.push(POINT_BYTES as u8);
    body.extend_from_slice(&sender);
    body.extend_from_slice(message);
    body.push(DELIMITER_LAST);
    body.resize(body_bytes - TAG_BYTES, 0);
    let tag = key
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce_of(&nonce, 0)),
            Aad::empty(),
            &mut body[HEADER_BYTES..],
        )
        .map_err(crypto)?;
    body.extend_from_slice(tag.as_ref());
    Ok(body)
}

/// Agrees on the message's input keying material (RFC 8291 §3.4); `points` are receiver, sender.
fn message_key(
    private: &PrivateKey,
    peer: &[u8; POINT_BYTES],
    auth: &[u8; AUTH_BYTES],
    points: [&[u8; POINT_BYTES]; 2],
) -> Result<Zeroizing<[u8; 32]>, Unspecified> {
    let peer = parse_point(peer)?;
    agree(private, peer, Unspecified, |secret| {
        let info: [&[u8]; 3] = [b"WebPush: info\0", points[0], points[1]];
        let mut ikm = Zeroizing::new([0; 32]);
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, auth).extract(secret);
        key.expand(&info, LengthBytes(32))?.fill(ikm.as_mut_slice())?;
        Ok(ikm)
    })
}

/// Derives the content key and the base nonce (RFC 8188 §2.2 and §2.3).
fn content_key(ikm: &[u8], salt: &[u8]) -> Result<(LessSafeKey, [u8; 12]), Unspecified> {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(ikm);
    let mut key = Zeroizing::new([0; 16]);
    prk.expand(&[b"Content-Encoding: aes128gcm\0"], LengthBytes(16))?.fill(key.as_mut_slice())?;
    let mut nonce = [0; 12];
    prk.expand(&[b"Content-Encoding: nonce\0"], LengthBytes(12))?.fill(&mut nonce)?;
    Ok((LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_slice())?), nonce))
}

fn nonce_of(base: &[u8; 12], sequence: usize) -> [u8; 12] {
    let mut nonce = *base;
    for (byte, count) in nonce[4..].iter_mut().zip((sequence as u64).to_be_bytes()) {
        *byte ^= count;
    }
    nonce
}

fn parse_point(point: &[u8; POINT_BYTES]) -> Result<ParsedPublicKey, Unspecified> {
    UnparsedPublicKey::new(&ECDH_P256, point.as_slice()).try_into().map_err(|_| Unspecified)
}

fn private_key(scalar: &[u8; 32]) -> Result<PrivateKey, SealError> {
    PrivateKey::from_private_key(&ECDH_P256, scalar)
        .map_err(|_| SealError::BadKey { field: "private key", expected: "a P-256 scalar" })
}

fn public_point(private: &PrivateKey) -> Result<[u8; POINT_BYTES], SealError> {
    let public = private.compute_public_key().map_err(crypto)?;
    public.as_ref().try_into().map_err(|_| SealError::Crypto)
}

fn crypto(Unspecified: Unspecified) -> SealError {
    SealError::Crypto
}

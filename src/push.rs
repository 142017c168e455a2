//! The vocabulary in: every value from outside, each with one parse, made at the door.
//!
//! A value of a type here is well-formed, so no room behind the doors checks it again.
//! Tokens, endpoints and content have types that cannot be printed.

use std::cell::RefCell;
use std::fmt;

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use uuid::Uuid;

pub mod content;

pub mod device;

pub mod mailbox;

pub use content::{Content, Plain, Sealed};
pub use device::{Address, Endpoint};
pub use mailbox::Mailbox;

use crate::outcome::{Code, Refusal};

/// Base64url without padding on output; padding tolerated on input (design §4).
pub const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One message on its way to one device.
#[derive(Clone)]
pub struct Push {
    /// The notification's id; the application door has none.
    pub id: Option<MessageId>,
    /// How long the push service keeps it for a device that is offline.
    pub ttl: Ttl,
    /// How soon the device must see it.
    pub urgency: Urgency,
    /// What it is shed and counted as.
    pub class: Class,
    /// Messages of one topic replace each other.
    pub topic: Option<Topic>,
    /// Whether the device may make a sound.
    pub sound: bool,
    /// What the device reads.
    pub content: Content,
}

/// How much a message matters when not all can be carried; the lowest is turned away first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nice to have.
    Low,
    /// Most of it.
    Ordinary,
    /// A NAS's `error`: has rates and room of its own.
    Alarm,
}

/// A push service (RFC 8030's term), by which a device is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PushService {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm,
    /// RFC 8030: Mozilla's, Apple's, Google's and Microsoft's services for browsers.
    WebPush,
    /// Electronic mail, by the operator's SMTP server.
    Email,
}

/// The APNs environment that a device token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Environment {
    /// App Store and TestFlight builds.
    Production,
    /// Xcode debug builds.
    Sandbox,
}

/// The name of one published app: 1 to 32 of `[a-z0-9-]`. It is the operator's word, not a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppName(String);

/// A message's id, chosen by its sender or made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(Uuid);

/// RFC 8030 §5.2: seconds that a message is kept for a device that is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u32);

/// RFC 8030 §5.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Advertisements: on power and Wi-Fi.
    VeryLow,
    /// Topic updates: on either power or Wi-Fi.
    Low,
    /// Chat or calendar messages.
    Normal,
    /// Calls and alarms: also on low battery.
    High,
}

/// RFC 8030 §5.4, or the NAS door's `collapse_key`: it never reaches a push service as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Topic(String);

/// A P-256 public key that signs for a sender: an enrolled NAS or a pseudonym.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SenderKey([u8; SenderKey::LENGTH_BYTES]);

/// SHA-256 of a sender key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

// === impl Class ===

impl Class {
    /// Gives the class of a message of the application door.
    pub const fn of(urgency: Urgency) -> Self {
        match urgency {
            Urgency::VeryLow | Urgency::Low => Self::Low,
            Urgency::Normal | Urgency::High => Self::Ordinary,
        }
    }

    /// Gives the part of a room that the class may fill: 60 % for low messages, 85 % for ordinary
    /// ones, all of it for alarms; at least 1. So the lowest class is turned away first.
    pub const fn share_of(self, room: usize) -> usize {
        let percent = match self {
            Self::Low => 60,
            Self::Ordinary => 85,
            Self::Alarm => 100,
        };
        let share = room.saturating_mul(percent) / 100;
        if share == 0 { 1 } else { share }
    }
}

// === impl PushService ===

impl PushService {
    /// Every push service.
    pub const ALL: [Self; 4] = [Self::Apns, Self::Fcm, Self::WebPush, Self::Email];

    /// Gives the name that the contract and the metrics use.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::WebPush => "webpush",
            Self::Email => "email",
        }
    }

    /// Parses the member `service` of a pairing.
    /// Errors: `member_invalid`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Self::ALL
            .into_iter()
            .find(|service| service.label() == text)
            .ok_or_else(|| Refusal::of_field(Code::MemberInvalid, "service"))
    }
}

// === impl Environment ===

impl Environment {
    /// Both environments.
    pub const ALL: [Self; 2] = [Self::Production, Self::Sandbox];

    /// Gives the name that the contract uses.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Sandbox => "sandbox",
        }
    }

    /// Parses the member `environment` of a pairing.
    /// Errors: `member_invalid`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Self::ALL
            .into_iter()
            .find(|environment| environment.label() == text)
            .ok_or_else(|| Refusal::of_field(Code::MemberInvalid, "environment"))
    }
}

// === impl AppName ===

impl AppName {
    /// Longest name, in bytes.
    pub const LENGTH_BYTES_MAX: usize = 32;

    /// Parses an app's name: 1 to 32 of `[a-z0-9-]`.
    /// Errors: `app_unknown`, since no app has another name.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let fits = (1..=Self::LENGTH_BYTES_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits && plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(Refusal::of_field(Code::AppUnknown, "app"))
        }
    }

    /// Gives the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads base64url with as much padding as belongs there, or less: as [`BASE64URL`] does, by wider
/// steps.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding_max = digits.len().wrapping_neg() % 4;
    let fits = text.len() - digits.len() <= padding_max;
    fits.then(|| base64_simd::URL_SAFE_NO_PAD.decode_to_vec(digits).ok()).flatten()
}

/// Random ids that a thread draws at once.
const IDS_AT_ONCE: usize = 64;

// === impl MessageId ===

impl MessageId {
    /// Makes a random id, for a message that came without one.
    pub fn random() -> Self {
        thread_local! {
            // Asking for many at once costs what asking for one does.
            static AHEAD: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
        }
        let bytes = AHEAD.with_borrow_mut(|ahead| {
            ahead.pop().unwrap_or_else(|| {
                let mut bytes = [[0; 16]; IDS_AT_ONCE];
                // Without randomness there is no TLS either; nil ids are then the least of the
                // faults.
                let _ = rand::fill(bytes.as_flattened_mut());
                ahead.extend_from_slice(&bytes);
                ahead.pop().unwrap_or_default()
            })
        });
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Parses the member `id`: a UUID in its canonical form.
    /// Errors: `member_invalid`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        match Uuid::try_parse(text) {
            Ok(uuid) if text.len() == uuid::fmt::Hyphenated::LENGTH => Ok(Self(uuid)),
            _ => Err(Refusal::of_field(Code::MemberInvalid, "id")),
        }
    }

    /// Derives the id that one device's push service sees: the same for every retry to that device,
    /// and without a visible tie to the ids of the notification's other devices.
    /// Source: RFC 9562 §5.8 (version 8), over SHA-256(id ‖ address).
    #[must_use]
    pub fn for_device(self, address: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.0.as_bytes());
        context.update(address);
        let mut bytes = [0_u8; 16];
        bytes.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Gives the canonical lower-case form.
    pub fn hyphenated(self) -> uuid::fmt::Hyphenated {
        self.0.hyphenated()
    }
}

// === impl Ttl ===

impl Ttl {
    /// Parses seconds: digits only; more than `u32` holds is the largest (RFC 8030 §5.2 lets a
    /// service shorten).
    /// Errors: `ttl_invalid`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() || text.len() > 16 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Refusal::of_field(Code::TtlInvalid, "TTL"));
        }
        Ok(Self::from_s(text.parse::<u64>().unwrap_or(u64::MAX)))
    }

    /// Takes seconds, at most `u32::MAX`.
    pub fn from_s(seconds: u64) -> Self {
        Self(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// Gives the seconds.
    pub const fn as_s(self) -> u32 {
        self.0
    }
}

// === impl Urgency ===

impl Urgency {
    /// Parses the header `Urgency`.
    /// Errors: `urgency_invalid`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "very-low" => Ok(Self::VeryLow),
            "low" => Ok(Self::Low),
            "normal" => Ok(Self::Normal),
            "high" => Ok(Self::High),
            _ => Err(Refusal::of_field(Code::UrgencyInvalid, "Urgency")),
        }
    }

    /// Gives the value of the header `Urgency`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::VeryLow => "very-low",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

// === impl Topic ===

impl Topic {
    /// Longest `Topic` header, in characters (RFC 8030 §5.4).
    pub const HEADER_LENGTH_MAX: usize = 32;

    /// Longest `collapse_key` of the NAS door, in bytes.
    pub const COLLAPSE_KEY_BYTES_MAX: usize = 64;

    /// Parses the header `Topic`: 1 to 32 characters of the base64url alphabet.
    /// Errors: `topic_invalid`.
    pub fn parse_header(text: &str) -> Result<Self, Refusal> {
        let fits = (1..=Self::HEADER_LENGTH_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if fits && plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(Refusal::of_field(Code::TopicInvalid, "Topic"))
        }
    }

    /// Parses the member `collapse_key`: 1 to 64 bytes of any text.
    /// Errors: `member_invalid`.
    pub fn parse_collapse_key(text: &str) -> Result<Self, Refusal> {
        if (1..=Self::COLLAPSE_KEY_BYTES_MAX).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Refusal::of_field(Code::MemberInvalid, "collapse_key"))
        }
    }

    /// Gives the sender's word, for the keyed hash that stands in for it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

// === impl SenderKey ===

impl SenderKey {
    /// An uncompressed point: 0x04 ‖ x ‖ y.
    pub const LENGTH_BYTES: usize = 65;

    /// Parses a public key: base64url of an uncompressed P-256 point that lies on the curve.
    /// Gives nothing for anything else; the caller knows which header or member it was.
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_point(&BASE64URL.decode(text).ok()?)
    }

    /// Parses a public key: an uncompressed P-256 point that lies on the curve.
    /// Gives nothing for anything else.
    pub fn from_point(point: &[u8]) -> Option<Self> {
        let point: [u8; Self::LENGTH_BYTES] = point.try_into().ok()?;
        let parsed = aws_lc_rs::signature::ParsedPublicKey::new(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED,
            point,
        );
        (point[0] == 4 && parsed.is_ok()).then_some(Self(point))
    }

    /// Takes a point that was parsed before it was stored.
    pub const fn from_stored(point: [u8; Self::LENGTH_BYTES]) -> Self {
        Self(point)
    }

    /// Gives the point.
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH_BYTES] {
        &self.0
    }

    /// Gives the key's thumbprint: SHA-256 of the point.
    pub fn thumbprint(&self) -> Thumbprint {
        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        Thumbprint(thumbprint)
    }
}

// === impl Thumbprint ===

impl Thumbprint {
    /// Takes the bytes of a thumbprint out of a handle or the store.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Gives the bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_digits_only_and_never_overflows() {
        assert_eq!(Ttl::parse("0").map(Ttl::as_s), Ok(0));
        assert_eq!(Ttl::parse("99999999999").map(Ttl::as_s), Ok(u32::MAX));
        for wrong in ["", "-1", "+1", "1.5", " 1", "1 ", "0x1", "12345678901234567"] {
            assert_eq!(Ttl::parse(wrong).unwrap_err().code, Code::TtlInvalid, "{wrong:?}");
        }
    }

    #[test]
    fn a_topic_header_is_base64url_and_short() {
        assert!(Topic::parse_header("a-_Z9").is_ok());
        for wrong in ["", "a b", "ä", "a=", &"x".repeat(33)] {
            assert!(Topic::parse_header(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_message_id_is_canonical_and_differs_per_device() {
        let id = MessageId::parse("123e4567-e89b-12d3-a456-426614174000").unwrap();
        assert_ne!(id.for_device(b"a"), id.for_device(b"b"));
        assert_eq!(id.for_device(b"b"), id.for_device(b"b"));
        for wrong in
            ["", "123e4567e89b12d3a456426614174000", "{123e4567-e89b-12d3-a456-426614174000}"]
        {
            assert!(MessageId::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Held to the library that reads everything else.
    #[test]
    fn wide_steps_read_what_narrow_ones_do() {
        let mut texts: Vec<String> = [
            "", "=", "A", "AA", "AB", "AA=", "AA==", "AA===", "AAA", "AAB", "AAA=", "AAA==",
            "AAAA", "AAAA=", "AAAA====", "A-_A", "A+/A", "AA\n", " AAA", "A=AA", "A\u{e4}A",
        ]
        .map(str::to_owned)
        .into();
        let long = BASE64URL.encode([0x5a; 313]);
        texts.extend(["", "=", "=="].map(|padding| format!("{long}{padding}")));
        for text in texts {
            assert_eq!(from_base64url(&text), BASE64URL.decode(&text).ok(), "{text:?}");
        }
    }

    #[test]
    fn a_sender_key_must_lie_on_the_curve() {
        let key = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
        assert!(SenderKey::parse(key).is_some());
        let mut off = BASE64URL.decode(key).unwrap();
        off[64] ^= 1;
        assert!(SenderKey::parse(&BASE64URL.encode(off)).is_none());
        assert!(SenderKey::parse("").is_none());
    }
}

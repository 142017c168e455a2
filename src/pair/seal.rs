//! The byte layout of a handle, and the ring of keys that seal and open it. Pure: no clock, no
//! store.
//!
//! ```text
//! handle = base64url( version(1) ‖ key_id(4) ‖ nonce(12) ‖ AES-256-GCM-SIV(plain) ‖ tag(16) )
//! aad    = version(1) ‖ key_id(4)
//! plain  = kind(1) ‖ sender(32) ‖ issued_at(8) ‖ expires_at(8) ‖ app_len(1) ‖ app
//!          ‖ address_len(2) ‖ address ‖ zeros up to a size class
//! ```
//! Invariant: every failure to open is one and the same [`Unopened`], and nothing inside is ever
//! logged.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64_simd::URL_SAFE_NO_PAD;

use crate::push::{self, Address, AppName, Endpoint, Environment, Mailbox, Thumbprint};

/// Longest handle, in characters: the largest size class.
pub const HANDLE_LENGTH_MAX: usize =
    (HEADER_BYTES + PLAIN_BYTES_CLASSES[2] + TAG_BYTES) * 4 / 3 + 4;

/// Sizes that a handle's inside is padded to: APNs, FCM and most browsers share the first,
/// so that the length of a handle does not tell the kind of device.
const PLAIN_BYTES_CLASSES: [usize; 3] = [320, 768, 2304];

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const AAD_BYTES: usize = 1 + KEY_ID_BYTES;
const HEADER_BYTES: usize = AAD_BYTES + NONCE_BYTES;

/// What a handle holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Inside {
    /// The app that was paired.
    pub app: AppName,
    /// Where its device is.
    pub address: Address,
    /// The one key that may use the handle.
    pub sender: Thumbprint,
    /// Seconds since 1970.
    pub issued_at_unix_s: u64,
    /// Seconds since 1970; from then on the handle opens no more.
    pub expires_at_unix_s: u64,
}

/// Why a handle did not open: on purpose, it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unopened;

/// The keys that open handles; one of them seals.
pub struct Ring {
    keys: Vec<RingKey>,
}

/// One key of the ring.
pub struct RingKey {
    id: [u8; KEY_ID_BYTES],
    seals_from_unix_s: u64,
    key: LessSafeKey,
}

/// An opened handle, and whether the key that seals today had sealed it.
pub struct Opened {
    /// What was inside.
    pub inside: Inside,
    /// Whether a newer key seals by now.
    pub under_old_key: bool,
}

// === impl Ring ===

impl Ring {
    /// Takes the keys.
    /// Errors: [`Unopened`] for an empty ring, which could neither seal nor open.
    pub fn new(keys: Vec<RingKey>) -> Result<Self, Unopened> {
        if keys.is_empty() { Err(Unopened) } else { Ok(Self { keys }) }
    }

    /// Seals a device into a handle under the newest key that may seal at `now`.
    /// Shape: base64url, one of three lengths.
    /// Errors: [`Unopened`] when the device does not fit the largest class, or randomness fails.
    pub fn seal(&self, inside: &Inside, now_unix_s: u64) -> Result<String, Unopened> {
        let key = self.sealing(now_unix_s).ok_or(Unopened)?;
        let mut plain = encode(inside)?;
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| Unopened)?;
        let mut handle = Vec::with_capacity(HEADER_BYTES + plain.len() + TAG_BYTES);
        handle.push(VERSION);
        handle.extend_from_slice(&key.id);
        handle.extend_from_slice(&nonce);
        let aad =
            Aad::from(<[u8; AAD_BYTES]>::try_from(&handle[..AAD_BYTES]).map_err(|_| Unopened)?);
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut plain)
            .map_err(|_| Unopened)?;
        handle.extend_from_slice(&plain);
        Ok(URL_SAFE_NO_PAD.encode_to_string(handle))
    }

    /// Opens a handle.
    /// Errors: [`Unopened`] for whatever is wrong with it; expiry is the caller's to check.
    pub fn open(&self, handle: &str, now_unix_s: u64) -> Result<Opened, Unopened> {
        if handle.len() > HANDLE_LENGTH_MAX {
            return Err(Unopened);
        }
        let mut bytes = push::from_base64url(handle).ok_or(Unopened)?;
        let (header, sealed) = bytes.split_first_chunk_mut::<HEADER_BYTES>().ok_or(Unopened)?;
        let (aad, nonce) = header.split_at(AAD_BYTES);
        let aad: [u8; AAD_BYTES] = aad.try_into().map_err(|_| Unopened)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopened)?;
        let key = self.keys.iter().find(|key| key.id == aad[1..]).ok_or(Unopened)?;
        let plain = key.key.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| Unopened)?;
        if aad[0] != VERSION {
            return Err(Unopened);
        }
        let inside = decode(plain).ok_or(Unopened)?;
        let sealing = self.sealing(now_unix_s);
        let under_old_key = sealing.is_some_and(|sealing| {
            sealing.id != key.id && sealing.seals_from_unix_s > key.seals_from_unix_s
        });
        Ok(Opened { inside, under_old_key })
    }

    /// A new key seals only from the time when every replica must have read it;
    /// a ring of nothing but such keys seals with the oldest of them.
    fn sealing(&self, now_unix_s: u64) -> Option<&RingKey> {
        let live = self.keys.iter().filter(|key| key.seals_from_unix_s <= now_unix_s);
        live.max_by_key(|key| key.seals_from_unix_s)
            .or_else(|| self.keys.iter().min_by_key(|key| key.seals_from_unix_s))
    }
}

// === impl RingKey ===

impl RingKey {
    /// Makes a key of the ring from its id, its 32 bytes and the time from which it seals.
    /// Errors: [`Unopened`] when the cipher refuses the key.
    pub fn new(id: [u8; 4], key: &[u8; 32], seals_from_unix_s: u64) -> Result<Self, Unopened> {
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).map_err(|_| Unopened)?;
        Ok(Self { id, seals_from_unix_s, key: LessSafeKey::new(key) })
    }
}

// === the plain text ===

fn encode(inside: &Inside) -> Result<Vec<u8>, Unopened> {
    let (kind, address) = match &inside.address {
        Address::Apns { token, environment } => {
            let kind = match environment {
                Environment::Production => 1,
                Environment::Sandbox => 2,
            };
            (kind, unhex(token).ok_or(Unopened)?)
        }
        Address::Fcm { token } => (3, token.as_bytes().to_vec()),
        Address::WebPush { endpoint } => (4, endpoint.url().as_bytes().to_vec()),
        Address::Email { mailbox } => (5, mailbox.as_str().as_bytes().to_vec()),
    };
    let app = inside.app.as_str().as_bytes();
    let mut plain = Vec::with_capacity(PLAIN_BYTES_CLASSES[0] + TAG_BYTES);
    plain.push(kind);
    plain.extend_from_slice(inside.sender.as_bytes());
    plain.extend_from_slice(&inside.issued_at_unix_s.to_be_bytes());
    plain.extend_from_slice(&inside.expires_at_unix_s.to_be_bytes());
    plain.push(u8::try_from(app.len()).map_err(|_| Unopened)?);
    plain.extend_from_slice(app);
    plain.extend_from_slice(&u16::try_from(address.len()).map_err(|_| Unopened)?.to_be_bytes());
    plain.extend_from_slice(&address);
    let class = PLAIN_BYTES_CLASSES.into_iter().find(|class| plain.len() <= *class);
    plain.resize(class.ok_or(Unopened)?, 0);
    Ok(plain)
}

fn decode(plain: &[u8]) -> Option<Inside> {
    let (kind, rest) = plain.split_first()?;
    let (sender, rest) = rest.split_first_chunk::<32>()?;
    let (issued_at, rest) = rest.split_first_chunk::<8>()?;
    let (expires_at, rest) = rest.split_first_chunk::<8>()?;
    let (app_len, rest) = rest.split_first()?;
    let (app, rest) = rest.split_at_checked(usize::from(*app_len))?;
    let (address_len, rest) = rest.split_first_chunk::<2>()?;
    let (address, padding) =
        rest.split_at_checked(usize::from(u16::from_be_bytes(*address_len)))?;
    if padding.iter().fold(0, |all, byte| all | byte) != 0 {
        return None;
    }
    let text = || std::str::from_utf8(address).ok();
    let address = match kind {
        1 => Address::Apns { token: hex(address), environment: Environment::Production },
        2 => Address::Apns { token: hex(address), environment: Environment::Sandbox },
        3 => Address::Fcm { token: text()?.to_owned() },
        4 => Address::WebPush { endpoint: Endpoint::parse(text()?).ok()? },
        5 => Address::Email { mailbox: Mailbox::parse(text()?).ok()? },
        _ => return None,
    };
    Some(Inside {
        app: AppName::parse(std::str::from_utf8(app).ok()?).ok()?,
        address,
        sender: Thumbprint::from_bytes(*sender),
        issued_at_unix_s: u64::from_be_bytes(*issued_at),
        expires_at_unix_s: u64::from_be_bytes(*expires_at),
    })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS[usize::from(nibble)];
    let mut text = Vec::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    String::from_utf8(text).unwrap_or_default()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    Some(digits?.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::push::BASE64URL;

    const NOW: u64 = 1_800_000_000;

    fn key(id: u8, seals_from: u64) -> RingKey {
        RingKey::new([id; 4], &[id; 32], seals_from).unwrap()
    }

    fn ring() -> Ring {
        Ring::new(vec![key(1, 100)]).unwrap()
    }

    fn inside(address: Address) -> Inside {
        Inside {
            app: AppName::parse("chat").unwrap(),
            address,
            sender: Thumbprint::from_bytes([7; 32]),
            issued_at_unix_s: NOW,
            expires_at_unix_s: NOW + 1,
        }
    }

    fn addresses() -> Vec<Address> {
        let url = format!("https://updates.push.services.mozilla.com/wpush/v2/{}", "x".repeat(180));
        vec![
            Address::parse_apns(&"ab".repeat(32), Environment::Production).ok().unwrap(),
            Address::parse_apns(&"cd".repeat(32), Environment::Sandbox).ok().unwrap(),
            Address::parse_fcm(&"t".repeat(163)).ok().unwrap(),
            Address::parse_webpush(&url).ok().unwrap(),
        ]
    }

    #[test]
    fn what_was_sealed_is_what_opens() {
        for address in addresses() {
            let handle = ring().seal(&inside(address.clone()), NOW).unwrap();
            let opened = ring().open(&handle, NOW).ok().unwrap();
            assert!(opened.inside == inside(address));
            assert!(!opened.under_old_key);
        }
    }

    #[test]
    fn the_length_does_not_tell_the_kind_of_device() {
        let length = |a: Address| ring().seal(&inside(a), NOW).unwrap().len();
        let lengths: Vec<usize> = addresses().into_iter().map(length).collect();
        assert_eq!(lengths, [lengths[0]; 4]);
    }

    #[test]
    fn the_longest_address_still_fits() {
        let url = format!("https://a.example/{}", "x".repeat(2030));
        let handle = ring().seal(&inside(Address::parse_webpush(&url).ok().unwrap()), NOW).unwrap();
        assert!(handle.len() <= HANDLE_LENGTH_MAX);
        assert!(ring().open(&handle, NOW).is_ok());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let handle = ring().seal(&inside(addresses()[0].clone()), NOW).unwrap();
        let bytes = BASE64URL.decode(&handle).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(ring().open(&BASE64URL.encode(flipped), NOW).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(ring().open(&BASE64URL.encode(&bytes[..length]), NOW).is_err());
        }
        for wrong in ["", "!", "AAAA", &"A".repeat(HANDLE_LENGTH_MAX + 1)] {
            assert!(ring().open(wrong, NOW).is_err());
        }
    }

    #[test]
    fn a_new_key_opens_at_once_seals_later_and_then_outdates_the_old_one() {
        let rotated = || Ring::new(vec![key(2, NOW + 300), key(1, 100)]).unwrap();
        let old = ring().seal(&inside(addresses()[0].clone()), NOW).unwrap();
        assert!(!rotated().open(&old, NOW).ok().unwrap().under_old_key);
        assert!(rotated().open(&old, NOW + 300).ok().unwrap().under_old_key);
        let before = rotated().seal(&inside(addresses()[0].clone()), NOW).unwrap();
        assert!(ring().open(&before, NOW).is_ok(), "a replica without the new key opens it");
        let after = rotated().seal(&inside(addresses()[0].clone()), NOW + 300).unwrap();
        assert!(ring().open(&after, NOW + 300).is_err());
    }

    #[test]
    fn another_key_under_the_same_id_opens_nothing() {
        let handle = ring().seal(&inside(addresses()[0].clone()), NOW).unwrap();
        let other = Ring::new(vec![RingKey::new([1; 4], &[9; 32], 100).unwrap()]).unwrap();
        assert!(other.open(&handle, NOW).is_err());
    }
}

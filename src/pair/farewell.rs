//! Unsubscribing: the link in every mail, and what a click on it does.
//!
//! In: an opened device, or the last part of a link. Out: the link's part, or when its owner said
//! farewell. The link holds all that is needed, so nothing is stored for it: a tag that stands for
//! app, address and sender, and a proof that we made it. A click is remembered in memory, bounded,
//! until the sender is told `gone` and gives the pairing up in its own journal; docs/privacy.md
//! says what a restart in between means.
//! Source: RFC 8058.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::Device;
use crate::outcome::{Code, Refusal};
use crate::push::BASE64URL;

/// Knows the links and the clicks.
pub struct Farewells {
    key: hmac::Key,
    clicks: Cache<Tag, u64>,
}

/// What stands for app, address and sender; nobody without the key can tell whose it is.
type Tag = [u8; TAG_BYTES];

const TAG_BYTES: usize = 16;
const PROOF_BYTES: usize = 16;

/// Clicks that are remembered; the oldest is forgotten first.
const CLICKS_MAX: u64 = 100_000;

// === impl Farewells ===

impl Farewells {
    /// Takes the secret, which all replicas share.
    pub fn new(secret: &[u8; 32]) -> Self {
        let clicks =
            Cache::builder().max_capacity(CLICKS_MAX).eviction_policy(EvictionPolicy::lru());
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), clicks: clicks.build() }
    }

    /// Gives the last part of a device's link: 43 characters of base64url.
    pub fn link(&self, device: &Device) -> String {
        let tag = self.tag(device);
        let mut link = tag.to_vec();
        link.extend_from_slice(&self.proof(&tag));
        BASE64URL.encode(link)
    }

    /// Tells whether a link is one of ours, and changes nothing.
    /// Errors: `unsubscribe_link_invalid`.
    pub fn check(&self, link: &str) -> Result<(), Refusal> {
        self.open(link).map(|_| ())
    }

    /// Takes a click on a link.
    /// Errors: `unsubscribe_link_invalid`.
    pub fn take(&self, link: &str, now_unix_s: u64) -> Result<(), Refusal> {
        self.clicks.insert(self.open(link)?, now_unix_s);
        Ok(())
    }

    /// Gives when the device's owner said farewell, in seconds since 1970, unless it was paired
    /// after that.
    pub fn since(&self, device: &Device) -> Option<u64> {
        let clicked_unix_s = self.clicks.get(&self.tag(device))?;
        (device.issued_at_unix_s() <= clicked_unix_s).then_some(clicked_unix_s)
    }

    fn open(&self, link: &str) -> Result<Tag, Refusal> {
        let refuse = || Refusal::new(Code::UnsubscribeLinkInvalid);
        let bytes = BASE64URL.decode(link).map_err(|_| refuse())?;
        let (tag, proof) = bytes.split_first_chunk::<TAG_BYTES>().ok_or_else(refuse)?;
        verify_slices_are_equal(proof, &self.proof(tag)).map_err(|_| refuse())?;
        Ok(*tag)
    }

    fn tag(&self, device: &Device) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"tag");
        context.update(&device.tag());
        context.update(device.sender().as_bytes());
        first_half(context)
    }

    fn proof(&self, tag: &Tag) -> [u8; PROOF_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"proof");
        context.update(tag);
        first_half(context)
    }
}

fn first_half(context: hmac::Context) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&context.sign().as_ref()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::super::seal::Inside;
    use super::*;
    use crate::push::{Address, AppName, Thumbprint};

    fn device(address: &str, sender: u8, issued_at_unix_s: u64) -> Device {
        let inside = Inside {
            app: AppName::parse("dsm").unwrap(),
            address: Address::parse_email(address).ok().unwrap(),
            sender: Thumbprint::from_bytes([sender; 32]),
            issued_at_unix_s,
            expires_at_unix_s: u64::MAX,
        };
        Device { inside, renewal_due: false }
    }

    #[test]
    fn a_click_ends_the_one_pairing_until_it_is_made_anew() {
        let farewells = Farewells::new(&[1; 32]);
        let link = farewells.link(&device("owner@example.com", 1, 100));
        farewells.check(&link).unwrap();
        assert_eq!(farewells.since(&device("owner@example.com", 1, 100)), None, "a look is none");
        farewells.take(&link, 200).unwrap();
        assert_eq!(farewells.since(&device("owner@example.com", 1, 100)), Some(200));
        assert_eq!(farewells.since(&device("owner@example.com", 1, 201)), None, "paired anew");
        assert_eq!(farewells.since(&device("owner@example.com", 2, 100)), None, "another sender");
        assert_eq!(farewells.since(&device("other@example.com", 1, 100)), None);
    }

    #[test]
    fn a_link_that_we_did_not_make_is_refused() {
        let farewells = Farewells::new(&[1; 32]);
        let link = farewells.link(&device("owner@example.com", 1, 100));
        let foreign = Farewells::new(&[2; 32]).link(&device("owner@example.com", 1, 100));
        let mut bent = BASE64URL.decode(&link).unwrap();
        bent[3] ^= 1;
        for wrong in ["", "x", &link[..42], &foreign, &BASE64URL.encode(bent)] {
            assert!(farewells.take(wrong, 200).is_err(), "{wrong}");
        }
        assert_eq!(farewells.since(&device("owner@example.com", 1, 100)), None);
    }
}

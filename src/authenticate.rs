//! Authentication: the `Authorization` header becomes a [`Sender`], the proof that its key signed
//! for it.
//!
//! In: one header value and the time. Out: a [`Sender`], or a refusal that names what is wrong.
//! A verified token is remembered by its hash until it expires, so that a busy sender costs one
//! signature check; the memory is bounded and holds no token. A NAS's enrolled key and a
//! pseudonymous key are alike here.
//! Source: RFC 8292.

use aws_lc_rs::digest;
use quick_cache::sync::Cache;

use crate::config::Authenticate;
use crate::outcome::{Code, Refusal};
use crate::push::{SenderKey, Thumbprint};

pub mod quota;

pub mod vapid;

use vapid::Verified;

/// Verifies credentials for one audience.
pub struct Authenticator {
    audience: String,
    verified: Cache<[u8; 32], Verified>,
    clock_skew_s: u64,
    lifetime_s_max: u64,
}

/// The proof that a request was signed with a key: only this room makes one.
#[derive(Clone, Copy)]
pub struct Sender {
    key: SenderKey,
    thumbprint: Thumbprint,
}

// === impl Authenticator ===

impl Authenticator {
    /// Takes the origin that senders must name in `aud`.
    pub fn new(config: &Authenticate, audience: String) -> Self {
        let entries_max = usize::try_from(config.token_cache_entries_max).unwrap_or(usize::MAX);
        Self {
            audience,
            verified: Cache::new(entries_max),
            clock_skew_s: config.clock_skew.as_secs(),
            lifetime_s_max: config.token_lifetime_max.as_secs(),
        }
    }

    /// Verifies the value of an `Authorization` header.
    /// Errors: `vapid_missing` for none, else one code for each way to be wrong.
    /// Source: RFC 8292 §2 and §3.
    pub fn authenticate(&self, header: Option<&[u8]>, now_unix_s: u64) -> Result<Sender, Refusal> {
        let refuse = |code| Refusal::of_field(code, "Authorization");
        let header = header.ok_or_else(|| refuse(Code::VapidMissing))?;
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, header).as_ref());
        let verified = match self.verified.get(&hash) {
            Some(verified) => verified,
            None => {
                let verified = vapid::verify(header, &self.audience).map_err(refuse)?;
                self.check_time(&verified, now_unix_s).map_err(refuse)?;
                self.verified.insert(hash, verified);
                return Ok(verified.sender());
            }
        };
        self.check_time(&verified, now_unix_s).map_err(refuse)?;
        Ok(verified.sender())
    }

    /// Verifies a token that stands in a body, past the cache: the proof of a new key.
    /// Errors: `key_proof_invalid` for whatever is wrong with it.
    pub fn prove(&self, token: &str, now_unix_s: u64) -> Result<Sender, Refusal> {
        let refuse = |_| Refusal::of_field(Code::KeyProofInvalid, "proof");
        let verified = vapid::verify(token.as_bytes(), &self.audience).map_err(refuse)?;
        self.check_time(&verified, now_unix_s).map_err(refuse)?;
        Ok(verified.sender())
    }

    fn check_time(&self, verified: &Verified, now_unix_s: u64) -> Result<(), Code> {
        let expires_at = verified.expires_at_unix_s();
        if expires_at.saturating_add(self.clock_skew_s) <= now_unix_s {
            return Err(Code::VapidExpired);
        }
        if expires_at > now_unix_s + self.lifetime_s_max + self.clock_skew_s {
            return Err(Code::VapidLifetimeTooLong);
        }
        Ok(())
    }
}

// === impl Sender ===

impl Sender {
    /// Gives the key.
    pub const fn key(&self) -> &SenderKey {
        &self.key
    }

    /// Gives the key's thumbprint.
    pub const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }
}

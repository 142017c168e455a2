//! Enrolment: a signing key becomes a NAS, known by its permanent record.
//!
//! In: a verified [`Sender`] and what the NAS says of itself. Out: the record, or a [`Nas`], the
//! proof that the sender is an enrolled NAS that may send. The serial number is hashed under the
//! pepper at once and never stored, logged or compared in the clear.

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine as _;

use crate::authenticate::Sender;
use crate::config::{Enrolment, EnrolmentPolicy};
use crate::outcome::{Code, Outcome, Refusal};
use crate::push::BASE64URL;
use crate::store::{Enrolled, NasIdentity, NasStatus, Rotated, Store};

/// Longest model name, in bytes.
pub const MODEL_BYTES_MAX: usize = 64;

/// Longest serial number, in bytes.
pub const SERIAL_BYTES_MAX: usize = 64;

/// What a NAS says of itself, checked.
pub struct Application {
    model: String,
    serial: String,
    enrolment_token: Option<String>,
}

/// Enrols and finds NAS identities.
pub struct Enroller {
    policy: EnrolmentPolicy,
    pepper: hmac::Key,
}

/// The proof that a sender is an enrolled NAS that may send.
pub struct Nas {
    identity: NasIdentity,
}

// === impl Application ===

impl Application {
    /// Checks what a NAS says of itself: printable ASCII, 1 to 64 bytes each.
    /// Errors: `member_invalid` with the member's name.
    pub fn parse(
        model: String,
        serial: String,
        enrolment_token: Option<String>,
    ) -> Result<Self, Refusal> {
        let printable = |text: &str, bytes_max: usize| {
            (1..=bytes_max).contains(&text.len())
                && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        };
        if !printable(&model, MODEL_BYTES_MAX) {
            return Err(Refusal::of_field(Code::MemberInvalid, "model"));
        }
        if !printable(&serial, SERIAL_BYTES_MAX) {
            return Err(Refusal::of_field(Code::MemberInvalid, "serial"));
        }
        Ok(Self { model, serial, enrolment_token })
    }
}

// === impl Enroller ===

impl Enroller {
    /// Takes the policy and the secret under which serial numbers are hashed.
    pub fn new(config: Enrolment, pepper: &[u8; 32]) -> Self {
        Self { policy: config.policy, pepper: hmac::Key::new(hmac::HMAC_SHA256, pepper) }
    }

    /// Enrols the sender's key; `true` with the record when it is new.
    /// Errors: `enrolment_token_invalid`, `store_unavailable`.
    pub async fn enrol(
        &self,
        store: &Store,
        sender: &Sender,
        application: Application,
        now_unix_s: u64,
    ) -> Result<(NasIdentity, bool), Outcome> {
        let refuse = || Refusal::of_field(Code::EnrolmentTokenInvalid, "enrolment_token");
        let token = match (self.policy, &application.enrolment_token) {
            (EnrolmentPolicy::Open, _) => None,
            // A key that is enrolled already needs no token again: the store looks for it first.
            (EnrolmentPolicy::Token, None) => Some([0; 32]),
            (EnrolmentPolicy::Token, Some(token)) => Some(hash_enrolment_token(token)),
        };
        let mut serial_tag = [0; 32];
        serial_tag
            .copy_from_slice(hmac::sign(&self.pepper, application.serial.as_bytes()).as_ref());
        let identity = NasIdentity {
            ds_id: random_ds_id().ok_or(Outcome::Misconfigured { code: Code::InternalFault })?,
            key: *sender.key(),
            serial_tag,
            model: application.model,
            enrolled_at_unix_s: now_unix_s,
            status: NasStatus::Active,
        };
        match store.enrol(identity, token).await.map_err(|_| unavailable())? {
            Enrolled::Created(identity) => Ok((identity, true)),
            Enrolled::Known(identity) => Ok((identity, false)),
            Enrolled::TokenInvalid => Err(refuse().into()),
        }
    }

    /// Finds the NAS that the sender's key belongs to.
    /// Errors: `nas_not_enrolled`, `nas_suspended`, `store_unavailable`.
    pub async fn nas(&self, store: &Store, sender: &Sender) -> Result<Nas, Outcome> {
        match store.nas_by_key(sender.thumbprint()).await.map_err(|_| unavailable())? {
            Some(NasIdentity { status: NasStatus::Suspended, .. }) => {
                Err(Refusal::of_field(Code::NasSuspended, "Authorization").into())
            }
            Some(identity) => Ok(Nas { identity }),
            None => Err(Refusal::of_field(Code::NasNotEnrolled, "Authorization").into()),
        }
    }

    /// Gives a NAS the key of `new`, who proved to hold it.
    /// Errors: `key_in_use`, `nas_not_enrolled`, `store_unavailable`.
    pub async fn rotate(
        &self,
        store: &Store,
        nas: &Nas,
        new: &Sender,
    ) -> Result<NasIdentity, Outcome> {
        let old = nas.identity.key.thumbprint();
        match store.rotate_key(old, *new.key()).await.map_err(|_| unavailable())? {
            Rotated::Done(identity) => Ok(identity),
            Rotated::NotEnrolled => {
                Err(Refusal::of_field(Code::NasNotEnrolled, "Authorization").into())
            }
            Rotated::KeyInUse => Err(Refusal::of_field(Code::KeyInUse, "new_key").into()),
        }
    }
}

// === impl Nas ===

impl Nas {
    /// Gives the record exactly as it is stored.
    pub const fn identity(&self) -> &NasIdentity {
        &self.identity
    }
}

/// Makes a one-time token for the operator to hand out: `et_` and 128 random bits in base64url.
/// Gives nothing when the system has no randomness.
pub fn random_enrolment_token() -> Option<String> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).ok()?;
    Some(format!("et_{}", BASE64URL.encode(bytes)))
}

/// Hashes a one-time token, so that the store never holds one.
pub fn hash_enrolment_token(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// `ds_` and 128 random bits in RFC 4648 base32, lower case, without padding.
fn random_ds_id() -> Option<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).ok()?;
    let number = u128::from_be_bytes(bytes);
    let digit = |place: u32| char::from(ALPHABET[(number >> (5 * place) & 31) as usize]);
    Some("ds_".chars().chain((0..26).rev().map(digit)).collect())
}

fn unavailable() -> Outcome {
    Outcome::NotNow {
        code: Code::StoreUnavailable,
        retry_after: std::time::Duration::from_secs(10),
    }
}

//! RFC 8292: `vapid t=<ES256 JWT>, k=<public key>`, taken apart and verified. Pure: no clock, no
//! cache.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use serde::Deserialize;

use super::Sender;
use crate::outcome::Code;
use crate::push::{BASE64URL, SenderKey};

/// Longest header value, in bytes; a usual one has about 400.
pub const HEADER_BYTES_MAX: usize = 2048;

/// A token whose signature, audience and subject hold; its time is the caller's to check.
#[derive(Clone, Copy)]
pub struct Verified {
    sender: Sender,
    expires_at_unix_s: u64,
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    exp: u64,
    sub: Option<String>,
}

/// Verifies a header value for an audience.
/// Errors: the code of the first thing that is wrong.
/// Source: RFC 8292 §2 (claims), §3 (`t`, `k`), §4.2 (signature); RFC 7515 §3.1.
pub fn verify(header: &[u8], audience: &str) -> Result<Verified, Code> {
    let malformed = Code::VapidMalformed;
    if header.len() > HEADER_BYTES_MAX {
        return Err(malformed);
    }
    let text = std::str::from_utf8(header).map_err(|_| malformed)?;
    let (token, key) = split(text).ok_or(malformed)?;
    let key = SenderKey::parse(key).ok_or(Code::VapidKeyInvalid)?;
    let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
    let (jose, claims) = signed.split_once('.').ok_or(malformed)?;
    let jose = text_of(jose).ok_or(malformed)?;
    let jose: Header<'_> = serde_json::from_str(&jose).map_err(|_| malformed)?;
    if jose.alg != "ES256" {
        return Err(malformed);
    }
    let claims = text_of(claims).ok_or(malformed)?;
    let signature = BASE64URL.decode(signature).map_err(|_| malformed)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.as_bytes())
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| Code::VapidSignatureInvalid)?;
    let claims: Claims = serde_json::from_str(&claims).map_err(|_| malformed)?;
    if claims.aud != audience {
        return Err(Code::VapidAudienceWrong);
    }
    if claims.sub.is_some_and(|sub| !sub.starts_with("mailto:") && !sub.starts_with("https:")) {
        return Err(Code::VapidSubjectInvalid);
    }
    let sender = Sender { thumbprint: key.thumbprint(), key };
    Ok(Verified { sender, expires_at_unix_s: claims.exp })
}

/// Gives a part of a token as text; serde_json itself lets other bytes pass in what it skips.
/// Source: RFC 7515 §5.2.
fn text_of(part: &str) -> Option<String> {
    String::from_utf8(BASE64URL.decode(part).ok()?).ok()
}

/// Gives `t` and `k`, in either order, each exactly once; other parameters are ignored (RFC 8292
/// §3).
fn split(text: &str) -> Option<(&str, &str)> {
    let (scheme, parameters) = text.trim_matches(' ').split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("vapid") {
        return None;
    }
    let (mut token, mut key) = (None, None);
    for parameter in parameters.split(',') {
        let (name, value) = parameter.trim_matches([' ', '\t']).split_once('=')?;
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        let slot = match name {
            "t" => &mut token,
            "k" => &mut key,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return None;
        }
    }
    Some((token?, key?))
}

// === impl Verified ===

impl Verified {
    /// Gives the proof.
    pub const fn sender(&self) -> Sender {
        self.sender
    }

    /// Gives `exp`, in seconds since 1970.
    pub const fn expires_at_unix_s(&self) -> u64 {
        self.expires_at_unix_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::Authenticator;
    use crate::config::Authenticate;
    use std::time::Duration;

    /// RFC 8292 §2.4; it expired at 1453523768.
    const VECTOR: &str = "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA, k=BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
    const AUDIENCE: &str = "https://push.example.net";
    const EXPIRES_AT: u64 = 1_453_523_768;

    fn authenticator() -> Authenticator {
        let config = Authenticate {
            token_cache_entries_max: 10,
            token_lifetime_max: Duration::from_secs(86_400),
            clock_skew: Duration::from_secs(60),
        };
        Authenticator::new(&config, AUDIENCE.to_owned())
    }

    fn check(header: &str, now: u64, expect: Result<(), Code>) {
        let got = authenticator().authenticate(Some(header.as_bytes()), now);
        assert_eq!(got.map(|_| ()).map_err(|refusal| refusal.code), expect, "{header}");
    }

    #[test]
    fn the_rfc_8292_vector_passes_in_its_day() {
        check(VECTOR, EXPIRES_AT - 10, Ok(()));
        check(&VECTOR.replace("vapid", "Vapid"), EXPIRES_AT - 10, Ok(()));
    }

    #[test]
    fn each_way_to_be_wrong_has_its_own_code() {
        let now = EXPIRES_AT - 10;
        check("", now, Err(Code::VapidMalformed));
        check("Bearer abc", now, Err(Code::VapidMalformed));
        check("vapid t=a.b.c", now, Err(Code::VapidMalformed));
        check(&VECTOR.replace("k=BA1", "k=BA2"), now, Err(Code::VapidKeyInvalid));
        check(&VECTOR.replace("oA, k", "oB, k"), now, Err(Code::VapidMalformed));
        check(&VECTOR.replace("1oA, k", "1og, k"), now, Err(Code::VapidSignatureInvalid));
        check(&format!("{VECTOR}, t=x"), now, Err(Code::VapidMalformed));
        check(VECTOR, EXPIRES_AT + 59, Ok(()));
        check(VECTOR, EXPIRES_AT + 60, Err(Code::VapidExpired));
        check(VECTOR, EXPIRES_AT - 86_400 - 61, Err(Code::VapidLifetimeTooLong));
        assert_eq!(
            verify(VECTOR.as_bytes(), "https://other.example").err(),
            Some(Code::VapidAudienceWrong)
        );
        assert_eq!(
            authenticator().authenticate(None, now).map(|_| ()).map_err(|refusal| refusal.code),
            Err(Code::VapidMissing)
        );
    }

    #[test]
    fn a_remembered_token_still_expires() {
        let authenticator = authenticator();
        let at = |now| authenticator.authenticate(Some(VECTOR.as_bytes()), now).is_ok();
        assert!(at(EXPIRES_AT - 10));
        assert!(at(EXPIRES_AT - 9));
        assert!(!at(EXPIRES_AT + 60));
    }
}

//! VAPID headers: only one whose signature verifies, for us, in time, gives a sender.
//!
//! `r` and text: a header as it comes. `s` and three lines: JOSE header, claims, and a template in
//! which `{t}` is the signed token and `{k}` the key. `t`, an offset and a mask: a good header,
//! damaged.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use serde_json::Value;
use sns_relay::authenticate::{Authenticator, Sender};
use sns_relay::config::Authenticate;
use sns_relay::outcome::{Code, Refusal};
use sns_relay::push::BASE64URL;

use crate::{NOW_UNIX_S, mode, sender};

const LIFETIME_S_MAX: u64 = 86_400;
const CLOCK_SKEW_S: u64 = 60;

/// Checks one `Authorization` header.
pub fn vapid(data: &[u8]) {
    match mode(data, 3) {
        Some((0, header)) => drop(check(header)),
        Some((1, parts)) => signed(parts),
        Some((_, damage)) => damaged(damage),
        None => {}
    }
}

fn signed(parts: &[u8]) {
    let mut lines = parts.splitn(3, |byte| *byte == b'\n');
    let (Some(jose), Some(claims), Some(template)) = (lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    let token = sender::token(jose, claims);
    let Ok(template) = std::str::from_utf8(template) else { return };
    let header = template.replace("{t}", &token).replace("{k}", sender::PUBLIC_KEY);
    drop(check(header.as_bytes()));
    // Written anew, claims hold no name twice; then whatever holds for us must be let in.
    if let Ok(claims) = serde_json::from_slice::<Value>(claims)
        && hold(&claims)
    {
        let token = sender::token(br#"{"typ":"JWT","alg":"ES256"}"#, claims.to_string().as_bytes());
        let header = format!("vapid t={token}, k={}", sender::PUBLIC_KEY);
        let fits = header.len() <= sns_relay::authenticate::vapid::HEADER_BYTES_MAX;
        assert_eq!(check(header.as_bytes()).is_ok(), fits, "good claims are refused");
    }
}

fn damaged(damage: &[u8]) {
    let Some((offset, masks)) = damage.split_first() else { return };
    let claims = format!(r#"{{"aud":"{}","exp":{}}}"#, sender::AUDIENCE, NOW_UNIX_S + 600);
    let token = sender::token(br#"{"alg":"ES256"}"#, claims.as_bytes());
    let mut header = format!("vapid t={token}, k={}", sender::PUBLIC_KEY).into_bytes();
    for (index, mask) in masks.iter().enumerate() {
        let length = header.len();
        header[(usize::from(*offset) + index) % length] ^= mask;
    }
    drop(check(&header));
}

fn check(header: &[u8]) -> Result<Sender, Refusal> {
    let authenticator = authenticator();
    let result = authenticator.authenticate(Some(header), NOW_UNIX_S);
    match &result {
        Ok(sender) => {
            let claims = verified(header, sender).expect("a sender whose signature is not there");
            assert!(hold(&claims), "a sender whose claims do not hold");
            let again = authenticator.authenticate(Some(header), NOW_UNIX_S);
            assert!(again.is_ok_and(|again| again.key() == sender.key()), "memory changes it");
            let later = NOW_UNIX_S + LIFETIME_S_MAX + 2 * CLOCK_SKEW_S;
            let expired = authenticator.authenticate(Some(header), later).map(|_| ());
            assert_eq!(expired, Err(Refusal::of_field(Code::VapidExpired, "Authorization")));
        }
        Err(refusal) => {
            assert_eq!(refusal.field.as_deref(), Some("Authorization"));
            assert!(refusal.code.label().starts_with("vapid_"), "{}", refusal.code.label());
            let again = authenticator.authenticate(Some(header), NOW_UNIX_S);
            assert_eq!(again.err().as_ref(), Some(refusal), "the second look differs");
        }
    }
    result
}

/// Reads a header for a second time, its own way; gives its claims if the sender's key signed it.
fn verified(header: &[u8], sender: &Sender) -> Option<Value> {
    let text = std::str::from_utf8(header).ok()?;
    let values = |name: &str| {
        let start = format!("{name}=");
        let of = |part: &str| Some(part.strip_prefix(&start)?.trim_matches('"').to_owned());
        text.split([' ', ',', '\t']).filter_map(of).collect::<Vec<_>>()
    };
    let key = values("k").iter().find_map(|key| BASE64URL.decode(key).ok())?;
    if key != sender.key().as_bytes() {
        return None;
    }
    let tokens = values("t");
    let (signed, signature) = tokens.first()?.rsplit_once('.')?;
    let signature = BASE64URL.decode(signature).ok()?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
    key.verify(signed.as_bytes(), &signature).ok()?;
    let (jose, claims) = signed.split_once('.')?;
    let jose: Value = serde_json::from_slice(&BASE64URL.decode(jose).ok()?).ok()?;
    let claims = serde_json::from_slice(&BASE64URL.decode(claims).ok()?).ok()?;
    (jose["alg"] == "ES256").then_some(claims)
}

/// Tells whether claims are for us, in time, and of a form that RFC 8292 §2 gives.
fn hold(claims: &Value) -> bool {
    let subject = match &claims["sub"] {
        Value::Null => true,
        Value::String(sub) => sub.starts_with("mailto:") || sub.starts_with("https:"),
        _ => false,
    };
    let in_time = NOW_UNIX_S - CLOCK_SKEW_S + 1..=NOW_UNIX_S + LIFETIME_S_MAX + CLOCK_SKEW_S;
    let expiry = claims["exp"].as_u64().is_some_and(|exp| in_time.contains(&exp));
    claims["aud"] == sender::AUDIENCE && expiry && subject
}

fn authenticator() -> Authenticator {
    let config = Authenticate {
        token_cache_entries_max: 4,
        token_lifetime_max: Duration::from_secs(LIFETIME_S_MAX),
        clock_skew: Duration::from_secs(CLOCK_SKEW_S),
    };
    Authenticator::new(&config, sender::AUDIENCE.to_owned())
}

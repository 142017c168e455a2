//! VAPID: the sender signs with the key that the subscription was made for. RFC 8292.
//!
//! Stricter than the RFC where a large service is: `sub` must be present, a `mailto:` or `https:`
//! URI without spaces or brackets and not `localhost` (Apple). `aud` is the origin with its port.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::super::jws::{Jws, Verified, decode};
use super::answer::Fault;

/// Checks VAPID tokens for one origin.
pub(crate) struct Vapid {
    origin: String,
    verified: Verified<Claims>,
}

struct Claims {
    key: Vec<u8>,
    expires_s: i64,
}

const LIFE_MAX_S: i64 = 24 * 3600;
const KEY_BYTES: usize = 65;

impl Vapid {
    pub(crate) fn new(origin: &str) -> Vapid {
        Vapid { origin: origin.to_owned(), verified: Verified::new() }
    }

    /// Gives the credential when it is good for a subscription made with this key.
    pub(crate) fn check<'a>(
        &self,
        headers: &'a HeaderMap,
        subscription_key: &[u8],
        now_s: i64,
    ) -> Result<&'a str, Fault> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(Fault::VapidMissing)?;
        if values.next().is_some() {
            return Err(Fault::VapidInvalid);
        }
        let value = value.to_str().map_err(|_| Fault::VapidInvalid)?;
        let (scheme, parameters) = value.split_once(' ').ok_or(Fault::VapidMissing)?;
        if !scheme.eq_ignore_ascii_case("vapid") {
            return Err(Fault::VapidMissing);
        }
        let claims =
            self.verified.claims(value, || self.verify(parameters).ok_or(Fault::VapidInvalid))?;
        if claims.expires_s <= now_s || claims.expires_s > now_s + LIFE_MAX_S {
            return Err(Fault::VapidInvalid);
        }
        if claims.key != subscription_key {
            return Err(Fault::VapidKeyMismatch);
        }
        Ok(value)
    }

    fn verify(&self, parameters: &str) -> Option<Claims> {
        let (token, key) = token_and_key(parameters)?;
        let jws = Jws::parse(token)?;
        let is_good = jws.is_plain("ES256")
            && jws.verify_es256(&key)
            && jws.text("aud") == Some(self.origin.as_str())
            && is_contact(jws.text("sub")?);
        is_good.then_some(Claims { expires_s: jws.seconds("exp")?, key })
    }
}

/// Reads `t=<token>, k=<key>` in either order, nothing else.
fn token_and_key(parameters: &str) -> Option<(&str, Vec<u8>)> {
    let (first, second) = parameters.split_once(',')?;
    let (first, second) = (first.trim(), second.trim());
    let (token, key) = match first.strip_prefix("t=") {
        Some(token) => (token, second.strip_prefix("k=")?),
        None => (second.strip_prefix("t=")?, first.strip_prefix("k=")?),
    };
    let key = decode(key).filter(|key| key.len() == KEY_BYTES)?;
    Some((token, key))
}

fn is_contact(contact: &str) -> bool {
    let rest = match contact.strip_prefix("mailto:") {
        Some(address) => Some(address).filter(|address| address.contains('@')),
        None => contact.strip_prefix("https://"),
    };
    let is_clean = |rest: &str| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>')
    };
    rest.is_some_and(|rest| is_clean(rest) && !rest.contains("localhost"))
}

//! A sender whose private key everybody knows: that of RFC 8291 §5.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use sns_relay::authenticate::{Sender, vapid};
use sns_relay::push::BASE64URL;

use crate::NOW_UNIX_S;

/// The relay's origin: what a token must name.
pub(crate) const AUDIENCE: &str = "https://push.example.net";

/// The public key in base64url.
pub(crate) const PUBLIC_KEY: &str =
    "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";

const PRIVATE_KEY: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";

static KEY: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let bytes = |text: &str| BASE64URL.decode(text).expect("the RFC's key is base64url");
    let (private, public) = (bytes(PRIVATE_KEY), bytes(PUBLIC_KEY));
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, &public)
        .expect("the RFC's key is a key")
});

static SENDER: LazyLock<Sender> = LazyLock::new(|| {
    let exp = NOW_UNIX_S + 3600;
    let claims = format!(r#"{{"aud":"{AUDIENCE}","exp":{exp}}}"#);
    let header =
        format!("vapid t={}, k={PUBLIC_KEY}", token(br#"{"alg":"ES256"}"#, claims.as_bytes()));
    vapid::verify(header.as_bytes(), AUDIENCE).expect("a signed token verifies").sender()
});

/// Signs a JWT, whatever its two parts are.
pub(crate) fn token(jose: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", BASE64URL.encode(jose), BASE64URL.encode(claims));
    let signature = KEY.sign(&SystemRandom::new(), signed.as_bytes()).expect("signing works");
    format!("{signed}.{}", BASE64URL.encode(signature))
}

/// Gives the proof that the key signed.
pub(crate) fn sender() -> Sender {
    *SENDER
}

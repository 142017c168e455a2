//! Base64url without padding: how keys, tokens and sealed bodies travel in text.
//!
//! Writes only the strict form of RFC 7515 §2; reads padding and the standard alphabet (`+`, `/`)
//! too, since browsers and older libraries hand out both.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Writes bytes as base64url without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url or standard base64, padded or not; `None` for anything else.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let url_safe: Zeroizing<String> = Zeroizing::new(
        text.chars()
            .map(|c| {
                if c == '+' {
                    '-'
                } else if c == '/' {
                    '_'
                } else {
                    c
                }
            })
            .collect(),
    );
    TOLERANT.decode(url_safe.as_bytes()).ok()
}

const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_alphabets_padded_or_not_and_nothing_else() {
        let check = |text: &str, expect: Option<&[u8]>| {
            assert_eq!(decode(text).as_deref(), expect, "{text}");
        };
        check("-_8", Some(&[0xfb, 0xff]));
        check("-_8=", Some(&[0xfb, 0xff]));
        check("+/8", Some(&[0xfb, 0xff]));
        check("+/8=", Some(&[0xfb, 0xff]));
        check("", Some(&[]));
        check("-_ 8", None);
        check("-", None);
        check("é", None);
        assert_eq!(encode([0xfb, 0xff]), "-_8");
    }
}

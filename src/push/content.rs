//! What the device reads: sealed for it alone, or plain where the operator allows it.
//!
//! Neither type can be printed, and neither is ever copied into an error, a log line or a metric.

use bytes::Bytes;

use crate::outcome::{Code, Refusal};

/// The content of one message.
#[derive(Clone)]
pub enum Content {
    /// An RFC 8291 body that only the device can open.
    Sealed(Sealed),
    /// Plain text, for apps whose operator allows it.
    Plain(Plain),
}

/// A body in the `aes128gcm` coding of RFC 8188, checked by its header.
#[derive(Clone)]
pub struct Sealed(Bytes);

/// The plain text of a notification.
#[derive(Clone)]
pub struct Plain {
    /// The event's name, a key into the app's own strings.
    pub tag: String,
    /// The headline.
    pub title: String,
    /// The text.
    pub text: String,
}

// === impl Sealed ===

impl Sealed {
    /// salt(16) ‖ rs(4) ‖ idlen(1) ‖ keyid(65): RFC 8291 §4 fixes the key id to a P-256 point.
    pub const HEADER_BYTES: usize = 86;

    /// RFC 8188 §2: a record is a tag (16), a delimiter (1) and at least one byte more.
    const RECORD_BYTES_MIN: u32 = 18;

    /// Shortest record that RFC 8291 allows: no plaintext, the delimiter, the tag.
    const CIPHERTEXT_BYTES_MIN: usize = 17;

    /// Largest body that a push service must take (RFC 8030 §7.2), in bytes.
    pub const BODY_BYTES_MAX: usize = 4096;

    /// Checks the RFC 8188 header of a body, so that plain text cannot pass for a sealed message.
    /// Shape: one record under a 65-byte uncompressed point (RFC 8291 §4).
    /// Errors: `body_not_aes128gcm`, `content_too_large` over 4096 bytes.
    /// Source: RFC 8188 §2.1, RFC 8291 §4.
    pub fn parse(body: Bytes) -> Result<Self, Refusal> {
        if body.len() > Self::BODY_BYTES_MAX {
            return Err(Refusal::new(Code::ContentTooLarge));
        }
        let refuse = || Refusal::new(Code::BodyNotAes128gcm);
        let header: &[u8; Self::HEADER_BYTES] = body.first_chunk().ok_or_else(refuse)?;
        let record_bytes = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
        let ciphertext_bytes = body.len() - Self::HEADER_BYTES;
        let one_record = record_bytes >= Self::RECORD_BYTES_MIN
            && ciphertext_bytes >= Self::CIPHERTEXT_BYTES_MIN
            && ciphertext_bytes as u64 <= u64::from(record_bytes);
        if header[20] == 65 && header[21] == 4 && one_record {
            Ok(Self(body))
        } else {
            Err(refuse())
        }
    }

    /// Gives the body as it came.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::push::BASE64URL;

    /// The body of RFC 8291 §5.
    const VECTOR: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    fn body() -> Vec<u8> {
        BASE64URL.decode(VECTOR).unwrap()
    }

    fn refused(body: Vec<u8>) -> Code {
        Sealed::parse(Bytes::from(body)).err().map(|refusal| refusal.code).unwrap()
    }

    #[test]
    fn the_rfc_8291_vector_passes() {
        assert_eq!(Sealed::parse(Bytes::from(body())).ok().map(|s| s.as_bytes().len()), Some(144));
    }

    #[test]
    fn anything_that_is_no_single_record_is_refused() {
        assert_eq!(refused(Vec::new()), Code::BodyNotAes128gcm);
        assert_eq!(refused(b"hello in plain text".repeat(20)), Code::BodyNotAes128gcm);
        assert_eq!(refused(body()[..102].to_vec()), Code::BodyNotAes128gcm);
        let small_record = |rs: u32| {
            let mut body = body();
            body[16..20].copy_from_slice(&rs.to_be_bytes());
            body
        };
        assert_eq!(refused(small_record(17)), Code::BodyNotAes128gcm);
        assert_eq!(refused(small_record(57)), Code::BodyNotAes128gcm);
        assert!(Sealed::parse(Bytes::from(small_record(58))).is_ok());
        let mut short_key = body();
        short_key[20] = 64;
        assert_eq!(refused(short_key), Code::BodyNotAes128gcm);
    }

    #[test]
    fn a_body_over_4096_bytes_is_too_large() {
        let mut long = body();
        long.resize(4097, 0);
        assert_eq!(refused(long), Code::ContentTooLarge);
    }
}

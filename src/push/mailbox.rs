//! A mail address, in the narrow form that every mail server takes.
//!
//! In: text from outside. Out: a [`Mailbox`] without a blank, quote, bracket, line end or any other
//! character that means something to SMTP or to a header, so that nothing can be smuggled into
//! either. An address is a capability: it has no `Debug` and is never logged.

use aws_lc_rs::digest;

use crate::outcome::{Code, Refusal};

/// A mail address: `local@domain`, the domain in lower case.
#[derive(Clone, PartialEq, Eq)]
pub struct Mailbox {
    text: String,
    at: usize,
}

// === impl Mailbox ===

impl Mailbox {
    /// Longest address, local part and label of a domain, in bytes (RFC 5321 §4.5.3.1, RFC 1035).
    const LENGTH_BYTES_MAX: usize = 254;
    const LOCAL_BYTES_MAX: usize = 64;
    const LABEL_BYTES_MAX: usize = 63;

    /// Parses an address: a dot-atom of ASCII, `@`, a host name; international domains in their
    /// ASCII form (`xn--…`). Quoted local parts and address literals are refused.
    /// Errors: `address_invalid`.
    /// Source: RFC 5321 §4.1.2, RFC 5322 §3.2.3.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = || Refusal::of_field(Code::AddressInvalid, "address");
        let (local, domain) = text.rsplit_once('@').ok_or_else(refuse)?;
        let short = text.len() <= Self::LENGTH_BYTES_MAX && local.len() <= Self::LOCAL_BYTES_MAX;
        let atoms = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext));
        let labels = domain.contains('.') && domain.split('.').all(is_label);
        if !short || !atoms || !labels {
            return Err(refuse());
        }
        let text = format!("{local}@{}", domain.to_ascii_lowercase());
        Ok(Self { text, at: local.len() })
    }

    /// Gives the address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Gives what stands before the `@`.
    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }

    /// Gives what stands for the address in memory, where it must not be itself: a hash.
    pub fn tag(&self) -> [u8; 32] {
        let mut tag = [0; 32];
        tag.copy_from_slice(digest::digest(&digest::SHA256, self.text.as_bytes()).as_ref());
        tag
    }

    /// Gives the domain in lower case.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }
}

const fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'/'
                | b'='
                | b'?'
                | b'^'
                | b'_'
                | b'`'
                | b'{'
                | b'|'
                | b'}'
                | b'~'
        )
}

fn is_label(label: &str) -> bool {
    let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let fits = (1..=Mailbox::LABEL_BYTES_MAX).contains(&label.len());
    plain && fits && !label.starts_with('-') && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_split_once_and_its_domain_is_in_lower_case() {
        let mailbox = Mailbox::parse("Owner.One+nas@Mail.Example.COM").ok().unwrap();
        assert_eq!(mailbox.as_str(), "Owner.One+nas@mail.example.com");
        assert_eq!((mailbox.local(), mailbox.domain()), ("Owner.One+nas", "mail.example.com"));
    }

    #[test]
    fn whatever_means_something_to_smtp_or_a_header_is_refused() {
        let long = format!("{}@example.com", "x".repeat(65));
        for wrong in [
            "",
            "owner",
            "owner@",
            "@example.com",
            "owner@example",
            "owner@-example.com",
            "owner@example..com",
            "owner.@example.com",
            ".owner@example.com",
            "ow ner@example.com",
            "owner@example.com ",
            "owner@exa mple.com",
            "owner@example.com\r\nBcc: other@example.com",
            "owner\n@example.com",
            "owner\0@example.com",
            "owner@example.com>",
            "<owner@example.com>",
            "Owner <owner@example.com>",
            "\"owner\"@example.com",
            "owner@other@example.com",
            "owner,other@example.com",
            "owner@[127.0.0.1]",
            "\u{f6}wner@example.com",
            "owner@ex\u{e4}mple.com",
            &long,
        ] {
            assert!(Mailbox::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}

//! Where a push goes: a device's address at its push service, as the app itself gave it.
//!
//! An address is a capability: it has no `Debug` and is never logged.

use crate::outcome::{Code, Refusal};
use crate::push::{Environment, Mailbox, PushService};

/// A device's address.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// An APNs device token in lower-case hex, with its environment.
    Apns {
        /// 2 to 200 hex digits, an even number.
        token: String,
        /// Which of Apple's services knows the token.
        environment: Environment,
    },
    /// An FCM registration token or installation id.
    Fcm {
        /// 1 to 1024 visible ASCII characters.
        token: String,
    },
    /// A Web Push subscription.
    WebPush {
        /// The push resource.
        endpoint: Endpoint,
    },
    /// Electronic mail.
    Email {
        /// Where it goes.
        mailbox: Mailbox,
    },
}

/// The push resource of a subscription: an https URL, split so that nothing parses it again.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    host_end: usize,
    port: u16,
}

// === impl Address ===

impl Address {
    /// Longest APNs token, in hex digits; Apple names no bound.
    const APNS_TOKEN_DIGITS_MAX: usize = 200;

    /// Longest FCM token, in characters; Google names no bound, seen: 140 to 200.
    const FCM_TOKEN_LENGTH_MAX: usize = 1024;

    /// Parses an APNs device token: hex digits in either case.
    /// Errors: `device_token_invalid`.
    pub fn parse_apns(token: &str, environment: Environment) -> Result<Self, Refusal> {
        let fits = (2..=Self::APNS_TOKEN_DIGITS_MAX).contains(&token.len());
        let hex = token.len().is_multiple_of(2) && token.bytes().all(|b| b.is_ascii_hexdigit());
        if fits && hex {
            Ok(Self::Apns { token: token.to_ascii_lowercase(), environment })
        } else {
            Err(Refusal::of_field(Code::DeviceTokenInvalid, "token"))
        }
    }

    /// Parses an FCM registration token: an opaque string of visible ASCII.
    /// Errors: `device_token_invalid`.
    pub fn parse_fcm(token: &str) -> Result<Self, Refusal> {
        let fits = (1..=Self::FCM_TOKEN_LENGTH_MAX).contains(&token.len());
        if fits && token.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
            Ok(Self::Fcm { token: token.to_owned() })
        } else {
            Err(Refusal::of_field(Code::DeviceTokenInvalid, "token"))
        }
    }

    /// Parses a Web Push endpoint.
    /// Errors: `endpoint_not_allowed`.
    pub fn parse_webpush(endpoint: &str) -> Result<Self, Refusal> {
        Ok(Self::WebPush { endpoint: Endpoint::parse(endpoint)? })
    }

    /// Parses a mail address.
    /// Errors: `address_invalid`.
    pub fn parse_email(address: &str) -> Result<Self, Refusal> {
        Ok(Self::Email { mailbox: Mailbox::parse(address)? })
    }

    /// Gives the push service that knows the address.
    pub const fn service(&self) -> PushService {
        match self {
            Self::Apns { .. } => PushService::Apns,
            Self::Fcm { .. } => PushService::Fcm,
            Self::WebPush { .. } => PushService::WebPush,
            Self::Email { .. } => PushService::Email,
        }
    }

    /// Gives what is unique to the device, for keyed hashes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Apns { token, .. } | Self::Fcm { token } => token.as_bytes(),
            Self::WebPush { endpoint } => endpoint.url.as_bytes(),
            Self::Email { mailbox } => mailbox.as_str().as_bytes(),
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Longest endpoint, in bytes; WNS's are the longest seen, at about 600.
    const LENGTH_BYTES_MAX: usize = 2048;

    const SCHEME: &'static str = "https://";

    /// Parses an endpoint: https, a DNS name or address in lower case, no user-info, no fragment.
    /// Which hosts and ports are allowed is the push service room's to say.
    /// Errors: `endpoint_not_allowed`.
    /// Source: RFC 8030 §5, RFC 3986 §3.2.
    pub fn parse(url: &str) -> Result<Self, Refusal> {
        let refuse = || Refusal::of_field(Code::EndpointNotAllowed, "subscription.endpoint");
        if url.len() > Self::LENGTH_BYTES_MAX || !url.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refuse());
        }
        if url.bytes().any(|b| matches!(b, b'#' | b'"' | b'\\' | b'<' | b'>')) {
            return Err(refuse());
        }
        let rest = url.strip_prefix(Self::SCHEME).ok_or_else(refuse)?;
        let path_start = rest.find(['/', '?']).ok_or_else(refuse)?;
        let (authority, path) = rest.split_at(path_start);
        if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(refuse());
        }
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().map_err(|_| refuse())?),
            None => (authority, 443),
        };
        let plain = host.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        let whole = host.split('.').all(|label| !label.is_empty() && label.len() <= 63);
        if !plain || !whole || port == 0 {
            return Err(refuse());
        }
        Ok(Self { url: url.to_owned(), host_end: Self::SCHEME.len() + host.len(), port })
    }

    /// Gives the host in lower case.
    pub fn host(&self) -> &str {
        &self.url[Self::SCHEME.len()..self.host_end]
    }

    /// Gives the port; 443 where the URL names none.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Gives the origin as RFC 8292's `aud` wants it: the port only if it is not 443.
    pub fn origin(&self) -> String {
        match self.port {
            443 => format!("https://{}", self.host()),
            port => format!("https://{}:{port}", self.host()),
        }
    }

    /// Gives path and query.
    pub fn path(&self) -> &str {
        let rest = &self.url[self.host_end..];
        // After the host comes a port or the path; a port has no slash.
        &rest[rest.find('/').unwrap_or(rest.len())..]
    }

    /// Gives the whole URL.
    pub fn url(&self) -> &str {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_split_once() {
        let endpoint = Endpoint::parse("https://updates.push.services.mozilla.com/wpush/v2/x?y=1")
            .ok()
            .unwrap();
        assert_eq!(endpoint.host(), "updates.push.services.mozilla.com");
        assert_eq!(endpoint.port(), 443);
        assert_eq!(endpoint.origin(), "https://updates.push.services.mozilla.com");
        let other = Endpoint::parse("https://localhost:8443/x").ok().unwrap();
        assert_eq!((other.host(), other.port(), other.path()), ("localhost", 8443, "/x"));
        assert_eq!(endpoint.path(), "/wpush/v2/x?y=1");
        assert_eq!(other.origin(), "https://localhost:8443");
    }

    #[test]
    fn urls_that_are_no_endpoints_are_refused() {
        for wrong in [
            "",
            "http://a.example/x",
            "https:///x",
            "https://a.example",
            "https://user@a.example/x",
            "https://a.example:443:1/x",
            "https://a.example:0/x",
            "https://a.example:70000/x",
            "https://A.example/x",
            "https://a..example/x",
            "https://[::1]/x",
            "https://a.example/x#y",
            "https://a.example/\u{e4}",
            "https://a.example/ x",
            "https://a.example?x",
        ] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_apns_token_is_hex_and_kept_in_lower_case() {
        let address = Address::parse_apns("ABCDEF01", Environment::Sandbox).ok().unwrap();
        assert_eq!(address.as_bytes(), b"abcdef01");
        for wrong in ["", "abc", "xyzw", &"ab".repeat(101)] {
            assert!(Address::parse_apns(wrong, Environment::Sandbox).is_err(), "{wrong:?}");
        }
    }
}

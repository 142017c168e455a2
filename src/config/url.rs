//! The URLs that an operator writes: an origin, or an origin with a path.
//!
//! Hosts are DNS names or IPv4 addresses and come out in lower case; user-info, fragments and
//! IPv6 literals are refused (RFC 3986 §3.2; a literal address has no certificate worth trusting).

use super::{PublicUrl, ServiceUrl};

/// A URL in its parts.
pub(super) struct Url<'a> {
    pub(super) https: bool,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// With its leading slash; empty where the URL has none.
    pub(super) path: &'a str,
}

// === impl Url ===

impl<'a> Url<'a> {
    /// Splits an http or https URL; gives nothing for anything else.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (https, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !path.is_empty() {
            path.parse::<http::uri::PathAndQuery>().ok()?;
        }
        if path.contains('#') {
            return None;
        }
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (authority, None),
        };
        Some(Self { https, host: parse_host(host)?, port, path })
    }

    fn is_origin(&self) -> bool {
        self.path.is_empty() || self.path == "/"
    }

    /// Gives host and port of an https URL.
    pub(super) fn service(&self) -> Option<ServiceUrl> {
        let port = self.port.unwrap_or(443);
        self.https.then(|| ServiceUrl { host: self.host.clone(), port })
    }

    /// Gives host, port and path of an https URL.
    pub(super) fn token(&self) -> Option<(ServiceUrl, String)> {
        let path = if self.path.is_empty() { "/" } else { self.path };
        Some((self.service()?, path.to_owned()))
    }
}

// === impl ServiceUrl ===

impl ServiceUrl {
    /// Parses an https URL without a path; gives nothing for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        Url::parse(text).filter(Url::is_origin)?.service()
    }
}

// === impl PublicUrl ===

impl PublicUrl {
    /// Parses an http or https URL without a path; gives nothing for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).filter(Url::is_origin)?;
        let (scheme, default_port) = if url.https { ("https", 443) } else { ("http", 80) };
        let origin = match url.port {
            Some(port) if port != default_port => format!("{scheme}://{}:{port}", url.host),
            _ => format!("{scheme}://{}", url.host),
        };
        Some(Self { origin })
    }
}

/// Parses a DNS name or an IPv4 address, in either case; gives it in lower case.
pub(super) fn parse_host(text: &str) -> Option<String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let whole = text.split('.').all(|label| (1..=63).contains(&label.len()));
    (plain && whole && text.len() <= 253).then(|| text.to_ascii_lowercase())
}

/// Parses a port that can be dialled.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_loses_its_slash_and_its_default_port() {
        for (text, expect) in [
            ("http://localhost:8080", Some("http://localhost:8080")),
            ("https://Push.Example.com/", Some("https://push.example.com")),
            ("https://push.example.com:443", Some("https://push.example.com")),
            ("http://push.example.com:80", Some("http://push.example.com")),
            ("http://push.example.com:443", Some("http://push.example.com:443")),
            ("https://push.example.com/x", None),
            ("https://push.example.com?x", None),
            ("https://push.example.com#x", None),
            ("https://user@push.example.com", None),
            ("https://push.example.com:0", None),
            ("https://push.example.com:+1", None),
            ("https://push.example.com:70000", None),
            ("https://[::1]", None),
            ("https://", None),
            ("ftp://push.example.com", None),
            ("push.example.com", None),
            ("", None),
        ] {
            let origin = PublicUrl::parse(text).map(|url| url.origin);
            assert_eq!(origin.as_deref(), expect, "{text:?}");
        }
    }

    #[test]
    fn a_service_url_is_https() {
        let expect = |host: &str, port| Some(ServiceUrl { host: host.to_owned(), port });
        assert_eq!(ServiceUrl::parse("https://a.example:2197"), expect("a.example", 2197));
        assert_eq!(ServiceUrl::parse("https://127.0.0.1/"), expect("127.0.0.1", 443));
        assert_eq!(ServiceUrl::parse("http://a.example"), None);
        assert_eq!(ServiceUrl::parse("https://a.example/3/device"), None);
    }
}

//! The proxy that an operator writes: a URL with a scheme, maybe a login, a host and a port.
//!
//! User and password may be percent-encoded (RFC 3986 §2.1). Nothing of them can be printed.

use std::fmt;

use zeroize::Zeroizing;

use super::Secret;
use super::url::{parse_host, parse_port};

/// A proxy on the way to the push services.
pub struct Proxy {
    /// What it speaks.
    pub kind: ProxyKind,
    /// DNS name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Who we are to it.
    pub login: Option<ProxyLogin>,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP/1.1 `CONNECT`, in clear: TLS to the push service runs inside.
    Http,
    /// SOCKS5 (RFC 1928).
    Socks5,
}

/// User and password, each 1 to 255 bytes (RFC 1929).
pub struct ProxyLogin {
    /// The user; without a colon.
    pub user: String,
    /// The password.
    pub password: Secret<String>,
}

// === impl Proxy ===

impl Proxy {
    /// Parses `http://[user:password@]host:port` or `socks5://…`; gives nothing for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = match text.strip_prefix("http://") {
            Some(rest) => (ProxyKind::Http, rest),
            None => (ProxyKind::Socks5, text.strip_prefix("socks5://")?),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, authority) = match rest.rsplit_once('@') {
            Some((login, authority)) => (Some(ProxyLogin::parse(login)?), authority),
            None => (None, rest),
        };
        let (host, port) = authority.split_once(':')?;
        Some(Self { kind, host: parse_host(host)?, port: parse_port(port)?, login })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Proxy").field("kind", &self.kind).finish_non_exhaustive()
    }
}

// === impl ProxyLogin ===

impl ProxyLogin {
    fn parse(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':')?;
        let user = decode(user)?;
        if user.contains(':') {
            return None;
        }
        Some(Self { user: user.to_string(), password: Secret::new(decode(password)?.to_string()) })
    }
}

/// Replaces `%41` by `A`; gives nothing for what is no text, or too long or too short for SOCKS5.
fn decode(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| hex)?);
        rest = tail.get(2..)?;
    }
    let text = Zeroizing::new(std::str::from_utf8(&bytes).ok()?.to_owned());
    let fits = (1..=255).contains(&text.len()) && !text.contains(char::is_control);
    fits.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind, host, port, user and password, one after the other.
    fn parts(text: &str) -> Option<String> {
        let proxy = Proxy::parse(text)?;
        let login = proxy.login.map(|login| format!("{} {}", login.user, login.password.expose()));
        let login = login.unwrap_or_default();
        Some(format!("{:?} {} {} {login}", proxy.kind, proxy.host, proxy.port))
    }

    #[test]
    fn a_proxy_is_a_scheme_a_login_a_host_and_a_port() {
        for (text, expect) in [
            ("http://proxy.example:3128", Some("Http proxy.example 3128 ")),
            ("http://Proxy.Example:3128/", Some("Http proxy.example 3128 ")),
            ("socks5://proxy.example:3128", Some("Socks5 proxy.example 3128 ")),
            ("http://u:p@proxy.example:3128", Some("Http proxy.example 3128 u p")),
            ("socks5://u:p:@@proxy.example:3128", Some("Socks5 proxy.example 3128 u p:@")),
            ("http://u%40x:%25%3a@proxy.example:3128", Some("Http proxy.example 3128 u@x %:")),
            ("http://u@proxy.example:3128", None),
            ("http://:p@proxy.example:3128", None),
            ("http://u:@proxy.example:3128", None),
            ("http://u%3a:p@proxy.example:3128", None),
            ("http://u:%4@proxy.example:3128", None),
            ("http://u:%+4@proxy.example:3128", None),
            ("http://u:%0d@proxy.example:3128", None),
            ("http://proxy.example", None),
            ("https://proxy.example:3128", None),
            ("http://proxy.example:3128/path", None),
            ("http://:3128", None),
            ("", None),
        ] {
            assert_eq!(parts(text).as_deref(), expect, "{text:?}");
        }
    }

    #[test]
    fn a_proxy_does_not_show_its_login() {
        let shown = format!("{:?}", Proxy::parse("http://anna:sesame@proxy.example:3128"));
        assert!(!shown.contains("anna") && !shown.contains("sesame"), "{shown}");
    }
}

//! A request before it goes on the wire, written anew for each attempt.

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

/// A `POST`, which is all that push services and token endpoints take.
/// The pool adds `content-length` and the authority; `fields` gives all the others, none of which
/// may be connection-specific (RFC 9113 §8.2.2). It is asked once for each attempt, and its fields
/// go straight onto the wire.
pub struct Post<'a> {
    /// Path and query, well formed.
    pub path: &'a str,
    /// The whole body.
    pub body: Bytes,
    /// Gives the header fields.
    pub fields: &'a (dyn Fn(&mut dyn Fields) + Send + Sync),
}

/// Takes the header fields of a request.
pub trait Fields {
    /// Takes one: its name in small letters, a value that is well formed.
    fn put(&mut self, name: &'static str, value: &[u8], keep: Keep);
}

/// What an HTTP/2 connection remembers of a header field, so that it need not be said again
/// (RFC 7541 §6.2). The table is small: what does not come again would only push others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Name and value: the same in most requests.
    Field,
    /// The name.
    Name,
    /// Nothing.
    Nothing,
}

/// A number of up to 20 digits as text.
pub struct Decimal {
    digits: [u8; 20],
    begin: usize,
}

// === impl Post ===

impl Post<'_> {
    /// Gives all fields but the authority.
    pub(super) fn put_fields(&self, fields: &mut dyn Fields) {
        (self.fields)(fields);
        let length = Decimal::of(self.body.len() as u64);
        fields.put(header::CONTENT_LENGTH.as_str(), length.as_bytes(), Keep::Nothing);
    }

    pub(super) fn http1(&self, authority: &Authority) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = Method::POST;
        self.put_fields(request.headers_mut());
        // It is well formed.
        *request.uri_mut() = Uri::try_from(self.path).unwrap_or_default();
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(header::HOST, host);
        }
        request
    }
}

impl Fields for HeaderMap {
    fn put(&mut self, name: &'static str, value: &[u8], _keep: Keep) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.insert(HeaderName::from_static(name), value);
        }
    }
}

// === impl Decimal ===

impl Decimal {
    /// Writes a number.
    pub fn of(number: u64) -> Self {
        let (mut digits, mut begin, mut rest) = ([b'0'; 20], 20, number);
        loop {
            begin -= 1;
            digits[begin] += (rest % 10).to_le_bytes()[0];
            rest /= 10;
            if rest == 0 {
                return Self { digits, begin };
            }
        }
    }

    /// Its digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.begin..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shortest, the longest, and both sides of a new digit.
    #[test]
    fn numbers_are_written_as_display_writes_them() {
        for number in [0, 9, 10, 99, 100, 1_700_000_000, u64::MAX] {
            assert_eq!(Decimal::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}

//! The head of a request as it goes on the wire, kept for replays.

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, header, request};

use super::Origin;

/// Everything of a request but its body.
pub(super) struct Head {
    parts: request::Parts,
    authority: Authority,
}

// === impl Head ===

impl Head {
    pub(super) fn split(request: Request<Bytes>, origin: &Origin) -> (Self, Bytes) {
        let (mut parts, body) = request.into_parts();
        // Connection-specific fields are malformed in HTTP/2 (RFC 9113 §8.2.2).
        for name in ["connection", "keep-alive", "proxy-connection", "te", "upgrade"] {
            parts.headers.remove(name);
        }
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts.headers.remove(header::HOST);
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        (Self { parts, authority: origin.authority.clone() }, body)
    }

    fn path(&self) -> PathAndQuery {
        let path = self.parts.uri.path_and_query().cloned();
        path.unwrap_or_else(|| PathAndQuery::from_static("/"))
    }

    pub(super) fn http2(&self) -> Request<()> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(self.path());
        let mut request = Request::new(());
        *request.method_mut() = self.parts.method.clone();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.parts.headers.clone();
        // All three parts are there and valid each for itself, so the sum is.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        request
    }

    pub(super) fn http1(&self, body: Bytes) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.headers_mut() = self.parts.headers.clone();
        *request.uri_mut() = Uri::from(self.path());
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            request.headers_mut().insert(header::HOST, host);
        }
        request
    }
}

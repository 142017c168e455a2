//! A request before it goes on the wire, made anew for each attempt.

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};

use super::Origin;

/// A `POST`, which is all that push services and token endpoints take.
/// The pool adds `content-length` and the authority; `fields` makes all the others, none of which
/// may be connection-specific (RFC 9113 §8.2.2). It is asked once for each attempt, so that nothing
/// is copied for a replay that hardly ever comes.
pub struct Post<'a> {
    /// Path and query.
    pub path: PathAndQuery,
    /// The whole body.
    pub body: Bytes,
    /// Makes the header fields.
    pub fields: &'a (dyn Fn() -> HeaderMap + Send + Sync),
}

// === impl Post ===

impl Post<'_> {
    pub(super) fn http2(&self, origin: &Origin) -> Request<()> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(origin.authority.clone());
        uri.path_and_query = Some(self.path.clone());
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers();
        // All three parts are there and valid each for itself, so the sum is.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        request
    }

    pub(super) fn http1(&self, authority: &Authority) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = Method::POST;
        *request.headers_mut() = self.headers();
        *request.uri_mut() = Uri::from(self.path.clone());
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(header::HOST, host);
        }
        request
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = (self.fields)();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        headers
    }
}

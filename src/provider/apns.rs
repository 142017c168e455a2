//! Apple's push service: a route becomes one `POST /3/device/<token>`.
//!
//! One provider serves one app in one environment, over its own connections: Apple binds a
//! connection to the key that it first saw. Apps under one key share one token, because Apple
//! counts renewals per key. Never sends anything but the headers below and the route's body.
//! Source: Apple, "Sending notification requests to APNs".

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use tokio::time::Instant;

use crate::config::{Secret, ServiceUrl};
use crate::outcome::Code;
use crate::provider::hold::Hold;
use crate::provider::upstream::{Answer, Limits, Pool};
use crate::provider::{Attempt, CredentialVersion, Dialling, Provider, SetupError};
use crate::push::{Address, Urgency};
use crate::route::Route;

pub mod answer;

pub mod token;

use token::TokenSource;

/// Apple's service for one app in one environment.
pub struct Apns {
    pool: Arc<Pool>,
    hold: Hold,
    topic: HeaderValue,
    /// None where the connections show a client certificate.
    tokens: Option<Arc<TokenSource>>,
}

/// How we prove to Apple who we are.
pub enum Credential<'a> {
    /// By a provider token; the source is shared by all apps and environments of one key.
    Token(Arc<TokenSource>),
    /// By a client certificate: PEM, the chain and its key.
    Certificate(&'a Secret<String>),
}

// === impl Apns ===

impl Apns {
    /// Makes a provider for an app's bundle id; nothing is dialled yet.
    /// Must be called within a tokio runtime.
    /// Errors: [`SetupError`].
    pub fn new(
        topic: &str,
        credential: Credential<'_>,
        url: &ServiceUrl,
        dialling: &Dialling,
    ) -> Result<Self, SetupError> {
        let (tls, tokens) = match credential {
            Credential::Token(tokens) => (dialling.roots.client()?, Some(tokens)),
            Credential::Certificate(pem) => (dialling.roots.client_with_certificate(pem)?, None),
        };
        // Apple allows one stream until it has answered a first request.
        let limits = Limits { start_streams: 1, ..dialling.limits.clone() };
        let dialling = Dialling { limits, ..dialling.clone() };
        let topic = HeaderValue::from_str(topic).map_err(|_| SetupError::Text("the topic"))?;
        Ok(Self { pool: dialling.pool(url, tls)?, hold: Hold::new(&dialling), topic, tokens })
    }

    fn request(
        &self,
        route: &Route,
        authorization: Option<&HeaderValue>,
    ) -> Option<Request<Bytes>> {
        let Address::Apns { token, .. } = route.address() else { return None };
        let mut id = uuid::Uuid::encode_buffer();
        let id: &str = route.message_id().hyphenated().encode_lower(&mut id);
        let mut request = Request::post(format!("/3/device/{token}"))
            .header("apns-topic", &self.topic)
            .header("apns-push-type", HeaderValue::from_static("alert"))
            .header("apns-priority", priority(route.urgency()))
            .header("apns-expiration", route.expiration_unix_s())
            .header("apns-id", id);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(collapse_id) = route.collapse_id() {
            request = request.header("apns-collapse-id", collapse_id);
        }
        request.body(route.body().clone()).ok()
    }
}

impl Provider for Apns {
    async fn send(&self, route: &Route, deadline: Instant) -> Attempt {
        let token = self.tokens.as_ref().map(|tokens| tokens.current());
        let authorization = token.as_ref().map(|token| token.authorization());
        let Some(request) = self.request(route, authorization) else {
            return Attempt::impossible();
        };
        let version: Option<CredentialVersion> = token.as_ref().map(|token| token.version());
        let read = |answer: &Answer| {
            let outcome = answer::read(answer.status, &answer.headers, &answer.body);
            if outcome.code() == Code::ApnsExpiredProviderToken {
                // Our clock makes no token that old: after a renewal it is the connection.
                self.pool.doubt(answer);
            }
            outcome
        };
        let class = route.class();
        self.hold.attempt(Attempt::make(&self.pool, request, class, version, deadline, read)).await
    }

    async fn renew_credential(&self, spent: &Attempt, _deadline: Instant) -> bool {
        match (&self.tokens, spent.credential) {
            (Some(tokens), Some(seen)) if tokens.renew(seen) => {
                self.hold.lift();
                true
            }
            _ => false,
        }
    }

    async fn warm(&self, deadline: Instant) {
        self.pool.warm(deadline).await;
    }
}

/// Source: reference "Urgency"; an encrypted message that is shown must be an alert.
const fn priority(urgency: Urgency) -> HeaderValue {
    HeaderValue::from_static(match urgency {
        Urgency::High | Urgency::Normal => "10",
        Urgency::Low => "5",
        Urgency::VeryLow => "1",
    })
}

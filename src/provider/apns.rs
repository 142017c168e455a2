//! Apple's push service: a route becomes one `POST /3/device/<token>`.
//!
//! One provider serves one app in one environment, over its own connections: Apple binds a
//! connection to the key that it first saw. Apps under one key share one token, because Apple
//! counts renewals per key. Never sends anything but the headers below and the route's body.
//! Source: Apple, "Sending notification requests to APNs".

use std::sync::Arc;

use http::{HeaderValue, header};
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::{Secret, ServiceUrl};
use crate::outcome::Code;
use crate::provider::hold::Hold;
use crate::provider::upstream::{Answer, Decimal, Fields, Keep, Limits, Pool, Post};
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

const PATH: &str = "/3/device/";

const APNS_COLLAPSE_ID: &str = "apns-collapse-id";
const APNS_EXPIRATION: &str = "apns-expiration";
const APNS_ID: &str = "apns-id";
const APNS_PRIORITY: &str = "apns-priority";
const APNS_PUSH_TYPE: &str = "apns-push-type";
const APNS_TOPIC: &str = "apns-topic";

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

    /// What Apple advises: the token is not kept, and of what changes only the name.
    fn put_fields(
        &self,
        route: &Route,
        authorization: Option<&HeaderValue>,
        fields: &mut dyn Fields,
    ) {
        fields.put(APNS_TOPIC, self.topic.as_bytes(), Keep::Field);
        fields.put(APNS_PUSH_TYPE, b"alert", Keep::Field);
        fields.put(APNS_PRIORITY, priority(route.urgency()), Keep::Field);
        let expiration = Decimal::of(route.expiration_unix_s());
        fields.put(APNS_EXPIRATION, expiration.as_bytes(), Keep::Name);
        let mut id = Uuid::encode_buffer();
        let id = route.message_id().hyphenated().encode_lower(&mut id);
        fields.put(APNS_ID, id.as_bytes(), Keep::Name);
        if let Some(authorization) = authorization {
            fields.put(header::AUTHORIZATION.as_str(), authorization.as_bytes(), Keep::Nothing);
        }
        if let Some(collapse_id) = route.collapse_id() {
            fields.put(APNS_COLLAPSE_ID, collapse_id.as_bytes(), Keep::Name);
        }
    }
}

impl Provider for Apns {
    async fn send(&self, route: &Route, deadline: Instant) -> Attempt {
        let token = self.tokens.as_ref().map(|tokens| tokens.current());
        let authorization = token.as_ref().map(|token| token.authorization());
        let Some(path) = path(route) else { return Attempt::impossible() };
        let fields = |fields: &mut dyn Fields| self.put_fields(route, authorization, fields);
        let post = Post { path: &path, body: route.body().clone(), fields: &fields };
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
        let (pool, post) = (&self.pool, &post);
        self.hold.attempt(|| Attempt::of_http(pool, post, class, version, deadline, read)).await
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

/// Gives the path, which holds the device token.
fn path(route: &Route) -> Option<String> {
    let Address::Apns { token, .. } = route.address() else { return None };
    let mut path = String::with_capacity(PATH.len() + token.len());
    path.push_str(PATH);
    path.push_str(token);
    Some(path)
}

/// Source: reference "Urgency"; an encrypted message that is shown must be an alert.
const fn priority(urgency: Urgency) -> &'static [u8] {
    match urgency {
        Urgency::High | Urgency::Normal => b"10",
        Urgency::Low => b"5",
        Urgency::VeryLow => b"1",
    }
}

//! Google's push service: a route becomes one `POST /v1/projects/<project>/messages:send`.
//!
//! One provider serves one app, under its own service account; lifetime, urgency and collapsing are
//! already inside the route's body. Never sends without an access token.
//! Source: Google, FCM HTTP v1, `projects.messages.send`.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, header};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{AppFcm, ServiceUrl};
use crate::provider::hold::Hold;
use crate::provider::upstream::{Answer, Fields, Keep, Pool, Post};
use crate::provider::{Attempt, Dialling, Provider, SetupError};
use crate::push::Address;
use crate::route::Route;

pub mod answer;

pub mod token;

use token::TokenSource;

/// Google's service for one app.
pub struct Fcm {
    pool: Arc<Pool>,
    hold: Hold,
    path: PathAndQuery,
    tokens: Arc<TokenSource>,
    clock: Clock,
}

// === impl Fcm ===

impl Fcm {
    /// Makes a provider for an app's service account; nothing is dialled yet.
    /// Must be called within a tokio runtime.
    /// Errors: [`SetupError`].
    pub fn new(
        app: &AppFcm,
        url: &ServiceUrl,
        tokens: Arc<TokenSource>,
        dialling: &Dialling,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let path = format!("/v1/projects/{}/messages:send", app.project_id);
        let path = PathAndQuery::try_from(path).map_err(|_| SetupError::Text("the project"))?;
        let pool = dialling.pool(url, dialling.roots.client()?)?;
        Ok(Self { pool, hold: Hold::new(dialling), path, tokens, clock })
    }
}

impl Provider for Fcm {
    async fn send(&self, route: &Route, deadline: Instant) -> Attempt {
        let token = match self.tokens.current(deadline).await {
            Ok(token) => token,
            Err(outcome) => return Attempt::unsent(outcome),
        };
        let Address::Fcm { .. } = route.address() else { return Attempt::impossible() };
        let fields = |fields: &mut dyn Fields| put_fields(token.authorization(), fields);
        let (path, body) = (self.path.as_str(), route.body().clone());
        let post = Post { path, body, fields: &fields };
        let read = |answer: &Answer| {
            answer::read(answer.status, &answer.headers, &answer.body, self.clock.unix_s())
        };
        let (class, version) = (route.class(), Some(token.version()));
        let (pool, post) = (&self.pool, &post);
        self.hold.attempt(|| Attempt::of_http(pool, post, class, version, deadline, read)).await
    }

    async fn renew_credential(&self, spent: &Attempt, deadline: Instant) -> bool {
        match spent.credential {
            Some(seen) if self.tokens.renew(seen, deadline).await => {
                self.hold.lift();
                true
            }
            _ => false,
        }
    }

    async fn warm(&self, deadline: Instant) {
        // A fault of the token is the first message's to tell.
        let (_, ()) = tokio::join!(self.tokens.current(deadline), self.pool.warm(deadline));
    }
}

/// Both are the same for an hour.
fn put_fields(authorization: &HeaderValue, fields: &mut dyn Fields) {
    fields.put(header::AUTHORIZATION.as_str(), authorization.as_bytes(), Keep::Field);
    fields.put(header::CONTENT_TYPE.as_str(), b"application/json", Keep::Field);
}

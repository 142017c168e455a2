//! Google's push service: a route becomes one `POST /v1/projects/<project>/messages:send`.
//!
//! One provider serves one app, under its own service account; lifetime, urgency and collapsing are
//! already inside the route's body. Never sends without an access token.
//! Source: Google, FCM HTTP v1, `projects.messages.send`.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{AppFcm, ServiceUrl};
use crate::provider::hold::Hold;
use crate::provider::upstream::{Answer, Pool, Post};
use crate::provider::{Attempt, Dialling, Provider, SetupError};
use crate::push::Address;
use crate::route::Route;

pub mod answer;

pub mod token;

use token::TokenSource;

/// Two, and `content-length`.
const FIELDS_MAX: usize = 3;

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
        let fields = || fields(token.authorization());
        let post = Post { path: self.path.clone(), body: route.body().clone(), fields: &fields };
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

fn fields(authorization: &HeaderValue) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(FIELDS_MAX);
    fields.insert(header::AUTHORIZATION, authorization.clone());
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields
}

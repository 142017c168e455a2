//! Google's push service: a route becomes one `POST /v1/projects/<project>/messages:send`.
//!
//! One provider serves one app, under its own service account; lifetime, urgency and collapsing are
//! already inside the route's body. Never sends without an access token.
//! Source: Google, FCM HTTP v1, `projects.messages.send`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{AppFcm, ServiceUrl};
use crate::provider::hold::Hold;
use crate::provider::upstream::{Answer, Pool};
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
    path: Uri,
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
        let path = Uri::try_from(path).map_err(|_| SetupError::Text("the project"))?;
        let pool = dialling.pool(url, dialling.roots.client()?)?;
        Ok(Self { pool, hold: Hold::new(dialling), path, tokens, clock })
    }

    fn request(&self, route: &Route, authorization: &HeaderValue) -> Option<Request<Bytes>> {
        let Address::Fcm { .. } = route.address() else { return None };
        Request::post(self.path.clone())
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(route.body().clone())
            .ok()
    }
}

impl Provider for Fcm {
    async fn send(&self, route: &Route, deadline: Instant) -> Attempt {
        let token = match self.tokens.current(deadline).await {
            Ok(token) => token,
            Err(outcome) => return Attempt::unsent(outcome),
        };
        let Some(request) = self.request(route, token.authorization()) else {
            return Attempt::impossible();
        };
        let read = |answer: &Answer| {
            answer::read(answer.status, &answer.headers, &answer.body, self.clock.unix_s())
        };
        let (class, version) = (route.class(), Some(token.version()));
        self.hold.attempt(Attempt::make(&self.pool, request, class, version, deadline, read)).await
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

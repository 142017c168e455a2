//! Builds every app's providers, so that all that can be wrong with a credential shows at start.

use std::collections::HashMap;
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;

use super::ServeError;
use crate::clock::Clock;
use crate::config::{self, ApnsCredential, AppApns, AppFcm, Config, files};
use crate::feedback::Feedback;
use crate::metrics::Metrics;
use crate::provider::apns::{self, Apns};
use crate::provider::email::{Email, MailServer};
use crate::provider::fcm::{self, Fcm};
use crate::provider::tls::Roots;
use crate::provider::webpush::address::HostGuard;
use crate::provider::webpush::{WebPush, WebPushPools};
use crate::provider::{self, AnyProvider, Dialling, Provider as _, SetupError};
use crate::push::{AppName, Environment, PushService};
use crate::relay::{Carrier, Lane};

type Carriers = HashMap<AppName, HashMap<Lane, Carrier>>;

/// Makes one provider for each app and lane; nothing is dialled yet.
/// Errors: [`ServeError::Provider`] with the section of the configuration.
pub(super) fn build(
    config: &Config,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<(Carriers, HostGuard), ServeError> {
    let carrier = |provider| Carrier { provider, feedback: Feedback::new(&config.feedback) };
    let mut carriers = Carriers::new();
    let dialling = |service, ca_file: Option<&Path>, key| {
        let roots = Roots::load(ca_file).map_err(|error| at(key)(error.into()))?;
        let limits = provider::limits(&config.upstream);
        Ok::<_, ServeError>(Dialling {
            roots,
            limits,
            proxy: config.upstream.proxy.clone(),
            credential_probe: config.upstream.credential_probe,
            metrics: metrics.pool(service),
            holds: metrics.holds(service),
        })
    };
    let to_apns = dialling(PushService::Apns, config.apns.ca_file.as_deref(), "apns.ca_file")?;
    let to_fcm = dialling(PushService::Fcm, config.fcm.ca_file.as_deref(), "fcm.ca_file")?;
    let to_webpush =
        dialling(PushService::WebPush, config.webpush.ca_file.as_deref(), "webpush.ca_file")?;
    let pools = WebPushPools::new(&config.webpush, &to_webpush).map_err(at("webpush"))?;
    let pools = Arc::new(pools);
    let mail_server = config.email.as_ref().map(|email| mail_server(config, email, metrics));
    let mail_server = mail_server.transpose()?;
    let mut apns_tokens = ApnsTokens { sources: HashMap::new(), clock, metrics };
    let mut fcm_tokens = FcmTokens { sources: HashMap::new(), clock, metrics };
    for (name, app) in &config.apps {
        let lanes = carriers.entry(name.clone()).or_default();
        let fault = |service: &str| at(format!("apps.{name}.{service}"));
        if let Some(app) = &app.apns {
            if let ApnsCredential::Certificate { pem } = &app.credential
                && let Some(expiry) = files::certificate_expiry_unix_s(pem.expose().as_bytes())
            {
                metrics.certificate_expires(Some(name), expiry);
            }
            for environment in Environment::ALL {
                let url = match environment {
                    Environment::Production => &config.apns.production_url,
                    Environment::Sandbox => &config.apns.sandbox_url,
                };
                let credential = apns_tokens.credential(app).map_err(fault("apns"))?;
                let apns =
                    Apns::new(&app.topic, credential, url, &to_apns).map_err(fault("apns"))?;
                lanes.insert(Lane::Apns(environment), carrier(AnyProvider::Apns(apns)));
            }
        }
        if let Some(app) = &app.fcm {
            let tokens = fcm_tokens.source(app, &to_fcm).map_err(fault("fcm"))?;
            let fcm = Fcm::new(app, &config.fcm.base_url, tokens, &to_fcm, clock.clone())
                .map_err(fault("fcm"))?;
            lanes.insert(Lane::Fcm, carrier(AnyProvider::Fcm(fcm)));
        }
        if let Some(app) = &app.webpush {
            let renewals = metrics.renewals(PushService::WebPush);
            let webpush = WebPush::new(app, Arc::clone(&pools), clock.clone(), renewals)
                .map_err(fault("webpush"))?;
            lanes.insert(Lane::WebPush, carrier(AnyProvider::WebPush(webpush)));
        }
        if let (Some(app), Some(server)) = (&app.email, &mail_server) {
            let email = Email::new(&app.from, Arc::clone(server)).map_err(fault("email"))?;
            lanes.insert(Lane::Email, carrier(AnyProvider::Email(email)));
        }
    }
    let guard = HostGuard::new(&config.webpush.allow_hosts, &config.webpush.danger_allow_origins);
    Ok((carriers, guard))
}

fn mail_server(
    config: &Config,
    email: &config::Email,
    metrics: &Metrics,
) -> Result<Arc<MailServer>, ServeError> {
    let ca = email.ca_file.as_deref().map(files::read_text).transpose();
    let ca = ca.map_err(|_| at("email.ca_file")(SetupError::Text("the file")))?;
    let limits = provider::limits(&config.upstream);
    let ca = ca.as_ref().map(|pem| pem.expose().as_str());
    let server = MailServer::new(email, ca, &limits, metrics.pool(PushService::Email));
    server.map(Arc::new).map_err(at("email"))
}

/// Dials and fetches in advance for every app, all at once, and waits for that up to `deadline`.
/// The sandbox is for developers, and which browsers' services there will be nobody knows.
pub(super) async fn warm(carriers: &Carriers, deadline: Instant) {
    let lanes = carriers.values().flatten();
    let warm =
        lanes.filter(|(lane, _)| matches!(lane, Lane::Apns(Environment::Production) | Lane::Fcm));
    let mut warming: Vec<_> =
        warm.map(|(_, carrier)| Box::pin(carrier.provider.warm(deadline))).collect();
    // Polled together: each ends by the deadline.
    poll_fn(|context| {
        warming.retain_mut(|warm| warm.as_mut().poll(context).is_pending());
        if warming.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// One token source for each (team, key): Apple counts renewals per key, whatever app they are for.
struct ApnsTokens<'a> {
    sources: HashMap<(String, String), Arc<apns::token::TokenSource>>,
    clock: &'a Clock,
    metrics: &'a Metrics,
}

impl ApnsTokens<'_> {
    fn credential<'a>(&mut self, app: &'a AppApns) -> Result<apns::Credential<'a>, SetupError> {
        let (key_pem, key_id, team_id) = match &app.credential {
            ApnsCredential::Certificate { pem } => return Ok(apns::Credential::Certificate(pem)),
            ApnsCredential::Token { key_pem, key_id, team_id } => (key_pem, key_id, team_id),
        };
        let name = (team_id.clone(), key_id.clone());
        if let Some(source) = self.sources.get(&name) {
            return Ok(apns::Credential::Token(Arc::clone(source)));
        }
        let renewals = self.metrics.renewals(PushService::Apns);
        let clock = self.clock.clone();
        let source = apns::token::TokenSource::new(key_pem, key_id, team_id, clock, renewals)?;
        let source = Arc::new(source);
        self.sources.insert(name, Arc::clone(&source));
        Ok(apns::Credential::Token(source))
    }
}

/// One token source for each (service account, key): an access token is the account's, whatever app
/// it is for.
struct FcmTokens<'a> {
    sources: HashMap<(String, String), Arc<fcm::token::TokenSource>>,
    clock: &'a Clock,
    metrics: &'a Metrics,
}

impl FcmTokens<'_> {
    fn source(
        &mut self,
        app: &AppFcm,
        to_fcm: &Dialling,
    ) -> Result<Arc<fcm::token::TokenSource>, SetupError> {
        let name = (app.client_email.clone(), app.private_key_id.clone());
        if let Some(source) = self.sources.get(&name) {
            return Ok(Arc::clone(source));
        }
        let renewals = self.metrics.renewals(PushService::Fcm);
        let source = fcm::token::TokenSource::new(app, to_fcm, self.clock.clone(), renewals)?;
        let source = Arc::new(source);
        self.sources.insert(name, Arc::clone(&source));
        Ok(source)
    }
}

fn at(key: impl Into<String>) -> impl FnOnce(SetupError) -> ServeError {
    let key = key.into();
    |source| ServeError::Provider { key, source }
}

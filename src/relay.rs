//! The corridor: the only place that knows the order of the rooms.
//!
//! A push walks authenticate → pair → route → send → settle; every branch and every side effect of
//! that walk is in this file, and the rooms are leaves. In: what a door parsed. Out: an
//! [`Outcome`], always. Nothing is kept of a message once its outcome is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, ready};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::authenticate::quota::{Budget, Permit, Quota};
use crate::authenticate::{Authenticator, Sender};
use crate::clock::Clock;
use crate::config::App;
use crate::duplicates::{Claim, Duplicates};
use crate::enrol::{Application, Enroller};
use crate::feedback::Feedback;
use crate::feedback::complaints::Complaints;
use crate::metrics::{Door, Metrics};
use crate::outcome::retry::{self, Decision};
use crate::outcome::{Code, Outcome, Refusal};
use crate::pair::farewell::Farewells;
use crate::pair::{Device, Paired, Pairer};
use crate::provider::webpush::address::HostGuard;
use crate::provider::{AnyProvider, Attempt, Provider as _};
use crate::push::{Address, AppName, Class, Environment, Mailbox, Push, PushService, SenderKey};
use crate::route::mail::Proof;
use crate::route::{Route, Router};
use crate::store::{NasIdentity, Store};

pub mod errand;

pub use errand::{Errand, Settled, Timing};

use errand::Sent;

/// The rooms, built once.
pub struct Relay {
    /// What time it is.
    pub clock: Clock,
    /// Credential → sender.
    pub authenticator: Authenticator,
    /// Sender → NAS.
    pub enroller: Enroller,
    /// Handle → device.
    pub pairer: Pairer,
    /// Who wants no more mail.
    pub farewells: Arc<Farewells>,
    /// Device and push → route.
    pub router: Router,
    /// Route → outcome.
    pub carriers: HashMap<AppName, HashMap<Lane, Carrier>>,
    /// How much may be sent.
    pub quota: Quota,
    /// What was sent before.
    pub duplicates: Duplicates,
    /// Which Web Push endpoints may be paired.
    pub host_guard: HostGuard,
    /// NAS identities.
    pub store: Store,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What the operator was told.
    pub complaints: Complaints,
}

/// A provider, and what its answers have taught.
pub struct Carrier {
    /// Sends.
    pub provider: AnyProvider,
    /// Remembers.
    pub feedback: Feedback,
}

/// One credential of an app: which provider carries a device's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// APNs in one environment.
    Apns(Environment),
    /// FCM.
    Fcm,
    /// Web Push.
    WebPush,
    /// E-mail.
    Email,
}

/// One device of a notification, as the NAS door parsed it.
pub struct Target {
    /// The sealed device.
    pub handle: String,
    /// The message, or why this target's part of the request is wrong.
    pub push: Result<Push, Refusal>,
}

/// What a pairing came to.
pub struct NewPairing {
    /// The handle; none where it travels through the channel that it opens.
    pub handle: Option<String>,
    /// Until when the handle is good, in seconds since 1970.
    pub expires_at_unix_s: u64,
    /// Bytes of the largest body.
    pub body_bytes_max: usize,
}

/// A message that waited so long for its turn that nothing can come of it.
const TOO_LATE: Outcome =
    Outcome::NotNow { code: Code::Overloaded, retry_after: Duration::from_secs(2) };

/// The first of two has not settled by the deadline of the second.
const TWIN_UNDER_WAY: Outcome =
    Outcome::NotNow { code: Code::TwinUnderWay, retry_after: Duration::from_secs(5) };

// === impl Relay ===

impl Relay {
    /// Lets one message of the application door in.
    /// Errors: what became of a message that came no further.
    pub fn take_in(
        &self,
        authorization: Option<&[u8]>,
        handle: &str,
        push: &Push,
        time: Timing,
    ) -> Result<Errand<'_>, Settled> {
        let now_unix_s = self.clock.unix_s();
        let sender = self.authenticator.authenticate(authorization, now_unix_s);
        let sender = sender.map_err(|refusal| Settled::new(refusal.into()))?;
        self.begin(Door::Push, &sender, handle, push, now_unix_s, time)
    }

    /// Carries a notification to several devices at once; results come in the order of the targets.
    /// One slow push service holds up nobody else's message, and none beyond the deadline.
    /// Errors: what is wrong with the request as a whole.
    pub async fn notify(
        self: &Arc<Self>,
        authorization: Option<&[u8]>,
        targets: Vec<Target>,
        deadline: Instant,
    ) -> Result<Vec<Settled>, Outcome> {
        let sender = self.authenticator.authenticate(authorization, self.clock.unix_s())?;
        self.enroller.nas(&self.store, &sender).await?;
        let lost = || Settled::new(Outcome::Misconfigured { code: Code::InternalFault });
        let mut results: Vec<Settled> = targets.iter().map(|_| lost()).collect();
        let mut walks = JoinSet::new();
        for (index, target) in targets.into_iter().enumerate() {
            let relay = Arc::clone(self);
            walks.spawn(async move {
                let Target { handle, push } = target;
                let errand = match push {
                    Ok(push) => {
                        let (door, now_unix_s) = (Door::Notifications, relay.clock.unix_s());
                        let time = Timing { started: Instant::now(), deadline };
                        relay.begin(door, &sender, &handle, &push, now_unix_s, time)
                    }
                    Err(refusal) => Err(Settled::new(refusal.into())),
                };
                drop(handle);
                (index, relay.carry(errand).await)
            });
        }
        while let Some(walk) = walks.join_next().await {
            match walk {
                Ok((index, settled)) => results[index] = settled,
                Err(_) => self.metrics.panics.inc(),
            }
        }
        Ok(results)
    }

    /// Pairs a device with the only key that may use its handle.
    /// The handle of a mail address goes to that address alone: whoever uses it has read it there.
    /// Errors: `app_unknown`, `service_not_configured`, `endpoint_not_allowed`; whatever became of
    /// the mail.
    pub async fn pair(
        &self,
        app: AppName,
        address: Address,
        sender: SenderKey,
        deadline: Instant,
    ) -> Result<NewPairing, Outcome> {
        self.app(&app)?;
        if let Address::WebPush { endpoint } = &address
            && !self.host_guard.allows(endpoint)
        {
            return Err(Refusal::of_field(Code::EndpointNotAllowed, "subscription.endpoint").into());
        }
        let body_bytes_max = self
            .router
            .body_bytes_max(&app, address.service())
            .ok_or_else(|| Refusal::of_field(Code::ServiceNotConfigured, "service"))?;
        let now_unix_s = self.clock.unix_s();
        let sender = sender.thumbprint();
        let paired = self.pairer.pair(app.clone(), address.clone(), sender, now_unix_s)?;
        let expires_at_unix_s = paired.expires_at_unix_s;
        let handle = match &address {
            Address::Email { mailbox } => {
                self.prove(&app, mailbox, paired, deadline).await?;
                None
            }
            _ => Some(paired.handle),
        };
        Ok(NewPairing { handle, expires_at_unix_s, body_bytes_max })
    }

    /// Sends a handle through the channel that it opens.
    async fn prove(
        &self,
        app: &AppName,
        mailbox: &Mailbox,
        paired: Paired,
        deadline: Instant,
    ) -> Result<(), Outcome> {
        self.quota.charge_proof(&mailbox.tag(), Instant::now())?;
        let Paired { handle, expires_at_unix_s } = paired;
        let proof = Proof { handle: &handle, expires_at_unix_s };
        let route = self.router.proof(app, mailbox, &proof, self.clock.unix_s())?;
        let lane = self.carriers.get(app).and_then(|app| app.get(&Lane::Email));
        let carrier = lane.ok_or(Outcome::Misconfigured { code: Code::CredentialUnavailable })?;
        let sent = self.send(PushService::Email, &carrier.provider, &route, deadline).await;
        self.metrics.settled(app, PushService::Email, &sent.outcome);
        match sent.outcome {
            Outcome::Accepted { .. } => Ok(()),
            outcome => Err(outcome),
        }
    }

    /// Tells whether a link to unsubscribe is one of ours.
    /// Errors: `unsubscribe_link_invalid`.
    pub fn farewell_link(&self, link: &str) -> Result<(), Refusal> {
        self.farewells.check(link)
    }

    /// Takes the farewell of a mail address's owner.
    /// Errors: `unsubscribe_link_invalid`.
    pub fn farewell(&self, link: &str) -> Result<(), Refusal> {
        self.farewells.take(link, self.clock.unix_s())
    }

    /// Gives an app with its credentials.
    /// Errors: `app_unknown`.
    pub fn app(&self, name: &AppName) -> Result<&Arc<App>, Refusal> {
        self.router.app(name).ok_or_else(|| Refusal::of_field(Code::AppUnknown, "app"))
    }

    /// Enrols the key that signed; `true` with a new record.
    pub async fn enrol(
        &self,
        authorization: Option<&[u8]>,
        application: Application,
    ) -> Result<(NasIdentity, bool), Outcome> {
        let now_unix_s = self.clock.unix_s();
        let sender = self.authenticator.authenticate(authorization, now_unix_s)?;
        self.enroller.enrol(&self.store, &sender, application, now_unix_s).await
    }

    /// Gives the record of the NAS that signed.
    pub async fn identity(&self, authorization: Option<&[u8]>) -> Result<NasIdentity, Outcome> {
        let sender = self.authenticator.authenticate(authorization, self.clock.unix_s())?;
        let nas = self.enroller.nas(&self.store, &sender).await?;
        Ok(nas.identity().clone())
    }

    /// Gives the NAS that signed a new key, for which `proof` vouches.
    pub async fn rotate_key(
        &self,
        authorization: Option<&[u8]>,
        new_key: SenderKey,
        proof: &str,
    ) -> Result<NasIdentity, Outcome> {
        let now_unix_s = self.clock.unix_s();
        let sender = self.authenticator.authenticate(authorization, now_unix_s)?;
        let nas = self.enroller.nas(&self.store, &sender).await?;
        let new = self.authenticator.prove(proof, now_unix_s)?;
        if *new.key() != new_key {
            return Err(Refusal::of_field(Code::KeyProofInvalid, "proof").into());
        }
        self.enroller.rotate(&self.store, &nas, &new).await
    }

    /// admit → pair → route, for a sender that is known.
    /// Errors: what became of a message that came no further.
    fn begin(
        &self,
        door: Door,
        sender: &Sender,
        handle: &str,
        push: &Push,
        now_unix_s: u64,
        time: Timing,
    ) -> Result<Errand<'_>, Settled> {
        let admitted = self.admit(sender, push.class, time);
        let (permit, budget) = admitted.map_err(Settled::new)?;
        let device = self.pairer.open(handle, sender, now_unix_s);
        let device = device.map_err(|refusal| Settled::new(refusal.into()))?;
        let settle = |outcome: &Outcome| {
            let service = device.address().service();
            self.settle(door, device.app(), service, outcome, time.started.elapsed());
        };
        if let Some(outcome) = self.said_farewell(&device) {
            settle(&outcome);
            return Err(Settled::new(outcome));
        }
        let renewed_handle = self.pairer.renewed(&device, now_unix_s);
        let lane = Lane::of(device.address());
        let carrier = self.carriers.get(device.app()).and_then(|app| app.get(&lane));
        let route = self.router.route(&device, push, now_unix_s).and_then(|route| {
            let missing = Outcome::Misconfigured { code: Code::CredentialUnavailable };
            Ok((route, carrier.ok_or(missing)?))
        });
        match route {
            Ok((route, carrier)) => Ok(Errand {
                claims: push.id.is_some().then(|| sender.thumbprint()),
                tag: device.tag(),
                _permit: permit,
                door,
                time,
                carrier,
                route,
                renewed_handle,
                budget,
            }),
            Err(outcome) => {
                settle(&outcome);
                Err(Settled { outcome, renewed_handle, ttl_s: None, budget })
            }
        }
    }

    /// send → settle, for a message that was let in.
    pub fn carry<'a>(
        &'a self,
        errand: Result<Errand<'a>, Settled>,
    ) -> impl Future<Output = Settled> + Send + 'a {
        let errand = match errand {
            Ok(errand) => errand,
            Err(settled) => return Either::Left(ready(settled)),
        };
        // An async fn would keep its argument twice.
        Either::Right(async move {
            let Sent { outcome, at, upstream } = self.send_once(&errand).await;
            let Errand { door, time, route, renewed_handle, budget, .. } = errand;
            let own_part = (at - time.started).saturating_sub(upstream);
            self.settle(door, &route.app().name, route.address().service(), &outcome, own_part);
            Settled { outcome, renewed_handle, ttl_s: Some(route.ttl_s()), budget }
        })
    }

    /// Gives `gone` for a mail address whose owner has unsubscribed, so that the sender gives the
    /// pairing up.
    fn said_farewell(&self, device: &Device) -> Option<Outcome> {
        let Address::Email { .. } = device.address() else { return None };
        let since_unix_s = self.farewells.since(device)?;
        let since_unix_ms = Some(since_unix_s.saturating_mul(1000));
        Some(Outcome::Gone { code: Code::EmailUnsubscribed, since_unix_ms })
    }

    /// Lets a message in, or turns it away at once; what is too late is not started.
    fn admit(
        &self,
        sender: &Sender,
        class: Class,
        time: Timing,
    ) -> Result<(Permit<'_>, Option<Budget>), Outcome> {
        let Timing { started, deadline } = time;
        if started >= deadline {
            return Err(TOO_LATE);
        }
        let (permit, budget) = self.quota.enter(class, sender.thumbprint().as_bytes(), started)?;
        Ok((permit, Some(budget)))
    }

    /// Sends unless the device is held, or the same notification was accepted or is under way.
    async fn send_once(&self, errand: &Errand<'_>) -> Sent {
        let Timing { started, deadline } = errand.time;
        let Some(sender) = errand.claims else { return self.send_held(errand, started).await };
        let id = errand.route.message_id();
        let outcome = match self.duplicates.claim(*sender.as_bytes(), id, deadline).await {
            Some(Claim::First(first)) => {
                let sent = self.send_held(errand, Instant::now()).await;
                first.settle(&sent.outcome);
                return sent;
            }
            Some(Claim::Twin(outcome)) => {
                self.metrics.duplicates.inc();
                outcome
            }
            None => TWIN_UNDER_WAY,
        };
        Sent::not_at_all(outcome, Instant::now())
    }

    /// Sends unless the device's rate is used up, or the push service has asked us to wait.
    async fn send_held(&self, errand: &Errand<'_>, now: Instant) -> Sent {
        let Errand { route, carrier, tag, time, .. } = errand;
        if let Err(outcome) = self.quota.charge_device(route.class(), tag, now) {
            return Sent::not_at_all(outcome, now);
        }
        let service = route.address().service();
        if let Some(held) = carrier.feedback.hold(tag, now) {
            self.metrics.held(service);
            return Sent::not_at_all(held, now);
        }
        let sent = self.send(service, &carrier.provider, route, time.deadline).await;
        let outcome = carrier.feedback.learn(tag, sent.outcome, sent.at);
        let suspicious = carrier.feedback.is_suspicious();
        self.metrics.mass_gone(&route.app().name, service, suspicious);
        Sent { outcome, ..sent }
    }

    /// Sends, and sends once more where that certainly does no harm.
    async fn send(
        &self,
        service: PushService,
        provider: &AnyProvider,
        route: &Route,
        deadline: Instant,
    ) -> Sent {
        let mut upstream = Duration::ZERO;
        let mut number = 0;
        loop {
            number += 1;
            let attempt: Attempt = provider.send(route, deadline).await;
            if let Some(time) = attempt.upstream {
                self.metrics.push_service_part(service, time);
                upstream += time;
            }
            let again = match retry::decide(&attempt.outcome, number) {
                Decision::Settle => false,
                Decision::Again => true,
                // Rare, and large.
                Decision::AgainWithNewCredential => {
                    Box::pin(provider.renew_credential(&attempt, deadline)).await
                }
            };
            let at = Instant::now();
            if !again || at >= deadline {
                return Sent { outcome: attempt.outcome, at, upstream };
            }
        }
    }

    fn settle(
        &self,
        door: Door,
        app: &AppName,
        service: PushService,
        outcome: &Outcome,
        own_part: Duration,
    ) {
        self.metrics.settled(app, service, outcome);
        self.metrics.own_part(door, own_part);
        if let Outcome::Misconfigured { code } = outcome
            && let Some(messages) = self.complaints.due(app, service, *code, Instant::now())
        {
            tracing::warn!(
                %app,
                service = service.label(),
                code = code.label(),
                messages,
                "messages failed for a fault of the operator's"
            );
        }
    }

    /// Gives the push services of an app with their largest bodies.
    pub fn services(&self, app: &AppName) -> Vec<(PushService, usize)> {
        let size = |service| Some((service, self.router.body_bytes_max(app, service)?));
        PushService::ALL.into_iter().filter_map(size).collect()
    }
}

// === impl Lane ===

impl Lane {
    /// Gives the lane that a device's messages take.
    pub const fn of(address: &Address) -> Self {
        match address {
            Address::Apns { environment, .. } => Self::Apns(*environment),
            Address::Fcm { .. } => Self::Fcm,
            Address::WebPush { .. } => Self::WebPush,
            Address::Email { .. } => Self::Email,
        }
    }
}

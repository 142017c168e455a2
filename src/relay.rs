//! The corridor: the only place that knows the order of the rooms.
//!
//! A push walks authenticate → pair → route → send → settle; every branch and every side effect of
//! that walk is in this file, and the rooms are leaves. In: what a door parsed. Out: an
//! [`Outcome`], always. Nothing is kept of a message once its outcome is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

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

/// What became of one message, and a fresh handle where the old one ages.
pub struct Settled {
    /// What became of it.
    pub outcome: Outcome,
    /// To be taken in place of the handle that was used.
    pub renewed_handle: Option<String>,
    /// The lifetime that the push service was given, in seconds.
    pub ttl_s: Option<u32>,
    /// What the sender may still send.
    pub budget: Option<Budget>,
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
    /// Carries one message of the application door to its device.
    pub async fn push(
        &self,
        authorization: Option<&[u8]>,
        handle: &str,
        push: &Push,
        deadline: Instant,
    ) -> Settled {
        match self.authenticator.authenticate(authorization, self.clock.unix_s()) {
            Ok(sender) => self.carry(Door::Push, &sender, handle, push, deadline).await,
            Err(refusal) => Settled::new(refusal.into()),
        }
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
                let settled = match target.push {
                    Ok(push) => {
                        let door = Door::Notifications;
                        relay.carry(door, &sender, &target.handle, &push, deadline).await
                    }
                    Err(refusal) => Settled::new(refusal.into()),
                };
                (index, settled)
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
        let (outcome, _) = self.send(PushService::Email, &carrier.provider, &route, deadline).await;
        self.metrics.settled(app, PushService::Email, &outcome);
        match outcome {
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

    /// admit → pair → route → send → settle, for a sender that is known.
    async fn carry(
        &self,
        door: Door,
        sender: &Sender,
        handle: &str,
        push: &Push,
        deadline: Instant,
    ) -> Settled {
        let started = Instant::now();
        let now_unix_s = self.clock.unix_s();
        let (_permit, budget) = match self.admit(sender, push.class, started, deadline) {
            Ok(admitted) => admitted,
            Err(outcome) => return Settled::new(outcome),
        };
        let device = match self.pairer.open(handle, sender, now_unix_s) {
            Ok(device) => device,
            Err(refusal) => return Settled::new(refusal.into()),
        };
        if let Some(outcome) = self.said_farewell(&device) {
            self.settle(door, &device, &outcome, started.elapsed());
            return Settled::new(outcome);
        }
        let route = self.router.route(&device, push, now_unix_s);
        let ttl_s = route.as_ref().ok().map(Route::ttl_s);
        let (outcome, upstream) = match route {
            Ok(route) => self.send_once(sender, &device, push, &route, deadline).await,
            Err(outcome) => (outcome, Duration::ZERO),
        };
        self.settle(door, &device, &outcome, started.elapsed().saturating_sub(upstream));
        let renewed_handle = self.pairer.renewed(&device, now_unix_s);
        Settled { outcome, renewed_handle, ttl_s, budget }
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
        now: Instant,
        deadline: Instant,
    ) -> Result<(Permit<'_>, Option<Budget>), Outcome> {
        if now >= deadline {
            return Err(TOO_LATE);
        }
        let (permit, budget) = self.quota.enter(class, sender.thumbprint().as_bytes(), now)?;
        Ok((permit, Some(budget)))
    }

    /// Sends unless the device is held, or the same notification was accepted or is under way.
    async fn send_once(
        &self,
        sender: &Sender,
        device: &Device,
        push: &Push,
        route: &Route,
        deadline: Instant,
    ) -> (Outcome, Duration) {
        let tag = device.tag();
        if push.id.is_none() {
            return self.send_held(device, &tag, push.class, route, deadline).await;
        }
        let sender = *sender.thumbprint().as_bytes();
        match self.duplicates.claim(sender, route.message_id(), deadline).await {
            Some(Claim::First(first)) => {
                let sent = self.send_held(device, &tag, push.class, route, deadline).await;
                first.settle(&sent.0);
                sent
            }
            Some(Claim::Twin(outcome)) => {
                self.metrics.duplicates.inc();
                (outcome, Duration::ZERO)
            }
            None => (TWIN_UNDER_WAY, Duration::ZERO),
        }
    }

    /// Sends unless the device's rate is used up, or the push service has asked us to wait.
    async fn send_held(
        &self,
        device: &Device,
        tag: &[u8; 32],
        class: Class,
        route: &Route,
        deadline: Instant,
    ) -> (Outcome, Duration) {
        let lane = Lane::of(device.address());
        let Some(carrier) = self.carriers.get(device.app()).and_then(|app| app.get(&lane)) else {
            return (Outcome::Misconfigured { code: Code::CredentialUnavailable }, Duration::ZERO);
        };
        let now = Instant::now();
        if let Err(outcome) = self.quota.charge_device(class, tag, now) {
            return (outcome, Duration::ZERO);
        }
        let service = device.address().service();
        if let Some(held) = carrier.feedback.hold(tag, now) {
            self.metrics.held(service);
            return (held, Duration::ZERO);
        }
        let (outcome, upstream) = self.send(service, &carrier.provider, route, deadline).await;
        let outcome = carrier.feedback.learn(tag, outcome, Instant::now());
        let suspicious = carrier.feedback.is_suspicious();
        self.metrics.mass_gone(device.app(), service, suspicious);
        (outcome, upstream)
    }

    /// Sends, and sends once more where that certainly does no harm.
    /// Gives the outcome and the push service's part of the time.
    async fn send(
        &self,
        service: PushService,
        provider: &AnyProvider,
        route: &Route,
        deadline: Instant,
    ) -> (Outcome, Duration) {
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
                Decision::AgainWithNewCredential => {
                    provider.renew_credential(&attempt, deadline).await
                }
            };
            if !again || Instant::now() >= deadline {
                return (attempt.outcome, upstream);
            }
        }
    }

    fn settle(&self, door: Door, device: &Device, outcome: &Outcome, own_part: Duration) {
        self.metrics.settled(device.app(), device.address().service(), outcome);
        self.metrics.own_part(door, own_part);
        if let Outcome::Misconfigured { code } = outcome {
            let (app, service) = (device.app(), device.address().service());
            if let Some(messages) = self.complaints.due(app, service, *code, Instant::now()) {
                tracing::warn!(
                    %app,
                    service = service.label(),
                    code = code.label(),
                    messages,
                    "messages failed for a fault of the operator's"
                );
            }
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

// === impl Settled ===

impl Settled {
    /// An outcome of a message that came no further.
    pub const fn new(outcome: Outcome) -> Self {
        Self { outcome, renewed_handle: None, ttl_s: None, budget: None }
    }
}

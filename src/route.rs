//! Routing: a device and a push become one request that is ready but for its credential.
//!
//! In: a [`Device`] (proof of pairing) and a [`Push`]. Out: a [`Route`], the proof that the app has
//! credentials for this push service and that the message fits it. Nothing is sent here.
//! Sources: Apple, Google and RFC 8030 on lifetime, urgency and collapsing, as docs/architecture.md
//! maps them.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use bytes::Bytes;

use crate::config::App;
use crate::outcome::{Code, Outcome, Refusal};
use crate::pair::Device;
use crate::pair::farewell::Farewells;
use crate::push::{
    Address, AppName, BASE64URL, Class, Content, Endpoint, Mailbox, MessageId, Push, PushService,
    Urgency,
};

pub mod envelope;

pub mod mail;

use mail::{MailEnvelope, Proof};

use envelope::{ApnsEnvelope, FcmEnvelope, FcmFields, TooLarge};

/// Knows every app's envelope and how topics are disguised.
pub struct Router {
    apps: BTreeMap<AppName, Entry>,
    collapse_key: hmac::Key,
    farewells: Arc<Farewells>,
}

/// A message ready to be sent to one device.
#[derive(Clone)]
pub struct Route {
    app: Arc<App>,
    address: Address,
    message_id: MessageId,
    body: Bytes,
    ttl_s: u32,
    expiration_unix_s: u64,
    urgency: Urgency,
    class: Class,
    collapse_id: Option<String>,
}

struct Entry {
    app: Arc<App>,
    apns: Option<ApnsEnvelope>,
    mail: Option<MailEnvelope>,
}

/// Apple stores 30 days at most.
const APNS_TTL_S_MAX: u32 = 30 * 86_400;

/// Google refuses more than 28 days, for FCM and for Web Push alike.
const FCM_TTL_S_MAX: u32 = 28 * 86_400;

/// Characters of a collapse id: what all three services take (24 bytes in base64url).
const COLLAPSE_ID_BYTES: usize = 24;

// === impl Router ===

impl Router {
    /// Takes the apps, the secret under which topics are hashed, and what the mails' links are made
    /// of.
    pub fn new(
        apps: &BTreeMap<AppName, Arc<App>>,
        collapse_secret: &[u8; 32],
        farewells: Arc<Farewells>,
        public_origin: &str,
    ) -> Self {
        let mail = |app: &App| MailEnvelope::new(&app.name, app.email.as_ref()?, public_origin);
        let entry = |app: &Arc<App>| Entry {
            app: Arc::clone(app),
            apns: app.apns.as_ref().map(ApnsEnvelope::new),
            mail: mail(app),
        };
        Self {
            apps: apps.iter().map(|(name, app)| (name.clone(), entry(app))).collect(),
            collapse_key: hmac::Key::new(hmac::HMAC_SHA256, collapse_secret),
            farewells,
        }
    }

    /// Gives the app of that name.
    pub fn app(&self, name: &AppName) -> Option<&Arc<App>> {
        self.apps.get(name).map(|entry| &entry.app)
    }

    /// Gives the largest sealed body for an app at a push service, in bytes, if it has credentials
    /// there.
    pub fn body_bytes_max(&self, name: &AppName, service: PushService) -> Option<usize> {
        let entry = self.apps.get(name)?;
        match service {
            PushService::Apns => entry.apns.as_ref().map(ApnsEnvelope::body_bytes_max),
            PushService::Fcm => entry.app.fcm.as_ref().map(|_| FcmEnvelope::body_bytes_max()),
            PushService::WebPush => {
                entry.app.webpush.as_ref().map(envelope::webpush_body_bytes_max)
            }
            PushService::Email => entry.mail.as_ref().map(|_| MailEnvelope::text_bytes_max()),
        }
    }

    /// Makes the request's body and clamps its lifetime for the device's push service.
    /// Errors: `credential_unavailable`, `content_too_large`, `plain_not_allowed`,
    /// `sealed_missing`.
    pub fn route(&self, device: &Device, push: &Push, now_unix_s: u64) -> Result<Route, Outcome> {
        let missing = Outcome::Misconfigured { code: Code::CredentialUnavailable };
        let entry = self.apps.get(device.app()).ok_or_else(|| missing.clone())?;
        let address = device.address();
        if matches!(push.content, Content::Plain(_)) && !entry.app.allow_plain {
            return Err(Refusal::of_field(Code::PlainNotAllowed, "content").into());
        }
        let collapse_id =
            push.topic.as_ref().map(|topic| self.collapse_id(device, topic.as_bytes()));
        let ttl_s = clamp_ttl_s(address, push.ttl.as_s());
        // Derived from the device, so that a retry of one target alone keeps its id, and so that
        // the push services cannot tell by the id that two devices were sent the same notification.
        let id = push.id.map(|id| id.for_device(address.as_bytes()));
        let message_id = id.unwrap_or_else(MessageId::random);
        let body = match address {
            Address::Apns { .. } => {
                let envelope = entry.apns.as_ref().ok_or(missing)?;
                match &push.content {
                    Content::Sealed(sealed) => envelope.sealed(push, id, sealed),
                    Content::Plain(plain) => envelope.plain(push, id, plain),
                }
            }
            Address::Fcm { token } => {
                entry.app.fcm.as_ref().ok_or(missing)?;
                let fields = FcmFields { token, ttl_s, collapse_key: collapse_id.as_deref() };
                match &push.content {
                    Content::Sealed(sealed) => FcmEnvelope::sealed(&fields, push, id, sealed),
                    Content::Plain(plain) => FcmEnvelope::plain(&fields, push, id, plain),
                }
            }
            Address::WebPush { .. } => {
                let app = entry.app.webpush.as_ref().ok_or(missing)?;
                match &push.content {
                    Content::Sealed(sealed) if sealed.as_bytes().len() > app.body_bytes_max => {
                        Err(TooLarge)
                    }
                    Content::Sealed(sealed) => Ok(sealed.as_bytes().clone()),
                    Content::Plain(_) => {
                        return Err(Refusal::of_field(Code::SealedMissing, "sealed").into());
                    }
                }
            }
            Address::Email { mailbox } => {
                let mail = entry.mail.as_ref().ok_or(missing)?;
                let Content::Plain(plain) = &push.content else {
                    return Err(Refusal::of_field(Code::PlainMissing, "sealed").into());
                };
                let link = self.farewells.link(device);
                Ok(mail.notification(mailbox, push, message_id, plain, &link, now_unix_s)?)
            }
        };
        Ok(Route {
            app: Arc::clone(&entry.app),
            address: address.clone(),
            message_id,
            body: body.map_err(|TooLarge| Refusal::new(Code::ContentTooLarge))?,
            ttl_s,
            expiration_unix_s: if ttl_s == 0 { 0 } else { now_unix_s + u64::from(ttl_s) },
            urgency: push.urgency,
            class: push.class,
            collapse_id,
        })
    }

    /// Makes the mail that brings a new handle to its address.
    /// Errors: `service_not_configured`.
    pub fn proof(
        &self,
        app: &AppName,
        mailbox: &Mailbox,
        proof: &Proof<'_>,
        now_unix_s: u64,
    ) -> Result<Route, Outcome> {
        let missing = || Refusal::of_field(Code::ServiceNotConfigured, "service");
        let entry = self.apps.get(app).ok_or_else(missing)?;
        let mail = entry.mail.as_ref().ok_or_else(missing)?;
        let message_id = MessageId::random();
        Ok(Route {
            app: Arc::clone(&entry.app),
            address: Address::Email { mailbox: mailbox.clone() },
            message_id,
            body: mail.proof(mailbox, message_id, proof, now_unix_s)?,
            ttl_s: 0,
            expiration_unix_s: proof.expires_at_unix_s,
            urgency: Urgency::Normal,
            class: Class::Ordinary,
            collapse_id: None,
        })
    }

    /// One alias for all three services, different for each device and silent about the sender's
    /// word.
    fn collapse_id(&self, device: &Device, topic: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.collapse_key);
        for part in [device.app().as_str().as_bytes(), device.address().as_bytes(), topic] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        BASE64URL.encode(&context.sign().as_ref()[..COLLAPSE_ID_BYTES])
    }
}

fn clamp_ttl_s(address: &Address, ttl_s: u32) -> u32 {
    match address {
        Address::Apns { .. } => ttl_s.min(APNS_TTL_S_MAX),
        Address::Fcm { .. } => ttl_s.min(FCM_TTL_S_MAX),
        Address::WebPush { endpoint } => ttl_s.clamp(webpush_ttl_s_min(endpoint), FCM_TTL_S_MAX),
        // A mail has no lifetime; an SMTP server tries for some days.
        Address::Email { .. } => ttl_s,
    }
}

/// WNS refuses 0 alone, and Apple's text wants a positive number.
fn webpush_ttl_s_min(endpoint: &Endpoint) -> u32 {
    let host = endpoint.host();
    u32::from(host == "web.push.apple.com" || host.ends_with(".notify.windows.com"))
}

// === impl Route ===

impl Route {
    /// Gives the app, with its credentials.
    pub const fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Gives where the device is.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Gives the message's id at the push service: stable over retries where the sender gave an id.
    pub const fn message_id(&self) -> MessageId {
        self.message_id
    }

    /// Gives the request's whole body.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Gives the lifetime in seconds, inside the push service's limits.
    pub const fn ttl_s(&self) -> u32 {
        self.ttl_s
    }

    /// Gives the end of the lifetime in seconds since 1970; 0 means now or never
    /// (`apns-expiration`).
    pub const fn expiration_unix_s(&self) -> u64 {
        self.expiration_unix_s
    }

    /// Gives the urgency.
    pub const fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// Gives how much the message matters when not all can be carried.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Gives the alias of the sender's topic: 32 characters of base64url.
    pub fn collapse_id(&self) -> Option<&str> {
        self.collapse_id.as_deref()
    }
}

//! The JSON resources: enrolment, identity, pairing, apps, and the NAS door.
//!
//! In: a wire struct. Out: a wire struct. Every value is parsed here into the vocabulary; nothing
//! is decided.

use base64::Engine as _;
use bytes::Bytes;
use http::StatusCode;

use super::answer::{self, Answer};
use super::wire::{
    AppAnswer, EnrolAnswer, EnrolRequest, KeyRequest, Level, NasRecord, NotifyAnswer,
    NotifyRequest, PairAnswer, PairRequest, PlainContent, Problem, ServiceAnswer, TargetResult,
};
use super::{Visit, wire};
use crate::clock;
use crate::enrol::Application;
use crate::outcome::{Code, Outcome, Refusal};
use crate::push::{
    Address, AppName, BASE64URL, Content, Environment, MessageId, Plain, Push, PushService, Sealed,
    SenderKey, Topic, Ttl, Urgency,
};
use crate::relay::{Settled, Target};
use crate::reply;
use crate::store::NasIdentity;

/// Enrols the key that signed.
#[utoipa::path(
    post, path = "/v1/nas", tag = "identity", request_body = EnrolRequest,
    responses(
        (status = 201, description = "Enrolled.", body = EnrolAnswer),
        (status = 200, description = "This key was enrolled before.", body = EnrolAnswer),
        (status = "default", description = "Refused.",
         body = Problem, content_type = "application/problem+json"),
    ),
    security(("vapid" = []))
)]
pub(super) async fn enrol(visit: Visit<'_>) -> Result<Answer, Outcome> {
    let authorization = visit.authorization()?.map(<[u8]>::to_vec);
    let relay = visit.relay().clone();
    let EnrolRequest { model, serial, enrolment_token, .. } = visit.json().await?;
    let application = Application::parse(model, serial, enrolment_token)?;
    let (identity, created) = relay.enrol(authorization.as_deref(), application).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let enrolled_at = clock::format_rfc3339(identity.enrolled_at_unix_s);
    Ok(Answer::json(status, &EnrolAnswer { ds_id: identity.ds_id, enrolled_at }))
}

/// Shows the record of the NAS that signed.
#[utoipa::path(
    get, path = "/v1/nas/self", tag = "identity",
    responses(
        (status = 200, description = "The record exactly as stored.", body = NasRecord),
        (status = "default", description = "Refused.",
         body = Problem, content_type = "application/problem+json"),
    ),
    security(("vapid" = []))
)]
pub(super) async fn identity(visit: &Visit<'_>) -> Result<Answer, Outcome> {
    let identity = visit.relay().identity(visit.authorization()?).await?;
    Ok(Answer::json(StatusCode::OK, &record(identity)))
}

/// Gives the NAS that signed a new key.
#[utoipa::path(
    put, path = "/v1/nas/self/key", tag = "identity", request_body = KeyRequest,
    responses(
        (status = 200, description = "The record under its new key.", body = NasRecord),
        (status = "default", description = "Refused.",
         body = Problem, content_type = "application/problem+json"),
    ),
    security(("vapid" = []))
)]
pub(super) async fn rotate_key(visit: Visit<'_>) -> Result<Answer, Outcome> {
    let authorization = visit.authorization()?.map(<[u8]>::to_vec);
    let relay = visit.relay().clone();
    let KeyRequest { new_key, proof } = visit.json().await?;
    let new_key = sender_key(&new_key, "new_key")?;
    let identity = relay.rotate_key(authorization.as_deref(), new_key, &proof).await?;
    Ok(Answer::json(StatusCode::OK, &record(identity)))
}

/// Pairs a device with a sender's key.
#[utoipa::path(
    post, path = "/v1/pairings", tag = "pairing", request_body = PairRequest,
    responses(
        (status = 201, description = "Paired.", body = PairAnswer),
        (status = "default", description = "Refused.",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn pair(visit: Visit<'_>) -> Result<Answer, Outcome> {
    let relay = visit.relay().clone();
    let public_origin = &visit.doors.limits.public_url.origin;
    let request: PairRequest = visit.json().await?;
    let sender = sender_key(&request.sender_key, "sender_key")?;
    let app = AppName::parse(&request.app)?;
    let pairing = relay.pair(app, address(&request)?, sender)?;
    let endpoint = format!("{public_origin}/push/{}", pairing.paired.handle);
    let answer = PairAnswer {
        handle: pairing.paired.handle,
        endpoint,
        expires_at: clock::format_rfc3339(pairing.paired.expires_at_unix_s),
        max_body_bytes: pairing.body_bytes_max,
    };
    Ok(Answer::json(StatusCode::CREATED, &answer))
}

/// Shows what an app's clients and senders must know.
#[utoipa::path(
    get, path = "/v1/apps/{app}", tag = "pairing",
    params(("app" = String, Path, description = "The app's name at this relay.")),
    responses(
        (status = 200, description = "The app.", body = AppAnswer),
        (status = "default", description = "Refused.",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) fn app(visit: &Visit<'_>, name: &str) -> Result<Answer, Outcome> {
    let name = AppName::parse(name)?;
    let app = visit.relay().app(&name)?;
    let service = |(service, max_body_bytes): (PushService, usize)| {
        (service.label(), ServiceAnswer { max_body_bytes })
    };
    let answer = AppAnswer {
        app: name.as_str().to_owned(),
        application_server_key: app.webpush.as_ref().map(|w| w.application_server_key.clone()),
        services: visit.relay().services(&name).into_iter().map(service).collect(),
    };
    Ok(Answer::json(StatusCode::OK, &answer))
}

/// Notifies several devices of one NAS.
#[utoipa::path(
    post, path = "/v1/notifications", tag = "NAS door", request_body = NotifyRequest,
    responses(
        (status = 200, description = "One result for each target, in order.", body = NotifyAnswer),
        (status = "default", description = "Refused as a whole.",
         body = Problem, content_type = "application/problem+json"),
    ),
    security(("vapid" = []))
)]
pub(super) async fn notify(visit: Visit<'_>) -> Result<Answer, Outcome> {
    let authorization = visit.authorization()?.map(<[u8]>::to_vec);
    let doors = visit.doors;
    let request: NotifyRequest = visit.json().await?;
    let targets = targets(request, doors.limits.targets_max)?;
    let deadline = doors.deadline();
    let results = doors.relay.notify(authorization.as_deref(), targets, deadline).await?;
    let results = results.into_iter().enumerate().map(target_result).collect();
    Ok(Answer::json(StatusCode::OK, &NotifyAnswer { results }))
}

fn address(request: &PairRequest) -> Result<Address, Refusal> {
    let missing = |member| Refusal::of_field(Code::MemberMissing, member);
    let refuse_other = |given: bool, member| match given {
        true => Err(Refusal::of_field(Code::MemberInvalid, member)),
        false => Ok(()),
    };
    let service = PushService::parse(&request.service)?;
    refuse_other(service != PushService::Apns && request.environment.is_some(), "environment")?;
    if service == PushService::WebPush {
        refuse_other(request.token.is_some(), "token")?;
        let subscription = request.subscription.as_ref().ok_or_else(|| missing("subscription"))?;
        return Address::parse_webpush(&subscription.endpoint);
    }
    refuse_other(request.subscription.is_some(), "subscription")?;
    let token = request.token.as_deref().ok_or_else(|| missing("token"))?;
    if service == PushService::Fcm {
        return Address::parse_fcm(token);
    }
    let environment = request.environment.as_deref().map(Environment::parse).transpose()?;
    Address::parse_apns(token, environment.unwrap_or(Environment::Production))
}

fn sender_key(text: &str, member: &'static str) -> Result<SenderKey, Refusal> {
    SenderKey::parse(text).ok_or_else(|| Refusal::of_field(Code::MemberInvalid, member))
}

/// A fault in one target is that target's result; a fault outside them refuses the request.
fn targets(request: NotifyRequest, targets_max: usize) -> Result<Vec<Target>, Refusal> {
    if request.targets.is_empty() || request.targets.len() > targets_max {
        return Err(Refusal::of_field(Code::MemberInvalid, "targets"));
    }
    let id = Some(MessageId::parse(&request.id)?);
    let topic = request.collapse_key.as_deref().map(Topic::parse_collapse_key).transpose()?;
    let urgency = match request.level {
        Level::Info => Urgency::Low,
        Level::Warn => Urgency::Normal,
        Level::Error => Urgency::High,
    };
    let ttl = Ttl::from_s(request.ttl_s);
    let sound = request.sound.unwrap_or(true);
    let plain = request.content.map(plain);
    let target = |(index, target): (usize, wire::Target)| {
        let push = content(target.sealed.as_deref(), plain.as_ref())
            .map(|content| Push { id, ttl, urgency, topic: topic.clone(), sound, content })
            .map_err(|refusal| refusal.within(&format!("targets[{index}]")));
        Target { handle: target.handle, push }
    };
    Ok(request.targets.into_iter().enumerate().map(target).collect())
}

fn content(sealed: Option<&str>, plain: Option<&Plain>) -> Result<Content, Refusal> {
    let refuse = |code| Refusal::of_field(code, "sealed");
    match (sealed, plain) {
        (Some(text), _) => {
            let body = BASE64URL.decode(text).map_err(|_| refuse(Code::MemberInvalid))?;
            let sealed = Sealed::parse(Bytes::from(body)).map_err(|r| refuse(r.code))?;
            Ok(Content::Sealed(sealed))
        }
        (None, Some(plain)) => Ok(Content::Plain(plain.clone())),
        (None, None) => Err(refuse(Code::SealedMissing)),
    }
}

fn plain(content: PlainContent) -> Plain {
    Plain { tag: content.tag, title: content.title, text: content.text }
}

fn record(identity: NasIdentity) -> NasRecord {
    NasRecord {
        key_thumbprint: BASE64URL.encode(identity.key.thumbprint().as_bytes()),
        public_key: BASE64URL.encode(identity.key.as_bytes()),
        serial_tag: BASE64URL.encode(identity.serial_tag),
        enrolled_at: clock::format_rfc3339(identity.enrolled_at_unix_s),
        status: identity.status.label(),
        ds_id: identity.ds_id,
        model: identity.model,
    }
}

fn target_result((index, settled): (usize, Settled)) -> TargetResult {
    let outcome = match settled.outcome {
        // The rooms behind the doors know one message, not its place in the request.
        Outcome::Refused(refusal)
            if matches!(refusal.field.as_deref(), Some("handle" | "sealed")) =>
        {
            Outcome::Refused(refusal.within(&format!("targets[{index}]")))
        }
        outcome => outcome,
    };
    let row = reply::row(outcome.code());
    let accepted = matches!(outcome, Outcome::Accepted { .. });
    TargetResult {
        outcome: row.kind.label(),
        reason: (!accepted).then(|| outcome.code().label()),
        field: answer::field(&outcome),
        retry_after_s: answer::retry_after_s(&outcome),
        gone_since: answer::gone_since(&outcome),
        renewed_handle: settled.renewed_handle,
        provider_message_id: match outcome {
            Outcome::Accepted { provider_message_id } => provider_message_id,
            _ => None,
        },
    }
}

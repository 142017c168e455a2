//! The JSON resources: enrolment, identity, pairing, apps, and the NAS door.
//!
//! In: a wire struct. Out: a wire struct. Every value is parsed here into the vocabulary; nothing
//! is decided.

use base64::Engine as _;
use bytes::Bytes;
use http::StatusCode;

use super::answer::{self, Answer};
use super::notice::{self, Addressed, Notice};
use super::pairing::Pairing;
use super::wire::{
    AppAnswer, EnrolAnswer, EnrolRequest, KeyRequest, NasRecord, NotifyAnswer, NotifyRequest,
    PairAnswer, PairRequest, PlainContent, Problem, ServiceAnswer, TargetResult,
};
use super::{Visit, wire};
use crate::clock;
use crate::enrol::Application;
use crate::outcome::{Code, Outcome, Refusal};
use crate::push::{
    Address, AppName, BASE64URL, Environment, Plain, PushService, SenderKey, from_base64url,
};
use crate::relay::Settled;
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
pub(super) async fn enrol(mut visit: Visit<'_>) -> Result<Answer, Outcome> {
    visit.authorization()?;
    let EnrolRequest { model, serial, enrolment_token, .. } = visit.json().await?;
    let application = Application::parse(model, serial, enrolment_token)?;
    let enrolled = visit.relay().enrol(visit.authorization()?, application).await;
    let (identity, created) = enrolled?;
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
pub(super) async fn identity(visit: Visit<'_>) -> Result<Answer, Outcome> {
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
pub(super) async fn rotate_key(mut visit: Visit<'_>) -> Result<Answer, Outcome> {
    visit.authorization()?;
    let KeyRequest { new_key, proof } = visit.json().await?;
    let new_key = sender_key(&new_key, "new_key")?;
    let identity = visit.relay().rotate_key(visit.authorization()?, new_key, &proof).await?;
    Ok(Answer::json(StatusCode::OK, &record(identity)))
}

/// Pairs a device with a sender's key.
#[utoipa::path(
    post, path = "/v1/pairings", tag = "pairing", request_body = PairRequest,
    responses(
        (status = 201, description = "Paired.", body = PairAnswer),
        (status = 202, description = "The handle travels through the channel that it opens: a mail \
         to that address.", body = PairAnswer),
        (status = "default", description = "Refused.",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn pair(mut visit: Visit<'_>) -> Result<Answer, Outcome> {
    let (doors, timeout) = (visit.doors, visit.timeout()?);
    let public_origin = &doors.limits.public_url.origin;
    let request: PairRequest = visit.json().await?;
    let sender = sender_key(&request.sender_key, "sender_key")?;
    let app = AppName::parse(&request.app)?;
    let deadline = doors.timing(timeout).deadline;
    let pairing = doors.relay.pair(app, address(&request)?, sender, deadline).await?;
    let travels = pairing.handle.is_none();
    let answer = PairAnswer {
        endpoint: pairing.handle.as_ref().map(|handle| format!("{public_origin}/push/{handle}")),
        handle: pairing.handle,
        expires_at: clock::format_rfc3339(pairing.expires_at_unix_s),
        max_body_bytes: pairing.body_bytes_max,
    };
    let status = if travels { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    Ok(Answer::json(status, &answer))
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
pub(super) fn app(visit: &Visit<'_>) -> Result<Answer, Outcome> {
    let name = AppName::parse(visit.last_segment())?;
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
pub(super) async fn notify(mut visit: Visit<'_>) -> Result<Answer, Outcome> {
    visit.authorization()?;
    let timeout = visit.timeout()?;
    let doors = visit.doors;
    let request: NotifyRequest = visit.json().await?;
    let targets = notice(request).targets(doors.limits.targets_max)?;
    let deadline = doors.timing(timeout).deadline;
    let results = doors.relay.notify(visit.authorization()?, targets, deadline).await?;
    let budget = results.iter().rev().find_map(|settled| settled.budget);
    let results = results.into_iter().enumerate().map(target_result).collect();
    Ok(Answer::json(StatusCode::OK, &NotifyAnswer { results }).with_budget(budget))
}

fn address(request: &PairRequest) -> Result<Address, Refusal> {
    let service = PushService::parse(&request.service)?;
    Pairing {
        service,
        token: request.token.as_deref(),
        endpoint: request.subscription.as_ref().map(|subscription| &*subscription.endpoint),
        mail_address: request.address.as_deref(),
        environment: request.environment.as_deref().map(Environment::parse).transpose()?,
    }
    .address()
}

fn sender_key(text: &str, member: &'static str) -> Result<SenderKey, Refusal> {
    SenderKey::parse(text).ok_or_else(|| Refusal::of_field(Code::MemberInvalid, member))
}

fn notice(request: NotifyRequest) -> Notice {
    let target = |target: wire::Target| {
        let invalid = || Refusal::of_field(Code::MemberInvalid, "sealed");
        let sealed = target.sealed.map(|text| from_base64url(&text).ok_or_else(invalid));
        let sealed = sealed.transpose().map(|sealed| sealed.map(Bytes::from));
        Addressed { handle: target.handle, sealed }
    };
    Notice {
        id: request.id,
        level: request.level,
        ttl_s: request.ttl_s,
        collapse_key: request.collapse_key,
        sound: request.sound.unwrap_or(true),
        plain: request.content.map(plain),
        targets: request.targets.into_iter().map(target).collect(),
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
    let outcome = notice::at_place(index, settled.outcome);
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

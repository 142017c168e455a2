//! The application door: an RFC 8030 push resource, so that any Web Push library is a sender.
//!
//! In: `POST /push/{handle}` with `TTL`, `Urgency`, `Topic`, `Content-Encoding: aes128gcm` and
//! VAPID. Out: 201 with `Location`, or a problem. The body is checked by its RFC 8188 header, never
//! opened.

use http::{HeaderName, header};

use super::Visit;
use super::answer::Answer;
use crate::outcome::{Code, Outcome, Refusal};
use crate::push::{Class, Content, Push, Sealed, Topic, Ttl, Urgency};
use crate::relay::{Errand, Settled};

const TTL: HeaderName = HeaderName::from_static("ttl");
const URGENCY: HeaderName = HeaderName::from_static("urgency");
const TOPIC: HeaderName = HeaderName::from_static("topic");

/// Takes one message for one device.
/// Errors: the outcome of whatever stops it on its way in; else the answer holds the outcome.
#[utoipa::path(
    post, path = "/push/{handle}", tag = "application door",
    description = "An RFC 8030 push resource: one message, sealed for one device (RFC 8291).",
    params(
        ("handle" = String, Path, description = "From the pairing."),
        ("TTL" = u32, Header, description = "Seconds (RFC 8030 section 5.2)."),
        ("Urgency" = Option<String>, Header, description = "very-low, low, normal or high."),
        ("Topic" = Option<String>, Header, description = "1 to 32 characters of base64url."),
        ("Content-Encoding" = String, Header, description = "aes128gcm"),
        ("Request-Timeout-Ms" = Option<u64>, Header, description = "The sender's own deadline."),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "The push service accepted the message.", headers(
            ("Location" = String, description = "The message's resource; it cannot be fetched."),
            ("TTL" = u32, description = "The lifetime that was taken, in seconds."),
            ("Sns-Renewed-Handle" = Option<String>,
             description = "Take it in place of the old one."),
        )),
        (status = "default", description = "Any other outcome.",
         body = super::wire::Problem, content_type = "application/problem+json"),
    ),
    security(("vapid" = []))
)]
pub(super) async fn push(visit: Visit<'_>) -> Result<Answer, Outcome> {
    let doors = visit.doors;
    let (errand, ttl) = take_in(visit).await?;
    // Here nothing is left of the request any more.
    let settled = doors.relay.carry(errand).await;
    Ok(Answer::settled(settled, &doors.limits.public_url.origin, ttl.as_s()))
}

async fn take_in(mut visit: Visit<'_>) -> Result<(Result<Errand<'_>, Settled>, Ttl), Outcome> {
    let ttl = ttl(&visit)?;
    let urgency = match text(&visit, &URGENCY, "Urgency", Code::UrgencyInvalid)? {
        Some(text) => Urgency::parse(text)?,
        None => Urgency::Normal,
    };
    let topic = text(&visit, &TOPIC, "Topic", Code::TopicInvalid)?;
    let topic = topic.map(Topic::parse_header).transpose()?;
    let encoding =
        text(&visit, &header::CONTENT_ENCODING, "Content-Encoding", Code::ContentEncodingInvalid)?;
    // RFC 9110 §8.4.1: codings are read without regard to case.
    if !encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case("aes128gcm")) {
        return Err(Refusal::of_field(Code::ContentEncodingInvalid, "Content-Encoding").into());
    }
    let timeout = visit.timeout()?;
    visit.authorization()?;
    let body = visit.read(Sealed::BODY_BYTES_MAX).await;
    let content = Content::Sealed(Sealed::parse(body.map_err(content_too_large)?)?);
    let class = Class::of(urgency);
    let push = Push { id: None, ttl, urgency, class, topic, sound: true, content };
    let time = visit.doors.timing(timeout);
    let (authorization, handle) = (visit.authorization()?, visit.last_segment());
    Ok((visit.doors.relay.take_in(authorization, handle, &push, time), ttl))
}

fn ttl(visit: &Visit<'_>) -> Result<Ttl, Refusal> {
    let text = text(visit, &TTL, "TTL", Code::TtlInvalid)?;
    Ttl::parse(text.ok_or_else(|| Refusal::of_field(Code::TtlMissing, "TTL"))?)
}

/// Gives a header's text; what is not visible ASCII is refused like any other wrong value.
fn text<'a>(
    visit: &'a Visit<'_>,
    name: &HeaderName,
    field: &'static str,
    wrong: Code,
) -> Result<Option<&'a str>, Refusal> {
    let value = visit.header(name, field)?;
    value.map(|value| value.to_str().map_err(|_| Refusal::of_field(wrong, field))).transpose()
}

/// Over 4096 bytes it is the message that is too large, for every device alike.
fn content_too_large(refusal: Refusal) -> Refusal {
    match refusal.code {
        Code::BodyTooLarge => Refusal::new(Code::ContentTooLarge),
        _ => refusal,
    }
}

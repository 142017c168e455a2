//! Messages and metadata become the vocabulary; empty text means that a member is not there.

use std::time::Duration;

use sns_proto::v1;
use tonic::metadata::MetadataMap;

use super::super::notice::{Addressed, Notice};
use super::super::pairing::Pairing;
use super::super::wire::Level;
use crate::outcome::{Code, Refusal};
use crate::push::{
    Address, Class, Content, Environment, Plain, Push, PushService, Sealed, SenderKey, Topic, Ttl,
    Urgency,
};

/// Gives the metadata `authorization` as it came.
/// Errors: `header_duplicate`.
pub(super) fn authorization(metadata: &MetadataMap) -> Result<Option<Vec<u8>>, Refusal> {
    let mut values = metadata.get_all("authorization").iter();
    let first = values.next().map(|value| value.as_encoded_bytes().to_vec());
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Refusal::of_field(Code::HeaderDuplicate, "authorization")),
    }
}

/// Gives the call's own time limit.
/// Shape: `grpc-timeout`: 1 to 8 digits and a unit of `HMSmun` (PROTOCOL-HTTP2.md).
/// Errors: `timeout_invalid`.
pub(super) fn timeout(metadata: &MetadataMap) -> Result<Option<Duration>, Refusal> {
    const NAME: &str = "grpc-timeout";
    let Some(value) = metadata.get(NAME) else { return Ok(None) };
    let invalid = || Refusal::of_field(Code::TimeoutInvalid, NAME);
    let text = value.to_str().map_err(|_| invalid())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(invalid)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let count: u64 = digits.parse().map_err(|_| invalid())?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(invalid()),
    }))
}

/// Gives the handle of a push and the push.
pub(super) fn push(request: v1::PushRequest) -> Result<(String, Push), Refusal> {
    let urgency = match v1::Urgency::try_from(request.urgency) {
        Ok(v1::Urgency::VeryLow) => Urgency::VeryLow,
        Ok(v1::Urgency::Low) => Urgency::Low,
        Ok(v1::Urgency::Unspecified | v1::Urgency::Normal) => Urgency::Normal,
        Ok(v1::Urgency::High) => Urgency::High,
        Err(_) => return Err(invalid("urgency")),
    };
    let topic = given(request.topic).map(|topic| Topic::parse_header(&topic)).transpose();
    let topic = topic.map_err(|refusal| Refusal::of_field(refusal.code, "topic"))?;
    let content = Content::Sealed(Sealed::parse(request.sealed.into())?);
    let (ttl, class) = (Ttl::from_s(request.ttl_s.into()), Class::of(urgency));
    Ok((request.handle, Push { id: None, ttl, urgency, class, topic, sound: true, content }))
}

/// Gives a notification.
pub(super) fn notice(request: v1::NotifyRequest) -> Result<Notice, Refusal> {
    match v1::Source::try_from(request.source) {
        Ok(v1::Source::Unspecified) => return Err(missing("source")),
        Ok(_) => {}
        Err(_) => return Err(invalid("source")),
    }
    let level = match v1::Level::try_from(request.level) {
        Ok(v1::Level::Info) => Level::Info,
        Ok(v1::Level::Warn) => Level::Warn,
        Ok(v1::Level::Error) => Level::Error,
        Ok(v1::Level::Unspecified) => return Err(missing("level")),
        Err(_) => return Err(invalid("level")),
    };
    let target = |target: v1::Target| {
        let sealed = (!target.sealed.is_empty()).then(|| target.sealed.into());
        Addressed { handle: target.handle, sealed: Ok(sealed) }
    };
    Ok(Notice {
        id: request.id,
        level,
        ttl_s: request.ttl_s.into(),
        collapse_key: given(request.collapse_key),
        sound: !request.silent,
        plain: request.content.map(plain),
        targets: request.targets.into_iter().map(target).collect(),
    })
}

/// Gives where a device is.
pub(super) fn address(request: &v1::PairRequest) -> Result<Address, Refusal> {
    let service = match v1::Service::try_from(request.service) {
        Ok(v1::Service::Apns) => PushService::Apns,
        Ok(v1::Service::Fcm) => PushService::Fcm,
        Ok(v1::Service::Webpush) => PushService::WebPush,
        Ok(v1::Service::Email) => PushService::Email,
        Ok(v1::Service::Unspecified) => return Err(missing("service")),
        Err(_) => return Err(invalid("service")),
    };
    let environment = match v1::Environment::try_from(request.environment) {
        Ok(v1::Environment::Unspecified) => None,
        Ok(v1::Environment::Production) => Some(Environment::Production),
        Ok(v1::Environment::Sandbox) => Some(Environment::Sandbox),
        Err(_) => return Err(invalid("environment")),
    };
    let mut pairing =
        Pairing { service, token: None, endpoint: None, mail_address: None, environment };
    match &request.address {
        Some(v1::pair_request::Address::Token(token)) => pairing.token = Some(token),
        Some(v1::pair_request::Address::Subscription(subscription)) => {
            pairing.endpoint = Some(&subscription.endpoint);
        }
        Some(v1::pair_request::Address::MailAddress(address)) => {
            pairing.mail_address = Some(address);
        }
        None => {}
    }
    pairing.address()
}

/// Gives a sender's key.
pub(super) fn sender_key(point: &[u8]) -> Result<SenderKey, Refusal> {
    SenderKey::from_point(point).ok_or_else(|| invalid("sender_key"))
}

/// Gives text that is not empty.
pub(super) fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn plain(content: v1::Content) -> Plain {
    Plain { tag: content.tag, title: content.title, text: content.text }
}

const fn missing(member: &'static str) -> Refusal {
    refusal(Code::MemberMissing, member)
}

const fn invalid(member: &'static str) -> Refusal {
    refusal(Code::MemberInvalid, member)
}

const fn refusal(code: Code, member: &'static str) -> Refusal {
    Refusal { code, field: Some(std::borrow::Cow::Borrowed(member)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_digits_and_a_unit() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout(&metadata)
        };
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("30S", Duration::from_secs(30)),
            ("1500m", Duration::from_millis(1500)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("5n", Duration::from_nanos(5)),
        ] {
            assert_eq!(read(text).unwrap(), Some(expected), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "123456789S", "1 S", "1.5S"] {
            assert_eq!(read(text).unwrap_err().code, Code::TimeoutInvalid, "{text}");
        }
    }
}

//! JSON bodies: what is accepted means what it says, and a refusal speaks in names alone.
//!
//! The input is the body of `POST /v1/notifications` or of `POST /v1/pairings`.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sns_relay::ingress::json;
use sns_relay::ingress::wire::{NotifyRequest, PairRequest};
use sns_relay::outcome::{Code, Refusal};
use sns_relay::push::{Address, Endpoint, Environment};

/// A kind of body: the members of its outermost object that must be there, and all that a refusal
/// may name though the body does not.
struct Schema {
    required: &'static [&'static str],
    missing: &'static [&'static str],
}

const NOTIFICATION: Schema = Schema {
    required: &["id", "source", "level", "ttl_s", "targets"],
    missing: &["id", "source", "level", "ttl_s", "targets", "tag", "title", "text", "handle"],
};

const PAIRING: Schema = Schema {
    required: &["app", "service", "sender_key"],
    missing: &["app", "service", "sender_key", "endpoint"],
};

/// Checks one body of `POST /v1/notifications`.
pub fn notification(body: &[u8]) {
    let Some((request, value)) = read::<NotifyRequest>(body, &NOTIFICATION) else { return };
    assert_eq!(request.id, value["id"]);
    assert_eq!(request.ttl_s, value["ttl_s"]);
    assert_eq!(json!(request.collapse_key), value["collapse_key"]);
    assert_eq!(json!(request.sound), value["sound"]);
    let targets = value["targets"].as_array().expect("a list");
    assert_eq!(request.targets.len(), targets.len());
    for (target, value) in request.targets.iter().zip(targets) {
        assert_eq!(target.handle, value["handle"]);
        assert_eq!(json!(target.sealed), value["sealed"]);
    }
    let Some(content) = request.content else {
        assert_eq!(value["content"], Value::Null);
        return;
    };
    let content = [content.tag, content.title, content.text];
    for (name, text) in ["tag", "title", "text"].into_iter().zip(content) {
        assert_eq!(text, value["content"][name]);
    }
}

/// Checks one body of `POST /v1/pairings`, and the address in it.
pub fn pairing(body: &[u8]) {
    let Some((request, value)) = read::<PairRequest>(body, &PAIRING) else { return };
    assert_eq!(request.app, value["app"]);
    assert_eq!(request.service, value["service"]);
    assert_eq!(request.sender_key, value["sender_key"]);
    assert_eq!(json!(request.token), value["token"]);
    assert_eq!(json!(request.environment), value["environment"]);
    if let Some(subscription) = &request.subscription {
        assert_eq!(subscription.endpoint, value["subscription"]["endpoint"]);
        endpoint(&subscription.endpoint);
    }
    for token in request.token.iter() {
        let apns = Address::parse_apns(token, Environment::Sandbox);
        if let Ok(address) = apns {
            assert_eq!(address.as_bytes(), token.to_ascii_lowercase().as_bytes());
            let path = format!("/3/device/{token}").parse::<http::uri::PathAndQuery>();
            assert!(path.is_ok(), "a token that cannot stand in a path");
        }
        if let Ok(address) = Address::parse_fcm(token) {
            assert_eq!(address.as_bytes(), token.as_bytes());
            assert_eq!(json!(token).to_string(), format!("\"{token}\""), "it needs no escape");
        }
    }
}

/// An endpoint goes where another parser of URLs says that it goes.
fn endpoint(text: &str) {
    let Ok(endpoint) = Endpoint::parse(text) else { return };
    let uri: http::Uri = endpoint.url().parse().expect("an endpoint is a URI");
    assert_eq!(endpoint.url(), text);
    assert_eq!(uri.scheme_str(), Some("https"));
    assert_eq!(uri.host(), Some(endpoint.host()));
    assert_eq!(uri.port_u16().unwrap_or(443), endpoint.port());
    let authority = uri.authority().expect("an endpoint has an authority");
    assert!(!authority.as_str().contains('@'), "user-info hides the host");
    let origin: http::Uri = endpoint.origin().parse().expect("an origin is a URI");
    assert_eq!(
        (origin.host(), origin.port_u16()),
        (uri.host(), uri.port_u16().filter(|p| *p != 443))
    );
}

/// Reads a body and checks what holds for every kind; gives what was accepted, also as a tree.
fn read<T: DeserializeOwned>(body: &[u8], schema: &Schema) -> Option<(T, Value)> {
    let request = match json::read::<T>(body) {
        Ok(request) => request,
        Err(refusal) => {
            speaks_in_names(&refusal, body, schema);
            return None;
        }
    };
    let value: Value = serde_json::from_slice(body).expect("what is accepted is JSON");
    let refused = |value: &Value| {
        let body = value.to_string();
        json::read::<T>(body.as_bytes()).err().map(|refusal| (refusal.code, refusal.field))
    };
    assert_eq!(refused(&value), None, "written anew, it is refused");
    let with = |name: &str| {
        let mut value = value.clone();
        value[name] = Value::Null;
        value
    };
    let unknown = Some((Code::MemberUnknown, Some("no_such_member".into())));
    assert_eq!(refused(&with("no_such_member")), unknown);
    for name in schema.required {
        let invalid = Some((Code::MemberInvalid, Some((*name).into())));
        assert_eq!(refused(&with(name)), invalid, "null is no value of {name}");
        let mut without = value.clone();
        without.as_object_mut().expect("an object").remove(*name);
        let missing = Some((Code::MemberMissing, Some((*name).into())));
        assert_eq!(refused(&without), missing, "{name} is required");
    }
    Some((request, value))
}

/// A refusal's field is a path of names that stand in the body or that the schema misses there.
fn speaks_in_names(refusal: &Refusal, body: &[u8], schema: &Schema) {
    use Code::{JsonMalformed, MemberDuplicate, MemberInvalid, MemberMissing, MemberUnknown};
    let code = refusal.code;
    assert_eq!(refusal.field.is_none(), code == JsonMalformed, "{}", code.label());
    let codes = [JsonMalformed, MemberDuplicate, MemberInvalid, MemberMissing, MemberUnknown];
    assert!(codes.contains(&code), "{}", code.label());
    let Some(field) = refusal.field.as_deref() else { return };
    let mut names = names(body);
    if code == MemberMissing {
        let is_known = schema.missing.iter().any(|name| field.ends_with(name));
        assert!(is_known, "{field:?} is not a member that can be missing");
        names.extend(schema.missing.iter().map(|name| (*name).to_owned()));
    }
    assert!(is_path_of(field, &names), "{field:?} holds more than names");
}

/// Gives every name of every object, also of a body that breaks off.
fn names(body: &[u8]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut at = 0;
    while let Some(start) = body[at..].iter().position(|byte| *byte == b'"').map(|n| at + n) {
        let mut end = start + 1;
        while end < body.len() && body[end] != b'"' {
            end += if body[end] == b'\\' { 2 } else { 1 };
        }
        let Some(text) = body.get(start..=end) else { break };
        at = end + 1;
        if body[at..].trim_ascii_start().first() == Some(&b':') {
            names.extend(serde_json::from_slice::<String>(text));
        }
    }
    names
}

/// Tells whether a path is made of nothing but names, dots between them, and indices.
fn is_path_of(path: &str, names: &BTreeSet<String>) -> bool {
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for at in 0..path.len() {
        if !reached[at] {
            continue;
        }
        let rest = &path.as_bytes()[at..];
        let dotted = if at == 0 { rest } else { rest.strip_prefix(b".").unwrap_or(rest) };
        let dot = rest.len() - dotted.len();
        for name in names.iter().filter(|name| dotted.starts_with(name.as_bytes())) {
            // An index follows its list without a dot, and so does a name that looks like one.
            if at == 0 || dot == 1 || name.starts_with('[') {
                reached[at + dot + name.len()] = true;
            }
        }
        if rest[0] == b'[' {
            let digits = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits > 0 && rest.get(1 + digits) == Some(&b']') {
                reached[at + digits + 2] = true;
            }
        }
    }
    reached[path.len()]
}

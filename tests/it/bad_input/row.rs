//! One fault in one request: what it earns, and the faults that many resources share.

use serde_json::{Value, json};

use crate::forge::{Forge, MARK};
use crate::house::House;
use crate::wire::{Ask, Told, ask_http1, ask_http2};

/// A request with one fault, and the refusal that it earns.
pub(super) struct Row {
    pub(super) ask: Ask,
    status: u16,
    pub(super) code: &'static str,
    field: Option<&'static str>,
}

pub(super) fn row(
    ask: Ask,
    status: u16,
    code: &'static str,
    field: impl Into<Option<&'static str>>,
) -> Row {
    Row { ask, status, code, field: field.into() }
}

/// Asks over HTTP/1.1, and every seventh row over HTTP/2 too, which must tell the same.
pub(super) async fn check(house: &House, rows: Vec<Row>) {
    for (index, row) in rows.into_iter().enumerate() {
        let told = ask_http1(house.address(), &row.ask).await;
        check_problem(&told, &row);
        if index % 7 == 0 {
            let over_http2 = ask_http2(house.address(), &row.ask).await;
            check_problem(&over_http2, &row);
            assert_eq!(over_http2.body, told.body);
        }
    }
    assert_eq!(messages_sent(house), 0, "a push service heard of a bad request");
}

fn check_problem(told: &Told, row: &Row) {
    let what = format!("{} {} {:?}", row.ask.method, row.ask.path, row.ask.headers);
    let what = format!("{what} {}\n{}", String::from_utf8_lossy(&row.ask.body), told.text());
    assert_eq!(told.status, row.status, "{what}");
    assert_eq!(told.header("content-type"), Some("application/problem+json"), "{what}");
    let problem = told.json();
    assert_eq!(problem["code"], row.code, "{what}");
    assert_eq!(problem["field"].as_str(), row.field, "{what}");
    assert_eq!(problem["type"], format!("urn:sns-relay:problem:{}", row.code), "{what}");
    assert_eq!(problem["status"], row.status, "{what}");
    assert_eq!(problem["outcome"], "refused", "{what}");
    let text = |member: &str| problem[member].as_str().unwrap_or_default().to_owned();
    assert!(!text("title").is_empty(), "{what}");
    assert!(text("detail").contains(row.field.unwrap_or(&text("title"))), "{what}");
    assert!(!told.text().contains(MARK), "{what}");
    assert_eq!(told.header("www-authenticate"), (row.status == 401).then_some("vapid"), "{what}");
    assert_eq!(told.headers.contains_key("allow"), row.status == 405, "{what}");
}

/// Google's token endpoint is on the same port as its messages.
fn messages_sent(house: &House) -> usize {
    let stage = &house.stage;
    let journals = [&stage.apns, &stage.apns_sandbox].map(|sim| sim.journal());
    let entries = journals.into_iter().flat_map(|journal| journal.entries());
    let entries = entries.chain(stage.webpush.journal().entries());
    let fcm = stage.fcm.journal().entries();
    entries.chain(fcm.into_iter().filter(|entry| entry.path.contains("messages:send"))).count()
}

/// Gives an object with one member set anew.
pub(super) fn with(good: &Value, member: &str, value: impl Into<Value>) -> Value {
    let mut bad = good.clone();
    bad[member] = value.into();
    bad
}

/// Gives an object without one member.
pub(super) fn without(good: &Value, member: &str) -> Value {
    let mut bad = good.clone();
    bad.as_object_mut().unwrap().remove(member);
    bad
}

/// What is wrong with a body of JSON whatever its resource: form, type, size, members.
pub(super) fn json_faults(good: &Ask, body: &Value, required: &[&'static str]) -> Vec<Row> {
    let text = body.to_string();
    let raw = |text: String| good.clone().body(text);
    let malformed = |text: String| row(raw(text), 400, "json_malformed", None);
    let content_type = |ask: Ask| row(ask, 415, "content_type_invalid", "Content-Type");
    let mut rows = vec![
        malformed(String::new()),
        malformed(format!("{{\"{MARK}")),
        malformed(format!("[{text}]")),
        malformed(format!("\"{MARK}\"")),
        malformed(format!("{text}{MARK}")),
        malformed(format!("{text}{text}")),
        malformed(text[..text.len() - 1].to_owned()),
        malformed(format!("{{\"{MARK}\":{}", "[".repeat(10_000))),
        row(
            good.clone().body([&b"{\"\xff"[..], MARK.as_bytes()].concat()),
            400,
            "json_malformed",
            None,
        ),
        row(raw(with(body, "surprise", MARK).to_string()), 400, "member_unknown", "surprise"),
        content_type(good.clone().without("content-type")),
        content_type(good.clone().header("content-type", "text/plain")),
        content_type(good.clone().header("content-type", format!("application/{MARK}"))),
        row(good.clone().and("content-type", MARK), 400, "header_duplicate", "Content-Type"),
        row(raw(format!("{}{text}", " ".repeat(200_000))), 413, "body_too_large", None),
    ];
    for member in required {
        rows.push(row(raw(without(body, member).to_string()), 400, "member_missing", *member));
        for wrong in [json!(null), json!({ MARK: MARK })] {
            let bad = with(body, member, wrong).to_string();
            rows.push(row(raw(bad), 400, "member_invalid", *member));
        }
        let twice = format!("{{\"{member}\":\"{MARK}\",{}", &text[1..]);
        rows.push(row(raw(twice), 400, "member_duplicate", *member));
    }
    rows
}

/// What is wrong with a sender's credential, whatever its resource.
pub(super) fn credential_faults(forge: &Forge, good: &Ask) -> Vec<Row> {
    let mut rows = vec![
        row(good.clone().without("authorization"), 401, "vapid_missing", "Authorization"),
        row(
            good.clone().and("authorization", forge.authorization()),
            400,
            "header_duplicate",
            "Authorization",
        ),
    ];
    for (value, status, code) in forge.wrong() {
        rows.push(row(good.clone().header("authorization", value), status, code, "Authorization"));
    }
    rows
}

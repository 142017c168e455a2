//! Bad input at every resource: one refusal each, with a stable code and the field's name.
//!
//! Nothing of a bad value is in the answer, and no push service hears of it.

use serde_json::{Value, json};
use sns_loadtest::device::DeviceKind;
use sns_loadtest::stage::{APP, PLAIN_APP};
use sns_nas::base64url;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::forge::{Forge, MARK, notification, sealed};
use crate::house::House;
use crate::wire::{Ask, ask_http1, read_answer};

mod row;

use row::{check, credential_faults, json_faults, row, with, without};

/// `POST /v1/nas`.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_enrolment_is_refused_by_name() {
    let house = House::build().await;
    let forge = Forge::for_house(&house);
    let body = json!({ "model": "DS923+", "serial": "2230ABC000001" });
    let good = forge.json("POST", "/v1/nas", &body);
    let mut rows = json_faults(&good, &body, &["model", "serial"]);
    rows.extend(credential_faults(&forge, &good));
    let long = MARK.repeat(7);
    for (member, value, field) in [
        ("model", json!(""), "model"),
        ("model", json!(long), "model"),
        ("model", json!("\u{e4}"), "model"),
        ("model", json!(format!("{MARK}\n")), "model"),
        ("serial", json!(""), "serial"),
        ("serial", json!(long), "serial"),
        ("serial", json!(format!("{MARK}\u{0}")), "serial"),
        ("os_version", json!([MARK]), "os_version"),
        ("unique_ids", json!(MARK), "unique_ids"),
        ("unique_ids", json!(["a", [MARK]]), "unique_ids[1]"),
        ("enrolment_token", json!({ "t": MARK }), "enrolment_token"),
    ] {
        let bad = good.clone().body(with(&body, member, value).to_string());
        rows.push(row(bad, 400, "member_invalid", field));
    }
    check(&house, rows).await;
}

/// `GET /v1/nas/self` and `PUT /v1/nas/self/key`; what needs two enrolled NAS is in `identity.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_rotation_is_refused_by_name() {
    let house = House::build().await;
    let nas = Forge::for_house(&house);
    assert_eq!(nas.enrol(&house).await.status, 201);
    let next = Forge::for_house(&house);
    let body = json!({ "new_key": next.key.public_base64url(), "proof": next.authorization() });
    let good = nas.json("PUT", "/v1/nas/self/key", &body);
    let mut rows = json_faults(&good, &body, &["new_key", "proof"]);
    rows.extend(credential_faults(&nas, &good));
    rows.extend(credential_faults(&nas, &Ask::new("GET", "/v1/nas/self")));
    // A GET without a header has nothing to double.
    rows.retain(|row| row.ask.method != "GET" || row.code != "header_duplicate");
    for value in [MARK, "", &next.key.public_base64url()[..86]] {
        let bad = good.clone().body(with(&body, "new_key", value).to_string());
        rows.push(row(bad, 400, "member_invalid", "new_key"));
    }
    for (value, _, _) in next.wrong() {
        let bad = good.clone().body(with(&body, "proof", value).to_string());
        rows.push(row(bad, 403, "key_proof_invalid", "proof"));
    }
    check(&house, rows).await;
    let told = ask_http1(house.address(), &nas.json("GET", "/v1/nas/self", &json!({}))).await;
    assert_eq!(told.status, 200, "after all that the key is still the old one");
}

/// `POST /v1/pairings`.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_pairing_is_refused_by_name() {
    let house = House::build().await;
    let key = Forge::for_house(&house).key;
    let body = json!({
        "app": APP, "service": "fcm", "token": "token", "sender_key": key.public_base64url(),
    });
    let good = Ask::new("POST", "/v1/pairings")
        .header("content-type", "application/json")
        .body(body.to_string());
    let mut rows = json_faults(&good, &body, &["app", "service", "sender_key"]);
    let mut off_curve = key.public();
    off_curve[64] ^= 1;
    let compressed = base64url::encode(&key.public()[..33]);
    let endpoint = house.device(DeviceKind::Browser).await.address().to_owned();
    let webpush = with(&without(&body, "token"), "service", "webpush");
    let subscribed = |endpoint: &str| with(&webpush, "subscription", json!({"endpoint": endpoint}));
    let apns = with(&body, "service", "apns");
    let mut bad = |body: Value, code: &'static str, field: &'static str| {
        rows.push(row(good.clone().body(body.to_string()), 400, code, field));
    };
    bad(with(&body, "service", MARK), "member_invalid", "service");
    bad(with(&body, "sender_key", MARK), "member_invalid", "sender_key");
    bad(with(&body, "sender_key", base64url::encode(off_curve)), "member_invalid", "sender_key");
    bad(with(&body, "sender_key", compressed), "member_invalid", "sender_key");
    bad(without(&body, "token"), "member_missing", "token");
    bad(with(&body, "token", json!([MARK])), "member_invalid", "token");
    bad(with(&body, "environment", "production"), "member_invalid", "environment");
    bad(with(&body, "subscription", json!({ "endpoint": MARK })), "member_invalid", "subscription");
    bad(with(&body, "client", MARK), "member_invalid", "client");
    bad(with(&body, "client", json!({ "surprise": MARK })), "member_unknown", "client.surprise");
    bad(with(&body, "client", json!({ "os": [MARK] })), "member_invalid", "client.os");
    for token in ["", "a b", "a\"b", "\u{e4}", &MARK.repeat(103)] {
        bad(with(&body, "token", token), "device_token_invalid", "token");
    }
    bad(with(&apns, "environment", MARK), "member_invalid", "environment");
    for token in ["", "abc", MARK, &"ab".repeat(101)] {
        bad(with(&apns, "token", token), "device_token_invalid", "token");
    }
    bad(webpush.clone(), "member_missing", "subscription");
    bad(with(&webpush, "subscription", json!({})), "member_missing", "subscription.endpoint");
    bad(with(&subscribed(&endpoint), "token", MARK), "member_invalid", "token");
    let keys = json!({ "endpoint": endpoint, "keys": { "surprise": MARK } });
    bad(with(&webpush, "subscription", keys), "member_unknown", "subscription.keys.surprise");
    let expiry = json!({ "endpoint": endpoint, "expirationTime": MARK });
    bad(with(&webpush, "subscription", expiry), "member_invalid", "subscription.expirationTime");
    for endpoint in [
        MARK.to_owned(),
        format!("http://updates.push.services.mozilla.com/{MARK}"),
        format!("https://{MARK}.example/x"),
        format!("https://user@updates.push.services.mozilla.com/{MARK}"),
        format!("https://updates.push.services.mozilla.com:8443/{MARK}"),
        format!("https://api.push.apple.com/3/device/{MARK}"),
        format!("https://127.0.0.1/{MARK}"),
        format!("https://[::1]/{MARK}"),
        format!("https://localhost/{MARK}"),
        format!("https://xnotify.windows.com/{MARK}"),
        format!("{endpoint}#{MARK}"),
    ] {
        bad(subscribed(&endpoint), "endpoint_not_allowed", "subscription.endpoint");
    }
    bad(with(&subscribed(&endpoint), "app", PLAIN_APP), "service_not_configured", "service");
    for app in [MARK, "", "Chat", "../chat"] {
        let bad = good.clone().body(with(&body, "app", app).to_string());
        rows.push(row(bad, 404, "app_unknown", "app"));
    }
    check(&house, rows).await;
}

/// `POST /push/{handle}`.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_push_is_refused_by_name() {
    let house = House::build().await;
    let forge = Forge::for_house(&house);
    let device = house.device(DeviceKind::Android).await;
    let good = forge.push(&forge.pair(&house, APP, &device).await);
    let mut rows = credential_faults(&forge, &good);
    let mut bad = |ask: Ask, code: &'static str, field: &'static str| {
        rows.push(row(ask, 400, code, field));
    };
    bad(good.clone().without("ttl"), "ttl_missing", "TTL");
    for ttl in [MARK, "", "-1", "+1", "1.5", "0x10", "12345678901234567"] {
        bad(good.clone().header("ttl", ttl), "ttl_invalid", "TTL");
    }
    for urgency in [MARK, "", "HIGH", "urgent", "high, low"] {
        bad(good.clone().header("urgency", urgency), "urgency_invalid", "Urgency");
    }
    for topic in ["", "zqmarkerzq!", "a b", "a=", &MARK.repeat(4)] {
        bad(good.clone().header("topic", topic), "topic_invalid", "Topic");
    }
    let encoding = |ask: Ask| (ask, "content_encoding_invalid", "Content-Encoding");
    for (ask, code, field) in [
        encoding(good.clone().without("content-encoding")),
        encoding(good.clone().header("content-encoding", MARK)),
        encoding(good.clone().header("content-encoding", "aesgcm")),
        encoding(good.clone().header("content-encoding", "aes128gcm, gzip")),
        encoding(good.clone().header("content-encoding", "\u{e4}")),
    ] {
        bad(ask, code, field);
    }
    for (name, field) in [
        ("ttl", "TTL"),
        ("urgency", "Urgency"),
        ("topic", "Topic"),
        ("content-encoding", "Content-Encoding"),
    ] {
        bad(good.clone().and(name, "1").and(name, MARK), "header_duplicate", field);
    }
    let body = good.body.clone();
    let changed = |at: usize, value: u8| {
        let mut body = body.clone();
        body[at] = value;
        body
    };
    for body in [
        Vec::new(),
        MARK.repeat(30).into_bytes(),
        body[..86].to_vec(),
        body[..102].to_vec(),
        changed(20, 64),
        changed(21, 2),
        [&body[..16], &17_u32.to_be_bytes(), &body[20..]].concat(),
        [&body[..16], &18_u32.to_be_bytes(), &body[20..]].concat(),
    ] {
        rows.push(row(good.clone().body(body), 400, "body_not_aes128gcm", None));
    }
    let long = [body.as_slice(), &[0; 4096]].concat();
    rows.push(row(good.clone().body(long), 413, "content_too_large", None));
    let mut padded = body.clone();
    padded.resize(4096, 0);
    padded[16..20].copy_from_slice(&4096_u32.to_be_bytes());
    rows.push(row(good.clone().body(padded), 413, "content_too_large", None));
    for handle in [MARK, "a", "%00", "AAAA"] {
        let ask = Ask { path: format!("/push/{handle}"), ..good.clone() };
        rows.push(row(ask, 404, "handle_invalid", "handle"));
    }
    check(&house, rows).await;
    assert_eq!(ask_http1(house.address(), &good).await.status, 201, "the good one goes out");
}

/// `POST /v1/notifications`.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_notification_is_refused_by_name() {
    let house = House::build().await;
    let nas = Forge::for_house(&house);
    assert_eq!(nas.enrol(&house).await.status, 201);
    let device = house.device(DeviceKind::Android).await;
    let body = notification(&nas.pair(&house, APP, &device).await);
    let path = "/v1/notifications";
    let good = nas.json("POST", path, &body);
    let required = ["id", "source", "level", "ttl_s", "targets"];
    let mut rows = json_faults(&good, &body, &required);
    rows.extend(credential_faults(&nas, &good));
    let stranger = Forge::for_house(&house).json("POST", path, &body);
    rows.push(row(stranger, 403, "nas_not_enrolled", "Authorization"));
    let target = &body["targets"][0];
    let content = json!({ "tag": "t", "title": "t", "text": "t" });
    let mut bad = |body: Value, code: &'static str, field: &'static str| {
        rows.push(row(good.clone().body(body.to_string()), 400, code, field));
    };
    for (member, value, field) in [
        ("id", json!(MARK), "id"),
        ("id", json!("123e4567e89b12d3a456426614174000"), "id"),
        ("source", json!(MARK), "source"),
        ("source", json!("DSM"), "source"),
        ("level", json!(MARK), "level"),
        ("ttl_s", json!(MARK), "ttl_s"),
        ("ttl_s", json!(-1), "ttl_s"),
        ("ttl_s", json!(1.5), "ttl_s"),
        ("collapse_key", json!(""), "collapse_key"),
        ("collapse_key", json!(MARK.repeat(7)), "collapse_key"),
        ("collapse_key", json!(1), "collapse_key"),
        ("sound", json!(MARK), "sound"),
        ("content", json!(MARK), "content"),
        ("content", with(&content, "title", json!([MARK])), "content.title"),
        ("content", with(&content, "vars", json!({ "%X%": [MARK] })), "content.vars.%X%"),
        ("targets", json!([]), "targets"),
        ("targets", json!(vec![target; 65]), "targets"),
        ("targets", json!([target, MARK]), "targets[1]"),
        ("targets", json!([target, with(target, "handle", json!(1))]), "targets[1].handle"),
        ("targets", json!([with(target, "sealed", json!(1))]), "targets[0].sealed"),
    ] {
        bad(with(&body, member, value), "member_invalid", field);
    }
    let more = with(target, "surprise", MARK);
    bad(with(&body, "targets", json!([target, more])), "member_unknown", "targets[1].surprise");
    let less = without(target, "handle");
    bad(with(&body, "targets", json!([target, less])), "member_missing", "targets[1].handle");
    let more = with(&content, "surprise", MARK);
    bad(with(&body, "content", more), "member_unknown", "content.surprise");
    bad(with(&body, "content", without(&content, "text")), "member_missing", "content.text");
    check(&house, rows).await;
}

/// Each target but one has a fault of its own; that one is delivered, and each result has its code.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_one_target_is_its_own_result_and_the_others_go_out() {
    let house = House::build().await;
    let nas = Forge::for_house(&house);
    let other = Forge::for_house(&house);
    assert_eq!(nas.enrol(&house).await.status, 201);
    let (phone, tablet) =
        (house.device(DeviceKind::Ios).await, house.device(DeviceKind::Android).await);
    let good = notification(&nas.pair(&house, APP, &phone).await)["targets"][0].clone();
    let also = notification(&nas.pair(&house, APP, &tablet).await)["targets"][0].clone();
    let foreign = notification(&other.pair(&house, APP, &phone).await)["targets"][0].clone();
    let mut long = sealed("hello");
    long.resize(4096, 0);
    long[16..20].copy_from_slice(&4096_u32.to_be_bytes());
    let targets = json!([
        with(&good, "handle", MARK),
        foreign,
        good,
        with(&good, "sealed", "!"),
        with(&good, "sealed", base64url::encode(MARK.repeat(20))),
        without(&good, "sealed"),
        with(&good, "sealed", base64url::encode(long)),
        also,
    ]);
    let mut body = notification("x/y");
    body["targets"] = targets;
    let told = ask_http1(house.address(), &nas.json("POST", "/v1/notifications", &body)).await;
    assert_eq!(told.status, 200);
    assert!(!told.text().contains(MARK));
    let results = told.json()["results"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let results: Vec<[String; 3]> = results
        .iter()
        .map(|result| ["outcome", "reason", "field"].map(|member| text(&result[member])))
        .collect();
    let expected = [
        ["refused", "handle_invalid", "targets[0].handle"],
        ["refused", "handle_invalid", "targets[1].handle"],
        ["accepted", "-", "-"],
        ["refused", "member_invalid", "targets[3].sealed"],
        ["refused", "body_not_aes128gcm", "targets[4].sealed"],
        ["refused", "sealed_missing", "targets[5].sealed"],
        ["refused", "content_too_large", "-"],
        ["accepted", "-", "-"],
    ];
    assert_eq!(results, expected);
    assert_eq!(house.stage.apns.delivered_to(phone.address()).len(), 1);
    assert_eq!(house.stage.fcm.delivered_to(tablet.address()).len(), 1);
}

/// `GET /v1/apps/{app}`, paths that are none, methods that a resource does not know.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_resources_and_methods_are_refused() {
    let house = House::build().await;
    let mut rows = Vec::new();
    for app in [MARK, "Chat", "chat%20", "a.b", &MARK.repeat(4)] {
        let ask = Ask::new("GET", format!("/v1/apps/{app}"));
        rows.push(row(ask, 404, "app_unknown", "app"));
    }
    for path in ["/", "/v1", "/v1/apps/", "/v1/apps/a/b", "/push", "/push/", "/push/a/b"] {
        rows.push(row(Ask::new("GET", path), 404, "route_unknown", None));
        rows.push(row(Ask::new("POST", path), 404, "route_unknown", None));
    }
    for path in ["/v1/nas/", "/v1/NAS", "//v1/nas", "/metrics", "/livez", "/zqmarkerzq"] {
        rows.push(row(Ask::new("GET", path), 404, "route_unknown", None));
    }
    for (path, allowed) in [
        ("/v1/nas", "POST"),
        ("/v1/nas/self", "GET"),
        ("/v1/nas/self/key", "PUT"),
        ("/v1/pairings", "POST"),
        ("/v1/notifications", "POST"),
        ("/v1/apps/chat", "GET"),
        ("/push/zqmarkerzq", "POST"),
        ("/openapi.json", "GET"),
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "ZQMARKERZQ"] {
            if method != allowed {
                rows.push(row(Ask::new(method, path), 405, "method_not_allowed", None));
            }
        }
    }
    check(&house, rows).await;
}

/// A body whose declared length is over the limit is refused before a byte of it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_declared_length_over_the_limit_is_refused_before_the_body() {
    let house = House::build().await;
    let forge = Forge::for_house(&house);
    let json = forge.json("POST", "/v1/notifications", &json!({}));
    let push = forge.push("http://x/push/AAAA");
    for (ask, length, code) in
        [(json, 131_073_u64, "body_too_large"), (push, 1 << 40, "content_too_large")]
    {
        let mut stream = TcpStream::connect(house.address()).await.unwrap();
        let head = ask.and("content-length", length.to_string()).and("expect", "100-continue");
        stream.write_all(head.head().as_bytes()).await.unwrap();
        let told = read_answer(&mut stream).await.unwrap();
        assert_eq!((told.status, told.code()), (413, code.to_owned()));
    }
}

/// A body of unknown length is refused as soon as it is over the limit, not at its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_is_refused_while_it_is_read() {
    let house = House::build().await;
    let forge = Forge::for_house(&house);
    let json = forge.json("POST", "/v1/notifications", &json!({}));
    let push = forge.push("http://x/push/AAAA");
    for (ask, bytes_max, code) in
        [(json, 131_072_usize, "body_too_large"), (push, 4096, "content_too_large")]
    {
        let mut stream = TcpStream::connect(house.address()).await.unwrap();
        let head = ask.and("transfer-encoding", "chunked").head();
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("{bytes_max:x}\r\n{}\r\n1\r\nx\r\n", " ".repeat(bytes_max));
        stream.write_all(chunk.as_bytes()).await.unwrap();
        let told = read_answer(&mut stream).await.unwrap();
        assert_eq!((told.status, told.code()), (413, code.to_owned()));
    }
}

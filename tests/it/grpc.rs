//! The gRPC door: the same cases as over HTTP, and what only a stream can do.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sns_loadtest::device::{Device, DeviceKind};
use sns_loadtest::sim::apns;
use sns_loadtest::sim::script::Step;
use sns_nas::client::message::{Enrolment, Message, Urgency};
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};
use sns_nas::vapid::{self, Audience};
use sns_proto::v1::relay_client::RelayClient;
use sns_proto::v1::{self, stream_request};
use sns_relay::clock::Clock;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::house::{House, KINDS};

mod stream;

pub(crate) type Channel = Client<HttpConnector, Body>;

/// No wait in these tests comes near it, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sender with a device, at both doors.
struct Party {
    house: House,
    sender: SenderKey,
    authorization: String,
    device: Device,
    endpoint: String,
    grpc: RelayClient<Channel>,
}

// === impl Party ===

impl Party {
    async fn at(house: House, kind: DeviceKind) -> Self {
        let sender = SenderKey::generate().unwrap();
        let enrolment =
            Enrolment { model: "DS923+".into(), serial: "2230ABC".into(), ..Default::default() };
        house.client.enrol(&sender, &enrolment).await.unwrap();
        let (device, endpoint) = house.paired(kind, &sender).await;
        let authorization = authorization(&house, &sender);
        let grpc = RelayClient::with_origin(channel(None), house.url.parse().unwrap());
        Self { house, sender, authorization, device, endpoint, grpc }
    }

    async fn with_ios() -> Self {
        Self::at(House::with(sns_loadtest::stage::Stage::make_room).await, DeviceKind::Ios).await
    }

    fn handle(&self) -> String {
        self.endpoint.rsplit('/').next().unwrap().to_owned()
    }

    fn sealed(&self, text: &str) -> Bytes {
        seal::seal(&self.device.keys().device(), text.as_bytes(), BodyCap::default())
            .unwrap()
            .into()
    }

    fn push(&self) -> v1::PushRequest {
        v1::PushRequest {
            handle: self.handle(),
            ttl_s: 60,
            urgency: v1::Urgency::High.into(),
            topic: String::new(),
            sealed: self.sealed("text").to_vec(),
        }
    }

    fn notify(&self) -> v1::NotifyRequest {
        v1::NotifyRequest {
            id: uuid::Uuid::new_v4().to_string(),
            source: v1::Source::Dsm.into(),
            level: v1::Level::Error.into(),
            ttl_s: 60,
            targets: vec![v1::Target {
                handle: self.handle(),
                sealed: self.sealed("disk full").to_vec(),
            }],
            ..Default::default()
        }
    }

    fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.parse().unwrap());
        request
    }

    async fn open(
        &self,
        channel: Channel,
    ) -> Result<(mpsc::Sender<v1::StreamRequest>, tonic::Streaming<v1::StreamResponse>), Status>
    {
        let mut client = RelayClient::with_origin(channel, self.house.url.parse().unwrap());
        let (sender, receiver) = mpsc::channel(16);
        let requests = futures_util::stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        let opened = client.stream(self.signed(requests)).await?;
        Ok((sender, opened.into_inner()))
    }
}

pub(crate) fn channel(window_bytes: Option<u32>) -> Channel {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.http2_only(true);
    if let Some(bytes) = window_bytes {
        builder.http2_initial_stream_window_size(bytes);
    }
    builder.build_http()
}

fn authorization(house: &House, sender: &SenderKey) -> String {
    let audience = Audience::of_url(&house.url).unwrap();
    let now_unix_s = Clock::system().unix_s();
    vapid::authorization(sender, &audience, None, now_unix_s, vapid::LIFE_S_DEFAULT).unwrap()
}

/// Gives our code and the field from a status's details.
fn told(status: &Status) -> (String, Option<String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?} has no ErrorInfo"));
    assert_eq!(info.domain, "sns-relay");
    let field = info.metadata.get("field").cloned();
    let violations = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    assert_eq!(field, violations, "both say which field");
    (info.reason.clone(), field)
}

fn stream_push(sequence: u64, push: v1::PushRequest) -> v1::StreamRequest {
    v1::StreamRequest { sequence, message: Some(stream_request::Message::Push(push)) }
}

/// A device of each kind gets the same over gRPC as over HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_message_reaches_each_kind_of_device_by_grpc() {
    for kind in KINDS {
        let mut party = Party::at(House::build().await, kind).await;
        let request = party.signed(party.push());
        let answer = party.grpc.push(request).await.unwrap().into_inner();
        let result = answer.result.unwrap();
        assert_eq!((result.outcome(), answer.ttl_s), (v1::Outcome::Accepted, 60), "{kind:?}");
        assert!(!result.provider_message_id.is_empty(), "{kind:?}");
        assert_eq!(party.house.read_by(&party.device), ["text"], "{kind:?}");
    }
}

/// One table for both doors: what Apple says, what the sender hears, how often Apple was asked.
#[tokio::test(flavor = "multi_thread")]
async fn both_doors_tell_the_same_of_every_answer() {
    let mut party = Party::at(
        House::with(|stage| {
            stage.make_room();
            stage.set_key("feedback.hold_s_max", 0);
            stage.set_key("feedback.gone_burst_max", 1000);
        })
        .await,
        DeviceKind::Ios,
    )
    .await;
    let rows = [
        (Step::Accept, Code::Ok),
        (Step::Answer(apns::gone(1_700_000_000_000)), Code::NotFound),
        (Step::Answer(apns::error(400, "BadDeviceToken")), Code::NotFound),
        (Step::Answer(apns::error(429, "TooManyRequests")), Code::ResourceExhausted),
        (Step::Answer(apns::error(503, "ServiceUnavailable")), Code::Unavailable),
        (Step::Answer(apns::error(500, "InternalServerError")), Code::Unavailable),
        (Step::Answer(apns::error(403, "InvalidProviderToken")), Code::FailedPrecondition),
        (Step::Answer(apns::error(400, "BadTopic")), Code::FailedPrecondition),
        (Step::DropConnection, Code::DeadlineExceeded),
    ];
    let journal = party.house.stage.apns.journal().clone();
    for (step, code) in rows {
        party.house.stage.apns.script().standing(step.clone());
        let before = journal.requests();
        let body = party.sealed("text");
        let message = Message { ttl_s: 60, urgency: Urgency::High, topic: None, body };
        let client = &party.house.client;
        let http = client.push(&party.endpoint, &party.sender, &message).await.unwrap();
        let by_http = journal.requests() - before;
        let request = party.signed(party.push());
        let grpc = party.grpc.push(request).await;
        let by_grpc = journal.requests() - before - by_http;
        let what = format!("{step:?}");
        assert_eq!(by_http, by_grpc, "{what}: requests to Apple");
        match grpc {
            Ok(_) => assert_eq!((http.status, code), (201, Code::Ok), "{what}"),
            Err(status) => {
                assert_eq!(status.code(), code, "{what}");
                assert_eq!(Some(told(&status).0), http.code, "{what}");
                let retry = status.get_error_details().retry_info().cloned();
                let retry_s = retry.and_then(|retry| Some(retry.retry_delay?.as_secs()));
                assert_eq!(retry_s.is_some(), http.retry_after_s.is_some(), "{what}");
            }
        }
    }
    let entries = journal.entries();
    let accepted: Vec<_> = entries.iter().take(2).collect();
    for name in ["apns-topic", "apns-priority", "apns-push-type"] {
        assert_eq!(accepted[0].headers.get(name), accepted[1].headers.get(name), "{name}");
    }
}

/// Every method with what is wrong in it: status, code, and the member at fault.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_by_name_in_every_method() {
    let mut party = Party::with_ios().await;
    type Change = fn(&mut v1::PushRequest);
    let pushes: [(Change, &str, Option<&str>); 6] = [
        (|push| push.handle = "nonsense".into(), "handle_invalid", Some("handle")),
        (|push| push.handle.clear(), "handle_invalid", Some("handle")),
        (|push| push.topic = "no spaces".into(), "topic_invalid", Some("topic")),
        (|push| push.urgency = 9, "member_invalid", Some("urgency")),
        (|push| push.sealed = b"plain text".to_vec(), "body_not_aes128gcm", None),
        (|push| push.sealed = vec![0; 5_000], "content_too_large", None),
    ];
    for (change, code, field) in pushes {
        let mut push = party.push();
        change(&mut push);
        let request = party.signed(push);
        let status = party.grpc.push(request).await.unwrap_err();
        assert_eq!(told(&status), (code.to_owned(), field.map(str::to_owned)));
    }
    let status = party.grpc.push(Request::new(party.push())).await.unwrap_err();
    assert_eq!((status.code(), told(&status).0.as_str()), (Code::Unauthenticated, "vapid_missing"));
    let mut twice = party.signed(party.push());
    twice.metadata_mut().append("authorization", party.authorization.parse().unwrap());
    let status = party.grpc.push(twice).await.unwrap_err();
    assert_eq!(told(&status), ("header_duplicate".into(), Some("authorization".into())));

    type Alter = fn(&mut v1::NotifyRequest);
    let notices: [(Alter, &str, &str); 5] = [
        (|notice| notice.id = "7".into(), "member_invalid", "id"),
        (|notice| notice.source = 0, "member_missing", "source"),
        (|notice| notice.level = 0, "member_missing", "level"),
        (|notice| notice.level = 77, "member_invalid", "level"),
        (|notice| notice.targets.clear(), "member_invalid", "targets"),
    ];
    for (alter, code, field) in notices {
        let mut notice = party.notify();
        alter(&mut notice);
        let request = party.signed(notice);
        let status = party.grpc.notify(request).await.unwrap_err();
        assert_eq!(told(&status), (code.to_owned(), Some(field.to_owned())));
    }
    let pairs = [
        (v1::PairRequest { app: "chat".into(), ..Default::default() }, "sender_key"),
        (
            v1::PairRequest {
                app: "chat".into(),
                sender_key: party.sender.public().as_ref().to_vec(),
                ..Default::default()
            },
            "service",
        ),
    ];
    for (pair, field) in pairs {
        let status = party.grpc.pair(Request::new(pair)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(told(&status).1.as_deref(), Some(field));
    }
    let request = party.signed(v1::EnrolRequest::default());
    let status = party.grpc.enrol(request).await.unwrap_err();
    assert_eq!(told(&status), ("member_invalid".into(), Some("model".into())));
}

/// A device pairs and a NAS enrols by gRPC; both are known over HTTP too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_enrolled_and_paired_by_grpc_serves_both_doors() {
    let mut party = Party::with_ios().await;
    let request = party.signed(v1::EnrolRequest {
        model: "DS923+".into(),
        serial: "2230ABC".into(),
        ..Default::default()
    });
    let enrolled = party.grpc.enrol(request).await.unwrap().into_inner();
    assert!(!enrolled.created && enrolled.ds_id.starts_with("ds_"));
    let device = party.house.device(DeviceKind::Ios).await;
    let pair = v1::PairRequest {
        app: "chat".into(),
        service: v1::Service::Apns.into(),
        address: Some(v1::pair_request::Address::Token(device.address().to_owned())),
        sender_key: party.sender.public().as_ref().to_vec(),
        ..Default::default()
    };
    let paired = party.grpc.pair(Request::new(pair)).await.unwrap().into_inner();
    assert!(paired.endpoint.ends_with(&paired.handle) && paired.max_body_bytes > 2_000);
    let body = seal::seal(&device.keys().device(), b"hello", BodyCap::default()).unwrap().into();
    let message = Message { ttl_s: 60, urgency: Urgency::High, topic: None, body };
    let client = &party.house.client;
    assert_eq!(client.push(&paired.endpoint, &party.sender, &message).await.unwrap().status, 201);
    assert_eq!(party.house.read_by(&device), ["hello"]);
}

/// The standard services: health tells the truth, reflection shows the contract.
#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_there() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let house = House::build().await;
    let mut health = HealthClient::with_origin(channel(None), house.url.parse().unwrap());
    for service in ["", "sns.relay.v1.Relay"] {
        let request = HealthCheckRequest { service: service.into() };
        let told = health.check(request).await.unwrap().into_inner();
        assert_eq!(told.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest { service: "another".into() };
    assert_eq!(health.check(request).await.unwrap_err().code(), Code::NotFound);

    let origin = house.url.parse().unwrap();
    let mut reflection = ServerReflectionClient::with_origin(channel(None), origin);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = futures_util::stream::once(async { ask });
    let mut answers = reflection.server_reflection_info(asked).await.unwrap().into_inner();
    let answer: ServerReflectionResponse = answers.next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list of services")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["sns.relay.v1.Relay", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
}

/// What the library itself would refuse gets our codes as well.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_methods_and_malformed_messages_have_codes_too() {
    let party = Party::with_ios().await;
    let raw = |path: &str, body: &'static [u8]| {
        let uri = format!("{}{path}", party.house.url);
        let request = http::Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", party.authorization.clone())
            .body(Body::new(http_body_util::Full::new(Bytes::from_static(body))))
            .unwrap();
        channel(None).request(request)
    };
    let rows: [(&str, &[u8], &str, Code); 4] = [
        ("/sns.relay.v1.Relay/Nothing", b"", "method_not_allowed", Code::Unimplemented),
        ("/another.Service/Call", b"", "method_not_allowed", Code::Unimplemented),
        (
            "/sns.relay.v1.Relay/Push",
            b"\0\0\0\0\x03\xff\xff\xff",
            "message_malformed",
            Code::InvalidArgument,
        ),
        (
            "/sns.relay.v1.Relay/Push",
            b"\0\x7f\xff\xff\xff",
            "body_too_large",
            Code::InvalidArgument,
        ),
    ];
    for (path, body, code, grpc) in rows {
        let response = raw(path, body).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!((status.code(), told(&status).0.as_str()), (grpc, code), "{path}");
    }
}

//! Requests for each kind of door, made beforehand, so that a load costs its driver little.
//!
//! In: the messages of one sender. Out: request number so-and-so, its head cloned from one
//! prototype and its body shared. A message of a stream lacks but its sequence number.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, TE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use prost::Message as _;
use serde::Deserialize;
use sns_nas::base64url;
use sns_nas::client::{Outcome, TargetResult};
use sns_proto::v1::{self, stream_request};
use uuid::Uuid;

use super::super::MeasureError;
use super::super::crowd::Told;
use super::super::pace::label;
use super::house::{Parcel, Post};
use super::yardstick::{APNS_HEADERS, DEVICE_PATH};

/// What the callers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One request at a time on a connection.
    Http1,
    /// Many at once.
    Http2,
    /// The call `Push` for each message.
    GrpcUnary,
    /// One call `Stream` for all.
    GrpcStream,
}

/// All requests of one turn's callers.
pub(crate) struct Mail {
    form: Form,
    prototype: Request<()>,
    authorizations: Vec<HeaderValue>,
    uris: Vec<Uri>,
    bodies: Vec<Bytes>,
    accepted: StatusCode,
    /// Notifications, each to so many devices.
    fan: Option<usize>,
}

/// The answer of the NAS door: one result for each device, in order.
#[derive(Deserialize)]
struct Results {
    results: Vec<TargetResult>,
}

const PUSH: &str = "/sns.relay.v1.Relay/Push";
const NOTIFICATIONS: &str = "/v1/notifications";
const STREAM: &str = "/sns.relay.v1.Relay/Stream";
const TTL_S: u32 = 60;
/// Compressed or not, and the length.
const GRPC_HEAD_BYTES: usize = 5;
/// The key of `sequence`: field 1, a varint.
const SEQUENCE_KEY: u8 = 8;
const VARINT_BYTES_MAX: usize = 10;

// === impl Form ===

impl Form {
    /// Gives the protocol as TLS names it.
    pub(crate) fn alpn(self) -> &'static str {
        match self {
            Form::Http1 => "http/1.1",
            Form::Http2 | Form::GrpcUnary | Form::GrpcStream => "h2",
        }
    }
}

// === impl Mail ===

impl Mail {
    /// Makes the requests to a relay.
    /// Errors: an endpoint that is no URL.
    pub(crate) fn to_relay(form: Form, origin: &Uri, post: &Post) -> Result<Mail, MeasureError> {
        let mut prototype = prototype(form, origin)?;
        let headers = prototype.headers_mut();
        let authorizations = vec![post.authorization.clone()];
        let fan = None;
        let parcels = || post.parcels.iter();
        let accepted = StatusCode::CREATED;
        Ok(match form {
            Form::Http1 | Form::Http2 => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
                headers.insert(HeaderName::from_static("ttl"), HeaderValue::from(TTL_S));
                let urgency = HeaderValue::from_static("high");
                headers.insert(HeaderName::from_static("urgency"), urgency);
                let uris = parcels().map(|parcel| target(form, &parcel.endpoint)).collect();
                let bodies = parcels().map(|parcel| parcel.sealed.clone()).collect();
                Mail { form, prototype, authorizations, uris, bodies, accepted, fan }
            }
            Form::GrpcUnary | Form::GrpcStream => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(TE, HeaderValue::from_static("trailers"));
                let (path, body): (_, fn(&Parcel) -> Bytes) = match form {
                    Form::GrpcUnary => (PUSH, unary),
                    _ => (STREAM, streamed),
                };
                let uris = vec![at(origin, path)?];
                let bodies = parcels().map(body).collect();
                let accepted = StatusCode::OK;
                Mail { form, prototype, authorizations, uris, bodies, accepted, fan }
            }
        })
    }

    /// Makes notifications for the NAS door, each to so many devices of one NAS; those of a NAS
    /// that are left over get none. Each request has an id of its own.
    /// Errors: the origin is no URL.
    pub(crate) fn to_nas_door(
        form: Form,
        origin: &Uri,
        posts: &[Post],
        fan: usize,
    ) -> Result<Mail, MeasureError> {
        let mut prototype = prototype(form, origin)?;
        let json = HeaderValue::from_static("application/json");
        prototype.headers_mut().insert(CONTENT_TYPE, json);
        let (mut authorizations, mut bodies) = (Vec::new(), Vec::new());
        for post in posts {
            for parcels in post.parcels.chunks_exact(fan) {
                authorizations.push(post.authorization.clone());
                bodies.push(notification(parcels));
            }
        }
        let (uris, accepted) = (vec![target(form, &at(origin, NOTIFICATIONS)?)], StatusCode::OK);
        let fan = Some(fan);
        Ok(Mail { form, prototype, authorizations, uris, bodies, accepted, fan })
    }

    /// Makes the requests of a forwarder to APNs itself.
    /// Errors: the origin is no URL.
    pub(crate) fn to_apns(origin: &Uri, bytes: usize) -> Result<Mail, MeasureError> {
        let mut mail = Mail::to_yardstick(Form::Http2, origin, bytes)?;
        for (name, value) in APNS_HEADERS {
            let value = HeaderValue::from_static(value);
            mail.prototype.headers_mut().insert(HeaderName::from_static(name), value);
        }
        mail.uris = vec![at(origin, DEVICE_PATH)?];
        Ok(mail)
    }

    /// Makes the requests to a yardstick: one notification, as long as a sealed message.
    /// Errors: the origin is no URL.
    pub(crate) fn to_yardstick(
        form: Form,
        origin: &Uri,
        bytes: usize,
    ) -> Result<Mail, MeasureError> {
        let (start, end) =
            (r#"{"aps":{"alert":{"loc-key":"K"},"mutable-content":1},"e":""#, r#""}"#);
        let filling = "A".repeat(bytes.saturating_sub(start.len() + end.len()));
        Ok(Mail {
            form,
            prototype: prototype(form, origin)?,
            authorizations: Vec::new(),
            uris: vec![target(form, &at(origin, "/push")?)],
            bodies: vec![format!("{start}{filling}{end}").into()],
            accepted: StatusCode::OK,
            fan: None,
        })
    }

    /// Gives the head and the body of a message's own request.
    pub(crate) fn request(&self, number: usize) -> (Request<()>, Bytes) {
        let body = self.body(number);
        if self.fan.is_none() {
            return (self.head(number), body.clone());
        }
        let id = format!(r#"{{"id":"{}""#, Uuid::new_v4());
        let mut whole = BytesMut::with_capacity(id.len() + body.len());
        whole.put_slice(id.as_bytes());
        whole.put_slice(body);
        (self.head(number), whole.freeze())
    }

    /// Gives how many messages a request carries.
    pub(crate) fn fan(&self) -> usize {
        self.fan.unwrap_or(1)
    }

    /// Gives the head of the call that carries all messages.
    pub(crate) fn call(&self) -> Request<()> {
        self.head(0)
    }

    /// Appends a message to those that a stream sends next.
    pub(crate) fn put(&self, number: usize, sequence: usize, into: &mut BytesMut) {
        let body = self.body(number);
        let mut name = [0; VARINT_BYTES_MAX];
        let mut room = &mut name[..];
        // There is room for any of 64 bits.
        let _ = prost::encode_length_delimiter(sequence, &mut room);
        let name_bytes = VARINT_BYTES_MAX - room.len();
        into.reserve(GRPC_HEAD_BYTES + 1 + name_bytes + body.len());
        put_grpc_head(1 + name_bytes + body.len(), into);
        into.put_u8(SEQUENCE_KEY);
        into.put_slice(&name[..name_bytes]);
        into.put_slice(body);
    }

    /// Tells of each message of a request what became of it by this answer, and by gRPC's own in
    /// the trailers: nothing where it was accepted.
    pub(crate) fn tell(
        &self,
        status: StatusCode,
        grpc_status: Option<&str>,
        body: &Bytes,
        mut note: impl FnMut(Option<String>),
    ) {
        let is_grpc = matches!(self.form, Form::GrpcUnary | Form::GrpcStream);
        let fits = |results: &Results| results.results.len() == self.fan();
        let other = match (status == self.accepted, grpc_status) {
            (true, Some("0")) if is_grpc => None,
            (_, Some(grpc)) if is_grpc => Some(format!("grpc-status {grpc}")),
            (true, _) if self.fan.is_some() => match serde_json::from_slice(body) {
                Ok(results) if fits(&results) => return results.each(note),
                _ => Some("not one result for each device".to_owned()),
            },
            (true, _) if !is_grpc => None,
            _ => Some(label(&Told { status, body: body.clone() })),
        };
        for _ in 0..self.fan() {
            note(other.clone());
        }
    }

    fn head(&self, number: usize) -> Request<()> {
        let mut head = self.prototype.clone();
        head.uri_mut().clone_from(&self.uris[number % self.uris.len()]);
        if !self.authorizations.is_empty() {
            let authorization = &self.authorizations[number % self.authorizations.len()];
            head.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        head
    }

    fn body(&self, number: usize) -> &Bytes {
        &self.bodies[number % self.bodies.len()]
    }
}

// === impl Results ===

impl Results {
    fn each(self, mut note: impl FnMut(Option<String>)) {
        for TargetResult { outcome, reason, .. } in self.results {
            let is_accepted = outcome == Outcome::Accepted;
            note((!is_accepted).then(|| reason.unwrap_or_else(|| format!("{outcome:?}"))));
        }
    }
}

fn prototype(form: Form, origin: &Uri) -> Result<Request<()>, MeasureError> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    if form == Form::Http1 {
        let host = origin.authority().ok_or(MeasureError::BadUrl)?;
        let host = HeaderValue::from_str(host.as_str()).map_err(|_| MeasureError::BadUrl)?;
        request.headers_mut().insert(HOST, host);
    } else {
        *request.version_mut() = Version::HTTP_2;
    }
    Ok(request)
}

/// Gives a URI as the protocol writes it: HTTP/1.1 has the path alone.
fn target(form: Form, uri: &Uri) -> Uri {
    match (form, uri.path_and_query()) {
        (Form::Http1, Some(path)) => Uri::from(path.clone()),
        _ => uri.clone(),
    }
}

fn at(origin: &Uri, path: &'static str) -> Result<Uri, MeasureError> {
    let mut parts = origin.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(path));
    Uri::from_parts(parts).map_err(|_| MeasureError::BadUrl)
}

fn push(parcel: &Parcel) -> v1::PushRequest {
    v1::PushRequest {
        handle: parcel.handle().to_owned(),
        ttl_s: TTL_S,
        urgency: v1::Urgency::High.into(),
        topic: String::new(),
        sealed: parcel.sealed.to_vec(),
    }
}

/// All of a notification but its id, which comes first.
fn notification(parcels: &[Parcel]) -> Bytes {
    let head = r#","source":"dsm","level":"warn","ttl_s":60,"sound":true,"targets":["#;
    let target = |parcel: &Parcel| {
        let sealed = base64url::encode(&parcel.sealed);
        format!(r#"{{"handle":"{}","sealed":"{sealed}"}}"#, parcel.handle())
    };
    let targets: Vec<String> = parcels.iter().map(target).collect();
    format!("{head}{}]}}", targets.join(",")).into()
}

fn unary(parcel: &Parcel) -> Bytes {
    let message = push(parcel).encode_to_vec();
    let mut body = BytesMut::with_capacity(GRPC_HEAD_BYTES + message.len());
    put_grpc_head(message.len(), &mut body);
    body.put_slice(&message);
    body.freeze()
}

/// A sequence number of 0 is not written, and fields may come in any order.
fn streamed(parcel: &Parcel) -> Bytes {
    let message = Some(stream_request::Message::Push(push(parcel)));
    v1::StreamRequest { sequence: 0, message }.encode_to_vec().into()
}

fn put_grpc_head(bytes: usize, into: &mut BytesMut) {
    into.put_u8(0);
    into.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is put together from parts reads as the messages of the contract, in order.
    #[test]
    fn a_message_of_a_stream_is_one_with_its_sequence_number() {
        let parcel = |handle: &str| Parcel {
            endpoint: format!("http://localhost:1/push/{handle}").parse().unwrap(),
            sealed: Bytes::from_static(&[7; 1024]),
        };
        let parcels = vec![parcel("one"), parcel("two")];
        let post = Post { authorization: HeaderValue::from_static("vapid"), parcels };
        let origin = "http://localhost:1".parse().unwrap();
        let mail = Mail::to_relay(Form::GrpcStream, &origin, &post).unwrap();
        let mut bytes = BytesMut::new();
        for (number, sequence) in [(0, 1), (1, 127), (2, 128), (3, usize::MAX)] {
            mail.put(number, sequence, &mut bytes);
            let head = bytes.split_to(GRPC_HEAD_BYTES);
            assert_eq!(head[0], 0);
            assert_eq!(u32::from_be_bytes(head[1..].try_into().unwrap()) as usize, bytes.len());
            let request = v1::StreamRequest::decode(bytes.split()).unwrap();
            assert_eq!(request.sequence, sequence as u64);
            let Some(stream_request::Message::Push(push)) = request.message else { panic!() };
            assert_eq!(push.handle, ["one", "two"][number % 2]);
            assert_eq!((push.ttl_s, push.sealed.len()), (60, 1024));
        }
    }
}

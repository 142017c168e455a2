//! The gRPC door: the same service as over HTTP, with the same limits, codes and outcomes.
//!
//! In: HTTP/2 requests of `application/grpc`, on the port of the HTTP doors. Out: messages of
//! `sns.relay.v1`, or a status with `google.rpc` details. It only translates. Beside the relay's
//! own service there are the standard ones for health and reflection.
//! Sources: grpc/doc/PROTOCOL-HTTP2.md and health-checking.md, google/rpc/error_details.proto.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use http::{HeaderMap, Request, Response, header};
use http_body_util::Either;
use hyper::body::Incoming;
use sns_proto::v1::relay_server::RelayServer;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;
use tower_service::Service;

use super::{Doors, Panicked, caught};
use crate::outcome::{Code, Outcome, Refusal};

mod calls;
mod health;
mod status;
mod stream;
mod words;

pub use stream::Streams;

use calls::Calls;
use health::Health;
use status::{STATUS_DETAILS, status_of};

/// The reflection services, whose types have no names.
pub struct Reflection {
    v1: Option<Answerer>,
    v1alpha: Option<Answerer>,
}

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Answerer = Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// Tells whether a request is a gRPC call: `application/grpc`, `application/grpc+proto`.
pub fn is_call(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// Answers one call.
pub async fn answer(doors: Arc<Doors>, request: Request<Incoming>) -> Response<super::Body> {
    let route = pin!(route(&doors, request));
    let response = match caught(route).await {
        Ok(response) => name_fault(response),
        Err(Panicked) => {
            doors.relay.metrics.panics.inc();
            refuse(&Outcome::Misconfigured { code: Code::InternalFault })
        }
    };
    response.map(Either::Right)
}

async fn route(doors: &Arc<Doors>, request: Request<Incoming>) -> Response<Body> {
    let service = request.uri().path().trim_start_matches('/').split('/').next();
    let reflection = &doors.reflection;
    match service.unwrap_or_default() {
        "sns.relay.v1.Relay" => {
            let calls = Arc::new(Calls::new(Arc::clone(doors)));
            let bytes_max = doors.limits.body_bytes_max;
            let server = RelayServer::from_arc(calls).max_decoding_message_size(bytes_max);
            call(server, request).await
        }
        "grpc.health.v1.Health" => {
            call(HealthServer::new(Health::new(Arc::clone(doors))), request).await
        }
        "grpc.reflection.v1.ServerReflection" => reflected(&reflection.v1, request).await,
        "grpc.reflection.v1alpha.ServerReflection" => reflected(&reflection.v1alpha, request).await,
        _ => refuse(&Refusal::new(Code::MethodNotAllowed).into()),
    }
}

async fn call<S>(mut server: S, request: Request<Incoming>) -> Response<Body>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    match server.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn reflected(answerer: &Option<Answerer>, request: Request<Incoming>) -> Response<Body> {
    match answerer {
        Some(answer) => answer(request).await,
        None => refuse(&Refusal::new(Code::MethodNotAllowed).into()),
    }
}

fn refuse(outcome: &Outcome) -> Response<Body> {
    status_of(outcome, None).into_http()
}

/// The library's own refusals (a method that is not there, a message that does not decode or is too
/// long) get our codes like all others.
fn name_fault(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let own = headers.contains_key(STATUS_DETAILS);
    let grpc = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
    match grpc.map(tonic::Code::from_i32) {
        None | Some(tonic::Code::Ok) => response,
        Some(_) if own => response,
        Some(tonic::Code::Unimplemented) => refuse(&Refusal::new(Code::MethodNotAllowed).into()),
        Some(tonic::Code::OutOfRange) => refuse(&Refusal::new(Code::BodyTooLarge).into()),
        Some(tonic::Code::NotFound) => response,
        Some(_) => refuse(&Refusal::new(Code::MessageMalformed).into()),
    }
}

// === impl Reflection ===

impl Reflection {
    /// Takes the contract and the health service's; a test holds it to what it then tells.
    pub fn new() -> Self {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(sns_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        Self {
            v1: builder().build_v1().ok().map(answerer),
            v1alpha: builder().build_v1alpha().ok().map(answerer),
        }
    }
}

impl Default for Reflection {
    fn default() -> Self {
        Self::new()
    }
}

fn answerer<S>(server: S) -> Answerer
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    Box::new(move |request| {
        let server = server.clone();
        Box::pin(call(server, request))
    })
}

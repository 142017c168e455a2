//! A relay that a test plays: gRPC `Stream` over real HTTP/2, each answer as the test says.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::Stream;
use futures_util::stream::unfold;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use sns_nas::clock;
use sns_proto::v1::relay_server::{Relay as Methods, RelayServer};
use sns_proto::v1::stream_request::Message;
use sns_proto::v1::{self, StreamRequest, StreamResponse};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service as _;

/// One message as it came.
#[derive(Clone)]
pub(crate) struct Got {
    /// At which door: `notify`, or `push`.
    pub(crate) door: &'static str,
    pub(crate) handle: String,
    pub(crate) sealed: Vec<u8>,
    /// A notification's id.
    pub(crate) id: String,
    /// What was answered; `None` where the call was broken off.
    pub(crate) answer: Option<&'static str>,
}

/// What is answered: the number of the message, counted from 0, and the message.
type Judge = dyn Fn(usize, &Got) -> Option<Told> + Send + Sync;

/// An answer: the outcome, and what else is in the result.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) outcome: &'static str,
    pub(crate) members: Value,
}

pub(crate) struct Relay {
    pub(crate) url: String,
    got: Arc<Mutex<Vec<Got>>>,
    server: JoinHandle<()>,
}

/// The methods of one connection.
#[derive(Clone)]
struct Played {
    got: Arc<Mutex<Vec<Got>>>,
    judge: Arc<Judge>,
}

pub(crate) fn told(outcome: &'static str) -> Option<Told> {
    Some(Told { outcome, members: json!({}) })
}

impl Relay {
    /// Listens; answers each message as `judge` says, and breaks the call off where it says
    /// nothing.
    pub(crate) async fn start(
        judge: impl Fn(usize, &Got) -> Option<Told> + Send + Sync + 'static,
    ) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), judge)
    }

    /// Does the same on a port that a test has.
    pub(crate) fn start_on(
        listener: TcpListener,
        judge: impl Fn(usize, &Got) -> Option<Told> + Send + Sync + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let played = Played { got: Arc::clone(&got), judge: Arc::new(judge) };
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let methods = RelayServer::new(played.clone());
                let service = service_fn(move |request| {
                    let mut methods = methods.clone();
                    async move { methods.call(request).await }
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                // A daemon that is killed breaks its connections off.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Self { url, got, server }
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Played {
    fn answer(&self, request: StreamRequest) -> Result<StreamResponse, Status> {
        let mut one = read(request.message.unwrap());
        let mut got = self.got.lock().unwrap();
        let answer = (self.judge)(got.len(), &one);
        one.answer = answer.as_ref().map(|told| told.outcome);
        got.push(one);
        let told = answer.ok_or_else(|| Status::unavailable("broken off"))?;
        Ok(StreamResponse { sequence: request.sequence, results: vec![written(&told)] })
    }
}

#[tonic::async_trait]
impl Methods for Played {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        assert!(request.metadata().get("authorization").is_some(), "each call is signed");
        let conversation = (self.clone(), Some(request.into_inner()));
        let answers = unfold(conversation, |(played, incoming)| async move {
            let mut incoming = incoming?;
            let request = incoming.message().await.ok()??;
            let answer = played.answer(request);
            let incoming = answer.is_ok().then_some(incoming);
            Some((answer, (played, incoming)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn enrol(
        &self,
        _: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        Err(Status::unimplemented("this relay has one method"))
    }

    async fn pair(
        &self,
        _: Request<v1::PairRequest>,
    ) -> Result<Response<v1::PairResponse>, Status> {
        Err(Status::unimplemented("this relay has one method"))
    }

    async fn push(
        &self,
        _: Request<v1::PushRequest>,
    ) -> Result<Response<v1::PushResponse>, Status> {
        Err(Status::unimplemented("this relay has one method"))
    }

    async fn notify(
        &self,
        _: Request<v1::NotifyRequest>,
    ) -> Result<Response<v1::NotifyResponse>, Status> {
        Err(Status::unimplemented("this relay has one method"))
    }
}

fn read(message: Message) -> Got {
    match message {
        Message::Push(push) => Got {
            door: "push",
            handle: push.handle,
            sealed: push.sealed,
            id: String::new(),
            answer: None,
        },
        Message::Notify(mut notify) => {
            let target = notify.targets.remove(0);
            Got {
                door: "notify",
                handle: target.handle,
                sealed: target.sealed,
                id: notify.id,
                answer: None,
            }
        }
    }
}

fn written(told: &Told) -> v1::Result {
    let text = |name: &str| told.members[name].as_str().unwrap_or_default().to_owned();
    let outcome = match (told.outcome, told.members["status"].as_u64()) {
        ("problem", Some(429 | 503)) => v1::Outcome::NotNow,
        ("problem", Some(400..=499)) => v1::Outcome::Refused,
        ("problem", Some(500 | 502)) => v1::Outcome::Misconfigured,
        ("accepted", _) => v1::Outcome::Accepted,
        ("gone", _) => v1::Outcome::Gone,
        ("not_now", _) => v1::Outcome::NotNow,
        ("refused", _) => v1::Outcome::Refused,
        ("misconfigured", _) => v1::Outcome::Misconfigured,
        _ => v1::Outcome::Unknown,
    };
    let since_s = clock::parse_rfc3339(&text("gone_since")).map(|ms| ms / 1000);
    let reason = if told.outcome == "problem" { text("code") } else { text("reason") };
    v1::Result {
        outcome: outcome.into(),
        reason,
        provider_message_id: text("provider_message_id"),
        retry_after_s: told.members["retry_after_s"].as_u64().unwrap_or_default(),
        gone_since: since_s.map(|seconds| prost_types::Timestamp {
            seconds: i64::try_from(seconds).unwrap(),
            nanos: 0,
        }),
        renewed_handle: text("renewed_handle"),
        ..Default::default()
    }
}

//! The five methods of `sns.relay.v1.Relay`: a message becomes words, an outcome an answer.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use sns_proto::v1::relay_server::Relay;
use sns_proto::v1::{
    EnrolRequest, EnrolResponse, NotifyRequest, NotifyResponse, PairRequest, PairResponse,
    PushRequest, PushResponse, StreamRequest, StreamResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::super::{Doors, notice};
use super::status::{result_of, status_of, timestamp};
use super::stream::Conversation;
use super::words;
use crate::enrol::Application;
use crate::metrics::Door;
use crate::outcome::{Code, Outcome};
use crate::push::AppName;
use crate::relay::Settled;

/// The methods, for one call.
pub(super) struct Calls {
    doors: Arc<Doors>,
}

/// What a method fails with: an outcome, and a fresh handle where the old one ages.
struct Failed {
    outcome: Outcome,
    renewed_handle: Option<String>,
}

// === impl Calls ===

impl Calls {
    pub(super) const fn new(doors: Arc<Doors>) -> Self {
        Self { doors }
    }

    /// Lets one call of a method in, counts it, and turns a failure into a status.
    async fn carry_out<T, F>(
        &self,
        door: Door,
        method: impl FnOnce() -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let metrics = &self.doors.relay.metrics;
        let carried = match self.doors.admit() {
            Ok(_in_work) => method().await,
            Err(outcome) => Err(outcome.into()),
        };
        match carried {
            Ok(answer) => {
                metrics.answered(door, Code::Accepted);
                Ok(Response::new(answer))
            }
            Err(Failed { outcome, renewed_handle }) => {
                metrics.answered(door, outcome.code());
                Err(status_of(&outcome, renewed_handle))
            }
        }
    }
}

#[tonic::async_trait]
impl Relay for Calls {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        self.carry_out(Door::GrpcEnrol, || async {
            let authorization = words::authorization(request.metadata())?;
            let EnrolRequest { model, serial, enrolment_token, .. } = request.into_inner();
            let application = Application::parse(model, serial, words::given(enrolment_token))?;
            let relay = &self.doors.relay;
            let (identity, created) = relay.enrol(authorization.as_deref(), application).await?;
            let enrolled_at = Some(timestamp(identity.enrolled_at_unix_s));
            Ok(EnrolResponse { ds_id: identity.ds_id, enrolled_at, created })
        })
        .await
    }

    async fn pair(&self, request: Request<PairRequest>) -> Result<Response<PairResponse>, Status> {
        self.carry_out(Door::GrpcPair, || async {
            let deadline = self.doors.timing(words::timeout(request.metadata())?).deadline;
            let request = request.into_inner();
            let sender = words::sender_key(&request.sender_key)?;
            let app = AppName::parse(&request.app)?;
            let address = words::address(&request)?;
            let pairing = self.doors.relay.pair(app, address, sender, deadline).await?;
            let origin = &self.doors.limits.public_url.origin;
            let endpoint = pairing.handle.as_ref().map(|handle| format!("{origin}/push/{handle}"));
            Ok(PairResponse {
                endpoint: endpoint.unwrap_or_default(),
                handle: pairing.handle.unwrap_or_default(),
                expires_at: Some(timestamp(pairing.expires_at_unix_s)),
                max_body_bytes: u32::try_from(pairing.body_bytes_max).unwrap_or(u32::MAX),
            })
        })
        .await
    }

    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        self.carry_out(Door::GrpcPush, || async {
            let authorization = words::authorization(request.metadata())?;
            let time = self.doors.timing(words::timeout(request.metadata())?);
            let (handle, push) = words::push(request.into_inner())?;
            let relay = &self.doors.relay;
            let errand = relay.take_in(authorization.as_deref(), &handle, &push, time);
            drop((authorization, handle, push));
            let settled = relay.carry(errand).await;
            match settled.outcome {
                Outcome::Accepted { .. } => {
                    let ttl_s = settled.ttl_s.unwrap_or_default();
                    Ok(PushResponse { result: Some(result_of(settled)), ttl_s })
                }
                outcome => Err(Failed { outcome, renewed_handle: settled.renewed_handle }),
            }
        })
        .await
    }

    async fn notify(
        &self,
        request: Request<NotifyRequest>,
    ) -> Result<Response<NotifyResponse>, Status> {
        self.carry_out(Door::GrpcNotify, || async {
            let authorization = words::authorization(request.metadata())?;
            let deadline = self.doors.timing(words::timeout(request.metadata())?).deadline;
            let notice = words::notice(request.into_inner())?;
            let targets = notice.targets(self.doors.limits.targets_max)?;
            let relay = &self.doors.relay;
            let results = relay.notify(authorization.as_deref(), targets, deadline).await?;
            Ok(NotifyResponse { results: results_of(results) })
        })
        .await
    }

    async fn stream(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let opened = Conversation::open(&self.doors, request);
        let conversation = opened.map_err(|outcome| {
            self.doors.relay.metrics.answered(Door::GrpcStream, outcome.code());
            status_of(&outcome, None)
        })?;
        Ok(Response::new(Box::pin(conversation.acknowledgements())))
    }
}

/// Gives one result for each target, in order.
pub(super) fn results_of(settled: Vec<Settled>) -> Vec<sns_proto::v1::Result> {
    let result = |(index, settled): (usize, Settled)| {
        let outcome = notice::at_place(index, settled.outcome);
        result_of(Settled { outcome, ..settled })
    };
    settled.into_iter().enumerate().map(result).collect()
}

impl<E: Into<Outcome>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { outcome: error.into(), renewed_handle: None }
    }
}

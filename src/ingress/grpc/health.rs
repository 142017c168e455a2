//! The standard health service, which tells what `/readyz` tells.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::time::sleep;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::super::Doors;

/// Health of the relay as a whole (an empty name) and of its one service.
pub(super) struct Health {
    doors: Arc<Doors>,
}

type Told = Result<HealthCheckResponse, Status>;

/// A watcher hears of a change this soon.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Health {
    pub(super) const fn new(doors: Arc<Doors>) -> Self {
        Self { doors }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Told> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match status(&self.doors, &request.into_inner().service).await {
            ServingStatus::ServiceUnknown => Err(Status::not_found("there is no such service")),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (doors, service) = (Arc::clone(&self.doors), request.into_inner().service);
        let changes = unfold((doors, service, None), |(doors, service, told)| async move {
            let mut now = status(&doors, &service).await;
            while told == Some(now) {
                sleep(LOOK_EVERY).await;
                now = status(&doors, &service).await;
            }
            let response = HealthCheckResponse { status: now.into() };
            Some((Ok(response), (doors, service, Some(now))))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

async fn status(doors: &Doors, service: &str) -> ServingStatus {
    if !matches!(service, "" | "sns.relay.v1.Relay") {
        return ServingStatus::ServiceUnknown;
    }
    match doors.readiness().await {
        Ok(()) => ServingStatus::Serving,
        Err(_) => ServingStatus::NotServing,
    }
}

//! Every metric's name, labels and help, in one place; docs/metrics.md is held to this list by a
//! test.
//!
//! Invariant: no label has a value that a caller can choose. Apps are the operator's, all other
//! labels come from closed sets. Handles are resolved once and kept; nothing is looked up by name
//! for a message.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::runtime::Handle;

use crate::outcome::{Code, Outcome};
use crate::provider::RenewalMetrics;
use crate::provider::upstream::{BreakerMetrics, Counters, Label, PoolMetrics};
use crate::push::{AppName, PushService};
use crate::reply;

/// Upper bounds of the latency histograms, in seconds.
const LATENCY_BUCKETS_S: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// One request's resource, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `POST /push/{handle}`.
    Push,
    /// `POST /v1/notifications`.
    Notifications,
    /// `POST /v1/pairings`.
    Pairings,
    /// `POST /v1/nas`.
    Enrolment,
    /// `GET /v1/nas/self`.
    Identity,
    /// `PUT /v1/nas/self/key`.
    KeyRotation,
    /// `GET /v1/apps/{app}`.
    App,
    /// `GET` and `POST /unsubscribe/{link}`.
    Unsubscribe,
    /// `GET /openapi.json`.
    OpenApi,
    /// gRPC `Enrol`.
    GrpcEnrol,
    /// gRPC `Pair`.
    GrpcPair,
    /// gRPC `Push`.
    GrpcPush,
    /// gRPC `Notify`.
    GrpcNotify,
    /// One message of a gRPC `Stream`, or the stream itself where it is refused.
    GrpcStream,
    /// Whatever else is asked for.
    Other,
}

/// All handles, resolved.
pub struct Metrics {
    registry: Registry,
    apps: BTreeMap<AppName, [Outcomes; PushService::ALL.len()]>,
    answers: [Outcomes; Door::ALL.len()],
    own_part: [Histogram; Door::ALL.len()],
    push_service_part: [Histogram; PushService::ALL.len()],
    pools: [Arc<PoolMetrics>; PushService::ALL.len()],
    holds: [Arc<BreakerMetrics>; PushService::ALL.len()],
    token_renewals: IntCounterVec,
    credential_expiry: GaugeVec,
    held: [IntCounter; PushService::ALL.len()],
    mass_gone: BTreeMap<AppName, [IntGauge; PushService::ALL.len()]>,
    /// Notifications that were not sent again, because they had been accepted.
    pub duplicates: IntCounter,
    /// Connections of senders that are open.
    pub connections: IntGauge,
    /// Connections among them that wait for their caller without a buffer.
    pub connections_resting: IntGauge,
    /// Connections that were closed at once, because there were too many.
    pub connections_refused: IntCounter,
    /// Requests in work.
    pub requests_in_flight: IntGauge,
    /// Requests whose handling panicked.
    pub panics: IntCounter,
    tasks: IntGauge,
}

/// One counter for each code, made when the code is first seen.
struct Outcomes {
    vec: IntCounterVec,
    labels: Vec<&'static str>,
    app: Option<AppName>,
    cells: Vec<OnceLock<IntCounter>>,
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything.
    /// Errors: a name or label that prometheus does not take, which a test would have shown.
    pub fn new<'a>(apps: impl Iterator<Item = &'a AppName>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let outcomes = counters(
            &registry,
            "sns_outcomes_total",
            "Messages by what became of them, one count for each target.",
            &["app", "service", "outcome", "code"],
        )?;
        let answers = counters(
            &registry,
            "sns_answers_total",
            "Answers to senders by resource and code.",
            &["door", "outcome", "code"],
        )?;
        let own_part = histograms(
            &registry,
            "sns_own_seconds",
            "Time of a message inside the relay, without the push service's part.",
            &["door"],
        )?;
        let push_service_part = histograms(
            &registry,
            "sns_push_service_seconds",
            "Time from a request's start on the wire to the push service's answer.",
            &["service"],
        )?;
        let apps: Vec<&AppName> = apps.collect();
        let service_outcomes = |app: &AppName| {
            PushService::ALL
                .map(|service| Outcomes::new(&outcomes, Some(app.clone()), vec![service.label()]))
        };
        Ok(Self {
            apps: apps.iter().map(|app| ((*app).clone(), service_outcomes(app))).collect(),
            answers: Door::ALL.map(|door| Outcomes::new(&answers, None, vec![door.label()])),
            own_part: Door::ALL.map(|door| own_part.with_label_values(&[door.label()])),
            push_service_part: PushService::ALL
                .map(|service| push_service_part.with_label_values(&[service.label()])),
            pools: pools(&registry)?.map(Arc::new),
            holds: holds(&registry)?,
            token_renewals: counters(
                &registry,
                "sns_token_renewals_total",
                "Provider, access and VAPID tokens made or fetched, and attempts that failed.",
                &["service", "result"],
            )?,
            credential_expiry: credential_expiry(&registry)?,
            held: held(&registry)?,
            mass_gone: mass_gone(&registry, &apps)?,
            duplicates: counter(
                &registry,
                "sns_duplicates_total",
                "Messages that were not sent again: accepted before, or told by their twin.",
            )?,
            connections: gauge(&registry, "sns_connections", "Connections of senders.")?,
            connections_resting: gauge(
                &registry,
                "sns_connections_resting",
                "HTTP/1.1 connections that are quiet and hold no buffer.",
            )?,
            connections_refused: counter(
                &registry,
                "sns_connections_refused_total",
                "Connections closed at once because too many were open.",
            )?,
            requests_in_flight: gauge(&registry, "sns_requests_in_flight", "Requests in work.")?,
            panics: counter(&registry, "sns_panics_total", "Requests whose handling panicked.")?,
            tasks: process(&registry)?,
            registry,
        })
    }

    /// Counts what became of one message.
    pub fn settled(&self, app: &AppName, service: PushService, outcome: &Outcome) {
        debug_assert_eq!(
            outcome.kind(),
            reply::row(outcome.code()).kind,
            "the table says otherwise"
        );
        if let Some(services) = self.apps.get(app) {
            services[service as usize].count(outcome.code());
        }
    }

    /// Counts one answer to a sender.
    pub fn answered(&self, door: Door, code: Code) {
        self.answers[door as usize].count(code);
    }

    /// Records the time that a message spent inside the relay.
    pub fn own_part(&self, door: Door, time: Duration) {
        self.own_part[door as usize].observe(time.as_secs_f64());
    }

    /// Records the time that the push service took.
    pub fn push_service_part(&self, service: PushService, time: Duration) {
        self.push_service_part[service as usize].observe(time.as_secs_f64());
    }

    /// Counts a message that was not sent because its device or credential is held.
    pub fn held(&self, service: PushService) {
        self.held[service as usize].inc();
    }

    /// Shows whether an app's "gone" answers at a push service are disbelieved.
    pub fn mass_gone(&self, app: &AppName, service: PushService, suspected: bool) {
        if let Some(services) = self.mass_gone.get(app) {
            services[service as usize].set(i64::from(suspected));
        }
    }

    /// Gives the handles of a push service's connection pools.
    pub fn pool(&self, service: PushService) -> Arc<PoolMetrics> {
        Arc::clone(&self.pools[service as usize])
    }

    /// Gives the handles of the holds of a push service's credentials.
    pub fn holds(&self, service: PushService) -> Arc<BreakerMetrics> {
        Arc::clone(&self.holds[service as usize])
    }

    /// Gives the handles for a push service's tokens.
    pub fn renewals(&self, service: PushService) -> RenewalMetrics {
        RenewalMetrics {
            renewals: self.token_renewals.with_label_values(&[service.label(), "renewed"]),
            failures: self.token_renewals.with_label_values(&[service.label(), "failed"]),
        }
    }

    /// Records when a certificate of an app's ends, or with no app the doors' own.
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double exactly")]
    pub fn certificate_expires(&self, app: Option<&AppName>, unix_s: i64) {
        let labels = match app {
            Some(app) => [app.as_str(), "apns_certificate"],
            None => ["", "tls_certificate"],
        };
        self.credential_expiry.with_label_values(&labels).set(unix_s as f64);
    }

    /// Writes the text exposition format, version 0.0.4.
    /// Errors: what prometheus says when a metric cannot be written.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        if let Ok(runtime) = Handle::try_current() {
            let tasks = runtime.metrics().num_alive_tasks();
            self.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

// === impl Outcomes ===

impl Outcomes {
    fn new(vec: &IntCounterVec, app: Option<AppName>, labels: Vec<&'static str>) -> Self {
        let cells = Code::ALL.iter().map(|_| OnceLock::new()).collect();
        Self { vec: vec.clone(), labels, app, cells }
    }

    fn count(&self, code: Code) {
        let counter = || {
            let app = self.app.iter().map(AppName::as_str);
            let outcome = [reply::row(code).kind.label(), code.label()];
            let labels: Vec<&str> = app.chain(self.labels.iter().copied()).chain(outcome).collect();
            self.vec.with_label_values(&labels)
        };
        if let Some(cell) = self.cells.get(code as usize) {
            cell.get_or_init(counter).inc();
        }
    }
}

// === impl Door ===

impl Door {
    /// Every door.
    pub const ALL: [Self; 15] = [
        Self::Push,
        Self::Notifications,
        Self::Pairings,
        Self::Enrolment,
        Self::Identity,
        Self::KeyRotation,
        Self::App,
        Self::Unsubscribe,
        Self::OpenApi,
        Self::GrpcEnrol,
        Self::GrpcPair,
        Self::GrpcPush,
        Self::GrpcNotify,
        Self::GrpcStream,
        Self::Other,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Notifications => "notifications",
            Self::Pairings => "pairings",
            Self::Enrolment => "enrolment",
            Self::Identity => "identity",
            Self::KeyRotation => "key_rotation",
            Self::App => "app",
            Self::Unsubscribe => "unsubscribe",
            Self::OpenApi => "openapi",
            Self::GrpcEnrol => "grpc_enrol",
            Self::GrpcPair => "grpc_pair",
            Self::GrpcPush => "grpc_push",
            Self::GrpcNotify => "grpc_notify",
            Self::GrpcStream => "grpc_stream",
            Self::Other => "other",
        }
    }
}

// === registering ===

/// Registers what the system knows of the process, and the gauge of its tasks.
fn process(registry: &Registry) -> Result<IntGauge, prometheus::Error> {
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    gauge(registry, "sns_tasks", "Tasks of the runtime that have not ended.")
}

fn credential_expiry(registry: &Registry) -> Result<GaugeVec, prometheus::Error> {
    let name = "sns_credential_expiry_timestamp_seconds";
    let help = "When a certificate of the operator's ends, in seconds since 1970.";
    let vec = GaugeVec::new(Opts::new(name, help), &["app", "credential"])?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn holds(
    registry: &Registry,
) -> Result<[Arc<BreakerMetrics>; PushService::ALL.len()], prometheus::Error> {
    breakers(
        registry,
        ("sns_credential_holds", "Credentials held because the push service refuses them."),
        ("sns_credential_hold_events_total", "What became of holds and messages held."),
    )
}

fn held(registry: &Registry) -> Result<[IntCounter; PushService::ALL.len()], prometheus::Error> {
    let help = "Messages not sent because the push service had asked to wait.";
    let vec = counters(registry, "sns_held_total", help, &["service"])?;
    Ok(PushService::ALL.map(|service| vec.with_label_values(&[service.label()])))
}

fn mass_gone(
    registry: &Registry,
    apps: &[&AppName],
) -> Result<BTreeMap<AppName, [IntGauge; PushService::ALL.len()]>, prometheus::Error> {
    let name = "sns_mass_gone_suspected";
    let help = "1 while a credential's \"gone\" answers are too many to be believed.";
    let vec = IntGaugeVec::new(Opts::new(name, help), &["app", "service"])?;
    registry.register(Box::new(vec.clone()))?;
    let gauges = |app: &AppName| {
        PushService::ALL.map(|service| vec.with_label_values(&[app.as_str(), service.label()]))
    };
    Ok(apps.iter().map(|app| ((*app).clone(), gauges(app))).collect())
}

fn pools(registry: &Registry) -> Result<[PoolMetrics; PushService::ALL.len()], prometheus::Error> {
    let connections = gauges(
        registry,
        "sns_upstream_connections",
        "Open connections to a push service, those that drain included.",
    )?;
    let streams = gauges(registry, "sns_upstream_streams_in_use", "Requests that hold a stream.")?;
    let waiting = gauges(registry, "sns_upstream_waiting", "Requests that wait for a stream.")?;
    let opened = counters(
        registry,
        "sns_upstream_connections_opened_total",
        "Connections opened.",
        &["service"],
    )?;
    let reasons = |name: &str, help: &str| counters(registry, name, help, &["service", "reason"]);
    let closed = reasons("sns_upstream_connections_closed_total", "Connections closed.")?;
    let sheds = reasons("sns_upstream_sheds_total", "Requests given up before they were sent.")?;
    let replays =
        reasons("sns_upstream_replays_total", "Requests sent again, provably unprocessed.")?;
    let goaways = reasons("sns_upstream_goaways_total", "GOAWAY frames received.")?;
    let dials = reasons("sns_upstream_dial_failures_total", "Dials that failed.")?;
    let breakers = breakers(
        registry,
        ("sns_upstream_breakers_open", "Pools that refuse messages but for probes."),
        ("sns_upstream_breaker_events_total", "What the breakers of the pools did."),
    )?;
    Ok(PushService::ALL.map(|service| PoolMetrics {
        connections: connections.with_label_values(&[service.label()]),
        streams_in_use: streams.with_label_values(&[service.label()]),
        waiting: waiting.with_label_values(&[service.label()]),
        opened: opened.with_label_values(&[service.label()]),
        closed: resolve(&closed, service),
        sheds: resolve(&sheds, service),
        replays: resolve(&replays, service),
        goaways: resolve(&goaways, service),
        dial_failures: resolve(&dials, service),
        breakers: Arc::clone(&breakers[service as usize]),
    }))
}

/// Registers a gauge of those that are open and a counter of events, each by name and help.
fn breakers(
    registry: &Registry,
    open: (&str, &str),
    events: (&str, &str),
) -> Result<[Arc<BreakerMetrics>; PushService::ALL.len()], prometheus::Error> {
    let open = gauges(registry, open.0, open.1)?;
    let events = counters(registry, events.0, events.1, &["service", "event"])?;
    Ok(PushService::ALL.map(|service| {
        let open = open.with_label_values(&[service.label()]);
        Arc::new(BreakerMetrics { open, events: resolve(&events, service) })
    }))
}

fn resolve<L: Label>(vec: &IntCounterVec, service: PushService) -> Counters<L> {
    Counters::resolve(|reason: L| vec.with_label_values(&[service.label(), reason.label()]))
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauges(registry: &Registry, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    let vec = IntGaugeVec::new(Opts::new(name, help), &["service"])?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS_S.to_vec());
    let vec = HistogramVec::new(options, labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

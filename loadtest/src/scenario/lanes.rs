//! The senders' ways to the relay: one message out, its answer back, whichever way it goes.
//!
//! In: an errand. Out: for each device `None` where its push service accepted, else the code. The
//! clients are those that exist: `measure::crowd` for HTTP, the contract's generated client for
//! gRPC's calls, and `sns-nas`'s own line for `Stream`. One attempt each: nothing is retried here.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use sns_nas::base64url;
use sns_nas::client::{Line, LineError, RelayClient};
use sns_proto::v1::stream_request::Message;
use sns_proto::v1::{self, relay_client};
use tokio::time::timeout;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::options::Way;
use super::population::{Mailbox, Nas, Population};
use crate::ca::TestCa;
use crate::measure::MeasureError;
use crate::measure::crowd::{Crowd, Protocol};
use crate::measure::letter::{Form, Letter};
use crate::measure::pace::label;

/// What goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// A message for one device, through the application door.
    Push {
        /// Its place in the population.
        nas: usize,
        /// Its place with its NAS.
        device: usize,
    },
    /// A notification for all devices of a NAS.
    Notify {
        /// Its place in the population.
        nas: usize,
        /// Whether it is an alarm.
        is_alarm: bool,
    },
}

/// Open ways for all senders.
pub(super) struct Lanes {
    people: Arc<Population>,
    kind: Kind,
}

enum Kind {
    Http(Box<Crowd>),
    Unary(Vec<relay_client::RelayClient<Calls>>),
    Streams(Vec<Line>),
}

/// A client for gRPC calls.
type Calls = Client<HttpsConnector<HttpConnector>, tonic::body::Body>;

/// What an errand came to, for each of its devices.
pub(super) type Words = Vec<Option<String>>;

/// One request at a time on each: as many as may be in flight.
const HTTP1_CONNECTIONS: usize = 512;
/// Many NAS share one, so that a small machine holds them.
const HTTP2_CONNECTIONS: usize = 16;
/// Half of what the relay allows, since each call stays open.
const CALLS_PER_CONNECTION: usize = 128;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const TTL_S: u32 = 60;

// === impl Lanes ===

impl Lanes {
    /// Opens the ways.
    /// Errors: nobody answers.
    pub(super) async fn open(
        way: Way,
        url: &str,
        ca: &TestCa,
        people: Arc<Population>,
    ) -> Result<Lanes, MeasureError> {
        let kind = match way {
            Way::Http1 => {
                let crowd = Crowd::connect(url, ca, Protocol::Http1, HTTP1_CONNECTIONS).await?;
                Kind::Http(Box::new(crowd))
            }
            Way::Http2 => {
                let crowd = Crowd::connect(url, ca, Protocol::Http2, HTTP2_CONNECTIONS).await?;
                Kind::Http(Box::new(crowd))
            }
            Way::GrpcUnary => {
                let origin: Uri = url.parse().map_err(|_| MeasureError::BadUrl)?;
                let client = || -> Result<_, MeasureError> {
                    Ok(relay_client::RelayClient::with_origin(calls(ca)?, origin.clone()))
                };
                Kind::Unary((0..HTTP2_CONNECTIONS).map(|_| client()).collect::<Result<_, _>>()?)
            }
            Way::GrpcStream => {
                let ca_pem = Some(ca.pem().as_bytes());
                let count = people.nas.len();
                let connections =
                    HTTP2_CONNECTIONS.max(count.div_ceil(CALLS_PER_CONNECTION)).min(count);
                let clients: Result<Vec<_>, _> =
                    (0..connections).map(|_| RelayClient::new(url, ca_pem)).collect();
                let clients = clients?;
                let lines = people.nas.iter().enumerate();
                let lines = lines.map(|(n, nas)| clients[n % clients.len()].line(&nas.key));
                Kind::Streams(lines.collect::<Result<_, _>>()?)
            }
        };
        Ok(Lanes { people, kind })
    }

    /// Gives the devices of an errand, in the order of its words.
    pub(super) fn mailboxes(&self, errand: Errand) -> &[Mailbox] {
        match errand {
            Errand::Push { nas, device } => {
                std::slice::from_ref(&self.people.nas[nas].mailboxes[device])
            }
            Errand::Notify { nas, .. } => &self.people.nas[nas].mailboxes,
        }
    }

    /// Sends and waits for the whole answer, half a minute at most.
    pub(super) async fn send(&self, errand: Errand) -> Words {
        let words = match &self.kind {
            Kind::Http(crowd) => timeout(ANSWER_LIMIT, self.by_http(crowd, errand)).await,
            Kind::Unary(clients) => {
                let (Errand::Push { nas, .. } | Errand::Notify { nas, .. }) = errand;
                let client = clients[nas % clients.len()].clone();
                timeout(ANSWER_LIMIT, self.by_call(client, errand)).await
            }
            Kind::Streams(lines) => {
                let (Errand::Push { nas, .. } | Errand::Notify { nas, .. }) = errand;
                Ok(self.by_stream(&lines[nas], errand).await)
            }
        };
        let count = self.mailboxes(errand).len();
        let words = words.unwrap_or_else(|_| vec![Some("no answer".to_owned())]);
        match &words[..] {
            // What is said of the whole holds for each device.
            [one] => vec![one.clone(); count],
            all if all.len() == count => words,
            _ => vec![Some("not one result for each device".to_owned()); count],
        }
    }

    async fn by_http(&self, crowd: &Crowd, errand: Errand) -> Words {
        let (Errand::Push { nas, .. } | Errand::Notify { nas, .. }) = errand;
        let nas = &self.people.nas[nas];
        let letter = match errand {
            Errand::Push { device, .. } => {
                let Mailbox { path, sealed, .. } = &nas.mailboxes[device];
                let authorization = nas.authorization.clone();
                Letter::new(path.clone(), authorization, Form::Push, sealed.clone())
            }
            Errand::Notify { is_alarm, .. } => {
                let path = PathAndQuery::from_static("/v1/notifications");
                let body = json(nas, is_alarm).into();
                Letter::new(path, nas.authorization.clone(), Form::Json, body)
            }
        };
        match crowd.post(&letter).await {
            Ok(told) if told.status == StatusCode::CREATED => vec![None],
            Ok(told) if told.status == StatusCode::OK => {
                let answer: Value = serde_json::from_slice(&told.body).unwrap_or_default();
                let results = answer.get("results").and_then(Value::as_array);
                results.map_or_else(Vec::new, |results| results.iter().map(word).collect())
            }
            Ok(told) => vec![Some(label(&told))],
            Err(_) => vec![Some("connection broke".to_owned())],
        }
    }

    async fn by_call(&self, mut client: relay_client::RelayClient<Calls>, errand: Errand) -> Words {
        let nas = match errand {
            Errand::Push { nas, .. } | Errand::Notify { nas, .. } => &self.people.nas[nas],
        };
        // What goes into a header comes out of it as ASCII.
        let Ok(token) = nas.authorization.to_str().unwrap_or_default().parse() else {
            return vec![Some("no token".to_owned())];
        };
        let told = match message(nas, errand) {
            Message::Push(push) => {
                let mut request = Request::new(push);
                request.metadata_mut().insert("authorization", token);
                client.push(request).await.map(|told| vec![told.into_inner().result])
            }
            Message::Notify(notify) => {
                let mut request = Request::new(notify);
                request.metadata_mut().insert("authorization", token);
                let told = client.notify(request).await;
                told.map(|told| told.into_inner().results.into_iter().map(Some).collect())
            }
        };
        match told {
            Ok(results) => {
                results.into_iter().map(|result| said(&result.unwrap_or_default())).collect()
            }
            Err(status) => vec![Some(reason(&status))],
        }
    }

    async fn by_stream(&self, line: &Line, errand: Errand) -> Words {
        let nas = match errand {
            Errand::Push { nas, .. } | Errand::Notify { nas, .. } => &self.people.nas[nas],
        };
        match line.send(message(nas, errand)).await {
            Ok(results) => results.iter().map(said).collect(),
            Err(LineError::NotOpened(status) | LineError::Ended(status)) => {
                vec![Some(reason(&status))]
            }
            Err(LineError::TimedOut) => vec![Some("no answer".to_owned())],
            Err(_) => vec![Some("the call ended".to_owned())],
        }
    }
}

/// A client that speaks HTTP/2 alone, on one connection.
fn calls(ca: &TestCa) -> Result<Calls, MeasureError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http2()
        .wrap_connector(tcp);
    let builder = &mut Client::builder(TokioExecutor::new());
    Ok(builder.timer(TokioTimer::new()).http2_only(true).build(connector))
}

fn message(nas: &Nas, errand: Errand) -> Message {
    match errand {
        Errand::Push { device, .. } => {
            let mailbox = &nas.mailboxes[device];
            Message::Push(v1::PushRequest {
                handle: mailbox.handle.clone(),
                ttl_s: TTL_S,
                urgency: v1::Urgency::High.into(),
                topic: String::new(),
                sealed: mailbox.sealed.to_vec(),
            })
        }
        Errand::Notify { is_alarm, .. } => {
            let level = if is_alarm { v1::Level::Error } else { v1::Level::Info };
            let targets = nas.mailboxes.iter().map(|mailbox| v1::Target {
                handle: mailbox.handle.clone(),
                sealed: mailbox.sealed.to_vec(),
            });
            Message::Notify(v1::NotifyRequest {
                id: Uuid::new_v4().to_string(),
                source: v1::Source::Dsm.into(),
                level: level.into(),
                ttl_s: TTL_S,
                targets: targets.collect(),
                ..v1::NotifyRequest::default()
            })
        }
    }
}

/// Writes a notification for the HTTP door, new by its id.
fn json(nas: &Nas, is_alarm: bool) -> String {
    let (id, level) = (Uuid::new_v4(), if is_alarm { "error" } else { "info" });
    let mut json = format!(
        r#"{{"id":"{id}","source":"dsm","level":"{level}","ttl_s":{TTL_S},"sound":true,"targets":["#
    );
    for (number, Mailbox { handle, sealed, .. }) in nas.mailboxes.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let sealed = base64url::encode(sealed);
        // Writing to a String cannot fail.
        let _ = write!(json, r#"{comma}{{"handle":"{handle}","sealed":"{sealed}"}}"#);
    }
    json + "]}"
}

/// Reads one result of the HTTP door.
fn word(result: &Value) -> Option<String> {
    let text = |name| result.get(name).and_then(Value::as_str);
    match text("outcome") {
        Some("accepted") => None,
        outcome => Some(text("reason").or(outcome).unwrap_or("no outcome").to_owned()),
    }
}

fn said(result: &v1::Result) -> Option<String> {
    (result.outcome() != v1::Outcome::Accepted).then(|| result.reason.clone())
}

/// Gives the relay's code where the status carries one, else gRPC's.
fn reason(status: &Status) -> String {
    let info = status.get_error_details().error_info().map(|info| info.reason.clone());
    info.filter(|code| !code.is_empty()).unwrap_or_else(|| format!("{:?}", status.code()))
}

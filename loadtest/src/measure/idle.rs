//! What callers cost that say nothing: one connection each, opened, used once, and then held.
//!
//! In: a plan. Out: how much the relay's memory grows for each. A NAS that has nothing to say is
//! such a caller, by gRPC with one call `Stream` that stays open. The growth is between two moments
//! at which the memory no longer changes; a relay is new for each measurement, so what an allocator
//! keeps from earlier work does not hide it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{ValueEnum, value_parser};
use h2::client::SendRequest;
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::time::sleep;

use super::doors::house::{House, Post};
use super::doors::line::{open_http1, open_http2};
use super::doors::mail::{Form, Mail};
use super::doors::process::Cores;
use super::doors::stream::Stream;
use super::report::{Judged, missed};
use super::{MeasureError, beside};
use crate::stage::APP;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// What the callers speak.
    #[arg(long, value_enum, default_value_t = Kind::GrpcStream)]
    kind: Kind,
    /// Callers, a connection each; of grpc-stream each has a stream.
    #[arg(long, visible_alias = "streams", default_value_t = 5_000)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    callers: u32,
    /// They come over TLS.
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    cores: Cores,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What idle callers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A request, and the connection is kept.
    Http1,
    /// The same.
    Http2,
    /// A call that stays open.
    GrpcStream,
}

/// The figures of one measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    kind: Kind,
    tls: bool,
    callers: u32,
    /// New.
    memory_before_kib: u64,
    /// With every caller there.
    memory_held_kib: u64,
    /// When they have gone.
    memory_after_kib: u64,
    kib_per_caller: f64,
    missed: Vec<String>,
}

/// What keeps a caller's connection open, and ends it when dropped.
type Caller = Box<dyn std::any::Any>;

/// The relay's `server.grpc_streams_per_sender_max`.
const STREAMS_PER_SENDER: usize = 16;
/// What both programs have open besides.
pub(super) const OTHER_FILES: u64 = 200;
const SETTLE_POLL: Duration = Duration::from_millis(500);
const SETTLE_POLLS_MAX: usize = 20;
/// What counts as no change, in KiB.
const SETTLED_KIB: u64 = 64;

// === impl Plan ===

impl Plan {
    /// Carries the plan out on this thread, which it keeps to the senders' core from then on.
    /// Errors: [`MeasureError`], also where the system allows too few files.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        allow_files(u64::from(self.callers) + OTHER_FILES)?;
        self.cores.work(self.measure())
    }

    async fn measure(&self) -> Result<Report, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let house = House::of_relay(&program, self.tls, &[], self.cores).await?;
        let memory_before_kib = settled(&house).await?;
        let files_before = house.process.open_files()?;
        let callers = self.open(&house).await?;
        let memory_held_kib = settled(&house).await?;
        let here = house.process.open_files()?.saturating_sub(files_before);
        drop(callers);
        let memory_after_kib = settled(&house).await?;
        house.process.stop().await?;
        let growth_kib = memory_held_kib.saturating_sub(memory_before_kib);
        Ok(Report {
            kind: self.kind,
            tls: self.tls,
            callers: self.callers,
            memory_before_kib,
            memory_held_kib,
            memory_after_kib,
            #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
            kib_per_caller: growth_kib as f64 / f64::from(self.callers),
            missed: missed(&[(here >= u64::from(self.callers), "every caller is still there")])
                .collect(),
        })
    }

    /// Opens them one after the other.
    async fn open(&self, house: &House) -> Result<Vec<Caller>, MeasureError> {
        let mut callers = Vec::with_capacity(self.callers as usize);
        let mut call = None;
        for number in 0..self.callers as usize {
            let caller: Caller = match self.kind {
                Kind::Http1 => Box::new(ask_http1(house).await?),
                Kind::Http2 => Box::new(ask_http2(house).await?),
                Kind::GrpcStream => {
                    if number % STREAMS_PER_SENDER == 0 {
                        let authorization = house.sender()?.authorization().clone();
                        let post = Post { authorization, parcels: Vec::new() };
                        call = Some(Mail::to_relay(Form::GrpcStream, &house.origin, &post)?);
                    }
                    let call = call.as_ref().map(Mail::call);
                    let call = call.ok_or(MeasureError::Missing("a call"))?;
                    Box::new(Stream::open(open_http2(&house.way).await?, call).await?)
                }
            };
            callers.push(caller);
        }
        Ok(callers)
    }
}

/// Asks the relay for its app and keeps the connection.
async fn ask_http1(house: &House) -> Result<http1::SendRequest<Full<Bytes>>, MeasureError> {
    let mut sender = open_http1(&house.way).await?;
    let host = house.origin.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::new(Full::default());
    *request.uri_mut() = path().parse().map_err(|_| MeasureError::BadUrl)?;
    let host = HeaderValue::from_str(host).map_err(|_| MeasureError::BadUrl)?;
    request.headers_mut().insert(HOST, host);
    let answer = sender.send_request(request).await?;
    let is_good = answer.status().is_success();
    answer.into_body().collect().await?;
    if is_good { Ok(sender) } else { Err(MeasureError::Missing("its app")) }
}

async fn ask_http2(house: &House) -> Result<SendRequest<Bytes>, MeasureError> {
    let mut sender = open_http2(&house.way).await?.ready().await?;
    let mut request = Request::new(());
    let uri = format!("{}{}", house.origin.to_string().trim_end_matches('/'), path());
    *request.uri_mut() = uri.parse::<Uri>().map_err(|_| MeasureError::BadUrl)?;
    let (answer, _) = sender.send_request(request, true)?;
    let (head, mut body) = answer.await?.into_parts();
    while let Some(chunk) = body.data().await {
        body.flow_control().release_capacity(chunk?.len())?;
    }
    if head.status.is_success() { Ok(sender) } else { Err(MeasureError::Missing("its app")) }
}

fn path() -> String {
    format!("/v1/apps/{APP}")
}

/// Waits until the memory no longer changes, and gives it in KiB.
/// Errors: the program has ended.
pub(super) async fn settled(house: &House) -> Result<u64, MeasureError> {
    let mut memory_kib = house.process.memory_kib()?;
    for _ in 0..SETTLE_POLLS_MAX {
        sleep(SETTLE_POLL).await;
        let now_kib = house.process.memory_kib()?;
        if now_kib.abs_diff(memory_kib) <= SETTLED_KIB {
            return Ok(now_kib);
        }
        memory_kib = now_kib;
    }
    Ok(memory_kib)
}

/// Raises the limit of open files, also for the programs that this one starts.
/// Errors: the system allows fewer.
pub(crate) fn allow_files(files: u64) -> Result<(), MeasureError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if maximum.is_some_and(|maximum| maximum < files) {
        return Err(MeasureError::Missing("room: the limit of open files is lower than callers"));
    }
    if current.is_some_and(|current| current < files) {
        let raised = Rlimit { current: maximum.or(Some(files)), maximum };
        setrlimit(Resource::Nofile, raised).map_err(io::Error::from)?;
    }
    Ok(())
}

// === impl Report ===

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let kind = self.kind.to_possible_value();
        writeln!(
            out,
            "{} idle callers, {}{}: {} KiB before, {} KiB with them, {} KiB after",
            self.callers,
            kind.as_ref().map_or("", |kind| kind.get_name()),
            if self.tls { " over TLS" } else { "" },
            self.memory_before_kib,
            self.memory_held_kib,
            self.memory_after_kib
        )?;
        writeln!(out, "{:.1} KiB for each", self.kib_per_caller)
    }
}

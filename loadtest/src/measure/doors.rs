//! Every way into the relay, side by side: what a message costs by HTTP/1.1, HTTP/2, HTTP/2 over
//! TLS, gRPC `Push` and gRPC `Stream`, and what the same way costs a bare forwarder.
//!
//! In: a plan. Out: a report. The relay, or a yardstick, has a core of its own; the senders and
//! the simulated push services have another. A closed loop: so many messages are in flight at any
//! time. All entries take their turns within each round, so that whatever else the machine does
//! meets them all, and only ratios within a round are compared.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ValueEnum, value_parser};
use serde::Serialize;

use super::calm::Calm;
use super::{MeasureError, beside};
use crate::device::DeviceKind;
use house::{House, Post};
use mail::{Form, Mail};
use process::Cores;
use report::Report;
use turn::{Load, Seat, Turn};

pub(super) mod house;

pub(super) mod line;

pub(super) mod mail;

pub(super) mod process;

pub mod report;

pub(super) mod stream;

pub(super) mod site;

pub(super) mod turn;

pub(super) mod yardstick;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// Who takes turns; all that can, unless told otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    entries: Vec<Entry>,
    /// The program nginx; that of the system unless told otherwise. Without one it has no turns.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// The one that the others are compared with.
    #[arg(long, value_enum, default_value_t = Entry::Http1)]
    base: Entry,
    /// Where the messages go: apns, fcm or webpush; those of the yardsticks go to apns.
    #[arg(long, value_parser = kind_named, default_value = "apns")]
    service: DeviceKind,
    #[command(flatten)]
    cores: Cores,
    /// Devices, paired beforehand; each message goes to the next one.
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Bytes of a message before it is sealed and padded: 800 become 1024.
    #[arg(long, default_value_t = 800)]
    message_bytes: usize,
    /// Messages of one turn.
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=10_000_000))]
    messages: u32,
    /// Messages in flight.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Milliseconds that the push service takes for each message.
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=60_000))]
    latency_ms: u32,
    /// Messages in flight of grpc-stream-full: the relay's server.grpc_stream_messages_max.
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=10_000))]
    stream_in_flight: u32,
    /// Connections of HTTP/2 and of gRPC Push; a stream has one, HTTP/1.1 one for each in flight.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Rounds, after one that is not counted.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    #[command(flatten)]
    calm: Calm,
    /// JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// A way in: to the relay, or to a yardstick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// A connection for each message in flight.
    Http1,
    /// In clear text, both sides knowing beforehand.
    Http2,
    /// Over TLS.
    Http2Tls,
    /// The call Push for each message.
    GrpcUnary,
    /// One call Stream.
    GrpcStream,
    /// The same, with as much in flight as the relay allows.
    GrpcStreamFull,
    /// The NAS door by HTTP/1.1, each notification to 20 devices; figures are for each device.
    NasFanout,
    /// The forwarder, by HTTP/1.1.
    FloorHttp1,
    /// The forwarder, by HTTP/2 in clear text.
    FloorHttp2,
    /// The forwarder, by HTTP/2 over TLS.
    FloorHttp2Tls,
    /// nginx, by HTTP/1.1.
    NginxHttp1,
    /// nginx, by HTTP/2 in clear text.
    NginxHttp2,
}

/// What an entry leads into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Relay,
    Floor,
    Nginx,
}

/// An entry where it is measured.
struct Place {
    entry: Entry,
    seat: Seat,
}

/// A relay that is open, with the mail of a sender.
type Open = (Arc<House>, Post);

/// Devices of one notification of `nas-fanout`.
const FAN: usize = 20;

// === impl Plan ===

impl Plan {
    /// Carries the plan out on this thread, which it keeps to the senders' core from then on.
    /// Errors: [`MeasureError`]; messages that fail are figures of the report.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        self.cores.work(self.measure())
    }

    async fn measure(&self) -> Result<Report, MeasureError> {
        let places = self.places().await?;
        let mut rounds = Vec::new();
        for round in 0..=self.rounds as usize {
            let mut turns: Vec<Option<Turn>> = places.iter().map(|_| None).collect();
            for turn in 0..places.len() {
                // Nobody always follows the same one.
                let number = (turn + round) % places.len();
                let Place { entry, seat } = &places[number];
                let load = self.load(*entry);
                turns[number] = Some(seat.calm_turn(load, self.calm).await?);
            }
            rounds.push(turns.into_iter().flatten().collect());
        }
        // The first one warmed them up.
        rounds.remove(0);
        let entries = places.iter().map(|place| place.entry).collect();
        for place in places {
            place.seat.leave().await?;
        }
        Ok(Report::new(self, entries, rounds))
    }

    fn entries(&self, nginx: Option<&PathBuf>) -> Vec<Entry> {
        if !self.entries.is_empty() {
            return self.entries.clone();
        }
        let all = Entry::value_variants().iter().copied();
        all.filter(|entry| entry.program() != Program::Nginx || nginx.is_some()).collect()
    }

    /// Starts what the entries need: relays serve several of them, yardsticks one each.
    async fn places(&self) -> Result<Vec<Place>, MeasureError> {
        let relay = self.relay.clone().map_or_else(beside, Ok)?;
        let own = std::env::current_exe()?;
        let mut relays: [Option<Open>; 2] = [None, None];
        let mut places = Vec::new();
        let nginx = yardstick::nginx(self.nginx.as_ref());
        for entry in self.entries(nginx.as_ref()) {
            let (form, is_tls) = (entry.form(), entry.is_tls());
            let yardstick = match (entry.program(), &nginx) {
                (Program::Relay, _) => None,
                (Program::Floor, _) => Some(House::of_floor(&own, is_tls, self.cores).await?),
                (Program::Nginx, Some(nginx)) => {
                    Some(House::of_nginx(nginx, form == Form::Http2, self.cores).await?)
                }
                (Program::Nginx, None) => return Err(MeasureError::Missing("--nginx")),
            };
            if let Some(house) = yardstick {
                let bytes = sealed_bytes(self.message_bytes)?;
                let mail = Arc::new(Mail::to_yardstick(form, &house.origin, bytes)?);
                // Yardsticks forward to APNs alone.
                let kind = DeviceKind::Ios;
                let seat = Seat { house: Arc::new(house), mail, form, kind };
                places.push(Place { entry, seat });
                continue;
            }
            let open = &mut relays[usize::from(is_tls)];
            let (house, post) = match open {
                Some(open) => open,
                None => open.insert(self.open_relay(&relay, is_tls).await?),
            };
            let mail = Arc::new(if entry == Entry::NasFanout {
                let fan = FAN.min(self.devices as usize);
                Mail::to_nas_door(form, &house.origin, std::slice::from_ref(post), fan)?
            } else {
                Mail::to_relay(form, &house.origin, post)?
            });
            let seat = Seat { house: Arc::clone(house), mail, form, kind: self.service };
            places.push(Place { entry, seat });
        }
        Ok(places)
    }

    async fn open_relay(
        &self,
        program: &std::path::Path,
        is_tls: bool,
    ) -> Result<Open, MeasureError> {
        let in_flight = i64::from(self.stream_in_flight.max(self.in_flight));
        let room = [
            ("server.grpc_stream_messages_max", in_flight),
            ("server.streams_per_connection_max", in_flight.max(256)),
        ];
        let house = House::of_relay(program, is_tls, &room, self.cores).await?;
        let message = vec![b'm'; self.message_bytes];
        let post = house.post(self.service, self.devices as usize, &message).await?;
        Ok((Arc::new(house), post))
    }

    fn load(&self, entry: Entry) -> Load {
        let in_flight = match entry {
            Entry::GrpcStreamFull => self.stream_in_flight,
            _ => self.in_flight,
        };
        Load {
            first: 0,
            messages: self.messages as usize,
            in_flight: in_flight as usize,
            connections: self.connections as usize,
            latency: Duration::from_millis(u64::from(self.latency_ms)),
        }
    }
}

/// Gives the length of a message once it is sealed.
/// Errors: it is too long.
pub(super) fn sealed_bytes(message_bytes: usize) -> Result<usize, MeasureError> {
    let device = crate::device::Device::new_ios()?;
    let message = vec![b'm'; message_bytes];
    let cap = sns_nas::seal::BodyCap::default();
    Ok(sns_nas::seal::seal(&device.keys().device(), &message, cap)?.len())
}

fn kind_named(name: &str) -> Result<DeviceKind, String> {
    match name {
        "apns" => Ok(DeviceKind::Ios),
        "fcm" => Ok(DeviceKind::Android),
        "webpush" => Ok(DeviceKind::Browser),
        _ => Err("apns, fcm or webpush".to_owned()),
    }
}

// === impl Entry ===

impl Entry {
    fn form(self) -> Form {
        match self {
            Entry::Http1 | Entry::NasFanout | Entry::FloorHttp1 | Entry::NginxHttp1 => Form::Http1,
            Entry::Http2
            | Entry::Http2Tls
            | Entry::FloorHttp2
            | Entry::FloorHttp2Tls
            | Entry::NginxHttp2 => Form::Http2,
            Entry::GrpcUnary => Form::GrpcUnary,
            Entry::GrpcStream | Entry::GrpcStreamFull => Form::GrpcStream,
        }
    }

    fn is_tls(self) -> bool {
        matches!(self, Entry::Http2Tls | Entry::FloorHttp2Tls)
    }

    fn program(self) -> Program {
        match self {
            Entry::Http1
            | Entry::Http2
            | Entry::Http2Tls
            | Entry::GrpcUnary
            | Entry::GrpcStream
            | Entry::GrpcStreamFull
            | Entry::NasFanout => Program::Relay,
            Entry::FloorHttp1 | Entry::FloorHttp2 | Entry::FloorHttp2Tls => Program::Floor,
            Entry::NginxHttp1 | Entry::NginxHttp2 => Program::Nginx,
        }
    }

    /// Gives the forwarder that is asked in the same way, as far as it goes: gRPC is HTTP/2.
    fn floor(self) -> Entry {
        match self {
            Entry::Http1 | Entry::NasFanout | Entry::FloorHttp1 | Entry::NginxHttp1 => {
                Entry::FloorHttp1
            }
            Entry::Http2Tls | Entry::FloorHttp2Tls => Entry::FloorHttp2Tls,
            Entry::Http2
            | Entry::GrpcUnary
            | Entry::GrpcStream
            | Entry::GrpcStreamFull
            | Entry::FloorHttp2
            | Entry::NginxHttp2 => Entry::FloorHttp2,
        }
    }

    fn label(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

//! The options of a scenario: what was written, what goes without saying, and what cannot be.
//!
//! In: the command line. Out: settings in which nothing is left open. Every fault names its option.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ValueEnum, value_parser};
use serde::Serialize;

use crate::device::DeviceKind;
use crate::measure::MeasureError;

/// What to play.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// What happens.
    #[arg(value_enum)]
    pub(super) scenario: Name,
    /// How the senders speak to the relay.
    #[arg(long, value_enum, default_value_t = Way::Http2)]
    pub(super) way: Way,
    /// They speak it over TLS.
    #[arg(long)]
    pub(super) tls: bool,
    /// When messages leave: evenly, at random, or as soon as one of --in-flight has ended.
    #[arg(long, value_enum)]
    pub(super) arrivals: Option<Arrivals>,
    /// Messages (fanout: notifications) in a second; of ramp, those of its first step.
    #[arg(long, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(super) rate_per_s: Option<u32>,
    /// Seconds; of ramp, at most so many.
    #[arg(long, value_parser = value_parser!(u32).range(1..=3_600))]
    pub(super) seconds: Option<u32>,
    /// NAS, each with a key of its own, enrolled.
    #[arg(long, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(super) nas: Option<u32>,
    /// Devices paired with each NAS.
    #[arg(long, value_parser = value_parser!(u32).range(1..=64))]
    pub(super) devices_per_nas: Option<u32>,
    /// Shares of the push services among the devices.
    #[arg(long, default_value = "apns=50,fcm=30,webpush=20", value_parser = Mix::parse)]
    pub(super) mix: Mix,
    /// Messages in flight, with --arrivals closed.
    #[arg(long, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(super) in_flight: Option<u32>,
    /// idle: quiet connections.
    #[arg(long, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(super) connections: Option<u32>,
    /// slow-apple: milliseconds that APNs takes in the middle third.
    #[arg(long, value_parser = value_parser!(u32).range(1..=15_000))]
    pub(super) apple_latency_ms: Option<u32>,
    /// goaway: requests on a connection to APNs, after which it goes away.
    #[arg(long, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(super) goaway_every: Option<u32>,
    /// ramp: the 99th percentile, in milliseconds, above which the knee is behind.
    #[arg(long, value_parser = value_parser!(u32).range(1..=30_000))]
    pub(super) p99_ms_max: Option<u32>,
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long, conflicts_with = "running")]
    pub(super) relay: Option<PathBuf>,
    /// A relay that runs already, in this folder of `sns-loadtest house`.
    #[arg(long)]
    pub(super) running: Option<PathBuf>,
    /// Its process, on this machine: without it there are no figures of CPU and memory.
    #[arg(long, requires = "running")]
    pub(super) pid: Option<u32>,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// An HTML file to write, with plots.
    #[arg(long)]
    pub(super) report: Option<PathBuf>,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// Messages at one rate.
    Steady,
    /// A power cut: every NAS of a region raises five alarms to all its devices within a minute.
    Storm,
    /// A DSM update: one event on every NAS of the fleet, ever more of them in a second.
    Fleet,
    /// Notifications to 20 devices each.
    Fanout,
    /// Steady, and APNs takes two seconds in the middle third.
    SlowApple,
    /// Steady, and APNs ends its connections again and again.
    Goaway,
    /// Steady, beside thousands of quiet connections.
    Idle,
    /// Ever higher rates, until answers are late or refused: the knee.
    Ramp,
}

/// How the senders speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A request at a time on a connection.
    Http1,
    /// Many at once.
    Http2,
    /// The calls Push and Notify.
    GrpcUnary,
    /// One call Stream for each NAS.
    GrpcStream,
}

/// When messages leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// Evenly spread.
    Constant,
    /// At random, independent of each other.
    Poisson,
    /// So many in flight at any time.
    Closed,
}

/// Shares of APNs, FCM and Web Push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix([u32; 3]);

/// A plan in which nothing is left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Settings {
    pub(super) scenario: Name,
    pub(super) way: Way,
    pub(super) tls: bool,
    pub(super) arrivals: Arrivals,
    /// Not for scenarios whose number of messages follows from their population.
    pub(super) rate_per_s: Option<u32>,
    pub(super) seconds: u32,
    pub(super) nas: u32,
    pub(super) devices_per_nas: u32,
    pub(super) mix: Mix,
    pub(super) in_flight: Option<u32>,
    pub(super) connections: Option<u32>,
    pub(super) apple_latency_ms: Option<u32>,
    pub(super) goaway_every: Option<u32>,
    pub(super) p99_ms_max: Option<u32>,
}

/// What a scenario takes for granted.
struct Defaults {
    rate_per_s: Option<u32>,
    seconds: u32,
    nas: u32,
    devices_per_nas: u32,
    arrivals: Arrivals,
}

/// Devices that a load may have, and messages: both are held in memory.
const DEVICES_MAX: u32 = 200_000;
const MESSAGES_MAX: u64 = 20_000_000;

// === impl Plan ===

impl Plan {
    /// Fills in what was left open.
    /// Errors: `BadOption`.
    pub(super) fn settings(&self) -> Result<Settings, MeasureError> {
        let own = self.scenario.defaults();
        let arrivals = self.arrivals.unwrap_or(own.arrivals);
        let is_closed = arrivals == Arrivals::Closed;
        let only = |name: Name| self.scenario == name;
        belongs("--connections", self.connections, only(Name::Idle), "idle")?;
        belongs("--apple-latency-ms", self.apple_latency_ms, only(Name::SlowApple), "slow-apple")?;
        belongs("--goaway-every", self.goaway_every, only(Name::Goaway), "goaway")?;
        belongs("--p99-ms-max", self.p99_ms_max, only(Name::Ramp), "ramp")?;
        belongs("--in-flight", self.in_flight, is_closed, "--arrivals closed")?;
        let rate_per_s = match (self.rate_per_s, own.rate_per_s, is_closed) {
            (Some(_), None, _) => {
                return bad("--rate-per-s", "follows from --nas and --seconds in this scenario");
            }
            (Some(_), _, true) => return bad("--rate-per-s", "does not go with a closed loop"),
            (_, _, true) => None,
            (rate, own, false) => rate.or(own),
        };
        if is_closed && only(Name::Ramp) {
            return bad("--arrivals", "ramp raises a rate, and a closed loop has none");
        }
        let settings = Settings {
            scenario: self.scenario,
            way: self.way,
            tls: self.tls,
            arrivals,
            rate_per_s,
            seconds: self.seconds.unwrap_or(own.seconds),
            nas: self.nas.unwrap_or(own.nas),
            devices_per_nas: self.devices_per_nas.unwrap_or(own.devices_per_nas),
            mix: self.mix,
            in_flight: is_closed.then(|| self.in_flight.unwrap_or(64)),
            connections: only(Name::Idle).then(|| self.connections.unwrap_or(10_000)),
            apple_latency_ms: only(Name::SlowApple).then(|| self.apple_latency_ms.unwrap_or(2_000)),
            goaway_every: only(Name::Goaway).then(|| self.goaway_every.unwrap_or(100)),
            p99_ms_max: only(Name::Ramp).then(|| self.p99_ms_max.unwrap_or(100)),
        };
        settings.check()?;
        Ok(settings)
    }
}

fn bad<T>(option: &'static str, why: &str) -> Result<T, MeasureError> {
    Err(MeasureError::BadOption { option, why: why.to_owned() })
}

fn belongs(
    option: &'static str,
    given: Option<u32>,
    is_its_place: bool,
    place: &str,
) -> Result<(), MeasureError> {
    match given {
        Some(_) if !is_its_place => bad(option, &format!("goes with {place} alone")),
        _ => Ok(()),
    }
}

// === impl Name ===

impl Name {
    /// Each finishes in about a minute on two cores.
    fn defaults(self) -> Defaults {
        use Arrivals::{Constant, Poisson};
        let of = |rate_per_s, seconds, nas, devices_per_nas, arrivals| Defaults {
            rate_per_s,
            seconds,
            nas,
            devices_per_nas,
            arrivals,
        };
        match self {
            Name::Steady => of(Some(500), 30, 50, 4, Poisson),
            Name::Storm => of(None, 60, 500, 4, Poisson),
            Name::Fleet => of(None, 30, 2_000, 2, Constant),
            Name::Fanout => of(Some(20), 20, 20, 20, Constant),
            Name::SlowApple | Name::Goaway => of(Some(300), 30, 50, 4, Poisson),
            Name::Idle => of(Some(100), 20, 50, 4, Poisson),
            Name::Ramp => of(Some(500), 60, 50, 4, Poisson),
        }
    }

    /// Whether notifications go through the NAS door, to all devices of a NAS at once.
    pub(super) fn notifies(self) -> bool {
        matches!(self, Name::Storm | Name::Fleet | Name::Fanout)
    }

    pub(super) fn label(self) -> String {
        label(&self)
    }
}

impl Way {
    pub(super) fn label(self) -> String {
        label(&self)
    }
}

impl Arrivals {
    pub(super) fn label(self) -> String {
        label(&self)
    }
}

fn label(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

// === impl Settings ===

impl Settings {
    fn check(&self) -> Result<(), MeasureError> {
        if self.nas.saturating_mul(self.devices_per_nas) > DEVICES_MAX {
            return bad("--nas", &format!("with --devices-per-nas at most {DEVICES_MAX} devices"));
        }
        let messages = u64::from(self.rate_per_s.unwrap_or(0)) * u64::from(self.seconds);
        if messages > MESSAGES_MAX {
            return bad("--rate-per-s", &format!("with --seconds at most {MESSAGES_MAX} messages"));
        }
        if self.scenario == Name::SlowApple && self.seconds < 3 {
            return bad("--seconds", "slow-apple has three thirds, of a second at least");
        }
        Ok(())
    }

    pub(super) fn time(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }
}

// === impl Mix ===

impl Mix {
    /// Reads `apns=50,fcm=30,webpush=20`; what is not named has no share.
    pub(super) fn parse(text: &str) -> Result<Mix, String> {
        let mut shares = [0; 3];
        for part in text.split(',') {
            let (name, share) = part
                .split_once('=')
                .ok_or_else(|| format!("\"{part}\" is not of the form apns=50"))?;
            let place = ["apns", "fcm", "webpush"].iter().position(|known| *known == name);
            let place =
                place.ok_or_else(|| format!("\"{name}\" is none of apns, fcm and webpush"))?;
            let share: u32 =
                share.parse().ok().filter(|share| *share <= 1_000).ok_or_else(|| {
                    format!("\"{share}\" is no share: a whole number from 0 to 1000")
                })?;
            shares[place] = share;
        }
        if shares == [0; 3] {
            return Err("at least one push service has a share above 0".to_owned());
        }
        Ok(Mix(shares))
    }

    /// Gives the kinds of so many devices, each stretch of them as mixed as the whole.
    pub(super) fn kinds(self, devices: usize) -> Vec<DeviceKind> {
        let whole: i64 = self.0.iter().map(|share| i64::from(*share)).sum();
        let mut credit = [0_i64; 3];
        let mut kinds = Vec::with_capacity(devices);
        for _ in 0..devices {
            for (credit, share) in credit.iter_mut().zip(self.0) {
                *credit += i64::from(share);
            }
            let mut richest = 0;
            for place in 1..credit.len() {
                if credit[place] > credit[richest] {
                    richest = place;
                }
            }
            credit[richest] -= whole;
            kinds.push(DeviceKind::ALL[richest]);
        }
        kinds
    }

    pub(super) fn label(self) -> String {
        let [apns, fcm, webpush] = self.0;
        format!("apns={apns},fcm={fcm},webpush={webpush}")
    }
}

impl Serialize for Mix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        plan: Plan,
    }

    /// Reads a command line and gives the settings, or the fault as it is shown.
    fn read(line: &str) -> Result<Settings, String> {
        let words = std::iter::once("scenario").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.plan.settings().map_err(|error| error.to_string())
    }

    #[test]
    fn every_scenario_has_defaults_of_its_own() {
        for name in Name::value_variants() {
            let settings = read(&name.label()).unwrap();
            assert_eq!(settings.scenario, *name);
            assert!(settings.seconds <= 60, "{name:?}");
            assert_eq!(settings.connections.is_some(), *name == Name::Idle);
        }
    }

    /// A table of what cannot be, each with the option that its error must name.
    #[test]
    fn a_bad_value_is_refused_by_the_name_of_its_option() {
        let rows = [
            ("steady --rate-per-s 0", "--rate-per-s"),
            ("steady --seconds 0", "--seconds"),
            ("steady --nas none", "--nas"),
            ("steady --devices-per-nas 65", "--devices-per-nas"),
            ("steady --nas 100000 --devices-per-nas 64", "--nas"),
            ("steady --mix apns", "--mix"),
            ("steady --mix apns=1,sms=1", "--mix"),
            ("steady --mix apns=0,fcm=0", "--mix"),
            ("steady --mix apns=-1", "--mix"),
            ("steady --way smoke", "--way"),
            ("steady --arrivals later", "--arrivals"),
            ("steady --in-flight 5", "--in-flight"),
            ("steady --arrivals closed --rate-per-s 5", "--rate-per-s"),
            ("storm --rate-per-s 5", "--rate-per-s"),
            ("ramp --arrivals closed", "--arrivals"),
            ("slow-apple --seconds 2", "--seconds"),
            ("steady --connections 5", "--connections"),
            ("steady --goaway-every 5", "--goaway-every"),
            ("steady --apple-latency-ms 5", "--apple-latency-ms"),
            ("steady --p99-ms-max 5", "--p99-ms-max"),
            ("steady --pid 5", "--running"),
            ("steady --rate-per-s 1000000 --seconds 3600", "--rate-per-s"),
            ("power-cut", "SCENARIO"),
        ];
        for (line, option) in rows {
            let fault = read(line).expect_err(line);
            assert!(fault.contains(option), "{line}: {fault}");
        }
    }

    #[test]
    fn devices_are_mixed_by_their_shares_in_every_stretch() {
        let kinds = Mix::parse("apns=50,fcm=30,webpush=20").unwrap().kinds(1_000);
        for stretch in kinds.chunks(10) {
            let count = |kind| stretch.iter().filter(|own| **own == kind).count();
            assert_eq!(DeviceKind::ALL.map(count), [5, 3, 2]);
        }
        let one = Mix::parse("fcm=1").unwrap().kinds(3);
        assert_eq!(one, [DeviceKind::Android; 3]);
    }
}

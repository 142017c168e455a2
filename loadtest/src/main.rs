//! `sns-loadtest`: drives the real relay against simulated push services and says what it costs.
//!
//! Exit codes: 0 when every message was accepted (`push`) or every bound held (all others), 1
//! otherwise, 64 for bad usage.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum, value_parser};
use sns_loadtest::device::DeviceKind;
use sns_loadtest::fault::Fault;
use sns_loadtest::measure::crowd::Protocol;
use sns_loadtest::measure::pace::Pace;
use sns_loadtest::measure::push::Plan;
use sns_loadtest::measure::report::Judged;
use sns_loadtest::measure::{
    MeasureError, added, away, bench, beside, cold, doors, faults, floor, held, idle, instructions,
    kill, outage, overload, scale, soak, start, workers,
};
use sns_loadtest::scenario;

/// Measures the relay on this machine, with the push services simulated on loopback.
#[derive(Parser)]
#[command(name = "sns-loadtest", version)]
enum Command {
    /// Messages through the application door, open loop.
    Push(PushArgs),
    /// A load that people know (a power cut, an update, …), live, with a report to look at.
    Scenario(scenario::Plan),
    /// Prepares a folder for a relay that is started by hand, for `scenario --running`.
    House(scenario::house::Plan),
    /// Every way in, side by side, a closed loop with the relay on a core of its own.
    Doors(doors::Plan),
    /// What callers cost that are connected and say nothing.
    Idle(idle::Plan),
    /// All figures of docs/performance.md, one part after the other.
    Bench(bench::Plan),
    /// What messages cost that are in flight.
    Held(held::Plan),
    /// The time that the relay adds to that of no relay, open loop.
    Added(added::Plan),
    /// How long a relay with many identities needs until it is ready.
    Start(start::Plan),
    /// A relay's first messages, many at once, to each push service.
    Cold(cold::Plan),
    /// What a message costs where there are many handles, or many NAS.
    Scale(scale::Plan),
    /// What a message costs with a second worker thread.
    Workers(workers::Plan),
    /// The relay's own instructions for each message, counted by valgrind.
    Instructions(instructions::Plan),
    /// The bare forwarder that the ways in are compared with.
    #[command(hide = true)]
    Floor(floor::Plan),
    /// What each fault at one push service costs its own messages and those to the others.
    Faults(FaultsArgs),
    /// Many times the capacity for a while, and then as before.
    Overload(overload::Plan),
    /// A push service that is away for a while under load, and comes back.
    Outage(outage::Plan),
    /// A load for a long time, with faults at random.
    Soak(soak::Plan),
    /// The NAS's daemon or the relay, killed again and again while notifications go out.
    Kill(kill::Plan),
    /// A relay that is away for a while, and what its NAS does meanwhile and afterwards.
    Away(away::Plan),
}

#[derive(clap::Args)]
struct PushArgs {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// No relay: the same messages straight to the simulated Web Push service.
    #[arg(long, conflicts_with_all = ["relay", "service"])]
    direct: bool,
    /// Where the messages go.
    #[arg(long, value_enum, default_value_t = Service::Apns)]
    service: Service,
    /// Messages in a second.
    #[arg(long, default_value_t = 200, value_parser = value_parser!(u32).range(1..=1_000_000))]
    rate_per_s: u32,
    /// Seconds of one run.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Seconds of the same load beforehand, not counted.
    #[arg(long, default_value_t = 2)]
    warmup_s: u32,
    /// Runs, one after the other.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Connections of the senders.
    #[arg(long, default_value_t = 16, value_parser = value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// The senders speak HTTP/2 instead of HTTP/1.1.
    #[arg(long)]
    http2: bool,
    /// Devices, paired beforehand.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=100_000))]
    devices: u32,
    /// Bytes of a message before it is sealed and padded.
    #[arg(long, default_value_t = 800)]
    message_bytes: usize,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct FaultsArgs {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// One fault alone, such as Stall or GoAwayStorm; all of them unless told otherwise.
    #[arg(long, value_parser = faults::named)]
    only: Option<Fault>,
    /// Messages in a second to each push service.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
    rate_per_s: u32,
    /// Seconds of one window.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rounds of each fault; in every second one the messages are processed first.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// A document to put the table into as well, such as docs/reliability.md.
    #[arg(long)]
    write: Option<PathBuf>,
}

/// The push services.
#[derive(Clone, Copy, ValueEnum)]
enum Service {
    Apns,
    Fcm,
    Webpush,
}

const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    let done = match &command {
        Command::Push(args) => push(args),
        Command::Scenario(plan) => judge(plan.json, plan.carry_out()),
        Command::House(plan) => run(plan.carry_out()),
        Command::Doors(plan) => plan.carry_out().and_then(|report| tell(plan.json, &report)),
        Command::Idle(plan) => plan.carry_out().and_then(|report| tell(plan.json, &report)),
        Command::Bench(plan) => plan.carry_out().and_then(|report| tell(false, &report)),
        Command::Held(plan) => plan.carry_out().and_then(|report| tell(plan.json, &report)),
        Command::Added(plan) => plan.carry_out().and_then(|report| tell(plan.json, &report)),
        Command::Start(plan) => plan.carry_out().and_then(|report| tell(plan.json, &report)),
        Command::Cold(plan) => plan.carry_out().and_then(|report| tell(plan.json, &report)),
        Command::Scale(plan) => plan.carry_out().and_then(|report| tell(plan.json, &report)),
        Command::Workers(plan) => plan.carry_out().and_then(|report| tell(plan.json, &report)),
        Command::Instructions(plan) => plan.carry_out().and_then(|report| tell(plan.json, &report)),
        Command::Floor(plan) => run(plan.carry_out()),
        Command::Faults(args) => measure_faults(args),
        Command::Overload(plan) => judge(plan.json, plan.carry_out()),
        Command::Outage(plan) => judge(plan.json, plan.carry_out()),
        Command::Soak(plan) => judge(plan.json, plan.carry_out()),
        Command::Kill(plan) => judge(plan.json, plan.carry_out()),
        Command::Away(plan) => judge(plan.json, plan.carry_out()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error @ MeasureError::BadOption { .. }) => {
            report(&error).map_or(ExitCode::FAILURE, |()| ExitCode::from(EXIT_USAGE))
        }
        Err(error) => report(&error).map_or(ExitCode::FAILURE, |()| ExitCode::FAILURE),
    }
}

fn push(args: &PushArgs) -> Result<bool, MeasureError> {
    let beside = beside()?;
    let relay = (!args.direct).then(|| args.relay.clone().unwrap_or(beside));
    let plan = Plan {
        relay,
        kind: match args.service {
            Service::Apns => DeviceKind::Ios,
            Service::Fcm => DeviceKind::Android,
            Service::Webpush => DeviceKind::Browser,
        },
        protocol: if args.http2 { Protocol::Http2 } else { Protocol::Http1 },
        connections: args.connections as usize,
        devices: args.devices as usize,
        message_bytes: args.message_bytes,
        pace: Pace { rate_per_s: args.rate_per_s, seconds: args.seconds },
        warmup_s: args.warmup_s,
        runs: args.runs,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(plan.carry_out())?;
    let mut out = io::stdout();
    if args.json { report.write_json(&mut out) } else { report.write_table(&mut out) }?;
    Ok(report.all_accepted())
}

fn measure_faults(args: &FaultsArgs) -> Result<bool, MeasureError> {
    let faults = match args.only {
        Some(fault) => vec![fault],
        None => Fault::ALL.into_iter().filter(|fault| fault.can_begin()).collect(),
    };
    let plan = faults::Plan {
        relay: args.relay.clone().map_or_else(beside, Ok)?,
        faults,
        pace: Pace { rate_per_s: args.rate_per_s, seconds: args.seconds },
        rounds: args.rounds,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(plan.carry_out())?;
    let mut out = io::stdout();
    if args.json { report.write_json(&mut out) } else { report.write_table(&mut out) }?;
    if let Some(file) = &args.write {
        report.write_into(file)?;
    }
    Ok(report.holds())
}

fn run(work: impl Future<Output = Result<(), MeasureError>>) -> Result<bool, MeasureError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work).map(|()| true)
}

fn tell(json: bool, report: &impl Judged) -> Result<bool, MeasureError> {
    Ok(report.write(json, &mut io::stdout())?)
}

fn judge(
    json: bool,
    measurement: impl Future<Output = Result<impl Judged, MeasureError>>,
) -> Result<bool, MeasureError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    tell(json, &runtime.block_on(measurement)?)
}

fn report(error: &MeasureError) -> io::Result<()> {
    let mut err = io::stderr();
    write!(err, "error: {error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(err, ": {error}")?;
        cause = error.source();
    }
    writeln!(err)
}

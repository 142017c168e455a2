//! `sns-loadtest`: drives the real relay against simulated push services and says what it costs.
//!
//! Exit codes: 0 when every message was accepted, 1 otherwise, 64 for bad usage.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum, value_parser};
use sns_loadtest::device::DeviceKind;
use sns_loadtest::measure::MeasureError;
use sns_loadtest::measure::crowd::Protocol;
use sns_loadtest::measure::pace::Pace;
use sns_loadtest::measure::push::Plan;

/// Measures the relay on this machine, with the push services simulated on loopback.
#[derive(Parser)]
#[command(name = "sns-loadtest", version)]
enum Command {
    /// Messages through the application door, open loop.
    Push(PushArgs),
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

/// The push services.
#[derive(Clone, Copy, ValueEnum)]
enum Service {
    Apns,
    Fcm,
    Webpush,
}

const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let Command::Push(args) = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    match push(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => report(&error).map_or(ExitCode::FAILURE, |()| ExitCode::FAILURE),
    }
}

fn push(args: &PushArgs) -> Result<bool, MeasureError> {
    let beside = std::env::current_exe()?.with_file_name("sns-relay");
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

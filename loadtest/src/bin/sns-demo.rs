//! `sns-demo`: one NAS, three devices and the real relay, shown from all sides.
//!
//! Exit codes: 0 when every device read its text and every check held, 1 otherwise, 64 for bad
//! usage.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use sns_loadtest::demo::{self, DemoError};

/// Plays one NAS and three devices against the real relay, and shows what each of them saw.
#[derive(Parser)]
#[command(name = "sns-demo", version)]
struct Args {
    /// Stay up afterwards, with lines to try, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    let played = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(DemoError::from)
        .and_then(|runtime| runtime.block_on(demo::run(args.keep, &mut io::stdout())));
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => report(&error).map_or(ExitCode::FAILURE, |()| ExitCode::FAILURE),
    }
}

fn report(error: &DemoError) -> io::Result<()> {
    let mut err = io::stderr();
    writeln!(err, "error: {}", demo::with_causes(error))?;
    match error {
        DemoError::Relay { log, .. } if !log.is_empty() => {
            writeln!(err, "The relay's log, its end:\n{log}")
        }
        _ => Ok(()),
    }
}

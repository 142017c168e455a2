//! `sns-nas`: the NAS side for the shell and for the programs of a NAS.
//!
//! Exit codes: 0 done; 64 bad usage (an argument); 65 bad input (a line, a member); 69 the relay
//! is not there or says no; 74 the journal; 75 it runs already; 1 anything else; `devices test`
//! has its own. Writes to stdout only what was asked for.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

mod command;

use command::{Args, EXIT_USAGE, Failure};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Asking for help is no fault. With stdout or stderr closed, the exit code remains.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    match command::run(args) {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, error }) => report(&*error, ExitCode::from(code)),
    }
}

/// Writes the error and its causes on one line; with stderr closed, the exit code remains.
fn report(error: &dyn Error, code: ExitCode) -> ExitCode {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    writeln!(io::stderr(), "{text}").map_or(ExitCode::FAILURE, |()| code)
}

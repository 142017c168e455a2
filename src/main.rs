//! The front step: arguments in, exit code out. The commands are in `cli.rs` and the library.

use std::io;
use std::process::ExitCode;

use clap::Parser as _;

mod cli;

use cli::{Cli, Command, EXIT_USAGE, KeysCommand};

/// Wipes all memory as it is given back: no message outlives its way through the relay, not even
/// in what the allocator keeps.
#[cfg(feature = "zero-on-free")]
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    // Not locked for good: a relay logs from other threads.
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_usage = error.use_stderr();
            let printed = error.print();
            return match (is_usage, printed) {
                (true, _) => ExitCode::from(EXIT_USAGE),
                (false, Ok(())) => ExitCode::SUCCESS,
                (false, Err(_)) => ExitCode::FAILURE,
            };
        }
    };
    let done = match cli.command {
        Command::Serve { config } => cli::serve(config.as_deref(), &mut err),
        Command::CheckConfig { config } => cli::check_config(config.as_deref(), &mut out, &mut err),
        Command::Store(command) => command.run(&mut out, &mut err),
        Command::Nas(command) => command.run(&mut out, &mut err),
        Command::EnrolmentToken(command) => command.run(&mut out, &mut err),
        Command::Keys(KeysCommand::Init { dir }) => cli::init_keys(&dir, &mut out, &mut err),
        Command::Keys(KeysCommand::Rotate { dir, keep }) => {
            cli::rotate_keys(&dir, keep, &mut out, &mut err)
        }
    };
    // What cannot be told (a closed pipe) is a failure all the same.
    done.unwrap_or(ExitCode::FAILURE)
}

//! `run`: the daemon, until SIGTERM or SIGINT.

use sns_nas::clock;
use sns_nas::daemon::{self, Pace, Socket};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Place, courier, runtime};

#[derive(clap::Args)]
pub(super) struct Run {
    /// Deliveries on their way at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight_max: u16,
}

// === impl Run ===

impl Run {
    pub(super) fn run(self, place: &Place) -> Result<(), Failure> {
        let desk = place.desk()?;
        let _lock = daemon::lock(&place.journal)?;
        let courier = courier(&desk.journal)?;
        let pace = Pace { in_flight_max: usize::from(self.in_flight_max), ..Pace::default() };
        let runtime = runtime()?;
        runtime.block_on(async {
            let (_socket, asks) = Socket::listen(&place.socket())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let stop = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            Ok(daemon::run(desk, courier, pace, asks, clock::now_unix_ms, stop).await?)
        })
    }
}

//! `store`: the identity store as a whole.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use sns_relay::store::copy::{self, Comparison, Count, Ids};
use sns_relay::store::records::Records;

use super::{ask_records, read, refuse};

#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// Makes or renews the tables, as a relay does too when it starts.
    Migrate {
        /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Writes everything into a new SQLite file, whatever the store is, as it is at one moment.
    Backup {
        /// The file to write; it must not be there yet.
        file: PathBuf,
        /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Writes everything of one store into another, and compares the two; what only the other has
    /// stays.
    Copy {
        /// The configuration that names the store to read.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// The configuration that names the store to write.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Reads every record and holds it to its form, or to the same record of another store.
    Verify {
        /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The configuration that names a store which must be the same.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
}

// === impl StoreCommand ===

impl StoreCommand {
    pub(crate) fn run(self, out: &mut impl Write, err: &mut impl Write) -> io::Result<ExitCode> {
        match self {
            Self::Migrate { config } => {
                let asked =
                    ask_records(config.as_deref(), err, async |records| records.ping().await);
                match asked? {
                    Ok(()) => {
                        writeln!(out, "the tables are up to date").map(|()| ExitCode::SUCCESS)
                    }
                    Err(code) => Ok(code),
                }
            }
            Self::Backup { file, config } => {
                let asked = ask_records(config.as_deref(), err, async |records| {
                    copy::back_up(&records, &file).await
                });
                tell(asked?, "backed up", out)
            }
            Self::Copy { from, to } => {
                let to = match read(Some(&to)) {
                    Ok(to) => to,
                    Err(faults) => return refuse(&faults, err),
                };
                let asked = ask_records(Some(&from), err, async |from| {
                    let to = Records::open(&to.store).await?;
                    let count = copy::copy(&from, &to).await?;
                    Ok((count, copy::compare(&from, &to).await?))
                });
                match asked? {
                    Ok((count, comparison)) => {
                        tell(Ok(count), "copied", out)?;
                        tell_comparison(&comparison, out, err)
                    }
                    Err(code) => Ok(code),
                }
            }
            Self::Verify { config, against: None } => {
                let asked = ask_records(config.as_deref(), err, async |records| {
                    copy::check(&records).await
                });
                tell(asked?, "in good form", out)
            }
            Self::Verify { config, against: Some(against) } => {
                let against = match read(Some(&against)) {
                    Ok(against) => against,
                    Err(faults) => return refuse(&faults, err),
                };
                let asked = ask_records(config.as_deref(), err, async |records| {
                    let against = Records::open(&against.store).await?;
                    copy::compare(&records, &against).await
                });
                match asked? {
                    Ok(comparison) => tell_comparison(&comparison, out, err),
                    Err(code) => Ok(code),
                }
            }
        }
    }
}

fn tell(
    counted: Result<Count, ExitCode>,
    done: &str,
    out: &mut impl Write,
) -> io::Result<ExitCode> {
    match counted {
        Ok(Count { identities, tokens }) => {
            writeln!(out, "{done}: {identities} identities, {tokens} enrolment tokens")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(code) => Ok(code),
    }
}

/// Fails where the two are not the same.
fn tell_comparison(
    comparison: &Comparison,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    writeln!(out, "the same in both, field by field: {} identities", comparison.same)?;
    if comparison.is_same() {
        return Ok(ExitCode::SUCCESS);
    }
    for (ids, what) in [
        (&comparison.different, "differ"),
        (&comparison.missing, "are only in the first"),
        (&comparison.surplus, "are only in the second"),
    ] {
        let Ids { count, named } = ids;
        if *count > 0 {
            writeln!(err, "{count} identities {what}; the first: {}", named.join(" "))?;
        }
    }
    if comparison.tokens > 0 {
        writeln!(err, "{} enrolment tokens are only in one", comparison.tokens)?;
    }
    Ok(ExitCode::FAILURE)
}

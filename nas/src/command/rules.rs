//! `rules`: which notifications go to which device.

use clap::Subcommand;
use sns_nas::client::message::{Level, Source};
use sns_nas::journal::devices::Rule;

use super::say::{parse_level, parse_source};
use super::{Failure, Place, print};

#[derive(Subcommand)]
pub(super) enum Rules {
    /// Add a rule behind the others. For each device the first that matches decides; without one, a
    /// notification goes. Prints its number.
    Add(Add),
    /// List the rules in the order in which they are tried.
    List,
    /// Remove a rule by its number.
    Remove {
        /// Its number.
        number: i64,
    },
}

#[derive(clap::Args)]
pub(super) struct Add {
    /// What to do with what matches.
    #[arg(value_parser = ["send", "mute"])]
    action: String,
    /// For this device alone.
    #[arg(long)]
    device: Option<String>,
    /// From this system alone.
    #[arg(long, value_parser = parse_source)]
    source: Option<Source>,
    /// Of this level alone.
    #[arg(long, value_parser = parse_level)]
    level: Option<Level>,
    /// Of this category alone.
    #[arg(long)]
    category: Option<String>,
    /// With this tag alone.
    #[arg(long)]
    tag: Option<String>,
    /// Of this package alone.
    #[arg(long)]
    app: Option<String>,
}

// === impl Rules ===

impl Rules {
    pub(super) fn run(self, place: &Place) -> Result<(), Failure> {
        let mut journal = place.journal()?;
        match self {
            Self::Add(add) => {
                let rule = Rule {
                    position: 0,
                    sends: add.action == "send",
                    device: add.device,
                    source: add.source,
                    level: add.level,
                    category: add.category,
                    tag: add.tag,
                    app: add.app,
                };
                print(format!("{}\n", journal.add_rule(&rule)?))
            }
            Self::List => print(journal.rules()?.iter().map(listed).collect::<String>()),
            Self::Remove { number } => Ok(journal.remove_rule(number)?),
        }
    }
}

fn listed(rule: &Rule) -> String {
    let mut text = format!("{}\t{}", rule.position, if rule.sends { "send" } else { "mute" });
    let conditions = [
        ("device", rule.device.as_deref()),
        ("source", rule.source.map(Source::label)),
        ("level", rule.level.map(Level::label)),
        ("category", rule.category.as_deref()),
        ("tag", rule.tag.as_deref()),
        ("app", rule.app.as_deref()),
    ];
    for (name, value) in conditions {
        if let Some(value) = value {
            text.push_str(&format!("\t{name}={value}"));
        }
    }
    text + "\n"
}

//! `notify`, `message`, `withdraw`, `replace`: what programs of the NAS say.
//!
//! Handed to the daemon where one runs, else written to the journal, from which the next daemon
//! sends it. Either way it is on disk when its id is printed.

use std::io::{self, BufRead as _, Read as _, Write as _};

use serde_json::Value;
use sns_nas::client::message::{Level, Source};
use sns_nas::clock;
use sns_nas::daemon::{SocketError, hand_in};
use sns_nas::desk::{Request, Said};
use sns_nas::event::Raised;
use sns_nas::journal::record::Taken;
use uuid::Uuid;

use super::{CommandError, EXIT_INPUT, Failure, Place, print, runtime};

#[derive(clap::Args)]
pub(super) struct Notify {
    /// The event's tag, as `synonotify` takes it.
    #[arg(value_name = "TAG", conflicts_with = "stdin")]
    event: Option<String>,
    /// The variables as `synonotify` takes them: '{"%HOSTNAME%": "nas"}'.
    #[arg(value_name = "VARIABLES", conflicts_with = "stdin")]
    variables: Option<String>,
    /// Read events from standard input, one JSON object per line.
    #[arg(long)]
    stdin: bool,
    #[command(flatten)]
    words: Words,
}

#[derive(clap::Args)]
struct Words {
    /// The event's tag.
    #[arg(long, conflicts_with_all = ["event", "stdin"])]
    tag: Option<String>,
    /// Which system speaks: dsm, srm or surveillance.
    #[arg(long, value_parser = parse_source)]
    source: Option<Source>,
    /// How grave it is: info, warn or error.
    #[arg(long, value_parser = parse_level)]
    level: Option<Level>,
    /// The event's category.
    #[arg(long)]
    category: Option<String>,
    /// The package that speaks.
    #[arg(long)]
    app: Option<String>,
    /// The headline.
    #[arg(long)]
    title: Option<String>,
    /// The text.
    #[arg(long)]
    text: Option<String>,
    /// A variable, as often as wanted: --var VOLUME_NAME=1.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    var: Vec<(String, String)>,
    /// Takes the place of the last one with the same key.
    #[arg(long, value_name = "KEY")]
    collapse_key: Option<String>,
    /// How long it is worth sending, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    ttl_s: Option<u32>,
    /// The device makes no sound.
    #[arg(long)]
    silent: bool,
    /// To this device, as often as wanted, in place of what the rules say.
    #[arg(long, value_name = "NAME")]
    device: Vec<String>,
    /// The caller's own id: said twice, it is sent once.
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
}

#[derive(clap::Args)]
pub(super) struct Message {
    /// The text.
    text: String,
    /// The application's name.
    #[arg(long)]
    app: String,
    /// Under whose key it goes; the application's own unless told otherwise.
    #[arg(long)]
    sender: Option<String>,
    /// The headline.
    #[arg(long, default_value = "")]
    title: String,
    /// Takes the place of the last one with the same key.
    #[arg(long, value_name = "KEY")]
    collapse_key: Option<String>,
    /// How long it is worth sending, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    ttl_s: Option<u32>,
    /// It is a call or an alarm.
    #[arg(long)]
    urgent: bool,
    /// To this device, as often as wanted; to all of the sender's unless told otherwise.
    #[arg(long, value_name = "NAME")]
    device: Vec<String>,
    /// The caller's own id: said twice, it is sent once.
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
}

#[derive(clap::Args)]
pub(super) struct Withdraw {
    /// The id that notify, message or recall printed.
    id: Uuid,
}

#[derive(clap::Args)]
pub(super) struct Replace {
    /// The id that notify, message or recall printed.
    original: Uuid,
    #[command(flatten)]
    words: Words,
    /// The event's tag, as `synonotify` takes it.
    #[arg(value_name = "TAG")]
    event: Option<String>,
    /// Not for this command.
    #[arg(long, hide = true)]
    stdin: bool,
}

const LINE_BYTES_MAX: u64 = 64 * 1024;

// === impl Notify ===

impl Notify {
    pub(super) fn run(self, place: &Place) -> Result<u8, Failure> {
        if self.stdin {
            return lines(place, self.words.level);
        }
        let mut raised = self.words.raised();
        raised.tag = self.event.or(raised.tag);
        if let Some(text) = self.variables {
            raised.vars.extend(Raised::vars_of_json(&text)?);
        }
        raised.check()?;
        say(place, &Request::Notify(raised))
    }
}

// === impl Words ===

impl Words {
    fn raised(self) -> Raised {
        let variable = |(name, value)| (name, Value::String(value));
        Raised {
            id: self.id,
            source: self.source,
            level: self.level,
            category: self.category,
            app: self.app,
            tag: self.tag,
            title: self.title,
            text: self.text,
            vars: self.var.into_iter().map(variable).collect(),
            collapse_key: self.collapse_key,
            ttl_s: self.ttl_s,
            sound: Some(!self.silent),
            devices: self.device,
        }
    }
}

// === impl Message ===

impl Message {
    pub(super) fn run(self, place: &Place) -> Result<u8, Failure> {
        let said = Said {
            id: self.id,
            app: self.app,
            sender: self.sender,
            title: self.title,
            text: self.text,
            collapse_key: self.collapse_key,
            ttl_s: self.ttl_s,
            urgent: self.urgent,
            devices: self.device,
        };
        say(place, &Request::Message(said))
    }
}

// === impl Withdraw ===

impl Withdraw {
    pub(super) fn run(self, place: &Place) -> Result<u8, Failure> {
        say(place, &Request::Withdraw { id: self.id })
    }
}

// === impl Replace ===

impl Replace {
    pub(super) fn run(self, place: &Place) -> Result<u8, Failure> {
        let mut event = self.words.raised();
        event.tag = self.event.or(event.tag);
        event.check()?;
        say(place, &Request::Replace { id: self.original, event })
    }
}

fn say(place: &Place, request: &Request) -> Result<u8, Failure> {
    let taken = runtime()?.block_on(hand_over(place, request))?;
    print(format!("{}\n", taken.id))?;
    Ok(0)
}

async fn hand_over(place: &Place, request: &Request) -> Result<Taken, Failure> {
    match hand_in(&place.socket(), request).await {
        Err(SocketError::Absent { .. }) => {
            let mut desk = place.desk()?;
            let now_ms = clock::now_unix_ms();
            // Without a daemon nobody else erases.
            desk.journal.erase(now_ms)?;
            Ok(desk.perform(request, now_ms)?)
        }
        handed => Ok(handed?),
    }
}

/// Takes every line that is good and prints its id; a bad one is named and costs the exit code.
fn lines(place: &Place, level: Option<Level>) -> Result<u8, Failure> {
    let runtime = runtime()?;
    let mut input = io::stdin().lock();
    let mut code = 0;
    for number in 1.. {
        let mut line = String::new();
        if (&mut input).take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let taken = Raised::of_json(&line).map_err(Failure::from).and_then(|mut raised| {
            raised.level = raised.level.or(level);
            runtime.block_on(hand_over(place, &Request::Notify(raised)))
        });
        match taken {
            Ok(taken) => print(format!("{}\n", taken.id))?,
            // The journal itself fails: so will the next line.
            Err(failure) if failure.code != EXIT_INPUT => return Err(failure),
            Err(failure) => {
                code = EXIT_INPUT;
                writeln!(io::stderr(), "error: line {number}: {}", failure.error)?;
            }
        }
    }
    Ok(code)
}

pub(super) fn parse_source(text: &str) -> Result<Source, String> {
    Source::of(text).ok_or_else(|| "not dsm, srm or surveillance".to_owned())
}

pub(super) fn parse_level(text: &str) -> Result<Level, String> {
    Level::of(text).ok_or_else(|| "not info, warn or error".to_owned())
}

fn parse_variable(text: &str) -> Result<(String, String), CommandError> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
    pair.ok_or_else(|| CommandError::Input { fault: "not NAME=VALUE".to_owned() })
}

//! The three layers as one flat map of dotted keys: embedded reference, file, environment.
//!
//! In come TOML and variables, out go untyped values; what they mean is the reader's to say.
//! A file that is no TOML ends the load here, since nothing behind it can be judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::fault::{Fault, Faults};
use super::files;

/// Every key with its unit, range and default.
pub(super) const REFERENCE: &str = include_str!("../../config/relay.default.toml");

/// What starts the name of a variable.
const VARIABLE_PREFIX: &str = "SNS_RELAY__";

/// The app of the reference's commented block; its values are the defaults of every app.
const REFERENCE_APP: &str = "apps.example.";

/// Untyped values by dotted key.
#[derive(Default)]
pub(super) struct Layers {
    /// Every value that is no table.
    pub(super) values: BTreeMap<String, Layered>,
    /// Every table, also an empty one.
    pub(super) sections: BTreeSet<String>,
    /// The defaults of an app by what follows `apps.<name>.`.
    pub(super) app_defaults: BTreeMap<String, Value>,
    /// Where relative names start that the environment did not set.
    pub(super) folder: PathBuf,
}

/// A value and where it came from.
#[derive(Clone)]
pub(super) struct Layered {
    pub(super) value: Value,
    pub(super) from_environment: bool,
}

// === impl Layers ===

impl Layers {
    /// Lays file over reference and environment over file.
    /// Errors: a file that cannot be read, or whose TOML is broken, with the line.
    pub(super) fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let mut layers = Self::default();
        layers.lay(parse("relay.default.toml", REFERENCE)?);
        layers.read_app_defaults()?;
        if let Some(file) = file {
            let name = file.display().to_string();
            let text = files::read_text(file)
                .map_err(|fault| Faults(vec![Fault::new(&name, fault.to_string())]))?;
            layers.lay(parse(&name, text.expose())?);
            layers.folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
        }
        for (variable, text) in environment {
            if let Some(rest) = variable.strip_prefix(VARIABLE_PREFIX) {
                let lower = rest.to_ascii_lowercase();
                let key = lower.split("__").map(segment).collect::<Vec<_>>().join(".");
                let layered = Layered { value: Value::String(text), from_environment: true };
                layers.values.insert(key, layered);
            }
        }
        Ok(layers)
    }

    /// Tells whether anything is said about a section.
    pub(super) fn has_section(&self, section: &str) -> bool {
        self.sections.contains(section) || self.has_value_under(section)
    }

    /// Tells whether a value lies in a section or deeper.
    pub(super) fn has_value_under(&self, section: &str) -> bool {
        let prefix = format!("{section}.");
        self.values.range(prefix.clone()..).next().is_some_and(|(key, _)| key.starts_with(&prefix))
    }

    /// Gives the names right under a section that are sections themselves.
    pub(super) fn names_under(&self, section: &str) -> BTreeSet<String> {
        let prefix = format!("{section}.");
        let of_values = self.values.keys().filter_map(|key| {
            key.strip_prefix(&prefix).and_then(|rest| rest.split_once('.')).map(|(name, _)| name)
        });
        let of_sections = self.sections.iter().filter_map(|key| {
            key.strip_prefix(&prefix)
                .map(|rest| rest.split_once('.').map_or(rest, |(name, _)| name))
        });
        of_values.chain(of_sections).map(str::to_owned).collect()
    }

    fn lay(&mut self, table: Table) {
        for (name, value) in table {
            self.lay_value(segment(&name), value);
        }
    }

    fn lay_value(&mut self, key: String, value: Value) {
        if let Value::Table(table) = value {
            for (name, value) in table {
                self.lay_value(format!("{key}.{}", segment(&name)), value);
            }
            self.sections.insert(key);
        } else {
            self.values.insert(key, Layered { value, from_environment: false });
        }
    }

    fn read_app_defaults(&mut self) -> Result<(), Faults> {
        let mut whole = Self::default();
        whole.lay(parse("relay.default.toml", &reference_with_app())?);
        for (key, layered) in whole.values {
            if let Some(rest) = key.strip_prefix(REFERENCE_APP) {
                self.app_defaults.insert(rest.to_owned(), layered.value);
            }
        }
        Ok(())
    }
}

/// Gives the reference with the keys of its commented app taken in.
pub(super) fn reference_with_app() -> String {
    let mut text = String::with_capacity(REFERENCE.len());
    for line in REFERENCE.lines() {
        text.push_str(line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line));
        text.push('\n');
    }
    text
}

/// Tells a commented key or section from a comment's prose.
fn is_toml(line: &str) -> bool {
    let is_key = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    line.starts_with("[apps.") || line.split_once(" = ").is_some_and(|(name, _)| is_key(name))
}

/// Gives one part of a dotted key; quoted where it could be taken for several, or for none.
fn segment(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { format!("{name:?}") }
}

/// Parses TOML; the error names the file and the line, and repeats nothing of either.
fn parse(name: &str, text: &str) -> Result<Table, Faults> {
    text.parse::<Table>().map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Faults(vec![Fault::new(format!("{name}:{line}"), error.message().replace('\n', ", "))])
    })
}

//! Raw to checked: gives the value of a key in the type that was asked for, or notes a fault.
//!
//! Every read notes its key, so at the end whatever was not asked for is unknown. `None` means that
//! a fault was noted; the caller reads on, and [`Reader::finish`] lists all of them together.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::Secret;
use super::fault::{Fault, Faults};
use super::files::{self, FileFault};
use super::layers::{Layered, Layers};

/// Edits that a misspelt key may be away from the one that is named to its writer.
const SUGGESTION_EDITS_MAX: usize = 3;

/// Reads keys and gathers what is wrong with them.
pub(super) struct Reader {
    layers: Layers,
    asked: BTreeSet<String>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

// === impl Reader ===

impl Reader {
    pub(super) const fn new(layers: Layers) -> Self {
        Self { layers, asked: BTreeSet::new(), faults: Vec::new(), warnings: Vec::new() }
    }

    /// Notes what is wrong with a key.
    pub(super) fn fault(&mut self, key: &str, text: impl Into<String>) {
        self.faults.push(Fault::new(key, text));
    }

    /// Notes what is right but dangerous.
    pub(super) fn warn(&mut self, key: &str, text: impl Into<String>) {
        self.warnings.push(Fault::new(key, text));
    }

    /// Takes a value, or notes what was expected.
    pub(super) fn expect<T>(
        &mut self,
        key: &str,
        value: Option<T>,
        expected: impl fmt::Display,
    ) -> Option<T> {
        if value.is_none() {
            self.fault(key, format!("must be {expected}"));
        }
        value
    }

    /// Reads text, which may be empty.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let text = match self.look_up(key)?.value {
            Value::String(text) => Some(text),
            _ => None,
        };
        self.expect(key, text, "text in quotes")
    }

    /// Reads text of some length, in bytes.
    pub(super) fn text_of(&mut self, key: &str, bytes: RangeInclusive<usize>) -> Option<String> {
        let text = self.text(key)?;
        let expected = format_args!("{} to {} bytes of text", bytes.start(), bytes.end());
        let fits = bytes.contains(&text.len()) && !text.contains(char::is_control);
        self.expect(key, fits.then_some(text), expected)
    }

    /// Reads text by a parser of it.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        expected: &str,
    ) -> Option<T> {
        let text = self.text(key)?;
        self.expect(key, parse(&text), expected)
    }

    /// Reads address and port.
    pub(super) fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let expected = "an address and port, like 0.0.0.0:8080";
        self.parsed(key, |text| text.parse().ok(), expected)
    }

    /// Reads a whole number.
    pub(super) fn integer<T: TryFrom<u64>>(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let number = match self.look_up(key)? {
            Layered { value: Value::Integer(number), .. } => u64::try_from(number).ok(),
            Layered { value: Value::String(text), from_environment: true } => text.parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        let expected = format_args!("a whole number from {} to {}", range.start(), range.end());
        self.expect(key, number.and_then(|number| T::try_from(number).ok()), expected)
    }

    /// Reads milliseconds.
    pub(super) fn milliseconds(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Option<Duration> {
        self.integer(key, range).map(Duration::from_millis)
    }

    /// Reads seconds.
    pub(super) fn seconds(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<Duration> {
        self.integer(key, range).map(Duration::from_secs)
    }

    /// Reads a yes or no.
    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        let flag = match self.look_up(key)? {
            Layered { value: Value::Boolean(flag), .. } => Some(flag),
            Layered { value: Value::String(text), from_environment: true } => text.parse().ok(),
            _ => None,
        };
        self.expect(key, flag, "true or false")
    }

    /// Reads a list of texts by a parser of each.
    pub(super) fn list(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Option<String>,
        expected: &str,
    ) -> Option<Vec<String>> {
        let list: Option<Vec<String>> = match self.look_up(key)? {
            Layered { value: Value::Array(items), .. } => {
                items.iter().map(|item| item.as_str().and_then(&parse)).collect()
            }
            Layered { value: Value::String(text), from_environment: true } => {
                let items = text.split(',').map(str::trim);
                items.filter(|item| !item.is_empty()).map(parse).collect()
            }
            _ => None,
        };
        self.expect(key, list, format_args!("a list of {expected}"))
    }

    /// Reads the name of a file or folder that must be given.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let known = self.faults.len();
        let path = self.optional_path(key);
        if path.is_none() && self.faults.len() == known {
            self.fault(key, "is required: the name of a file or folder");
        }
        path
    }

    /// Reads a name that may be empty; gives nothing then.
    pub(super) fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key).filter(|text| !text.is_empty())?;
        if text.contains(char::is_control) || text.contains("-----BEGIN") || text.starts_with('{') {
            self.fault(key, "must be the name of a file, not its content");
            return None;
        }
        // An absolute name stays as it is.
        Some(self.base_folder(key).join(text))
    }

    /// Reads the text of a file without a secret in it, by a check of the text; gives its name.
    pub(super) fn optional_file(
        &mut self,
        key: &str,
        check: impl FnOnce(&str) -> Result<(), FileFault>,
    ) -> Option<PathBuf> {
        let path = self.optional_path(key)?;
        let text = self.note(key, files::read_text(&path))?;
        self.note(key, check(text.expose()))?;
        Some(path)
    }

    /// Reads the text of a secret file; one that others may read is warned of.
    pub(super) fn secret_file(&mut self, key: &str, path: &Path) -> Option<Secret<String>> {
        let text = self.note(key, files::read_text(path))?;
        if files::is_open_to_others(path) {
            self.warn(key, "the file is open to other users than its owner");
        }
        Some(text)
    }

    /// Takes the value of a file's check, or notes its fault.
    pub(super) fn note<T>(&mut self, key: &str, result: Result<T, FileFault>) -> Option<T> {
        let fault = match result {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        let folder = self.base_folder(key);
        let text = match &fault {
            FileFault::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = folder.to_string_lossy();
                let from = if folder.is_empty() { "the working folder" } else { &folder };
                format!("{fault}; a relative name starts at {from}")
            }
            _ => fault.to_string(),
        };
        self.fault(key, text);
        None
    }

    /// Tells whether anything is said about a section.
    pub(super) fn has_section(&self, section: &str) -> bool {
        self.layers.has_section(section)
    }

    /// Gives the names of the sections right under a section.
    pub(super) fn names_under(&self, section: &str) -> BTreeSet<String> {
        self.layers.names_under(section)
    }

    /// Forgets a section that has a fault of its own.
    pub(super) fn skip(&mut self, section: &str) {
        let prefix = format!("{section}.");
        self.layers.values.retain(|key, _| !key.starts_with(&prefix));
        self.layers.sections.retain(|key| key != section && !key.starts_with(&prefix));
    }

    /// Ends the read: gives the warnings.
    /// Errors: all faults, those of unknown keys last.
    pub(super) fn finish(mut self) -> Result<Vec<Fault>, Faults> {
        self.note_unknown();
        if self.faults.is_empty() { Ok(self.warnings) } else { Err(Faults(self.faults)) }
    }

    #[cfg(test)]
    pub(super) const fn asked(&self) -> &BTreeSet<String> {
        &self.asked
    }

    fn look_up(&mut self, key: &str) -> Option<Layered> {
        self.asked.insert(key.to_owned());
        let layered = self.layers.values.get(key).cloned().or_else(|| {
            let (_, of_app) = key.strip_prefix("apps.")?.split_once('.')?;
            let value = self.layers.app_defaults.get(of_app)?.clone();
            Some(Layered { value, from_environment: false })
        });
        if layered.is_none() {
            self.fault(key, "is required");
        }
        layered
    }

    fn base_folder(&self, key: &str) -> PathBuf {
        match self.layers.values.get(key) {
            Some(layered) if layered.from_environment => PathBuf::new(),
            _ => self.layers.folder.clone(),
        }
    }

    fn note_unknown(&mut self) {
        let known = |section: &str| {
            let prefix = format!("{section}.");
            section == "apps" || self.asked.iter().any(|key| key.starts_with(&prefix))
        };
        let mut faults = Vec::new();
        for key in self.layers.values.keys().filter(|key| !self.asked.contains(*key)) {
            let text = if known(key) {
                "is a section, not a key".to_owned()
            } else if let Some(nearest) = nearest(key, &self.asked) {
                format!("is no known key; did you mean {nearest}?")
            } else {
                "is no known key".to_owned()
            };
            faults.push(Fault::new(key, text));
        }
        for section in &self.layers.sections {
            if !known(section) && !self.layers.has_value_under(section) {
                let is_key = self.asked.contains(section);
                let text = if is_key { "is a key, not a section" } else { "is no known section" };
                faults.push(Fault::new(section, text));
            }
        }
        self.faults.append(&mut faults);
    }
}

/// Gives the known key that is the fewest edits away, if they are few.
fn nearest<'a>(key: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let by_edits = known.iter().map(|known| (edits(key, known), known.as_str()));
    by_edits.min().filter(|(edits, _)| *edits <= SUGGESTION_EDITS_MAX).map(|(_, known)| known)
}

/// Counts the insertions, removals and replacements between two keys (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, expect) in
            [("", "", 0), ("abc", "", 3), ("listen", "lisen", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(edits(from, to), expect, "{from} {to}");
            assert_eq!(edits(to, from), expect, "{to} {from}");
        }
    }
}

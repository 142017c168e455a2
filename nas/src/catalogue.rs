//! What events mean: a tag's source, level, category and English text.
//!
//! In: an event as it was raised. Out: an event ready to be shown. The built-in table has a few
//! dozen tags of DSM, SRM and Surveillance Station; a file of the same form adds to it and
//! overrides it. What the caller gives wins over the table. A tag that nobody knows still makes an
//! event, at `warn`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::client::message::{Level, Source};
use crate::content::Event;
use crate::event::Raised;

/// The table.
pub struct Catalogue {
    entries: HashMap<String, Entry>,
}

/// Why a catalogue file could not be read. Blame: whoever wrote it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The file could not be read.
    #[error("cannot read the catalogue {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a catalogue.
    #[error("the catalogue {} is not one: {fault}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        fault: String,
    },
}

/// The table that is part of the program.
const BUILT_IN: &str = include_str!("../catalogue.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    event: Vec<Entry>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    tag: String,
    source: Source,
    level: Level,
    category: String,
    title: String,
    text: String,
}

// === impl Catalogue ===

impl Catalogue {
    /// Reads the built-in table, and a file over it.
    /// Errors: [`CatalogueError`] for the file.
    pub fn load(file: Option<&Path>) -> Result<Self, CatalogueError> {
        let built_in = Path::new("catalogue.toml");
        let mut catalogue = Self { entries: HashMap::new() };
        catalogue.add(built_in, BUILT_IN)?;
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| CatalogueError::Read { path: path.to_owned(), source })?;
            catalogue.add(path, &text)?;
        }
        Ok(catalogue)
    }

    /// Makes an event ready to be shown: what the caller left out comes from the table, and each
    /// `%VARIABLE%` becomes its value, or "?" where there is none.
    pub fn render(&self, raised: &Raised, hostname: &str) -> Event {
        let tag = raised.tag.clone().unwrap_or_default();
        let entry = self.entries.get(&tag);
        let mut vars = raised.variables();
        vars.entry("%HOSTNAME%".to_owned()).or_insert_with(|| hostname.to_owned());
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let title = given(&raised.title)
            .or_else(|| entry.map(|entry| entry.title.clone()))
            .unwrap_or_else(|| if tag.is_empty() { hostname.to_owned() } else { tag.clone() });
        let text = given(&raised.text)
            .or_else(|| entry.map(|entry| entry.text.clone()))
            .unwrap_or_else(|| listed(&raised.variables()));
        Event {
            source: raised.source.or(entry.map(|entry| entry.source)).unwrap_or(Source::Dsm),
            level: raised.level.or(entry.map(|entry| entry.level)).unwrap_or(Level::Warn),
            category: given(&raised.category)
                .or_else(|| entry.map(|entry| entry.category.clone()))
                .unwrap_or_default(),
            app: raised.app.clone().unwrap_or_default(),
            title: filled(&title, &vars),
            text: filled(&text, &vars),
            tag,
            vars,
            collapse_key: raised.collapse_key.clone(),
        }
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), CatalogueError> {
        let malformed = |fault| CatalogueError::Malformed { path: path.to_owned(), fault };
        let table: Table =
            toml::from_str(text).map_err(|error| malformed(error.message().to_owned()))?;
        for entry in table.event {
            if entry.tag.is_empty() || entry.title.len() > 256 || entry.text.len() > 8192 {
                return Err(malformed("a tag that is empty, or a title or text too long".into()));
            }
            self.entries.insert(entry.tag.clone(), entry);
        }
        Ok(())
    }
}

/// Fills the variables in; what DSM's own texts have as a line break becomes one.
fn filled(text: &str, vars: &BTreeMap<String, String>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        filled.push_str(&rest[..start]);
        let name_bytes = rest[start + 1..].find('%').filter(|bytes| {
            *bytes > 0 && rest[start + 1..start + 1 + bytes].bytes().all(is_of_a_name)
        });
        let Some(name_bytes) = name_bytes else {
            filled.push('%');
            rest = &rest[start + 1..];
            continue;
        };
        let name = &rest[start..start + name_bytes + 2];
        filled.push_str(vars.get(name).map_or("?", String::as_str));
        rest = &rest[start + name_bytes + 2..];
    }
    filled.push_str(rest);
    filled.replace("<br>", "\n").replace("<br/>", "\n").replace("<br />", "\n")
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

fn listed(vars: &BTreeMap<String, String>) -> String {
    let line = |(name, value): (&String, &String)| format!("{}: {value}", name.trim_matches('%'));
    vars.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(line: &str) -> Raised {
        Raised::of_json(line).unwrap()
    }

    #[test]
    fn the_built_in_table_has_tags_of_all_sources_and_levels() {
        let catalogue = Catalogue::load(None).unwrap();
        assert!(catalogue.entries.len() >= 36, "{}", catalogue.entries.len());
        for source in Source::ALL {
            let of_source = catalogue.entries.values().filter(|entry| entry.source == source);
            assert!(of_source.count() >= 6, "{}", source.label());
        }
        for level in Level::ALL {
            let of_level = catalogue.entries.values().filter(|entry| entry.level == level);
            assert!(of_level.count() >= 6, "{}", level.label());
        }
        let count = BUILT_IN.matches("[[event]]").count();
        assert_eq!(catalogue.entries.len(), count, "no tag is there twice");
    }

    #[test]
    fn a_known_tag_is_rendered_and_the_caller_wins() {
        let catalogue = Catalogue::load(None).unwrap();
        let line = r#"{"tag": "PKGHasUpgrade", "vars": {"PKG_HAS_UPDATE": "Chat"}}"#;
        let event = catalogue.render(&raised(line), "attic");
        assert_eq!((event.level, event.source), (Level::Info, Source::Dsm));
        assert!(event.text.contains("attic") && event.text.contains("Chat"), "{}", event.text);
        let line =
            r#"{"tag": "PKGHasUpgrade", "level": "error", "text": "%HOSTNAME%: 100 % <br>x"}"#;
        let event = catalogue.render(&raised(line), "attic");
        assert_eq!((event.level, event.text.as_str()), (Level::Error, "attic: 100 % \nx"));
    }

    #[test]
    fn an_unknown_tag_still_says_all_that_it_has() {
        let catalogue = Catalogue::load(None).unwrap();
        let line = r#"{"tag": "NobodyKnows", "vars": {"A": "1", "%B%": "2"}}"#;
        let event = catalogue.render(&raised(line), "attic");
        assert_eq!((event.title.as_str(), event.text.as_str()), ("NobodyKnows", "A: 1\nB: 2"));
        assert_eq!(event.level, Level::Warn);
    }

    #[test]
    fn variables_are_filled_once_and_what_is_missing_is_a_question_mark() {
        let vars = BTreeMap::from([("%A%".to_owned(), "%B%".to_owned())]);
        assert_eq!(filled("%A% %B% 5% of %", &vars), "%B% ? 5% of %");
        assert_eq!(filled("%%", &vars), "%%");
        assert_eq!(filled("für %A%%A%", &vars), "für %B%%B%");
    }

    #[test]
    fn a_file_overrides_the_table_and_a_bad_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        let entry = "[[event]]\ntag = 'PKGHasUpgrade'\nsource = 'dsm'\nlevel = 'warn'\n\
            category = 'c'\ntitle = 'own'\ntext = 'own'\n";
        std::fs::write(&path, entry).unwrap();
        let catalogue = Catalogue::load(Some(&path)).unwrap();
        let event = catalogue.render(&raised(r#"{"tag": "PKGHasUpgrade"}"#), "attic");
        assert_eq!(event.title, "own");
        for bad in ["[[event]]\ntag = 'x'", "colour = 1", "[[event", &entry.replace("warn", "bad")]
        {
            std::fs::write(&path, bad).unwrap();
            let error = Catalogue::load(Some(&path)).err().unwrap();
            assert!(matches!(error, CatalogueError::Malformed { .. }));
            assert!(error.to_string().contains("own.toml"));
        }
        let missing = Catalogue::load(Some(Path::new("/nonexistent")));
        assert!(matches!(missing, Err(CatalogueError::Read { .. })));
    }
}

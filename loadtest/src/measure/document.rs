//! Tables in a document that is otherwise written by hand.
//!
//! In: the document and what stands before and after a table. Out: the document with another table
//! in that place, and nothing else changed.

use std::fs;
use std::path::Path;

use super::MeasureError;

/// The lines around a table.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) start: String,
    pub(super) end: &'static str,
}

// === impl Place ===

impl Place {
    /// Gives the text with this table in its place.
    /// Shape: nothing where the text has no such place.
    pub(super) fn put(&self, text: &str, table: &str) -> Option<String> {
        let Place { start, end } = self;
        let (before, after) = text.split_once(&format!("{start}\n"))?;
        let (_, after) = after.split_once(end)?;
        Some(format!("{before}{start}\n{table}{end}{after}"))
    }
}

/// Puts each table into its place in a document.
/// Errors: `Io`, or `NoPlace` where the document lacks one; then it stays as it is.
pub(super) fn write_into(file: &Path, tables: &[(Place, String)]) -> Result<(), MeasureError> {
    let mut text = fs::read_to_string(file)?;
    for (place, table) in tables {
        let no_place = || MeasureError::NoPlace(file.to_owned(), place.start.clone());
        text = place.put(&text, table).ok_or_else(no_place)?;
    }
    Ok(fs::write(file, text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_goes_into_its_place_and_nowhere_else() {
        let place = Place { start: "<!-- of: a -->".to_owned(), end: "<!-- end -->" };
        let text = "a\n<!-- of: a -->\nold\n<!-- end -->\nb\n<!-- end -->\n";
        let fresh = "a\n<!-- of: a -->\nnew\n<!-- end -->\nb\n<!-- end -->\n";
        assert_eq!(place.put(text, "new\n").unwrap(), fresh);
        assert_eq!(place.put(fresh, "new\n").unwrap(), fresh);
        assert_eq!(place.put("no place", "new\n"), None);
    }
}

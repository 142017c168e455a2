//! What the relay keeps: every table of the identity store, read from its file.
//!
//! The file is opened as a stranger would, without the relay's code; then it is compared with what
//! the relay tells the NAS about itself (`GET /v1/nas/self`).

use std::collections::BTreeSet;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::DemoError;
use super::cast::Cast;
use crate::stage::Stage;

/// The store's content.
pub(super) struct Kept {
    /// Every table, by name.
    pub(super) tables: Vec<Content>,
    /// The members of what the relay tells the NAS.
    told: BTreeSet<String>,
}

/// The content of one table.
pub(super) struct Content {
    /// The table's name.
    pub(super) table: String,
    /// The names of its columns.
    pub(super) columns: Vec<String>,
    /// Its rows, as text.
    pub(super) rows: Vec<Vec<String>>,
}

/// Where the stage's relay keeps identities.
pub(super) const STORE_FILE: &str = "data/identities.sqlite3";

// === impl Kept ===

impl Kept {
    /// Reads everything, and asks the relay.
    pub(super) async fn read(stage: &Stage, cast: &Cast) -> Result<Self, DemoError> {
        let file = stage.folder().join(STORE_FILE);
        let store = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut names =
            store.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")?;
        let names: Vec<String> =
            names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let tables = names.into_iter().map(|name| content(&store, name));
        let tables = tables.collect::<Result<_, _>>()?;
        let identity = cast.client.identity(&cast.nas_key).await?;
        let own = ["ds_id", "enrolled_at"].map(str::to_owned);
        let told = identity.others.keys().cloned().chain(own).collect();
        Ok(Self { tables, told })
    }

    /// Whether there is one row in all, and the NAS is told all of its columns.
    pub(super) fn is_good(&self) -> bool {
        self.row_count() == 1 && self.is_told()
    }

    /// How many rows there are in all tables.
    pub(super) fn row_count(&self) -> usize {
        self.tables.iter().map(|content| content.rows.len()).sum()
    }

    /// Whether the NAS is told about every column that has a row.
    pub(super) fn is_told(&self) -> bool {
        let filled = self.tables.iter().filter(|content| !content.rows.is_empty());
        filled.flat_map(|content| &content.columns).all(|column| self.told.contains(column))
    }
}

fn content(store: &Connection, table: String) -> Result<Content, rusqlite::Error> {
    let mut select = store.prepare(&format!("SELECT * FROM \"{table}\""))?;
    let columns: Vec<String> = select.column_names().map(str::to_owned).collect();
    let places = 0..columns.len();
    let rows = select
        .query_map([], |row| places.clone().map(|place| Ok(text(row.get_ref(place)?))).collect())?;
    let rows = rows.collect::<Result<_, _>>()?;
    Ok(Content { table, columns, rows })
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => {
            let shown: String = bytes.iter().take(24).map(|byte| format!("{byte:02x}")).collect();
            let more = if bytes.len() > 24 { "…" } else { "" };
            format!("{shown}{more} ({} bytes)", bytes.len())
        }
    }
}

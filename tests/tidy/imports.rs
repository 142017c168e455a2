//! The import table of src/lib.rs is the law, and every entry of it is used.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{
    Source, after_closing, cells, code, expect_none, files, first_word, line_of, places_of, read,
};

/// The vocabularies, which every room may import.
const VOCABULARIES: [&str; 3] = ["clock", "outcome", "push"];

type Table = BTreeMap<String, BTreeSet<String>>;

/// Finds `crate::<room>` and what climbs by `super` in every room's code, tests left out.
#[test]
fn no_room_imports_what_the_table_does_not_allow_and_no_entry_is_idle() {
    let (allowed, used) = (table(), used());
    let mut wrong = Vec::new();
    for (room, imports) in &used {
        for (import, place) in imports {
            if !allowed[room].contains(import) && !VOCABULARIES.contains(&import.as_str()) {
                wrong.push(format!("{place}: {room} may not import {import}"));
            }
        }
    }
    for (room, imports) in &allowed {
        for import in imports.iter().filter(|import| !used[room].contains_key(*import)) {
            wrong.push(format!("src/lib.rs: {room} does not import {import}, though it may"));
        }
    }
    expect_none(wrong, "the table in src/lib.rs says who may import whom");
}

#[test]
fn every_room_has_its_row_in_the_table() {
    let (rooms, table) = (rooms(), table());
    let rows: BTreeSet<&String> = table.keys().collect();
    assert_eq!(rows, rooms.iter().collect());
    let mut strange = table.values().flatten().filter(|import| !rooms.contains(*import));
    assert_eq!(strange.next(), None, "the table names a room that is none");
}

/// Takes away the rooms that import no other room that is left, until none is left.
#[test]
fn rooms_do_not_import_each_other_in_a_ring() {
    let used = used();
    let mut left: BTreeSet<&String> = used.keys().collect();
    while !left.is_empty() {
        let is_leaf = |room: &&&String| !used[**room].keys().any(|import| left.contains(import));
        let leaves: BTreeSet<&String> = left.iter().filter(is_leaf).copied().collect();
        assert!(!leaves.is_empty(), "a ring among {left:?}");
        left.retain(|room| !leaves.contains(room));
    }
}

/// Reads the table; a room may have several rows, and the vocabularies have none.
fn table() -> Table {
    let text = read("src/lib.rs");
    let rows = text.lines().filter_map(|line| cells(line.strip_prefix("//! ")?));
    let list = |text: &str| text.split(',').map(str::trim).map(str::to_owned).collect::<Vec<_>>();
    let mut table: Table =
        VOCABULARIES.into_iter().map(|name| (name.to_owned(), BTreeSet::new())).collect();
    for row in rows.skip(2) {
        let imports = list(row[1]).into_iter().filter(|import| !import.is_empty());
        table.entry(row[0].to_owned()).or_default().extend(imports);
    }
    table
}

fn rooms() -> BTreeSet<String> {
    let text = code(&read("src/lib.rs"));
    text.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

/// Gives what each room imports, with one place where it does.
fn used() -> BTreeMap<String, BTreeMap<String, String>> {
    let rooms = rooms();
    let mut used: BTreeMap<String, BTreeMap<String, String>> =
        rooms.iter().map(|room| (room.clone(), BTreeMap::new())).collect();
    for Source { path, text } in files("rs") {
        let Some(inside) = path.strip_prefix("src/").and_then(|rest| rest.strip_suffix(".rs"))
        else {
            continue;
        };
        let parts: Vec<&str> = inside.split('/').collect();
        let Some(imports) = used.get_mut(parts[0]).filter(|_| !parts.contains(&"tests")) else {
            continue;
        };
        let code = without_tests(&code(&text));
        for (import, at) in named_from_the_root(&code, parts.len()) {
            if import != parts[0] && rooms.contains(&import) {
                imports.entry(import).or_insert(format!("{path}:{}", line_of(&code, at)));
            }
        }
    }
    used
}

/// Blanks the modules under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut rest = code.to_owned();
    while let Some(at) = rest.find("#[cfg(test)]") {
        let end = match rest[at..].find(['{', ';']) {
            Some(open) if rest.as_bytes()[at + open] == b'{' => after_closing(&rest, at + open),
            Some(semicolon) => at + semicolon + 1,
            None => rest.len(),
        };
        let blank: String =
            rest[at..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        rest.replace_range(at..end, &blank);
    }
    rest
}

/// Gives the names right under the crate's root, by `crate::` or by enough of `super::`.
fn named_from_the_root(code: &str, depth: usize) -> Vec<(String, usize)> {
    let mut names = Vec::new();
    let climb = "super::".repeat(depth);
    let starts = places_of(code, "crate").into_iter().map(|at| (at, "crate::"));
    let climbs = places_of(code, "super").into_iter().map(|at| (at, climb.as_str()));
    for (at, prefix) in starts.chain(climbs) {
        let Some(rest) = code[at..].strip_prefix(prefix) else { continue };
        match rest.strip_prefix('{') {
            None => names.push((first_word(rest).to_owned(), at)),
            Some(_) => {
                let open = at + prefix.len();
                let group = &code[open + 1..after_closing(code, open) - 1];
                names.extend(members(group).into_iter().map(|name| (name, at)));
            }
        }
    }
    names
}

/// Gives the first name of each member of a group, not of the groups inside.
fn members(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = vec![String::new()];
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 => names.last_mut().unwrap().push(character),
            _ => {}
        }
    }
    names.iter().map(|name| first_word(name.trim()).to_owned()).collect()
}

#[test]
fn imports_are_seen_in_every_form() {
    let text = "use crate::{a::{b, c}, d, e as f};\nlet x = crate::g::h(); super::super::i::j();
        #[cfg(test)]\nmod tests { use crate::k; }\n#[cfg(test)]\nmod tests;\nuse super::l;";
    let names: Vec<String> =
        named_from_the_root(&without_tests(text), 2).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "d", "e", "g", "i"]);
}

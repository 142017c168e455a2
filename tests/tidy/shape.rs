//! How files look: length, width, names, and their opening words.

use crate::source::{
    Source, after_closing, code, expect_none, files, first_word, line_of, places_of,
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;

/// A run without a space as long as this (a vector, a URL) cannot be broken.
const UNBREAKABLE_COLUMNS: usize = 60;

/// What a table is marked with: one row after the other has no length that is wrong.
const TABLE_MARK: &str = "expect(clippy::too_many_lines, reason = \"a table";

const NAMES_THAT_SAY_NOTHING: [&str; 4] = ["common", "helpers", "types", "utils"];

#[test]
fn no_file_is_longer_than_500_lines() {
    let long = |Source { path, text }: Source| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{path}: {lines} lines"))
    };
    expect_none(files("rs").into_iter().filter_map(long).collect(), "files are short");
}

/// Counts from `fn` to the closing brace, comments included.
#[test]
fn no_function_is_longer_than_70_lines_unless_it_is_a_table() {
    let mut wrong = Vec::new();
    for Source { path, text } in files("rs") {
        let long = functions(&text).into_iter().filter(|f| f.lines > FUNCTION_LINES_MAX);
        for Function { name, line, lines, .. } in long.filter(|function| !function.is_table) {
            wrong.push(format!("{path}:{line}: {name} has {lines} lines"));
        }
    }
    expect_none(wrong, "functions are short");
}

#[test]
fn no_line_is_wider_than_100_columns_unless_it_cannot_be_broken() {
    let mut wrong = Vec::new();
    for Source { path, text } in files("rs") {
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            let longest = line.split_whitespace().map(|token| token.chars().count()).max();
            if columns > LINE_COLUMNS_MAX && longest.unwrap_or(0) < UNBREAKABLE_COLUMNS {
                wrong.push(format!("{path}:{}: {columns} columns", index + 1));
            }
        }
    }
    expect_none(wrong, "lines are narrow");
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let mut wrong = Vec::new();
    for Source { path, text } in files("rs") {
        let mut names: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
        let code = code(&text);
        names.extend(places_of(&code, "mod").into_iter().map(|at| first_word(&code[at + 4..])));
        for name in names.into_iter().filter(|name| NAMES_THAT_SAY_NOTHING.contains(name)) {
            wrong.push(format!("{path}: {name}"));
        }
    }
    expect_none(wrong, "a module's name says what is in it");
}

#[test]
fn every_file_opens_with_its_contract() {
    let silent = |Source { path, text }: Source| (!text.starts_with("//! ")).then_some(path);
    expect_none(files("rs").into_iter().filter_map(silent).collect(), "files begin with //!");
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
    is_table: bool,
}

fn functions(text: &str) -> Vec<Function> {
    let code = code(text);
    let mut functions = Vec::new();
    for at in places_of(&code, "fn") {
        let name = first_word(code[at + 2..].trim_start());
        // A type like `fn(u8)` has no name, and a trait's method may have no body.
        if name.is_empty() {
            continue;
        }
        let Some(open) = body_start(&code, at) else { continue };
        let line = line_of(&code, at);
        let lines = line_of(&code, after_closing(&code, open) - 1) - line + 1;
        let before: Vec<&str> = text.lines().take(line - 1).collect();
        let attributes = before.iter().rev().take_while(|line| {
            let line = line.trim_start();
            line.starts_with("#[") || line.starts_with("//")
        });
        let is_table = attributes.into_iter().any(|line| line.contains(TABLE_MARK));
        functions.push(Function { name: name.to_owned(), line, lines, is_table });
    }
    functions
}

/// Gives the brace that opens a function's body.
fn body_start(code: &str, at: usize) -> Option<usize> {
    let mut place = at;
    loop {
        place += code[place..].find(['{', '(', '[', ';'])?;
        match code.as_bytes()[place] {
            b'{' => return Some(place),
            b';' => return None,
            _ => place = after_closing(code, place),
        }
    }
}

#[test]
fn functions_are_measured_from_fn_to_the_brace() {
    let text = "fn a(x: [u8; 2]) -> u8 {\n '{'\n}\ntrait T { fn b(&self); }\ntype F = fn(u8);\n\
                #[expect(clippy::too_many_lines, reason = \"a table, a row each\")]\nfn c() {}\n";
    let seen: Vec<_> =
        functions(text).into_iter().map(|f| (f.name, f.line, f.lines, f.is_table)).collect();
    assert_eq!(seen, [("a".to_owned(), 1, 3, false), ("c".to_owned(), 7, 1, true)]);
}

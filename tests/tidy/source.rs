//! Reading the checkout: its files, and Rust text without comments and literals.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of the checkout.
pub(crate) struct Source {
    /// From the root, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Gives the root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads one file by its path from the root.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Reads every file with an extension, in the order of their paths.
pub(crate) fn files(extension: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(root(), extension, &mut paths);
    paths.sort();
    let source = |path: PathBuf| {
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        Source { text: read(&path), path }
    };
    paths.into_iter().map(source).collect()
}

fn collect(folder: &Path, extension: &str, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            collect(&path, extension, paths);
        } else if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
}

/// Fails with one line for each thing that is wrong.
pub(crate) fn expect_none(wrong: Vec<String>, claim: &str) {
    assert!(wrong.is_empty(), "{claim}:\n  {}\n", wrong.join("\n  "));
}

/// Blanks comments and literals, so that what is left is code. Every byte keeps its place.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hidden = hidden(bytes, at);
        for byte in &bytes[at..at + hidden.max(1)] {
            let shown = *byte == b'\n' || (hidden == 0 && byte.is_ascii());
            code.push(if shown { char::from(*byte) } else { ' ' });
        }
        at += hidden.max(1);
    }
    code
}

/// Gives how many bytes of a comment or literal start here; 0 for code.
fn hidden(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest),
        [b'\'', b'\\', _, ..] => 3 + rest[3..].iter().position(|b| *b == b'\'').unwrap() + 1,
        [b'\'', ..] => character(rest),
        [b'r', b'"' | b'#', ..] if !follows_word(bytes, at) => raw(rest),
        _ => 0,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// A literal of one character; a lifetime has no second quote.
fn character(rest: &[u8]) -> usize {
    let width = match rest.get(1) {
        Some(0..=0x7f) | None => 1,
        Some(0x80..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(_) => 4,
    };
    if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

/// A raw string; `r#name` is none.
fn raw(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let start = hashes + 2;
    let length = rest[start..].windows(end.len()).position(|window| window == end).unwrap();
    start + length + end.len()
}

/// Whether a word goes on here; the `b` of a byte string is no word.
fn follows_word(bytes: &[u8], at: usize) -> bool {
    let word = |place: usize| is_word(bytes[place]);
    match at {
        0 => false,
        1 => word(0) && bytes[0] != b'b',
        _ => word(at - 1) && (bytes[at - 1] != b'b' || word(at - 2)),
    }
}

/// Whether a byte can stand in a name.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Gives the name that a text starts with.
pub(crate) fn first_word(text: &str) -> &str {
    let end = text.bytes().position(|byte| !is_word(byte)).unwrap_or(text.len());
    &text[..end]
}

/// Gives the places where a word stands by itself.
pub(crate) fn places_of(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let whole = |(at, _): &(usize, &str)| {
        let after = bytes.get(at + word.len()).copied().unwrap_or(b' ');
        (*at == 0 || !is_word(bytes[at - 1])) && !is_word(after)
    };
    code.match_indices(word).filter(whole).map(|(at, _)| at).collect()
}

/// Gives the place after the bracket that closes the one at `open`.
pub(crate) fn after_closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Gives the number of the line of a place, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Gives the cells of a row of a Markdown table.
pub(crate) fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

/// Gives what stands between backticks on a line, or over several.
pub(crate) fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn code_is_told_from_comments_and_literals() {
    for (text, expect) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x \" { //", 'a', '\'', '{')"#, "f(           ,    ,     ,    )"),
        ("r#\"a\"b\"# br\"c\" r#d 'e: 'f", "         b     r#d 'e: 'f"),
        ("'é' é", "        "),
    ] {
        assert_eq!(code(text).trim_end(), expect.trim_end(), "{text}");
        assert_eq!(code(text).len(), text.len());
    }
}

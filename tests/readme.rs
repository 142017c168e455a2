//! README.md against the program: what it prints is what runs.

#![expect(clippy::unwrap_used, reason = "a test may fail that way")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const README: &str = include_str!("../README.md");

/// Gives the text of the first fenced block of a language that holds a word.
fn block(language: &str, word: &str) -> &'static str {
    let open = format!("```{language}\n");
    let mut blocks =
        README.split(open.as_str()).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(word)).unwrap()
}

fn relay(folder: &Path, arguments: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_sns-relay");
    Command::new(program).args(arguments.split(' ')).current_dir(folder).output().unwrap()
}

/// The block of `relay.toml` is written to a file, and the README's own commands are run on it.
#[test]
fn the_least_configuration_is_accepted_with_the_commands_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("relay.toml"), block("toml", "relay.toml")).unwrap();
    let commands = block("sh", "sns-relay keys init").lines().filter_map(|line| {
        let command = line.split(" #").next()?.trim_end();
        command.strip_prefix("sns-relay ")
    });
    let commands: Vec<&str> = commands.collect();
    let [init, check, serve] = commands[..] else { panic!("{commands:?}") };
    assert!(relay(folder.path(), init).status.success());
    let checked = relay(folder.path(), check);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(text.starts_with("ok\n") && text.contains("app chat: webpush"), "{text}");
    assert_eq!(serve, "serve --config relay.toml &");
    let minted = relay(folder.path(), "enrolment-token mint --config relay.toml");
    assert_eq!(String::from_utf8(minted.stdout).unwrap().lines().count(), 1);
}

/// The demo prints lines to try; the README has them word for word.
#[test]
fn the_lines_to_try_are_those_that_the_demo_prints() {
    let lines = sns_loadtest::demo::LINES.trim();
    assert!(README.contains(lines), "README.md must hold:\n{lines}");
}

/// Every link to a file of this project, and every test that a promise names.
#[test]
fn every_file_that_it_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links = README.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|link| !link.starts_with("https://"));
    let proofs = README.split('`').skip(1).step_by(2);
    let proofs = proofs.filter(|text| text.starts_with("tests/") || text.starts_with("src/"));
    let named: Vec<&str> = links.chain(proofs).collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(root.join(name).exists(), "{name}");
    }
}

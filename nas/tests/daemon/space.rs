//! A file system that is full or read-only: a clear error, and every earlier record intact.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use sns_nas::base64url;

use crate::Nas;
use crate::relay::{Relay, told};

/// Runs a shell line in which `sns-nas` is ours.
fn shell(nas: &Nas, line: &str) -> Output {
    let line = line.replace("sns-nas", env!("CARGO_BIN_EXE_sns-nas"));
    Command::new("sh").args(["-c", &line]).env("SNS_NAS_JOURNAL", nas.file()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// No file may grow beyond what the journal has now: what a full disk does, without being root.
#[test]
fn a_full_disk_is_named_by_every_command_that_writes_and_earlier_records_are_intact() {
    let (nas, _) = Nas::new("http://127.0.0.1:1", &["phone"]);
    nas.says(&["notify", "Before", "--text", &"x".repeat(3000)]);
    let before = nas.records().len();
    let blocks = fs::metadata(nas.file()).unwrap().len() / 512;
    let text = "y".repeat(8000);
    for command in [
        format!("notify Full --text {text}"),
        format!("notify Full --text {text} --level error"),
        "senders add chat".to_owned(),
    ] {
        let limit = blocks.min(8);
        let output =
            shell(&nas, &format!("trap '' XFSZ; ulimit -f {limit}; exec sns-nas {command}"));
        assert_eq!(output.status.code(), Some(74), "{command:.20}: {}", stderr(&output));
        assert!(stderr(&output).contains("the disk is full"), "{}", stderr(&output));
        assert!(output.stdout.is_empty(), "no id is printed for what was not taken");
    }
    assert_eq!(nas.records().len(), before);
    assert_eq!(nas.says(&["senders", "list"]).lines().count(), 1);
    nas.says(&["notify", "After"]);
    assert_eq!(nas.records().len(), before + 1);
}

/// The daemon goes on sending what it has, says no to what is new, and settles when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_on_a_full_disk_says_no_and_loses_nothing() {
    let relay = Relay::start(|_, _| told("accepted")).await;
    let (mut nas, _) = Nas::new(&relay.url, &["phone"]);
    nas.says(&["notify", "Before", "--text", &"x".repeat(3000)]);
    // Room for the index of the WAL and some of its frames, and no more.
    let line = "trap '' XFSZ; ulimit -f 80; exec sns-nas run";
    let line = line.replace("sns-nas", env!("CARGO_BIN_EXE_sns-nas"));
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env("SNS_NAS_JOURNAL", nas.file());
    nas.start_as(command).await;
    let mut taken = 1;
    let refused = loop {
        let text = "y".repeat(8000);
        let output = nas.run(&["notify", "Full", "--text", &text]);
        if output.status.code() != Some(0) {
            break output;
        }
        taken += 1;
        assert!(taken < 20, "the disk is never full");
    };
    assert_eq!(refused.status.code(), Some(74), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("the disk is full"), "{}", stderr(&refused));
    nas.kill();
    assert_eq!(nas.records().len(), taken);
    nas.start().await;
    nas.until(crate::is_done).await;
    let records = nas.records();
    assert!(records.iter().all(|record| record.deliveries[0].state == "accepted"));
    let ids: std::collections::BTreeSet<String> =
        relay.got().iter().map(|got| got.id.clone()).collect();
    assert_eq!(ids.len(), taken, "sent again under the same id, if at all");
}

/// As a user who may read the journal and not write it; root may always write.
#[test]
fn a_journal_that_cannot_be_written_is_named_and_not_touched() {
    let (nas, _) = Nas::new("http://127.0.0.1:1", &["phone"]);
    nas.says(&["notify", "Before"]);
    let before = fs::read(nas.file()).unwrap();
    let program = nas.path().join("sns-nas");
    fs::copy(env!("CARGO_BIN_EXE_sns-nas"), &program).unwrap();
    let folder = nas.path().to_owned();
    let is_root = fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
    let user = if is_root { "setpriv --reuid=65534 --regid=65534 --clear-groups " } else { "" };
    if is_root {
        let owner = format!("chown -R 65534:65534 {}", folder.display());
        assert!(Command::new("sh").args(["-c", &owner]).status().unwrap().success());
    }
    // Nobody writes: neither the file nor the folder.
    fs::set_permissions(nas.file(), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let line = |args: &str| {
        let program = program.display();
        let line = format!("{user}{program} {args}");
        Command::new("sh").args(["-c", &line]).env("SNS_NAS_JOURNAL", nas.file()).output().unwrap()
    };
    for args in ["notify After", "devices remove phone", "senders add chat", "recall", "run"] {
        let output = line(args);
        assert_eq!(output.status.code(), Some(74), "{args}: {}", stderr(&output));
        let words = stderr(&output);
        assert!(words.contains("read-only"), "{args}: {words}");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(nas.file(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(fs::read(nas.file()).unwrap() == before);
    if is_root {
        let owner = format!("chown -R 0:0 {}", folder.display());
        assert!(Command::new("sh").args(["-c", &owner]).status().unwrap().success());
    }
    assert_eq!(nas.records().len(), 1);
}

/// Keys and handles are in no line that a command prints.
#[test]
fn no_command_prints_a_handle_or_a_key() {
    let (nas, keys) = Nas::new("http://127.0.0.1:1", &["phone"]);
    nas.says(&["notify", "Before"]);
    let printed = [
        nas.says(&["devices", "list"]),
        nas.says(&["devices", "list", "--json"]),
        nas.says(&["status"]),
        nas.says(&["recall", "--json"]),
        nas.says(&["senders", "list"]),
    ]
    .concat();
    assert!(printed.contains("phone"));
    let handle = base64url::encode("phone");
    let auth = base64url::encode(keys[0].auth());
    for secret in [handle.as_str(), &auth, "PRIVATE KEY"] {
        assert!(!printed.contains(secret));
    }
}

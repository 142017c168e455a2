//! The `sns-nas` command as a shell sees it: output, error text, exit code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sns_nas::base64url;
use sns_nas::key::SenderKey;
use sns_nas::seal::{ReceiverKeys, open};

/// A key file in its own folder, removed at the end.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let key = Self(folder.join("sender.pem"));
        if key.0.exists() {
            std::fs::remove_file(&key.0).unwrap();
        }
        key
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        std::fs::remove_dir_all(self.0.parent().unwrap()).unwrap();
    }
}

fn run(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sns-nas"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read closes its end early.
    child.stdin.take().unwrap().write_all(input).ok();
    child.wait_with_output().unwrap()
}

fn stdout(output: Output) -> Vec<u8> {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
    output.stdout
}

fn fails(args: &[&str], input: &[u8], code: i32, text: &str) {
    let output = run(args, input);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(stderr.contains(text), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?}");
}

#[test]
fn keygen_makes_a_private_file_once() {
    let key = KeyFile::new("keygen");
    assert!(stdout(run(&["keygen", "--key", key.path()], b"")).is_empty());
    let pem = std::fs::read(&key.0).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&key.0).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fails(&["keygen", "--key", key.path()], b"", 1, "cannot write the key file");
    assert_eq!(std::fs::read(&key.0).unwrap(), pem, "never overwritten");

    let public = stdout(run(&["public", "--key", key.path()], b""));
    let expected = SenderKey::load(&key.0).unwrap().public_base64url() + "\n";
    assert_eq!(public, expected.as_bytes());
}

#[test]
fn token_prints_one_header_line() {
    let key = KeyFile::new("token");
    stdout(run(&["keygen", "--key", key.path()], b""));
    let url = "https://push.example.net:8443/push/x";
    let args = ["token", "--key", key.path(), "--audience", url, "--life-s", "60"];
    let line =
        |more: &[&str]| String::from_utf8(stdout(run(&[&args[..], more].concat(), b""))).unwrap();
    let text = line(&["--subject", "mailto:admin@example.net"]);
    let token = text.strip_prefix("Authorization: vapid t=").unwrap();
    let (token, public) = token.strip_suffix('\n').unwrap().split_once(", k=").unwrap();
    assert_eq!(public, SenderKey::load(&key.0).unwrap().public_base64url());
    let claims = base64url::decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["aud"], "https://push.example.net:8443");
    assert_eq!(claims["sub"], "mailto:admin@example.net");
    let now_s = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now_s..=now_s + 60).contains(&claims["exp"].as_u64().unwrap()));
    assert_eq!(line(&[]).lines().count(), 1);
}

#[test]
fn seal_writes_a_body_that_the_device_opens() {
    // This auth secret begins with '-' in base64url.
    let receiver = ReceiverKeys::from_raw(&[1; 32], [0xfb; 16]).unwrap();
    let p256dh = base64url::encode(receiver.p256dh());
    let auth = base64url::encode(receiver.auth());
    let args = ["seal", "--p256dh", &p256dh, "--auth", &auth];
    let body = stdout(run(&args, b"volume 1 crashed"));
    assert_eq!(body.len(), 512);
    assert_eq!(open(&receiver, &body).unwrap(), b"volume 1 crashed");
    let body = stdout(run(&[&args[..], &["--cap-bytes", "4096"]].concat(), &[7; 3993]));
    assert_eq!(open(&receiver, &body).unwrap(), [7; 3993]);
    let long = "the message has 2642 bytes, 2641 fit";
    fails(&args, &[7; 5000], 1, long);
}

#[test]
fn bad_usage_names_the_argument_and_exits_with_64() {
    let key = KeyFile::new("usage");
    stdout(run(&["keygen", "--key", key.path()], b""));
    let url = "https://push.example.net";
    let token = |more: &[&str], text: &str| {
        fails(&[&["token", "--key", key.path()], more].concat(), b"", 64, text);
    };
    token(&[], "--audience");
    token(&["--audience", "push.example.net"], "--audience");
    token(&["--audience", url, "--life-s", "0"], "--life-s");
    token(&["--audience", url, "--life-s", "86401"], "--life-s");
    token(&["--audience", url, "--subject", "me@example.net"], "--subject");
    token(&["--audience", url, "--colour"], "--colour");
    fails(&["seal", "--p256dh", "BA", "--auth", "AA"], b"", 64, "--p256dh");
    let receiver = ReceiverKeys::generate().unwrap();
    let p256dh = base64url::encode(receiver.p256dh());
    let sealing = ["seal", "--p256dh", &p256dh, "--auth", "AA"];
    fails(&sealing, b"", 64, "--auth");
    fails(&[&sealing[..], &["--cap-bytes", "9999"]].concat(), b"", 64, "--cap-bytes");
    fails(&[], b"", 64, "Usage");
    fails(&["public"], b"", 64, "--key");
    fails(&["public", "--key", "/nonexistent.pem"], b"", 1, "/nonexistent.pem: No such file");
    std::fs::write(&key.0, "not a key").unwrap();
    fails(&["public", "--key", key.path()], b"", 1, "not a P-256 private key");
}

#[test]
fn help_and_version_are_no_fault() {
    assert!(String::from_utf8(stdout(run(&["--help"], b""))).unwrap().contains("Usage"));
    let version = stdout(run(&["--version"], b""));
    assert_eq!(version, format!("sns-nas {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
}

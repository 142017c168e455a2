//! Each command as a shell sees it, with a daemon and without: what it prints, and what it refuses.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use sns_nas::base64url;
use sns_nas::content::{Body, Content};
use sns_nas::seal::{self, ReceiverKeys};

use crate::relay::{Relay, Told, told};
use crate::{Nas, is_done};

fn opened(keys: &ReceiverKeys, sealed: &[u8]) -> Content {
    Content::decode(&seal::open(keys, sealed).unwrap()).unwrap()
}

fn recalled(nas: &Nas, args: &[&str]) -> Vec<Value> {
    let text = nas.says(&[&["recall", "--json"], args].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Three events in the three ways of saying them, one replaced and one withdrawn, all recalled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_sends_what_the_commands_say_and_recall_tells_what_became_of_it() {
    let relay = Relay::start(|_, _| {
        Some(Told { outcome: "accepted", members: json!({"provider_message_id": "p-1"}) })
    })
    .await;
    let (mut nas, keys) = Nas::new(&relay.url, &["phone", "tablet"]);
    nas.start().await;
    nas.says(&["rules", "add", "mute", "--device", "tablet", "--level", "info"]);
    let first = nas.says(&["notify", "DDNSFail", r#"{"%FAIL_REASON%": "no route"}"#]);
    let words = ["notify", "--level", "info", "--title", "Hello", "--text", "from %HOSTNAME%"];
    let second = nas.says(&[&words[..], &["--var", "HOSTNAME=attic", "--ttl-s", "60"]].concat());
    nas.until(is_done).await;
    nas.says(&["replace", first.trim(), "--level", "info", "--text", "it is back"]);
    nas.says(&["withdraw", second.trim()]);
    nas.until(is_done).await;

    let got = relay.got();
    let to = |name: &str| -> Vec<Content> {
        let index = usize::from(name == "tablet");
        let mine = got.iter().filter(|got| got.handle == base64url::encode(name));
        let mut contents: Vec<Content> =
            mine.map(|got| opened(&keys[index], &got.sealed)).collect();
        // What is on its way at once may overtake.
        contents.sort_by_key(|content| content.sequence);
        contents
    };
    let (phone, tablet) = (to("phone"), to("tablet"));
    assert_eq!((phone.len(), tablet.len()), (4, 2), "infos are muted on the tablet");
    let kinds: Vec<&str> = phone.iter().map(|content| content.body.kind()).collect();
    assert_eq!(kinds, ["notification", "notification", "replace", "withdraw"]);
    let event = phone[0].body.event().unwrap();
    assert!(event.text.contains("no route") && event.source.label() == "dsm");
    assert!(matches!(phone[3].body, Body::Withdraw(id) if id.to_string() == second.trim()));

    let all = recalled(&nas, &[]);
    assert_eq!(all.len(), 4);
    let hello = recalled(&nas, &["--search", "FROM ATTIC", "--since", "1h"]);
    assert_eq!((hello.len(), &hello[0]["title"]), (1, &json!("Hello")));
    let delivery = &hello[0]["deliveries"][0];
    assert_eq!(delivery["state"], "accepted");
    assert_eq!(
        (&delivery["device"], &delivery["provider_message_id"]),
        (&json!("phone"), &json!("p-1"))
    );
    assert_eq!(
        recalled(&nas, &["--level", "warn", "--source", "dsm"]).len(),
        2,
        "and what replaces it"
    );
    assert_eq!(recalled(&nas, &["--source", "srm"]).len(), 0);
    assert_eq!(recalled(&nas, &["--id", first.trim()]).len(), 2);
    assert_eq!(recalled(&nas, &["--count", "3"]).len(), 3);
    assert!(nas.says(&["recall"]).contains("phone: accepted"));
    let status: Value = serde_json::from_str(&nas.says(&["status", "--json"])).unwrap();
    assert_eq!(status["daemon"], "runs");
    assert_eq!(status["deliveries"], json!({"accepted": 6}));
    nas.fails(&["run"], 75, "another sns-nas runs");
    nas.terminate();
    assert!(!nas.socket().exists());
}

/// The application has a key of its own, made while the daemon runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_through_the_application_door_under_the_applications_own_key() {
    let relay = Relay::start(|_, _| told("accepted")).await;
    let (mut nas, _) = Nas::new(&relay.url, &["phone"]);
    nas.start().await;
    let public = nas.says(&["senders", "add", "chat"]);
    let receiver = ReceiverKeys::generate().unwrap();
    let handed = json!({
        "endpoint": format!("{}/push/{}", relay.url, base64url::encode("chat on phone")),
        "p256dh": base64url::encode(receiver.p256dh()), "auth": base64url::encode(receiver.auth()),
        "max_body_bytes": 4096, "expires_at": "2027-01-01T00:00:00Z",
    });
    let add = ["devices", "add", "chat on phone", "--sender", "chat", "--stdin"];
    let mut child = nas.command(&add).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(handed.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    nas.says(&["message", "--app", "chat", "--title", "Eve", "hello there"]);
    nas.until(is_done).await;
    let got = relay.got();
    assert_eq!(got.len(), 1, "not to the device of the NAS itself");
    assert_eq!(
        (got[0].door, got[0].handle.as_str()),
        ("push", base64url::encode("chat on phone").as_str())
    );
    let Body::Message(letter) = opened(&receiver, &got[0].sealed).body else { panic!("a kind") };
    assert_eq!((letter.title.as_str(), letter.text.as_str()), ("Eve", "hello there"));
    let senders = nas.says(&["senders", "list"]);
    assert!(senders.contains(&format!("chat\t{public}")));
}

/// Each of these is another's fault, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_push_names_the_cause() {
    let problem = |status: u16, code: &str| {
        Some(Told { outcome: "problem", members: json!({"status": status, "code": code}) })
    };
    let refused =
        |reason: &str| Some(Told { outcome: "refused", members: json!({"reason": reason}) });
    let causes = [
        (told("accepted"), 0, "accepted"),
        (told("gone"), 10, "the device is gone"),
        (refused("handle_invalid"), 11, "pair the device anew"),
        (problem(403, "nas_not_enrolled"), 12, "does not know this NAS"),
        (problem(401, "vapid_expired"), 14, "the clock of this NAS is wrong"),
        (problem(403, "vapid_audience_wrong"), 15, "called otherwise"),
        (refused("sealed_missing"), 20, "sealed content only"),
        (problem(429, "sender_rate_exceeded"), 22, "too many messages"),
        (told("not_now"), 24, "try later"),
        (told("misconfigured"), 25, "the operator"),
        (told("unknown"), 26, "it may have arrived"),
        (None, 16, "cannot be reached"),
    ];
    let answers: Vec<_> = causes.iter().map(|(told, _, _)| told.clone()).collect();
    let relay = Relay::start(move |n, _| answers[n].clone()).await;
    let (nas, keys) = Nas::new(&relay.url, &["phone"]);
    for (_, code, words) in &causes {
        let output = nas.run(&["devices", "test", "phone"]);
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).unwrap();
        assert_eq!(output.status.code(), Some(*code), "{told}");
        assert!(told.contains(words), "{told}");
    }
    let content = opened(&keys[0], &relay.got()[0].sealed);
    assert_eq!(content.body.event().unwrap().tag, "TestPush");
    assert!(nas.records().is_empty(), "a test is not kept");
    nas.fails(&["devices", "test", "toaster"], 64, "there is no device of that name");
}

/// Without a daemon: a whole shelf of mistakes, by command.
#[test]
fn bad_input_is_refused_with_a_code_and_a_word() {
    let (nas, _) = Nas::new("http://127.0.0.1:1", &["phone"]);
    let usage = |args: &[&str], words: &str| nas.fails(args, 64, words);
    let input = |args: &[&str], words: &str| nas.fails(args, 65, words);
    usage(&["enrol", "--relay", "http://127.0.0.1:1"], "--model");
    let enrol = ["enrol", "--model", "DS1", "--serial", "1", "--relay"];
    usage(&[&enrol[..], &["ftp://x"]].concat(), "base_url is not an http or https URL");
    usage(&[&enrol[..], &["http://127.0.0.1:1", "--ca", "/nonexistent"]].concat(), "cannot read");
    nas.fails(&[&enrol[..], &["http://127.0.0.1:1"]].concat(), 69, "cannot reach the relay");
    usage(&["senders", "add", " x"], "the sender's name is not");
    usage(&["senders", "add", "nas"], "there is a sender of that name already");
    usage(&["devices", "add", "x"], "--handle");
    usage(&["devices", "add", "x", "--handle", "AAAA"], "give --p256dh and --auth, or --plain");
    usage(&["devices", "add", "x", "--handle", "no handle", "--plain"], "handle is not");
    usage(&["devices", "add", "", "--handle", "AAAA", "--plain"], "name is not");
    usage(&["devices", "add", "phone", "--handle", "AAAA", "--plain"], "there is a device of that");
    let keys = ["--p256dh", "BA", "--auth", "AA"];
    usage(&[&["devices", "add", "x", "--handle", "AAAA"], &keys[..]].concat(), "p256dh is not");
    let plain = ["devices", "add", "x", "--handle", "AAAA", "--plain"];
    usage(&[&plain[..], &["--max-body-bytes", "10"]].concat(), "max_body_bytes is not");
    usage(&[&plain[..], &["--sender", "nobody"]].concat(), "p256dh is not left out");
    input(&["devices", "add", "x", "--stdin"], "not a device in JSON");
    usage(&["devices", "mail", "owner@example.com"], "--app");
    let mail = ["devices", "mail", "owner@example.com", "--app", "dsm"];
    usage(&[&mail[..], &["--sender", "nobody"]].concat(), "there is no sender of that name");
    nas.fails(&mail, 69, "cannot reach the relay");
    usage(&["devices", "remove", "toaster"], "there is no device of that name");
    usage(&["rules", "add", "shout"], "invalid value 'shout'");
    usage(&["rules", "add", "mute", "--level", "loud"], "not info, warn or error");
    usage(&["rules", "remove", "7"], "there is no rule of that name");
    input(&["notify"], "there is nothing to say");
    input(&["notify", "X", "{"], "it ends too early");
    input(&["notify", "X", "[1]"], "not an event in JSON");
    usage(&["notify", "X", "--source", "toaster"], "not dsm, srm or surveillance");
    usage(&["notify", "X", "--ttl-s", "0"], "--ttl-s");
    usage(&["notify", "X", "--var", "novalue"], "not NAME=VALUE");
    usage(&["notify", "X", "--id", "1"], "--id");
    usage(&["notify", "X", "--stdin"], "cannot be used with");
    input(&["notify", "X", "--device", "toaster"], "no device named \"toaster\"");
    input(&["notify", "X", "--title", &"x".repeat(257)], "title is not at most 256 bytes");
    usage(&["message", "hello"], "--app");
    input(&["message", "hello", "--app", "chat"], "has no device");
    input(&["message", "", "--app", "chat"], "there is nothing to say");
    usage(&["withdraw", "1"], "invalid value '1'");
    let nobody = "00000000-0000-0000-0000-000000000000";
    usage(&["withdraw", nobody], "there is no notification of that name");
    usage(&["replace", nobody, "X"], "there is no notification of that name");
    input(&["replace", nobody], "there is nothing to say");
    usage(&["recall", "--since", "yesterday"], "not a time like 2h");
    usage(&["recall", "--level", "loud"], "not info, warn or error");
    usage(&["recall", "--count", "many"], "--count");
    usage(&["run", "--in-flight-max", "0"], "--in-flight-max");
    input(&["run", "--catalogue", "/nonexistent"], "cannot read the catalogue");
    assert!(nas.records().is_empty(), "nothing was taken");
    let bare = Nas::empty();
    for command in [&["run"][..], &["recall"], &["status"], &["devices", "list"], &["notify", "X"]]
    {
        bare.fails(command, 74, "there is no journal");
    }
}

/// Good lines are taken, bad ones named by their number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_by_the_line_over_a_pipe_and_over_the_socket() {
    let relay = Relay::start(|_, _| told("accepted")).await;
    let (mut nas, _) = Nas::new(&relay.url, &["phone"]);
    let piped = |nas: &Nas| {
        let lines =
            "{\"tag\": \"One\"}\n\n{\"tag\": 2}\n{\"tag\": \"Three\", \"level\": \"error\"}\n";
        let mut command = nas.command(&["notify", "--stdin", "--level", "info"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(65));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("line 3: not an event in JSON: a member of a wrong kind"));
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    };
    piped(&nas);
    assert_eq!(nas.records().len(), 2);
    nas.start().await;
    piped(&nas);
    nas.until(is_done).await;
    assert_eq!(relay.got().len(), 4, "what waited in the journal went out too");

    let raw = |request: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(nas.socket()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    for bad in
        ["\n", "hello\n", "{\"shout\": {}}\n", "{\"notify\": {\"colour\": 1}}\n", "{\"notify\""]
    {
        let answer: Value = serde_json::from_str(&raw(bad)).unwrap();
        assert_eq!(answer["is_callers"], true, "{bad}");
    }
    let long = format!("{{\"notify\": {{\"text\": \"{}\"}}}}\n", "x".repeat(70_000));
    assert!(raw(&long).contains("at most 65536 bytes"));
    let two = raw("{\"notify\": {\"tag\": \"X\"}}\n{\"withdraw\": {\"id\": \"no id\"}}\n");
    assert_eq!(two.lines().count(), 2);
    assert!(two.contains("\"is_new\":true") && two.contains("is_callers"));
}

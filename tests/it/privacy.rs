//! What is left behind, and what Apple, Google and Mozilla learn (design §2, promises 1 to 3).
//!
//! One scene is played against the real program: every kind of message, to every kind of device, to
//! every kind of end. Each word of it is a marker that can be searched for.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use http::StatusCode;
use serde_json::{Value, json};
use sns_loadtest::device::{Device, DeviceKind};
use sns_loadtest::sim::journal::{Entry, Journal};
use sns_loadtest::sim::script::{Answer, Step};
use sns_loadtest::sim::smtp::{Security, SmtpServer};
use sns_loadtest::stage::{APP, PLAIN_APP};
use sns_nas::base64url;
use sns_relay::clock::Clock;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use crate::forge::{Forge, handle_of, notification};
use crate::house::KINDS;
use crate::process::Process;
use crate::wire::{Ask, PATIENCE, Told, read_answer};

/// The sender's own address on the loopback, unlike anybody else's.
const SENDER_IP: &str = "127.0.0.9";

/// What a NAS says of itself and its messages, apart from plain content.
const SAID: [&str; 11] = [
    "zqserialzq",
    "zqversionzq",
    "zquniquezq",
    "zqenroltokenzq",
    "zqagentzq",
    "zqtopiczq",
    "zqcollapsezq",
    "zqhostnamezq",
    "zqcategoryzq",
    "zqclientzq",
    "zqpathzq",
];

/// Plain content, which the device shall read.
const CONTENT: [&str; 3] = ["zqtagzq", "zqtitlezq", "zqtextzq"];

/// What the push services say.
const ANSWERED: &str = "zqansweredzq";

/// A sender at its doors, and all that it has said and heard.
struct Scene<'a> {
    process: &'a Process,
    nas: Forge,
    /// Of the NAS: nobody else may learn them.
    own: Vec<String>,
    /// Of devices: their push services know them.
    devices: Vec<String>,
    ds_id: String,
}

// === impl Scene ===

impl<'a> Scene<'a> {
    /// Plays the whole scene.
    async fn play(process: &'a Process) -> Self {
        let nas = Forge::new(process.url.clone(), Clock::system());
        let own = vec![nas.key.public_base64url(), base64url::encode(nas.key.thumbprint())];
        let mut scene = Self { process, nas, own, devices: Vec::new(), ds_id: String::new() };
        scene.own.extend(SAID.map(str::to_owned));
        scene.own.push(SENDER_IP.to_owned());
        scene.enrol().await;
        for kind in KINDS {
            let (device, endpoint) = scene.pair(APP, kind).await;
            scene.push_to_every_end(&device, &endpoint).await;
        }
        for kind in [DeviceKind::Ios, DeviceKind::Android] {
            let (_, endpoint) = scene.pair(PLAIN_APP, kind).await;
            let outcome = scene.notify_plain(&endpoint).await;
            assert_eq!(outcome, "accepted");
        }
        scene.be_refused().await;
        scene
    }

    async fn ask(&mut self, ask: &Ask) -> Told {
        let ask = ask.clone().and("user-agent", "zqagentzq");
        for (name, value) in &ask.headers {
            if *name == "authorization" {
                let token = value.split(['=', ',']).nth(1).unwrap_or(value).to_owned();
                let parts = token.split('.').skip(1).filter(|part| part.len() > 8);
                self.own.extend(parts.map(str::to_owned));
            }
        }
        ask_as_sender(self.process.address, &ask).await
    }

    async fn enrol(&mut self) {
        let body = json!({
            "model": "DS923+", "serial": "zqserialzq", "os_version": "zqversionzq",
            "unique_ids": ["zquniquezq"], "enrolment_token": "zqenroltokenzq",
        });
        let told = self.ask(&self.nas.json("POST", "/v1/nas", &body)).await;
        assert_eq!(told.status, 201);
        self.ds_id = told.json()["ds_id"].as_str().unwrap().to_owned();
    }

    async fn pair(&mut self, app: &str, kind: DeviceKind) -> (Device, String) {
        let info = self.ask(&Ask::new("GET", "/v1/apps/chat")).await.json();
        let (device, service) = match kind {
            DeviceKind::Ios => (Device::new_ios().unwrap(), "apns"),
            DeviceKind::Android => (Device::new_android().unwrap(), "fcm"),
            DeviceKind::Browser => {
                let key = info["application_server_key"].as_str().unwrap();
                let key = base64url::decode(key).unwrap().try_into().unwrap();
                (Device::new_browser(&self.process.stage.webpush, key).unwrap(), "webpush")
            }
        };
        let mut body = json!({
            "app": app, "service": service, "sender_key": self.nas.key.public_base64url(),
            "client": { "name": "zqclientzq", "device_id": "zqclientzq" },
        });
        match kind {
            DeviceKind::Browser => body["subscription"] = json!({ "endpoint": device.address() }),
            _ => body["token"] = json!(device.address()),
        }
        let ask = Ask::new("POST", "/v1/pairings").header("content-type", "application/json");
        let told = self.ask(&ask.body(body.to_string())).await;
        assert_eq!(told.status, 201);
        let endpoint = told.json()["endpoint"].as_str().unwrap().to_owned();
        self.own.push(handle_of(&endpoint));
        self.devices.push(device.address().rsplit('/').next().unwrap().to_owned());
        (device, endpoint)
    }

    /// One message for each way in which a push service can end it, through either door.
    async fn push_to_every_end(&mut self, device: &Device, endpoint: &str) {
        let stage = &self.process.stage;
        let script = match device.kind() {
            DeviceKind::Ios => stage.apns.script(),
            DeviceKind::Android => stage.fcm.script(),
            DeviceKind::Browser => stage.webpush.script(),
        };
        let answer = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            let words = json!({ "reason": ANSWERED, "error": { "status": ANSWERED } });
            Step::Answer(Answer::json(status, &words))
        };
        let mut steps = vec![Step::Accept, Step::Stall, Step::DropConnection];
        steps.extend([400, 403, 404, 410, 413, 429, 500, 503].map(answer));
        let mut outcomes = Vec::new();
        for step in steps {
            // For as long as the message is on its way, whatever is tried again.
            script.standing(step);
            let ask = self.nas.push(endpoint).header("topic", "zqtopiczq");
            self.devices.push(base64url::encode(&ask.body));
            outcomes.push(self.ask(&ask).await.status);
            self.notify_sealed(endpoint).await;
        }
        script.reset();
        assert_eq!(outcomes[0], 201);
        assert_eq!(outcomes[1], 504);
        assert!(outcomes[2..].iter().all(|status| *status >= 400), "{outcomes:?}");
    }

    async fn notify_sealed(&mut self, endpoint: &str) {
        let mut body = notification(endpoint);
        body["collapse_key"] = json!("zqcollapsezq");
        self.own.push(body["id"].as_str().unwrap().to_owned());
        self.devices.push(body["targets"][0]["sealed"].as_str().unwrap().to_owned());
        let told = self.ask(&self.nas.json("POST", "/v1/notifications", &body)).await;
        assert_eq!(told.status, 200);
    }

    async fn notify_plain(&mut self, endpoint: &str) -> Value {
        let [tag, title, text] = CONTENT;
        let mut body = notification(endpoint);
        body["collapse_key"] = json!("zqcollapsezq");
        body["content"] = json!({
            "tag": tag, "title": title, "text": text, "category": "zqcategoryzq",
            "app": "zqcategoryzq", "vars": { "%HOSTNAME%": "zqhostnamezq" },
        });
        body["targets"][0] = json!({ "handle": handle_of(endpoint) });
        self.own.push(body["id"].as_str().unwrap().to_owned());
        let told = self.ask(&self.nas.json("POST", "/v1/notifications", &body)).await;
        told.json()["results"][0]["outcome"].clone()
    }

    /// Mails that are taken, refused and cut off, and a farewell.
    async fn mail(&mut self, smtp: &SmtpServer) {
        let key = self.nas.key.public_base64url();
        for name in ["zqownerzq", "rcpt-550-5.1.1-zqownerzq", "data-drop"] {
            let address = format!("{name}@zqmailzq.example");
            let body = json!({
                "app": PLAIN_APP, "service": "email", "address": address, "sender_key": key,
            });
            let ask = Ask::new("POST", "/v1/pairings").header("content-type", "application/json");
            let told = self.ask(&ask.body(body.to_string())).await;
            assert_eq!(told.status == 202, name == "zqownerzq", "{}", told.text());
        }
        self.own.extend(["zqownerzq", "zqmailzq"].map(str::to_owned));
        let text = smtp.wait_for(1).await.unwrap()[0].text.clone().unwrap();
        let handle = text.split_whitespace().max_by_key(|word| word.len()).unwrap();
        self.own.push(handle.to_owned());
        let endpoint = format!("{}/push/{handle}", self.process.url);
        assert_eq!(self.notify_plain(&endpoint).await, "accepted");
        let mail = smtp.wait_for(2).await.unwrap().pop().unwrap();
        let link = mail.header("List-Unsubscribe").unwrap().trim_matches(['<', '>']).to_owned();
        let path = link.strip_prefix(&self.process.url).unwrap();
        self.own.push(path.rsplit('/').next().unwrap().to_owned());
        assert_eq!(self.ask(&Ask::new("POST", path)).await.status, 200);
        assert_eq!(self.notify_plain(&endpoint).await, "gone");
    }

    /// Refusals at the doors, with markers in every place.
    async fn be_refused(&mut self) {
        let good = self.nas.push("http://x/push/zqpathzq");
        let mut asks = vec![
            Ask::new("GET", "/zqpathzq?zqpathzq"),
            Ask::new("ZQPATHZQ", "/v1/nas"),
            good.clone(),
            good.clone().header("ttl", "zqtopiczq"),
            good.clone().body(CONTENT.concat()),
            good.clone().body(CONTENT.concat().repeat(300)),
            self.nas.json("POST", "/v1/nas", &json!({ "zqserialzq": "zqserialzq" })),
            self.nas.json("POST", "/v1/notifications", &json!(CONTENT)),
        ];
        for (authorization, _, _) in self.nas.wrong().into_iter().step_by(3) {
            asks.push(good.clone().header("authorization", authorization));
        }
        for ask in asks {
            let status = self.ask(&ask).await.status;
            assert!((400..500).contains(&status), "{status}");
        }
    }

    /// Gives every marker.
    fn secrets(&self) -> impl Iterator<Item = &str> {
        let words = self.own.iter().chain(&self.devices).map(String::as_str);
        words.chain(CONTENT).chain([ANSWERED, "zqmarkerzq"])
    }
}

async fn ask_as_sender(address: SocketAddr, ask: &Ask) -> Told {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 9], 0))).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(&ask.http1()).await.unwrap();
    read_answer(&mut stream).await.expect("an answer")
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    // Hex and UUIDs are case-blind, so the search is.
    let (bytes, needle) = (bytes.to_ascii_lowercase(), needle.to_ascii_lowercase());
    contains(&bytes, needle.as_bytes())
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == needle[0]) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Gives all files under a folder.
fn files_in(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_in(&entry.path())),
            false => {
                files.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
            }
        }
    }
    files
}

/// Searches log, metrics, store and working folder of the program, which logs all that it can.
async fn check_nothing_is_left(format: &str) {
    let mut smtp = None;
    let mut process = Process::with(|stage| {
        let server = SmtpServer::start(&stage.ca, Security::StartTls, None).unwrap();
        stage.serve_mail(&server, Security::StartTls, None).unwrap();
        smtp = Some(server);
        stage.set_key("log.level", "debug");
        stage.set_key("log.format", format);
        stage.set_key("server.request_timeout_ms", 400);
    })
    .await;
    let mut scene = Scene::play(&process).await;
    scene.mail(&smtp.unwrap()).await;
    let metrics = ask_as_sender(process.admin_address, &Ask::new("GET", "/metrics")).await;
    assert!(holds(&metrics.body, "app=\"chat\""), "the search finds what is there");
    let mut places = vec![("/metrics".to_owned(), metrics.body)];
    places.extend(files_in(process.stage.folder()));
    assert!(places.iter().any(|(name, _)| name.ends_with("identities.sqlite3")));
    let secrets: Vec<String> = scene.secrets().map(str::to_owned).collect();
    let ds_id = scene.ds_id.clone();
    process.terminate();
    places.extend(files_in(process.stage.folder()));
    let log = process.log();
    assert!(log.contains("messages failed for a fault of the operator's"), "{log}");
    assert!(log.contains("stopped"), "{log}");
    for (name, bytes) in &places {
        for secret in &secrets {
            assert!(!holds(bytes, secret), "{secret} is in {name}");
        }
        let is_store = name.contains("/data/");
        assert!(is_store || !holds(bytes, &ds_id), "the NAS's id is in {name}");
    }
}

/// Plays the scene against the program with its log as text.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_message_is_left_behind() {
    check_nothing_is_left("text").await;
}

/// Plays the scene against the program with its log as JSON.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_message_is_left_behind_in_json() {
    check_nothing_is_left("json").await;
}

/// Gives all that a push service was told, with the insides of its tokens.
fn heard(journal: &Journal) -> Vec<u8> {
    let mut heard = Vec::new();
    for Entry { method, path, headers, body, .. } in journal.entries() {
        heard.extend_from_slice(format!("{method} {path} {headers:?}\n").as_bytes());
        heard.extend_from_slice(&body);
        let mut text = String::from_utf8_lossy(&body).into_owned();
        for value in headers.values() {
            text.push(' ');
            text.push_str(value.to_str().unwrap_or_default());
        }
        for part in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_') {
            heard.push(b'\n');
            heard.extend(base64url::decode(part).unwrap_or_default());
        }
    }
    heard
}

/// Reads all that the push services were told: headers, bodies and the insides of tokens.
#[tokio::test(flavor = "multi_thread")]
async fn no_push_service_learns_which_nas_it_was() {
    let process = Process::with(|stage| stage.set_key("server.request_timeout_ms", 400)).await;
    let scene = Scene::play(&process).await;
    let stage = &process.stage;
    assert!(stage.fcm.journal().wait_requests(10, PATIENCE).await);
    let port = format!("localhost:{}", process.address.port());
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let services = [
        ("Apple", stage.apns.journal()),
        ("Google", stage.fcm.journal()),
        ("Mozilla", stage.webpush.journal()),
    ];
    for (name, journal) in services {
        let heard = heard(journal);
        assert!(holds(&heard, "zqt") || name == "Mozilla", "the search finds plain content");
        let own = scene.own.iter().map(String::as_str);
        for word in own.chain([scene.ds_id.as_str(), port.as_str(), "forwarded", "x-real-ip"]) {
            assert!(!holds(&heard, word), "{name} learns {word}");
        }
        let hostname = hostname.trim();
        assert!(hostname.len() < 6 || hostname == "localhost" || !holds(&heard, hostname));
    }
}

//! A relay that a test plays: the two doors over HTTP/1.1, each answer as the test says.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sns_nas::base64url;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One message as it came.
#[derive(Clone)]
pub(crate) struct Got {
    /// At which door: `/v1/notifications`, or `/push/` and the handle.
    pub(crate) path: String,
    pub(crate) handle: String,
    pub(crate) sealed: Vec<u8>,
    /// The whole request, where it was JSON.
    pub(crate) json: Value,
    /// What was answered; `None` where the connection was broken off.
    pub(crate) answer: Option<&'static str>,
}

/// What is answered: the number of the message, counted from 0, and the message.
type Judge = dyn Fn(usize, &Got) -> Option<Told> + Send + Sync;

/// An answer: the outcome, and what else is in the result.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) outcome: &'static str,
    pub(crate) members: Value,
}

pub(crate) struct Relay {
    pub(crate) url: String,
    got: Arc<Mutex<Vec<Got>>>,
    server: JoinHandle<()>,
}

pub(crate) fn told(outcome: &'static str) -> Option<Told> {
    Some(Told { outcome, members: json!({}) })
}

impl Relay {
    /// Listens; answers each message as `judge` says, and breaks the connection off where it says
    /// nothing.
    pub(crate) async fn start(
        judge: impl Fn(usize, &Got) -> Option<Told> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (kept, judge): (_, Arc<Judge>) = (Arc::clone(&got), Arc::new(judge));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (got, judge) = (Arc::clone(&kept), Arc::clone(&judge));
                // A daemon that is killed breaks its connections off.
                tokio::spawn(async move { drop(serve(stream, &got, &*judge).await) });
            }
        });
        Self { url, got, server }
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(stream: TcpStream, got: &Mutex<Vec<Got>>, judge: &Judge) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let (mut line, mut length, mut path) = (String::new(), 0, String::new());
        while reader.read_line(&mut line).await? > 0 && line != "\r\n" {
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            } else if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        if path.is_empty() {
            return Ok(());
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await?;
        let mut one = read(path, body);
        let answer = {
            let mut got = got.lock().unwrap();
            let answer = judge(got.len(), &one);
            one.answer = answer.as_ref().map(|told| told.outcome);
            got.push(one.clone());
            answer
        };
        let Some(told) = answer else { return Ok(()) };
        writer.write_all(written(&one, &told).as_bytes()).await?;
    }
}

fn read(path: String, body: Vec<u8>) -> Got {
    if let Some(handle) = path.strip_prefix("/push/") {
        let handle = handle.to_owned();
        return Got { path, handle, sealed: body, json: Value::Null, answer: None };
    }
    let json: Value = serde_json::from_slice(&body).unwrap();
    let target = &json["targets"][0];
    let handle = target["handle"].as_str().unwrap().to_owned();
    let sealed = target["sealed"].as_str().map(|text| base64url::decode(text).unwrap());
    Got { path, handle, sealed: sealed.unwrap_or_default(), json, answer: None }
}

fn written(got: &Got, told: &Told) -> String {
    let (status, kind, body) = match (told.outcome, got.path.starts_with("/push/")) {
        ("problem", _) => {
            let status = told.members["status"].as_u64().unwrap();
            (status, "application/problem+json", told.members.clone())
        }
        ("accepted", true) => (201, "application/json", json!({})),
        (_, true) => (410, "application/problem+json", json!({"code": "webpush_gone"})),
        (outcome, false) => {
            let mut result = told.members.clone();
            result["outcome"] = outcome.into();
            (200, "application/json", json!({"results": [result]}))
        }
    };
    let body = body.to_string();
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
}

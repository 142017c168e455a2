//! Searches for what must not be there: in the relay's files, in its log, in what left for the push
//! services.
//!
//! A search looks at bytes and knows nothing of formats; it counts them, so that a search of
//! nothing cannot pass for a clean one.

use std::fs;
use std::path::Path;

use sns_nas::base64url;

use super::DemoError;
use super::act::Scene;
use super::cast::{Cast, SERIAL};
use super::relay_process::RelayProcess;
use crate::sim::journal::{Entry, Journal};
use crate::stage::Stage;

/// One place that was searched.
pub(super) struct Search {
    /// Where.
    pub(super) place: &'static str,
    /// For what.
    pub(super) wanted: &'static str,
    /// How much was searched.
    pub(super) bytes: usize,
    /// What was found, by name.
    pub(super) found: Vec<&'static str>,
}

struct Needle {
    name: &'static str,
    bytes: Vec<u8>,
}

/// As much of a ciphertext as cannot be there by chance; a multiple of 3, for base64.
const CIPHERTEXT_BYTES: usize = 24;

// === impl Search ===

impl Search {
    /// Whether there was something to search and nothing was found.
    pub(super) fn is_good(&self) -> bool {
        self.bytes > 0 && self.found.is_empty()
    }

    fn of(place: &'static str, wanted: &'static str, hay: &[u8], needles: &[&[Needle]]) -> Self {
        let needles = needles.iter().copied().flatten();
        let mut found: Vec<&str> =
            needles.filter(|needle| needle.is_in(hay)).map(|needle| needle.name).collect();
        found.dedup();
        Self { place, wanted, bytes: hay.len(), found }
    }
}

// === impl Needle ===

impl Needle {
    fn new(name: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name, bytes: bytes.into() }
    }

    fn is_in(&self, hay: &[u8]) -> bool {
        hay.windows(self.bytes.len()).any(|window| window == self.bytes)
    }
}

/// Searches the store's folder, the log, and every request to a push service.
pub(super) fn all(
    stage: &Stage,
    relay: &RelayProcess,
    cast: &Cast,
    scenes: &[Scene],
) -> Result<Vec<Search>, DemoError> {
    let (content, devices, sender) = (content(scenes), devices(cast), sender(cast));
    let mut files = Vec::new();
    read_all(&stage.folder().join("data"), &mut files)?;
    let mut requests = Vec::new();
    for journal in [stage.apns.journal(), stage.fcm.journal(), stage.webpush.journal()] {
        append_requests(journal, &mut requests);
    }
    let plain: Vec<Needle> = scenes.iter().map(|s| Needle::new("text", s.text.as_str())).collect();
    Ok(vec![
        Search::of(
            "in the identity store's files",
            "texts, ciphertexts, device tokens, handles, serial number",
            &files,
            &[&content, &devices, &[Needle::new("serial number", SERIAL)]],
        ),
        Search::of(
            "in the relay's log",
            "texts, ciphertexts, device tokens, handles, serial number, keys, NAS id",
            &relay.log(),
            &[&content, &devices, &sender],
        ),
        Search::of(
            "in every request to Apple, Google and Mozilla",
            "texts, handles, serial number, NAS id, the NAS's and Chat's keys",
            &requests,
            &[&plain, &handles(cast), &sender],
        ),
    ])
}

fn content(scenes: &[Scene]) -> Vec<Needle> {
    let mut needles = Vec::new();
    for scene in scenes {
        let start = &scene.sealed[..CIPHERTEXT_BYTES.min(scene.sealed.len())];
        needles.push(Needle::new("text", scene.text.as_str()));
        needles.push(Needle::new("ciphertext", start));
        needles.push(Needle::new("ciphertext", base64url::encode(start)));
    }
    needles
}

fn devices(cast: &Cast) -> Vec<Needle> {
    let mut needles = handles(cast);
    for player in &cast.devices {
        needles.push(Needle::new("device token", player.device.address()));
    }
    needles
}

fn handles(cast: &Cast) -> Vec<Needle> {
    let both = cast.devices.iter().flat_map(|player| [&player.chat, &player.alerts]);
    both.map(|paired| Needle::new("handle", paired.handle.as_str())).collect()
}

/// All that could tell one sender from another.
fn sender(cast: &Cast) -> Vec<Needle> {
    let mut needles = vec![
        Needle::new("serial number", SERIAL),
        Needle::new("NAS id", cast.enrolled.ds_id.as_str()),
    ];
    for (name, key) in [("the NAS's key", &cast.nas_key), ("Chat's key", &cast.chat_key)] {
        needles.push(Needle::new(name, key.public()));
        needles.push(Needle::new(name, key.public_base64url()));
        needles.push(Needle::new(name, base64url::encode(key.thumbprint())));
    }
    needles
}

fn read_all(folder: &Path, into: &mut Vec<u8>) -> Result<(), DemoError> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, into)?;
        } else {
            into.extend(fs::read(&path)?);
        }
    }
    Ok(())
}

fn append_requests(journal: &Journal, into: &mut Vec<u8>) {
    for Entry { path, headers, body, .. } in journal.entries() {
        into.extend_from_slice(path.as_bytes());
        for (name, value) in &headers {
            into.extend_from_slice(name.as_str().as_bytes());
            into.extend_from_slice(value.as_bytes());
        }
        into.extend_from_slice(&body);
    }
}

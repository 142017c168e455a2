//! The ring of handle keys: all of them open, one of them seals.
//!
//! A new key is in the file for [`SEALS_AFTER_S`] before it seals, so that every replica knows it
//! by then (`keys.reload_interval_s` is at most a fifth of that) and can open what it seals.

use std::iter;
use std::path::Path;

use base64::Engine as _;
use toml::{Table, Value};
use zeroize::{Zeroize as _, Zeroizing};

use super::{HANDLE_KEYS_FILE, KeysError, decode_32, random_bytes};
use crate::clock::{format_rfc3339, parse_rfc3339};
use crate::config::Secret;
use crate::config::files;
use crate::push::BASE64URL;

/// Seconds from a rotation until the new key seals.
pub const SEALS_AFTER_S: u64 = 300;

/// What stands at the head of the file.
const HEADER: &str = "\
# The handle keys of sns-relay, newest first. Secret: whoever has them can read every handle.
#
# All of them open handles. The newest one whose seals_from has passed seals new ones; the wait
# gives every replica the time to read this file again. `sns-relay keys rotate` writes it.
# A handle is lost with its key: keep a key for as long as handles live
# (pairing.handle_lifetime_days) after the next one has taken over.
";

/// One handle key.
pub struct HandleKey {
    /// Names the key in a handle.
    pub id: [u8; 4],
    /// The key itself.
    pub key: Secret<[u8; 32]>,
    /// When it was made: seconds since 1970.
    pub created_at_unix_s: u64,
    /// When it begins to seal: seconds since 1970.
    pub seals_from_unix_s: u64,
}

/// The handle keys as the file has them, newest first; at least one.
pub struct HandleKeys {
    newest: HandleKey,
    older: Vec<HandleKey>,
}

// === impl HandleKeys ===

impl HandleKeys {
    /// Reads the ring.
    /// Errors: a file that cannot be read or has another form; the error says which entry.
    pub fn load(directory: &Path) -> Result<Self, KeysError> {
        let path = directory.join(HANDLE_KEYS_FILE);
        let text = files::read_text(&path)
            .map_err(|fault| KeysError::File { path: path.clone(), fault })?;
        Self::parse(text.expose()).map_err(|text| KeysError::Form { path, text })
    }

    /// Gives the key that seals: the newest whose time has come.
    /// Where a clock is so wrong that there is none, the oldest, which every replica knows.
    pub fn sealing(&self, now_unix_s: u64) -> &HandleKey {
        let ready = self.iter().filter(|key| key.seals_from_unix_s <= now_unix_s);
        let newest = ready.max_by_key(|key| key.seals_from_unix_s);
        let oldest = || self.iter().min_by_key(|key| key.seals_from_unix_s);
        newest.or_else(oldest).unwrap_or(&self.newest)
    }

    /// Gives the key of a handle, if it is still there.
    pub fn opening(&self, id: [u8; 4]) -> Option<&HandleKey> {
        self.iter().find(|key| key.id == id)
    }

    /// Gives all keys, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &HandleKey> {
        iter::once(&self.newest).chain(&self.older)
    }

    /// Makes a ring of one key that seals at once.
    pub(super) fn generate(now_unix_s: u64) -> Result<Self, KeysError> {
        let newest = HandleKey::generate(now_unix_s, now_unix_s)?;
        Ok(Self { newest, older: Vec::new() })
    }

    /// Puts a new key in front of at most `kept_keys` others.
    /// Errors: the newest key does not seal yet.
    pub(super) fn rotated(self, now_unix_s: u64, kept_keys: usize) -> Result<Self, KeysError> {
        let waits = self.iter().map(|key| key.seals_from_unix_s).max().unwrap_or_default();
        if waits > now_unix_s {
            return Err(KeysError::TooSoon(format_rfc3339(waits)));
        }
        let newest = loop {
            let key = HandleKey::generate(now_unix_s, now_unix_s + SEALS_AFTER_S)?;
            if self.opening(key.id).is_none() {
                break key;
            }
        };
        let mut older: Vec<HandleKey> = iter::once(self.newest).chain(self.older).collect();
        older.sort_by_key(|key| std::cmp::Reverse(key.seals_from_unix_s));
        older.truncate(kept_keys);
        Ok(Self { newest, older })
    }

    /// Writes the file's text.
    pub(super) fn to_toml(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(1024 + 256 * self.iter().count()));
        text.push_str(HEADER);
        for key in self.iter() {
            let bytes = Zeroizing::new(BASE64URL.encode(key.key.expose()));
            let id = u32::from_be_bytes(key.id);
            text.push_str(&format!("\n[[keys]]\nid = \"{id:08x}\"\nkey = \""));
            text.push_str(&bytes);
            let created_at = format_rfc3339(key.created_at_unix_s);
            let seals_from = format_rfc3339(key.seals_from_unix_s);
            text.push_str(&format!(
                "\"\ncreated_at = \"{created_at}\"\nseals_from = \"{seals_from}\"\n"
            ));
        }
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut file: Table = text.parse().map_err(|_| "must be TOML".to_owned())?;
        let Some(Value::Array(entries)) = file.remove("keys") else {
            return Err("must have [[keys]]".to_owned());
        };
        if !file.is_empty() {
            return Err("must have [[keys]] and nothing else".to_owned());
        }
        let mut keys: Vec<HandleKey> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let key = HandleKey::parse(entry)
                .map_err(|member| format!("entry {}: {member}", index + 1))?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(format!("entry {}: id must differ from the others", index + 1));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let newest = keys.next().ok_or("must have at least one key")?;
        Ok(Self { newest, older: keys.collect() })
    }
}

// === impl HandleKey ===

impl HandleKey {
    fn generate(created_at_unix_s: u64, seals_from_unix_s: u64) -> Result<Self, KeysError> {
        let id = *random_bytes()?.expose();
        Ok(Self { id, key: random_bytes()?, created_at_unix_s, seals_from_unix_s })
    }

    fn parse(entry: Value) -> Result<Self, &'static str> {
        let Value::Table(mut members) = entry else {
            return Err("must be a table");
        };
        let mut member = |name: &str| match members.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let id = member("id").as_deref().and_then(parse_id);
        let key = member("key").and_then(|mut text| {
            let key = decode_32(&text);
            text.zeroize();
            key
        });
        let created_at = member("created_at").as_deref().and_then(parse_rfc3339);
        let seals_from = member("seals_from").as_deref().and_then(parse_rfc3339);
        if !members.is_empty() {
            return Err("must have id, key, created_at and seals_from and nothing else");
        }
        Ok(Self {
            id: id.ok_or("id must be 8 hex digits")?,
            key: key.ok_or("key must be 32 bytes in base64url")?,
            created_at_unix_s: created_at.ok_or("created_at must be a time in UTC")?,
            seals_from_unix_s: seals_from.ok_or("seals_from must be a time in UTC")?,
        })
    }
}

fn parse_id(text: &str) -> Option<[u8; 4]> {
    let hex = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| hex).map(u32::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_UNIX_S: u64 = 1_764_000_000;

    fn id_at(ring: &HandleKeys, now_unix_s: u64) -> [u8; 4] {
        ring.sealing(now_unix_s).id
    }

    #[test]
    fn a_new_key_opens_at_once_and_seals_later() {
        let first = HandleKeys::generate(NOW_UNIX_S).unwrap();
        let old = id_at(&first, NOW_UNIX_S);
        let ring = first.rotated(NOW_UNIX_S, 3).unwrap();
        let new = ring.newest.id;
        assert!(ring.opening(new).is_some() && ring.opening(old).is_some());
        assert_eq!(id_at(&ring, NOW_UNIX_S), old);
        assert_eq!(id_at(&ring, NOW_UNIX_S + SEALS_AFTER_S - 1), old);
        assert_eq!(id_at(&ring, NOW_UNIX_S + SEALS_AFTER_S), new);
        assert_eq!(id_at(&ring, 0), old, "a clock that is far behind");
    }

    #[test]
    fn a_rotation_before_the_newest_key_seals_is_refused() {
        let ring = HandleKeys::generate(NOW_UNIX_S).unwrap().rotated(NOW_UNIX_S, 3).unwrap();
        let soon = ring.rotated(NOW_UNIX_S + SEALS_AFTER_S - 1, 3);
        assert!(matches!(soon, Err(KeysError::TooSoon(_))));
    }

    #[test]
    fn older_keys_are_kept_up_to_a_number_and_always_the_one_that_seals() {
        let mut ring = HandleKeys::generate(NOW_UNIX_S).unwrap();
        let mut ids = vec![ring.newest.id];
        for turn in 1..=5 {
            let now_unix_s = NOW_UNIX_S + turn * SEALS_AFTER_S;
            ring = ring.rotated(now_unix_s, 3).unwrap();
            ids.insert(0, ring.newest.id);
            assert_eq!(id_at(&ring, now_unix_s), ids[1]);
            let kept: Vec<[u8; 4]> = ring.iter().map(|key| key.id).collect();
            assert_eq!(kept, ids[..ids.len().min(4)]);
        }
    }

    #[test]
    fn a_ring_comes_back_as_it_was_written() {
        let ring = HandleKeys::generate(NOW_UNIX_S).unwrap().rotated(NOW_UNIX_S, 3).unwrap();
        let read = HandleKeys::parse(&ring.to_toml()).ok().unwrap();
        assert_eq!(read.iter().count(), 2);
        for (read, written) in read.iter().zip(ring.iter()) {
            assert_eq!(read.id, written.id);
            assert_eq!(read.key.expose(), written.key.expose());
            assert_eq!(read.created_at_unix_s, written.created_at_unix_s);
            assert_eq!(read.seals_from_unix_s, written.seals_from_unix_s);
        }
    }

    #[test]
    fn what_is_no_ring_is_refused_without_its_content() {
        let whole = HandleKeys::generate(NOW_UNIX_S).unwrap().to_toml();
        let entry = whole.split_once("\n[[keys]]").unwrap().1;
        for (text, expect) in [
            (String::new(), "must have [[keys]]"),
            ("keys = []".to_owned(), "must have at least one key"),
            ("keys = [1]".to_owned(), "entry 1: must be a table"),
            ("keys".to_owned(), "must be TOML"),
            (format!("x = 1\n{}", whole.as_str()), "must have [[keys]] and nothing else"),
            (format!("{}[[keys]]{entry}", whole.as_str()), "entry 2: id must differ"),
            (whole.replace("id = \"", "id = \"+"), "entry 1: id must be 8 hex digits"),
            (whole.replace("key = \"", "key = \"AA"), "entry 1: key must be 32 bytes"),
            (whole.replace("key =", "kee ="), "entry 1: must have id, key"),
            (whole.replace("Z\"", "\""), "entry 1: created_at must be a time"),
        ] {
            let error = HandleKeys::parse(&text).err().unwrap();
            assert!(error.starts_with(expect), "{error}");
        }
    }
}

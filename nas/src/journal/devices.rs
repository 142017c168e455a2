//! Keys, devices and rules: who signs, where a notification goes, and which goes where.
//!
//! A sender is a named key: `nas` is the one that is enrolled; every other is an application's
//! pseudonym and says nothing about the NAS. A device belongs to the one sender that its handle was
//! made for. Neither has a `Debug`.

use rusqlite::{OptionalExtension as _, Row};
use zeroize::Zeroizing;

use super::schema::begin;
use super::{Journal, JournalError, sql, unsigned};
use crate::base64url;
use crate::client::message::{Level, Source};
use crate::key::SenderKey;
use crate::seal::{BodyCap, DeviceKeys};

/// The sender whose key is enrolled.
pub const NAS: &str = "nas";

/// The smallest body cap that leaves room for an alarm, in bytes.
pub const BODY_BYTES_MIN: usize = 1024;

/// A device to be kept.
#[derive(Clone)]
pub struct NewDevice {
    /// What its owner calls it: 1 to 64 characters.
    pub name: String,
    /// Whose handle it is: [`NAS`] or an application's pseudonym.
    pub sender: String,
    /// From the pairing: the handle, or the endpoint that ends in it.
    pub handle: String,
    /// The device's public key and auth secret in base64url; `None` where the app takes plain text.
    pub keys: Option<(String, String)>,
    /// The app's `max_body_bytes`.
    pub body_bytes_max: usize,
}

/// A paired device.
#[derive(Clone)]
pub struct Device {
    /// The journal's number for it; never used twice.
    pub id: i64,
    /// What its owner calls it.
    pub name: String,
    /// Whose handle it is.
    pub sender: String,
    /// The device, sealed by the relay.
    pub handle: String,
    /// The device's keys; `None` where the app takes plain text.
    pub keys: Option<DeviceKeys>,
    /// The app's body cap.
    pub cap: BodyCap,
    /// When it was paired, in milliseconds since 1970.
    pub paired_ms: u64,
    /// When its push service said that it is gone.
    pub gone_ms: Option<u64>,
}

/// Which notifications go to which device: the first rule that matches decides; without one,
/// they go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its place, from 1; given by the journal.
    pub position: i64,
    /// Whether what matches is sent.
    pub sends: bool,
    /// The device's name; `None` for any. So with all the rest.
    pub device: Option<String>,
    /// Which system speaks.
    pub source: Option<Source>,
    /// How grave it is.
    pub level: Option<Level>,
    /// The category.
    pub category: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The package.
    pub app: Option<String>,
}

const RULES_MAX: i64 = 256;

// === impl Journal ===

impl Journal {
    /// Gives a sender's key, or none.
    pub fn sender_key(&self, name: &str) -> Result<Option<SenderKey>, JournalError> {
        let sql = "SELECT key_pem FROM sender WHERE name = ?1";
        let pem: Option<String> =
            self.connection.query_row(sql, [name], |row| row.get(0)).optional()?;
        let pem = pem.map(Zeroizing::new);
        pem.map(|pem| SenderKey::from_pem(pem.as_bytes()))
            .transpose()
            .map_err(|_| JournalError::Invalid)
    }

    /// Keeps a sender's key. Errors: `Exists`: a key is never overwritten.
    pub fn add_sender(
        &mut self,
        name: &str,
        key: &SenderKey,
        now_ms: u64,
    ) -> Result<(), JournalError> {
        check_name("the sender's name", name)?;
        let pem = key.pem().map_err(|_| JournalError::Invalid)?;
        let added = self.connection.execute(
            "INSERT OR IGNORE INTO sender VALUES (?1, ?2, ?3)",
            (name, pem.as_str(), sql(now_ms)),
        )?;
        if added == 1 { Ok(()) } else { Err(JournalError::Exists { what: "sender" }) }
    }

    /// Gives the names of all senders.
    pub fn senders(&self) -> Result<Vec<String>, JournalError> {
        let mut statement = self.connection.prepare("SELECT name FROM sender ORDER BY name")?;
        let names = statement.query_map([], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// Keeps a device.
    /// Errors: `BadArgument` naming the member; `Exists`; `Unknown` for a sender that is not there.
    pub fn add_device(&mut self, new: &NewDevice, now_ms: u64) -> Result<Device, JournalError> {
        let handle = check_device(new)?;
        let device_limit = sql(self.limits.devices_max);
        let transaction = begin(&mut self.connection)?;
        let count: i64 =
            transaction.query_row("SELECT count(*) FROM device", [], |row| row.get(0))?;
        if count >= device_limit {
            let expected = "within the number of devices that are kept: remove one";
            return Err(JournalError::BadArgument { name: "the device", expected });
        }
        let known = "SELECT count(*) FROM sender WHERE name = ?1";
        if transaction.query_row(known, [&new.sender], |row| row.get::<_, i64>(0))? == 0 {
            return Err(JournalError::Unknown { what: "sender" });
        }
        let (p256dh, auth) = new.keys.clone().unzip();
        let added = transaction.execute(
            "INSERT INTO device (name, sender, handle, p256dh, auth, body_bytes_max, paired_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (name) DO NOTHING",
            (
                &new.name,
                &new.sender,
                handle,
                p256dh,
                auth,
                sql(new.body_bytes_max as u64),
                sql(now_ms),
            ),
        )?;
        if added == 0 {
            return Err(JournalError::Exists { what: "device" });
        }
        transaction.commit()?;
        self.device(&new.name)?.ok_or(JournalError::Unknown { what: "device" })
    }

    /// Takes a new pairing of a device that is known by this name: what waits for it goes there.
    /// Errors: as [`Journal::add_device`]; `Unknown` where there is none.
    pub fn pair_again(&mut self, new: &NewDevice, now_ms: u64) -> Result<Device, JournalError> {
        let handle = check_device(new)?;
        let (p256dh, auth) = new.keys.clone().unzip();
        let changed = self.connection.execute(
            "UPDATE device SET handle = ?2, p256dh = ?3, auth = ?4, body_bytes_max = ?5,
                 paired_ms = ?6, gone_ms = NULL
             WHERE name = ?1 AND sender = ?7",
            (
                &new.name,
                handle,
                p256dh,
                auth,
                sql(new.body_bytes_max as u64),
                sql(now_ms),
                &new.sender,
            ),
        )?;
        let unknown = JournalError::Unknown { what: "device" };
        if changed == 0 {
            return Err(unknown);
        }
        self.device(&new.name)?.ok_or(unknown)
    }

    /// Gives all devices, the first paired first.
    pub fn devices(&self) -> Result<Vec<Device>, JournalError> {
        let mut statement =
            self.connection.prepare_cached(&format!("{SELECT_DEVICE} ORDER BY id"))?;
        let mut rows = statement.query([])?;
        let mut devices = Vec::new();
        while let Some(row) = rows.next()? {
            devices.push(device_of(row)?);
        }
        Ok(devices)
    }

    /// Gives a device by its name.
    pub fn device(&self, name: &str) -> Result<Option<Device>, JournalError> {
        let mut statement =
            self.connection.prepare_cached(&format!("{SELECT_DEVICE} WHERE name = ?1"))?;
        let mut rows = statement.query([name])?;
        rows.next()?.map(device_of).transpose()
    }

    /// Takes a renewed handle, unless the device was paired anew meanwhile.
    pub fn renew_handle(&mut self, id: i64, old: &str, new: &str) -> Result<(), JournalError> {
        self.connection.execute(
            "UPDATE device SET handle = ?3 WHERE id = ?1 AND handle = ?2",
            (id, old, new),
        )?;
        Ok(())
    }

    /// Forgets a device; what still waits for it is not sent.
    /// Errors: `Unknown`.
    pub fn remove_device(&mut self, name: &str, now_ms: u64) -> Result<(), JournalError> {
        let transaction = begin(&mut self.connection)?;
        transaction.execute(
            "UPDATE delivery SET state = 'removed', settled_ms = ?2
             WHERE state = 'pending' AND device = (SELECT id FROM device WHERE name = ?1)",
            (name, sql(now_ms)),
        )?;
        if transaction.execute("DELETE FROM device WHERE name = ?1", [name])? == 0 {
            return Err(JournalError::Unknown { what: "device" });
        }
        Ok(transaction.commit()?)
    }

    /// Keeps a rule as the last; gives its place.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<i64, JournalError> {
        let transaction = begin(&mut self.connection)?;
        let count: i64 =
            transaction.query_row("SELECT count(*) FROM rule", [], |row| row.get(0))?;
        if count >= RULES_MAX {
            let expected = "one of 256 at most";
            return Err(JournalError::BadArgument { name: "the rule", expected });
        }
        transaction.execute(
            "INSERT INTO rule (action, device, source, level, category, tag, app)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                if rule.sends { "send" } else { "mute" },
                &rule.device,
                rule.source.map(Source::label),
                rule.level.map(Level::rank),
                &rule.category,
                &rule.tag,
                &rule.app,
            ),
        )?;
        let position = transaction.last_insert_rowid();
        transaction.commit()?;
        Ok(position)
    }

    /// Gives all rules, in the order in which they are tried.
    pub fn rules(&self) -> Result<Vec<Rule>, JournalError> {
        let sql = "SELECT position, action, device, source, level, category, tag, app
                   FROM rule ORDER BY position";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rules = statement.query_map([], |row| {
            Ok(Rule {
                position: row.get(0)?,
                sends: row.get::<_, String>(1)? == "send",
                device: row.get(2)?,
                source: row.get::<_, Option<String>>(3)?.and_then(|label| Source::of(&label)),
                level: row.get::<_, Option<i64>>(4)?.map(Level::of_rank),
                category: row.get(5)?,
                tag: row.get(6)?,
                app: row.get(7)?,
            })
        })?;
        Ok(rules.collect::<Result<_, _>>()?)
    }

    /// Forgets a rule. Errors: `Unknown`.
    pub fn remove_rule(&mut self, position: i64) -> Result<(), JournalError> {
        match self.connection.execute("DELETE FROM rule WHERE position = ?1", [position])? {
            0 => Err(JournalError::Unknown { what: "rule" }),
            _ => Ok(()),
        }
    }
}

pub(super) const SELECT_DEVICE: &str =
    "SELECT id, name, sender, handle, p256dh, auth, body_bytes_max, paired_ms, gone_ms FROM device";

pub(super) fn device_of(row: &Row<'_>) -> Result<Device, JournalError> {
    let keys = match (row.get::<_, Option<String>>(4)?, row.get::<_, Option<String>>(5)?) {
        (Some(p256dh), Some(auth)) => {
            Some(DeviceKeys::parse(&p256dh, &auth).map_err(|_| JournalError::Invalid)?)
        }
        _ => None,
    };
    let cap = usize::try_from(row.get::<_, i64>(6)?).map_err(|_| JournalError::Invalid)?;
    Ok(Device {
        id: row.get(0)?,
        name: row.get(1)?,
        sender: row.get(2)?,
        handle: row.get(3)?,
        keys,
        cap: BodyCap::new(cap).map_err(|_| JournalError::Invalid)?,
        paired_ms: unsigned(row.get(7)?),
        gone_ms: row.get::<_, Option<i64>>(8)?.map(unsigned),
    })
}

fn check_name(name: &'static str, text: &str) -> Result<(), JournalError> {
    let fits = (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits && text.trim() == text {
        return Ok(());
    }
    Err(JournalError::BadArgument {
        name,
        expected: "1 to 64 characters, none of them for control",
    })
}

/// Gives the handle.
fn check_device(new: &NewDevice) -> Result<&str, JournalError> {
    check_name("name", &new.name)?;
    let handle = new.handle.rsplit('/').next().unwrap_or_default();
    if base64url::decode(handle).is_none_or(|bytes| bytes.is_empty()) || handle.len() > 4096 {
        let expected = "a handle, or an endpoint that ends in one";
        return Err(JournalError::BadArgument { name: "handle", expected });
    }
    check_keys(new)?;
    Ok(handle)
}

fn check_keys(new: &NewDevice) -> Result<(), JournalError> {
    let expected = "1024 to 4096 bytes";
    let bad_cap = JournalError::BadArgument { name: "max_body_bytes", expected };
    if new.body_bytes_max < BODY_BYTES_MIN || BodyCap::new(new.body_bytes_max).is_err() {
        return Err(bad_cap);
    }
    match &new.keys {
        Some((p256dh, auth)) => DeviceKeys::parse(p256dh, auth).map(drop).map_err(|error| {
            let crate::seal::SealError::BadKey { field, expected } = error else {
                return JournalError::Invalid;
            };
            JournalError::BadArgument { name: field, expected }
        }),
        // The application door takes sealed bodies alone.
        None if new.sender != NAS => Err(JournalError::BadArgument {
            name: "p256dh",
            expected: "left out for an application's device: its messages are always sealed",
        }),
        None => Ok(()),
    }
}

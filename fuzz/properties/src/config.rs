//! The configuration: every fault names a key on one line, and no value is ever repeated.
//!
//! The input is a configuration file; lines `NAME=value` after the line `--- variables` are the
//! environment. It is loaded as it is, and once more with a secret in every text.

use std::cell::LazyCell;
use std::fs;
use std::path::PathBuf;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sns_relay::config::{Config, Fault};
use tempfile::TempDir;

/// What must never be read in a fault.
const SECRET: &str = "zq7SECRETqz";

const SEPARATOR: &str = "--- variables\n";

/// A folder with a good key and with files full of secrets; each thread has its own.
struct Folder(TempDir);

thread_local! {
    static FOLDER: LazyCell<Folder> = const { LazyCell::new(Folder::new) };
}

/// Checks one configuration.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(SECRET) {
        return;
    }
    let (file, variables) = text.split_once(SEPARATOR).unwrap_or((text, ""));
    FOLDER.with(|folder| {
        let first = folder.load(file, variables, "");
        assert_eq!(first, folder.load(file, variables, ""), "the second load differs");
        for quote in ["\"", "'"] {
            let marked = file.replace(&format!("= {quote}"), &format!("= {quote}{SECRET}"));
            // In a file that is no TOML it may stand in a name too, but no fault repeats either.
            let in_name = marked.parse::<toml::Table>().is_ok_and(|table| has_in_names(&table));
            if !in_name {
                drop(folder.load(&marked, variables, SECRET));
            }
        }
        drop(folder.load(file, variables, SECRET));
    });
}

// === impl Folder ===

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        fs::create_dir(folder.path("keys")).expect("a folder");
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let der = key.to_pkcs8v1().expect("PKCS#8");
        let pem = |body: &str| {
            format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
        };
        let good = pem(&STANDARD.encode(der.as_ref()));
        folder.write("keys/vapid.pem", &good);
        folder.write("key.pem", &good);
        folder.write("bad.pem", &pem(&STANDARD.encode(SECRET)));
        folder.write("worse.pem", SECRET);
        let members = ["type", "project_id", "client_email", "private_key_id", "private_key"];
        let account = |token_uri: &str| {
            let mut account: serde_json::Map<_, _> =
                members.iter().map(|name| ((*name).to_owned(), SECRET.into())).collect();
            account.insert("token_uri".to_owned(), token_uri.into());
            serde_json::Value::Object(account).to_string()
        };
        folder.write("account.json", &account("https://oauth2.googleapis.com/token"));
        folder.write("bad.json", &account(SECRET));
        folder.write("worse.json", &account(SECRET)[1..]);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the folder can be written");
    }

    /// Loads a configuration and checks what it says; gives the faults or the warnings.
    fn load(&self, file: &str, variables: &str, suffix: &str) -> Result<Vec<Fault>, Vec<Fault>> {
        self.write("relay.toml", file);
        let pair = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), format!("{value}{suffix}")))
        };
        let variables = variables.lines().filter_map(pair);
        let loaded = Config::load(Some(&self.path("relay.toml")), variables);
        let said = loaded.map(|config| config.warnings).map_err(|faults| faults.0);
        assert!(said.as_ref().err().is_none_or(|faults| !faults.is_empty()), "no fault is named");
        for fault in said.as_ref().unwrap_or_else(|faults| faults) {
            let line = fault.to_string();
            assert!(!fault.key.is_empty() && !fault.text.is_empty(), "{line:?} names no key");
            assert!(!line.contains(char::is_control), "{line:?} is not one line");
            assert!(!line.contains(SECRET), "{line:?} repeats a value");
        }
        said
    }
}

/// Tells whether the secret got into a name, which may be repeated.
fn has_in_names(table: &toml::Table) -> bool {
    table.iter().any(|(name, value)| {
        name.contains(SECRET) || value.as_table().is_some_and(has_in_names) || is_list_with(value)
    })
}

/// Tells whether a list holds tables, whose names are repeated by nobody but hard to tell apart.
fn is_list_with(value: &toml::Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().any(toml::Value::is_table))
}

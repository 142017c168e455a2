//! The folder of keys that all replicas share: handle key ring, serial pepper, VAPID key.
//!
//! `sns-relay keys init` makes it and `keys rotate` puts a new handle key into it; a running relay
//! only reads. Nothing is overwritten but the ring, and that by a rename. An error names the file
//! and what is wrong with it, never its content.

use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize as _, Zeroizing};

use crate::clock::Clock;
use crate::config::files::{self, FileFault};
use crate::config::{Secret, VAPID_KEY_FILE};
use crate::push::BASE64URL;

mod folder;

mod ring;

pub use ring::{HandleKey, HandleKeys, SEALS_AFTER_S};

/// The ring of handle keys.
pub const HANDLE_KEYS_FILE: &str = "handle-keys.toml";

/// The key of `serial_tag`.
pub const SERIAL_PEPPER_FILE: &str = "serial-pepper";

/// How many older handle keys a rotation keeps unless it is told otherwise.
pub const KEPT_KEYS_DEFAULT: usize = 3;

/// Reads the pepper of serial numbers.
pub struct SerialPepper;

/// Why the folder of keys is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file cannot be read.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: FileFault,
    },
    /// A file has another form than this program gives it.
    #[error("{}: {text}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is there already; it may hold the only copy of a key.
    #[error("{}: is there already and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// Another rotation is under way, or one was cut off.
    #[error("{}: another run is under way; if there is none, remove this file", .0.display())]
    Busy(PathBuf),
    /// The newest key does not seal yet, so a newer one could push out the one that does.
    #[error("the newest handle key seals only from {0} on; rotate after that")]
    TooSoon(String),
    /// The system has no randomness, or no memory.
    #[error("no key could be made")]
    Generate,
}

/// Makes the folder with everything that a relay needs; modes 0700 and 0600.
/// Errors: a file that is there already, or that cannot be written.
pub fn init(directory: &Path, clock: &Clock) -> Result<(), KeysError> {
    folder::make(directory)?;
    let path = |name: &str| directory.join(name);
    for name in [HANDLE_KEYS_FILE, SERIAL_PEPPER_FILE, VAPID_KEY_FILE] {
        if path(name).exists() {
            return Err(KeysError::Exists(path(name)));
        }
    }
    let ring = HandleKeys::generate(clock.unix_s())?;
    folder::create(&path(HANDLE_KEYS_FILE), ring.to_toml().as_bytes())?;
    let pepper = Zeroizing::new(BASE64URL.encode(random_bytes::<32>()?.expose()) + "\n");
    folder::create(&path(SERIAL_PEPPER_FILE), pepper.as_bytes())?;
    folder::create(&path(VAPID_KEY_FILE), generate_p256_pem()?.as_bytes())
}

/// Puts a new handle key at the front and keeps `kept_keys` (at least one) of the older ones.
/// Gives when the new key begins to seal: [`SEALS_AFTER_S`] from now, in seconds since 1970.
/// Errors: [`KeysError::TooSoon`] before the newest key seals; a folder that is no folder of keys.
pub fn rotate(directory: &Path, kept_keys: usize, clock: &Clock) -> Result<u64, KeysError> {
    let now_unix_s = clock.unix_s();
    folder::replace(&directory.join(HANDLE_KEYS_FILE), || {
        // The key that seals now is among those that are kept.
        let ring = HandleKeys::load(directory)?.rotated(now_unix_s, kept_keys.max(1))?;
        Ok(ring.to_toml())
    })?;
    Ok(now_unix_s + SEALS_AFTER_S)
}

// === impl SerialPepper ===

impl SerialPepper {
    /// Reads the pepper: 32 bytes in base64url.
    /// Errors: a file that cannot be read or has another form.
    pub fn load(directory: &Path) -> Result<Secret<[u8; 32]>, KeysError> {
        let path = directory.join(SERIAL_PEPPER_FILE);
        let text = files::read_text(&path)
            .map_err(|fault| KeysError::File { path: path.clone(), fault })?;
        decode_32(text.expose().trim_end()).ok_or_else(|| {
            let text = "must hold 32 bytes in base64url".to_owned();
            KeysError::Form { path, text }
        })
    }
}

fn decode_32(text: &str) -> Option<Secret<[u8; 32]>> {
    let bytes = Zeroizing::new(BASE64URL.decode(text).ok()?);
    bytes.as_slice().try_into().ok().map(Secret::new)
}

fn random_bytes<const N: usize>() -> Result<Secret<[u8; N]>, KeysError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| KeysError::Generate)?;
    let secret = Secret::new(bytes);
    bytes.zeroize();
    Ok(secret)
}

/// Makes a P-256 key: PKCS#8 in PEM (RFC 7468 §10), as every Web Push tool reads it.
fn generate_p256_pem() -> Result<Zeroizing<String>, KeysError> {
    let der = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
        .and_then(|pair| pair.to_pkcs8v1())
        .map_err(|_| KeysError::Generate)?;
    let base64 = Zeroizing::new(STANDARD.encode(der.as_ref()));
    let mut pem = Zeroizing::new(String::with_capacity(base64.len() + 80));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    for line in base64.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW_MS: u64 = 1_764_000_000_000;

    fn clock(unix_ms: u64) -> Clock {
        Clock::from_fn(move || unix_ms)
    }

    fn made_folder() -> (tempfile::TempDir, PathBuf) {
        let outside = tempfile::tempdir().unwrap();
        let directory = outside.path().join("keys");
        init(&directory, &clock(NOW_MS)).unwrap();
        (outside, directory)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_for_the_owner_alone() {
        let (outside, directory) = made_folder();
        assert_eq!(mode(&directory), 0o700);
        let mut names: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["handle-keys.toml", "serial-pepper", "vapid.pem"]);
        let before: Vec<_> =
            names.iter().map(|name| fs::read(directory.join(name)).unwrap()).collect();
        assert!(names.iter().all(|name| mode(&directory.join(name)) == 0o600));
        assert!(SerialPepper::load(&directory).is_ok());
        for kept in &names {
            for name in names.iter().filter(|name| *name != kept) {
                fs::rename(directory.join(name), outside.path().join(name)).unwrap();
            }
            let again = init(&directory, &clock(NOW_MS));
            assert!(matches!(again, Err(KeysError::Exists(_))), "only {kept} is there");
            for name in names.iter().filter(|name| *name != kept) {
                fs::rename(outside.path().join(name), directory.join(name)).unwrap();
            }
        }
        let after: Vec<_> =
            names.iter().map(|name| fs::read(directory.join(name)).unwrap()).collect();
        assert!(before == after, "nothing was overwritten");
    }

    #[test]
    fn a_rotation_keeps_the_file_mode_and_the_older_keys() {
        let (_outside, directory) = made_folder();
        let ring_file = directory.join("handle-keys.toml");
        fs::set_permissions(&ring_file, Permissions::from_mode(0o640)).unwrap();
        let now_unix_s = NOW_MS / 1000;
        let old = HandleKeys::load(&directory).unwrap().sealing(now_unix_s).id;
        let seals_from = rotate(&directory, 3, &clock(NOW_MS)).unwrap();
        assert_eq!(seals_from, now_unix_s + SEALS_AFTER_S);
        let ring = HandleKeys::load(&directory).unwrap();
        assert_eq!(ring.sealing(now_unix_s).id, old);
        assert_ne!(ring.sealing(seals_from).id, old);
        assert!(ring.opening(old).is_some());
        assert_eq!(mode(&ring_file), 0o640);
        let again = rotate(&directory, 3, &clock(NOW_MS));
        assert!(matches!(again, Err(KeysError::TooSoon(_))));
        assert!(rotate(&directory, 0, &clock(seals_from * 1000)).is_ok());
        let ring = HandleKeys::load(&directory).unwrap();
        assert_eq!(ring.iter().count(), 2, "the key that seals is kept");
        assert!(ring.opening(old).is_none());
    }

    #[test]
    fn a_rotation_that_was_cut_off_is_named_and_harms_nothing() {
        let (_outside, directory) = made_folder();
        let before = fs::read(directory.join("handle-keys.toml")).unwrap();
        fs::write(directory.join("handle-keys.toml.new"), "half").unwrap();
        let rotated = rotate(&directory, 3, &clock(NOW_MS));
        assert!(matches!(rotated, Err(KeysError::Busy(_))));
        assert!(fs::read(directory.join("handle-keys.toml")).unwrap() == before);
        fs::remove_file(directory.join("handle-keys.toml.new")).unwrap();
        fs::write(directory.join("handle-keys.toml"), "keys = 1").unwrap();
        assert!(matches!(rotate(&directory, 3, &clock(NOW_MS)), Err(KeysError::Form { .. })));
        assert!(!directory.join("handle-keys.toml.new").exists(), "a failed run leaves nothing");
    }
}

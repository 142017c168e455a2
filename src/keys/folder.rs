//! Writing into the folder of keys: whole files or none, for the owner's eyes.
//!
//! Content goes to a temporary name first, is synced, and is renamed. The temporary name is made
//! exclusively, so it also keeps two runs apart.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::KeysError;

/// Makes the folder if there is none.
pub(super) fn make(directory: &Path) -> Result<(), KeysError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| KeysError::Write { path: directory.to_owned(), source })
}

/// Writes a file that is not there yet.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<(), KeysError> {
    let (file, temporary) = Temporary::make(path)?;
    // Only now: another run may have finished between the caller's look and our exclusive file.
    if path.exists() {
        return Err(KeysError::Exists(path.to_owned()));
    }
    temporary.finish(file, content)
}

/// Writes a file anew that others may be reading; its owner and mode stay.
/// The content is asked for when no other run can change the file any more.
pub(super) fn replace(
    path: &Path,
    content: impl FnOnce() -> Result<Zeroizing<String>, KeysError>,
) -> Result<(), KeysError> {
    let (file, temporary) = Temporary::make(path)?;
    let content = content()?;
    let keep_owner = || {
        let old = fs::metadata(path)?;
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(old.permissions())
    };
    keep_owner().map_err(|source| temporary.fault(source))?;
    temporary.finish(file, content.as_bytes())
}

/// A file beside the one that it will become; gone again unless it is renamed.
struct Temporary<'a> {
    path: PathBuf,
    target: &'a Path,
    is_renamed: bool,
}

// === impl Temporary ===

impl<'a> Temporary<'a> {
    fn make(target: &'a Path) -> Result<(File, Self), KeysError> {
        let path = target.with_added_extension("new");
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Ok((file, Self { path, target, is_renamed: false })),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(KeysError::Busy(path))
            }
            Err(source) => Err(KeysError::Write { path: target.to_owned(), source }),
        }
    }

    fn finish(mut self, file: File, content: &[u8]) -> Result<(), KeysError> {
        self.rename(file, content).map_err(|source| self.fault(source))
    }

    fn rename(&mut self, mut file: File, content: &[u8]) -> io::Result<()> {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&self.path, self.target)?;
        self.is_renamed = true;
        let folder = self.target.parent().filter(|folder| *folder != Path::new(""));
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn fault(&self, source: io::Error) -> KeysError {
        KeysError::Write { path: self.target.to_owned(), source }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // After the rename the name may be another run's.
        if !self.is_renamed {
            // A file that cannot be removed is named by the next run: `KeysError::Busy`.
            let _removed = fs::remove_file(&self.path);
        }
    }
}

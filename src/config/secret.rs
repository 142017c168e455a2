//! A secret that cannot be printed and is wiped when it is dropped.
//!
//! There is no `Debug`, `Display` or `Serialize`, so a secret cannot reach a log line by accident.

use zeroize::Zeroize;

/// A secret value; [`Secret::expose`] is the only way to it, and easy to find.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes the value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Lends the value.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

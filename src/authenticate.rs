//! Authentication: a credential becomes a [`Sender`].

use crate::push::{SenderKey, Thumbprint};

/// The proof that a request was signed with a key: only this room makes one.
#[derive(Clone, Copy)]
pub struct Sender {
    key: SenderKey,
    thumbprint: Thumbprint,
}

impl Sender {
    /// Gives the key.
    pub const fn key(&self) -> &SenderKey {
        &self.key
    }

    /// Gives the key's thumbprint.
    pub const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }
}

//! Pairing: a device becomes a handle, and a handle becomes a device again.
//!
//! In: an app's own words about its device, or a handle and a verified [`Sender`]. Out: a handle,
//! or a [`Device`], which is the proof that this sender may reach this device. Nothing is stored.
//! Invariant: an expired, foreign, cut or forged handle gives one and the same refusal.

use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;

use crate::authenticate::Sender;
use crate::outcome::{Code, Outcome, Refusal};
use crate::push::{Address, AppName, Thumbprint};

pub mod farewell;

pub mod seal;

use seal::{Inside, Ring};

/// Makes and opens handles.
pub struct Pairer {
    ring: ArcSwap<Ring>,
    handle_lifetime: Duration,
}

/// A new handle.
pub struct Paired {
    /// Opaque; the sender keeps it.
    pub handle: String,
    /// Seconds since 1970.
    pub expires_at_unix_s: u64,
}

/// The proof that a sender may reach a device: only [`Pairer::open`] makes one.
#[derive(Clone)]
pub struct Device {
    inside: Inside,
    renewal_due: bool,
}

// === impl Pairer ===

impl Pairer {
    /// Takes the key ring and the life of the handles that it will seal.
    pub fn new(ring: Ring, handle_lifetime: Duration) -> Self {
        Self { ring: ArcSwap::from_pointee(ring), handle_lifetime }
    }

    /// Replaces the key ring, for all requests that come after.
    pub fn replace_ring(&self, ring: Ring) {
        self.ring.store(std::sync::Arc::new(ring));
    }

    /// Seals a device into a handle that only `sender` may use.
    /// Errors: `device_token_invalid` when the address is too long for a handle.
    pub fn pair(
        &self,
        app: AppName,
        address: Address,
        sender: Thumbprint,
        now_unix_s: u64,
    ) -> Result<Paired, Outcome> {
        let expires_at_unix_s = now_unix_s.saturating_add(self.handle_lifetime.as_secs());
        let inside =
            Inside { app, address, sender, issued_at_unix_s: now_unix_s, expires_at_unix_s };
        let handle = self
            .ring
            .load()
            .seal(&inside, now_unix_s)
            .map_err(|_| Refusal::of_field(Code::DeviceTokenInvalid, "token"))?;
        Ok(Paired { handle, expires_at_unix_s })
    }

    /// Opens a handle for the sender that it is bound to.
    /// Errors: `handle_invalid` for every failure alike, so that probing teaches nothing.
    pub fn open(&self, handle: &str, sender: &Sender, now_unix_s: u64) -> Result<Device, Refusal> {
        let refuse = || Refusal::of_field(Code::HandleInvalid, "handle");
        let opened = self.ring.load().open(handle, now_unix_s).map_err(|_| refuse())?;
        let inside = opened.inside;
        if inside.sender != sender.thumbprint() || inside.expires_at_unix_s <= now_unix_s {
            return Err(refuse());
        }
        let life_s = inside.expires_at_unix_s.saturating_sub(inside.issued_at_unix_s);
        let half_gone = inside.expires_at_unix_s - now_unix_s < life_s / 2;
        Ok(Device { inside, renewal_due: opened.under_old_key || half_gone })
    }

    /// Gives a fresh handle for a device whose handle is past half its life or under an old key.
    pub fn renewed(&self, device: &Device, now_unix_s: u64) -> Option<String> {
        if !device.renewal_due {
            return None;
        }
        let Inside { app, address, sender, .. } = device.inside.clone();
        self.pair(app, address, sender, now_unix_s).ok().map(|paired| paired.handle)
    }
}

// === impl Device ===

impl Device {
    /// Gives the app that was paired.
    pub const fn app(&self) -> &AppName {
        &self.inside.app
    }

    /// Gives the only key that may use the handle.
    pub const fn sender(&self) -> &Thumbprint {
        &self.inside.sender
    }

    /// Gives when the handle was made, in seconds since 1970.
    pub const fn issued_at_unix_s(&self) -> u64 {
        self.inside.issued_at_unix_s
    }

    /// Gives what stands for the device in memory, where its address must not: a hash of both
    /// app and address.
    pub fn tag(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.inside.app.as_str().as_bytes());
        context.update(&[0]);
        context.update(self.inside.address.as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(context.finish().as_ref());
        tag
    }

    /// Gives the device's address.
    pub const fn address(&self) -> &Address {
        &self.inside.address
    }
}

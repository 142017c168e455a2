//! The NAS side of the relay.
//!
//! One message's walk: the device gives its keys and a handle, the NAS seals for it (`seal`),
//! signs for the relay with its own key (`key`, `vapid`) and sends (`client`).

pub mod base64url;

pub mod seal;

pub mod key;

pub mod vapid;

pub mod client;

pub mod content;

//! The NAS side of the relay.
//!
//! One message's walk: a program says what happened (`event`), in words of the `catalogue`; the
//! `rules` say to which devices it goes; the `journal` has it on disk before anything is sent; the
//! `outbox` says what is due; it becomes a `content`, is sealed for its device (`seal`), signed
//! with the sender's key (`key`, `vapid`) and sent (`courier`, `client`). The `desk` takes what is
//! said, and the `daemon` does the rest.

pub mod base64url;

pub mod clock;

pub mod seal;

pub mod key;

pub mod vapid;

pub mod client;

pub mod content;

pub mod event;

pub mod catalogue;

pub mod journal;

pub mod rules;

pub mod outbox;

pub mod courier;

pub mod desk;

pub mod daemon;

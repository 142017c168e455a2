//! Simulated push services and devices: what the relay is tested against, without the network.
//!
//! `ca` makes the certificates; `sim` is APNs, FCM and Web Push on loopback, each as strict as its
//! documentation, each told by a script what to answer and keeping a journal of what it saw;
//! `device` is the phone or browser at the far end, which opens what was delivered to it.
//! A test takes them in that order. `stage` sets them up for one relay, `fault` is what can go
//! wrong with them, `demo` shows it all, `measure` says what it costs, and
//! `scenario` plays loads that people know, to look at.

pub mod ca;

pub mod sim;

pub mod device;

pub mod stage;

pub mod fault;

pub mod demo;

pub mod measure;

pub mod scenario;

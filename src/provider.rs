//! The push services.

pub mod upstream;

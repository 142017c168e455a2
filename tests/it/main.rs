//! The relay from outside: real doors, real TLS and HTTP/2 to the simulated push services.

mod hardening;
mod house;
mod pressure;
mod walk;

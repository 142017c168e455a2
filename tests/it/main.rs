//! The relay from outside: real doors, real TLS and HTTP/2 to the simulated push services.

mod house;
mod pressure;
mod walk;

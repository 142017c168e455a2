//! Simulated push services.

//! The front step.
fn main() {}

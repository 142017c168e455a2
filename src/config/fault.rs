//! What is wrong with a configuration: the key and a sentence, never the value.
//!
//! A value may be a secret that was put in the wrong place, so no text here repeats one.

use std::fmt;

/// One thing that is wrong, by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key, or the name of a configuration file.
    pub key: String,
    /// What is wrong with it; reads on after the key and a colon.
    pub text: String,
}

/// Everything that is wrong; one line each. It is never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

// === impl Fault ===

impl Fault {
    /// Says what is wrong with a key.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), text: text.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

// === impl Faults ===

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

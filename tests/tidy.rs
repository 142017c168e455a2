//! What a machine can check of the house: who imports whom, sizes, names, documents, dependencies.
//!
//! Each test's name is the claim. What is generated in docs/ (tables of codes and keys, the OpenAPI
//! description) is written anew by `SNS_RELAY_BLESS=1 cargo test --test tidy`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects")]

#[path = "tidy/source.rs"]
mod source;

#[path = "tidy/imports.rs"]
mod imports;

#[path = "tidy/shape.rs"]
mod shape;

#[path = "tidy/generated.rs"]
mod generated;

#[path = "tidy/matrix.rs"]
mod matrix;

#[path = "tidy/documents.rs"]
mod documents;

#[path = "tidy/metrics.rs"]
mod metrics;

#[path = "tidy/dependencies.rs"]
mod dependencies;

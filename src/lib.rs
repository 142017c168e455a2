//! sns-relay: a stateless push relay.
//!
//! A push's walk, room by room:
//!
//! ```text
//! serve ─ binds ─▶ ingress ─▶ relay ┬▶ authenticate   header   → Sender   (proof: the key signed)
//!                  doors:           ├▶ enrol          Sender   → Nas      (proof: it is enrolled)
//!                  bytes ⇄ words    ├▶ pair           handle   → Device   (proof: of this key)
//!                                   ├▶ route          Device   → Route    (proof: it fits)
//!                                   ├▶ provider       Route    → Outcome  (one attempt)
//!                  reply ◀── row ───┘  settle: count, renew the handle, tell the sender
//! ```
//!
//! Who may import whom. All may import `push`, `outcome` and `clock`; whatever is not in the table
//! is not allowed, `tests/tidy.rs` reads it, and a new entry is a design decision:
//!
//! | room | imports |
//! | --- | --- |
//! | serve | admin, authenticate, config, enrol, ingress, keys |
//! | serve | metrics, pair, provider, relay, route, store |
//! | admin | ingress, relay |
//! | ingress | config, enrol, metrics, relay, reply, store |
//! | relay | authenticate, config, enrol, metrics, pair, provider, route, store |
//! | authenticate | config |
//! | enrol | authenticate, config, store |
//! | pair | authenticate |
//! | route | config, pair |
//! | provider | config, route |
//! | metrics | provider, reply |
//! | reply | |
//! | store | config |
//! | keys | config |
//! | config | |
//!
//! Tests may import any room. `ingress` knows `enrol` and `store` only for the words that it parses
//! into and answers with; `metrics` knows `provider` only for the closed sets that connections are
//! counted under.

pub mod serve;

pub mod admin;

pub mod ingress;

pub mod relay;

pub mod authenticate;

pub mod enrol;

pub mod pair;

pub mod route;

pub mod provider;

pub mod reply;

pub mod store;

pub mod metrics;

pub mod outcome;

pub mod push;

pub mod config;

pub mod keys;

pub mod clock;

//! The NAS side of the relay.

//! Whoever writes for many lets all of them speak first.

use std::task::Context;

/// Lets every task that is ready go before its owner, each time that its owner is woken: what they
/// have to send then leaves in one write. A task that is woken by another would else run at once,
/// write by write.
#[derive(Debug, Default)]
pub struct Rest {
    has_rested: bool,
}

// === impl Rest ===

impl Rest {
    /// Whether the owner is to return `Pending` now; it is woken again after the others.
    pub fn is_due(&mut self, context: &Context<'_>) -> bool {
        self.has_rested = !self.has_rested;
        if self.has_rested {
            // A task that wakes itself goes to the end of the queue.
            context.waker().wake_by_ref();
        }
        self.has_rested
    }
}

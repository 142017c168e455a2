//! What somebody at the terminal sees meanwhile: how far it is, the rate, the latency.
//!
//! Writes on stderr, and nothing at all where that is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::books::Glance;

/// A line that moves; it goes when dropped.
pub(super) struct Bar(ProgressBar);

const TEMPLATE: &str = "{prefix:>10} [{bar:24}] {pos}/{len} {msg}";

// === impl Bar ===

impl Bar {
    /// Begins a line of so many steps.
    pub(super) fn new(what: &'static str, steps: u64) -> Bar {
        let bar = ProgressBar::new(steps);
        // The template is right, or the plain style is taken.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what);
        Bar(bar)
    }

    /// Goes on by one step.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }

    /// Tells what has ended in the last `over`; the steps are seconds.
    pub(super) fn tell(&self, elapsed: Duration, over: Duration, glance: &Glance) {
        self.0.set_position(elapsed.as_secs().min(self.0.length().unwrap_or(u64::MAX)));
        self.0.set_message(words(over, glance));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
fn words(over: Duration, glance: &Glance) -> String {
    let ms = |time: Option<f64>| time.map_or("–".to_owned(), |ms| format!("{ms:.1}"));
    let rate = glance.accepted as f64 / over.as_secs_f64();
    let (p50, p99) = (ms(glance.p50_ms), ms(glance.p99_ms));
    let others = match glance.others {
        0 => String::new(),
        others => format!(", {others} not accepted"),
    };
    format!("s  {rate:.0}/s  p50 {p50} ms  p99 {p99} ms{others}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_rate_latency_and_what_was_not_accepted() {
        let glance = Glance { accepted: 50, others: 2, p50_ms: Some(1.25), p99_ms: None };
        let line = words(Duration::from_millis(250), &glance);
        assert_eq!(line, "s  200/s  p50 1.2 ms  p99 – ms, 2 not accepted");
    }
}

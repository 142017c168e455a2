//! GOAWAY: whatever a peer says as it goes, the reason is one of a closed set, and what it said.
//!
//! The input is the error code in decimal on a line, then the debug data.

use sns_relay::provider::upstream::{GoAwayReason, Label as _};

/// Codes that RFC 9113 §7 gives, from 0.
const CODES: u32 = 14;

/// Debug data beyond it would not fit one frame.
const DEBUG_BYTES_MAX: usize = 16_000;

/// Checks one GOAWAY.
pub fn goaway(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let Some(code) = std::str::from_utf8(&data[..end]).ok().and_then(|text| text.parse().ok())
    else {
        return;
    };
    let debug = &data[end + 1..];
    let debug = &debug[..debug.len().min(DEBUG_BYTES_MAX)];
    let label = GoAwayReason::of(code, debug).label();
    let (codes, documented) = GoAwayReason::ALL.split_at(CODES as usize);
    let documented = &documented[..documented.len() - 1];
    let is_named = |reason: &GoAwayReason| contains(debug, &format!("\"{}\"", reason.label()));
    let named: Vec<_> = documented.iter().filter(|reason| is_named(reason)).collect();
    if named.is_empty() {
        let coded = codes.get(code as usize).map_or("other", |reason| reason.label());
        assert_eq!(label, coded, "the code counts where no reason is named");
    } else {
        assert!(named.iter().any(|reason| reason.label() == label), "{label} was not named");
    }
}

fn contains(data: &[u8], text: &str) -> bool {
    data.windows(text.len()).any(|window| window == text.as_bytes())
}

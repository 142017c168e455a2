//! The wall clock as a value, and its RFC 3339 form.
//!
//! Whoever needs the time of day is given a [`Clock`], so a test says what time it is. Times are
//! UTC seconds since 1970; intervals are not measured here but with tokio's `Instant`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 86400;

/// Tells the time of day.
#[derive(Clone)]
pub struct Clock {
    unix_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

// === impl Clock ===

impl Clock {
    /// Gives the machine's clock.
    pub fn system() -> Self {
        Self::from_fn(|| {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// Gives a clock that asks a function for milliseconds since 1970.
    pub fn from_fn(unix_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { unix_ms: Arc::new(unix_ms) }
    }

    /// Gives milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        (self.unix_ms)()
    }

    /// Gives whole seconds since 1970.
    pub fn unix_s(&self) -> u64 {
        self.unix_ms() / 1000
    }
}

/// Writes seconds since 1970 as `2026-11-24T05:50:00Z`.
/// Source: RFC 3339 §5.6; days by H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub fn format_rfc3339(unix_s: u64) -> String {
    let (days, second) = (unix_s / SECONDS_PER_DAY, unix_s % SECONDS_PER_DAY);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads the UTC form of RFC 3339; a fraction of a second is dropped.
/// Gives nothing for other forms, other offsets, dates that no calendar has, leap seconds, and
/// times before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let bytes = text.strip_suffix('Z')?.as_bytes();
    let (whole, fraction) = bytes.split_at_checked("2026-11-24T05:50:00".len())?;
    if !fraction.is_empty() && !is_fraction(fraction) {
        return None;
    }
    for (index, separator) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if whole[index] != separator {
            return None;
        }
    }
    let year = digits(&whole[0..4])?;
    let (month, day) = (digits(&whole[5..7])?, digits(&whole[8..10])?);
    let (hour, minute) = (digits(&whole[11..13])?, digits(&whole[14..16])?);
    let second = digits(&whole[17..19])?;
    if year < 1970 || hour > 23 || minute > 59 || second > 59 || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A 30th of February comes back as another day.
    let is_in_calendar = (1..=31).contains(&day) && civil_from_days(days) == (year, month, day);
    is_in_calendar.then_some(days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second)
}

fn is_fraction(bytes: &[u8]) -> bool {
    bytes.len() > 1 && bytes[0] == b'.' && bytes[1..].iter().all(u8::is_ascii_digit)
}

fn digits(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0'))
    })
}

/// Days of 400 years, after which the calendar repeats.
const DAYS_PER_ERA: u64 = 146_097;

/// Days from the 1st of March of the year 0 to 1970: such years end with their leap day.
const DAYS_TO_1970: u64 = 719_468;

fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leap_days = day_of_era / 1460 + day_of_era / 146_096;
    let year_of_era = (day_of_era + day_of_era / 36_524 - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day.max(1) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - DAYS_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_and_read() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_764_547_199, "2025-11-30T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(format_rfc3339(unix_s), text);
            assert_eq!(parse_rfc3339(text), Some(unix_s));
        }
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        let mut earlier = String::new();
        for day in 0..DAYS_PER_ERA {
            let text = format_rfc3339(day * SECONDS_PER_DAY);
            assert!(text > earlier, "{earlier} {text}");
            assert_eq!(parse_rfc3339(&text), Some(day * SECONDS_PER_DAY));
            earlier = text;
        }
    }

    #[test]
    fn what_is_no_utc_time_is_refused() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:01.999Z"), Some(1));
        for wrong in [
            "",
            "Z",
            "2026-11-24",
            "2026-11-24T05:50:00",
            "2026-11-24T05:50:00+00:00",
            "2026-11-24 05:50:00Z",
            "2026-11-24T05:50:00.Z",
            "2026-11-24T05:50:00,5Z",
            "2026-11-24T05:50:60Z",
            "2026-11-24T24:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "+026-11-24T05:50:00Z",
            "2026-11-24T05:50:0\u{e4}Z",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_clock_of_a_function_says_what_it_says() {
        let clock = Clock::from_fn(|| 1999);
        assert_eq!((clock.unix_ms(), clock.unix_s()), (1999, 1));
        assert!(Clock::system().unix_s() > 1_700_000_000);
    }
}

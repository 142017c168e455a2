//! What the relay must keep to and what it aims at, and what was seen.
//!
//! In: the JSON of all parts. Out: a row for each target. The median of the rounds is what counts;
//! a target that could not be measured says why, and is not held.

use serde_json::Value;

use super::figures::{Figure, Read, report};

mod table;

pub(super) use table::TARGETS;

/// One target.
pub(super) struct Target {
    /// Of the fifteen; some have several rows.
    pub(super) number: &'static str,
    pub(super) what: &'static str,
    part: &'static str,
    /// The bound that must hold, and the one that is aimed at.
    must: Option<f64>,
    aim: Option<f64>,
    sense: Sense,
    digits: usize,
    unit: &'static str,
    find: fn(&Value) -> Option<Figure>,
}

/// On which side of its bound a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sense {
    AtMost,
    AtLeast,
}

/// What a target's row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) must: String,
    pub(super) aim: String,
    pub(super) seen: String,
    pub(super) held: Held,
}

/// How well a target is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// The aim too.
    Aim,
    /// The bound, or there is none; not the aim, or there is none.
    Must,
    No,
    /// And why.
    NotMeasured(String),
}

const NO_NGINX: &str = "nginx is not installed";

// === impl Held ===

impl Held {
    /// Says it in a table.
    pub(super) fn text(&self, target: &Target) -> String {
        match self {
            Held::Aim => "aim reached".to_owned(),
            Held::Must if target.must.is_none() => "aim missed".to_owned(),
            Held::Must => "held".to_owned(),
            Held::No => "**missed**".to_owned(),
            Held::NotMeasured(why) => format!("not measured: {why}"),
        }
    }
}

// === impl Target ===

impl Target {
    /// Gives the name of the part that has its figure.
    #[cfg(test)]
    pub(super) fn part(&self) -> &'static str {
        self.part
    }

    /// Judges what was seen.
    pub(super) fn verdict(&self, all: &Value) -> Verdict {
        let seen = self.seen(all);
        let keeps = |seen: f64, bound: f64| match self.sense {
            Sense::AtMost => seen <= bound,
            Sense::AtLeast => seen >= bound,
        };
        let held = match &seen {
            Err(why) => Held::NotMeasured((*why).to_owned()),
            Ok(seen) if self.aim.is_some_and(|aim| keeps(seen.median, aim)) => Held::Aim,
            Ok(seen) if self.must.is_none_or(|must| keeps(seen.median, must)) => Held::Must,
            Ok(_) => Held::No,
        };
        let sign = if self.sense == Sense::AtMost { "≤" } else { "≥" };
        let bound = |bound: Option<f64>| {
            bound.map_or("–".to_owned(), |bound| format!("{sign} {bound}{}", self.unit))
        };
        Verdict {
            must: bound(self.must),
            aim: bound(self.aim),
            seen: seen.map_or("–".to_owned(), |seen| seen.text(self.digits) + self.unit),
            held,
        }
    }

    fn seen<'a>(&self, all: &'a Value) -> Read<'a, Figure> {
        let report = report(all, self.part)?;
        (self.find)(report).ok_or(if self.what.contains("nginx") { NO_NGINX } else { "no figure" })
    }
}

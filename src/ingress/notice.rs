//! A notification as both doors know it, between their wire forms and the corridor's targets.
//!
//! In: the members of a request, each in its own type. Out: one [`Target`] for each device, in
//! order. A fault in one target is that target's result; a fault outside them refuses the request.

use bytes::Bytes;

use super::wire::Level;
use crate::outcome::{Code, Outcome, Refusal};
use crate::push::{Class, Content, MessageId, Plain, Push, Sealed, Topic, Ttl, Urgency};
use crate::relay::Target;

/// One notification for several devices of one NAS.
pub(super) struct Notice {
    pub(super) id: String,
    pub(super) level: Level,
    pub(super) ttl_s: u64,
    pub(super) collapse_key: Option<String>,
    pub(super) sound: bool,
    pub(super) plain: Option<Plain>,
    pub(super) targets: Vec<Addressed>,
}

/// One device, and what is sealed for it.
pub(super) struct Addressed {
    pub(super) handle: String,
    pub(super) sealed: Result<Option<Bytes>, Refusal>,
}

// === impl Notice ===

impl Notice {
    /// Parses everything.
    /// Errors: what is wrong outside the targets.
    pub(super) fn targets(self, targets_max: usize) -> Result<Vec<Target>, Refusal> {
        if self.targets.is_empty() || self.targets.len() > targets_max {
            return Err(Refusal::of_field(Code::MemberInvalid, "targets"));
        }
        let id = Some(MessageId::parse(&self.id)?);
        let topic = self.collapse_key.as_deref().map(Topic::parse_collapse_key).transpose()?;
        let (urgency, class) = match self.level {
            Level::Info => (Urgency::Low, Class::Low),
            Level::Warn => (Urgency::Normal, Class::Ordinary),
            Level::Error => (Urgency::High, Class::Alarm),
        };
        let (ttl, sound) = (Ttl::from_s(self.ttl_s), self.sound);
        let plain = self.plain;
        let target = |(index, target): (usize, Addressed)| {
            let content = target.sealed.and_then(|sealed| content(sealed, plain.as_ref()));
            let push = content
                .map(|content| Push {
                    id,
                    ttl,
                    urgency,
                    class,
                    topic: topic.clone(),
                    sound,
                    content,
                })
                .map_err(|refusal| refusal.within(&place(index)));
            Target { handle: target.handle, push }
        };
        Ok(self.targets.into_iter().enumerate().map(target).collect())
    }
}

/// Puts a target's place into an outcome: the rooms behind the doors know one message, not its
/// place in the request.
pub(super) fn at_place(index: usize, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Refused(refusal)
            if matches!(refusal.field.as_deref(), Some("handle" | "sealed")) =>
        {
            Outcome::Refused(refusal.within(&place(index)))
        }
        outcome => outcome,
    }
}

fn place(index: usize) -> String {
    format!("targets[{index}]")
}

fn content(sealed: Option<Bytes>, plain: Option<&Plain>) -> Result<Content, Refusal> {
    let refuse = |code| Refusal::of_field(code, "sealed");
    match (sealed, plain) {
        (Some(body), _) => {
            Ok(Content::Sealed(Sealed::parse(body).map_err(|refusal| refuse(refusal.code))?))
        }
        (None, Some(plain)) => Ok(Content::Plain(plain.clone())),
        (None, None) => Err(refuse(Code::SealedMissing)),
    }
}

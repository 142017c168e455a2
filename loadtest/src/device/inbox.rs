//! What a device shows: contents as an app's notification extension understands them.
//!
//! In: the opened body of each push, in whatever order they come and however often. Out: the list
//! of what is on the screen. Takes each id once; removes what is withdrawn, also before it came;
//! keeps of two contents for one place the later. Remembers a bounded number of ids. See
//! docs/content.md.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sns_nas::content::{Body, Content, ContentError};
use uuid::Uuid;

/// The screen of one device, and what it remembers.
#[derive(Default)]
pub struct Inbox {
    shown: BTreeMap<Uuid, Content>,
    seen: Remembered<Uuid>,
    withdrawn: Remembered<Uuid>,
}

/// What became of one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is on the screen.
    Shown,
    /// It took the place of another, or waits in a place where that one never was.
    Replaced,
    /// It removed another, or keeps it away.
    Withdrawn,
    /// It came before.
    Double,
    /// Something later stands in its place already, or it was withdrawn before it came.
    Outdated,
}

/// The ids that came last, so that a device does not remember for ever.
#[derive(Default)]
struct Remembered<T> {
    known: BTreeSet<T>,
    order: VecDeque<T>,
}

/// More ids than a device gets within the longest lifetime of a push.
const IDS_MAX: usize = 10_000;

// === impl Inbox ===

impl Inbox {
    /// Takes an opened body.
    /// Errors: [`ContentError`] for one that this device does not read; the screen stays as it is.
    pub fn take(&mut self, opened: &[u8]) -> Result<Effect, ContentError> {
        let content = Content::decode(opened)?;
        if !self.seen.insert(content.id) {
            return Ok(Effect::Double);
        }
        Ok(match &content.body {
            Body::Withdraw(id) => {
                let id = *id;
                self.withdrawn.insert(id);
                self.shown.remove(&id);
                Effect::Withdrawn
            }
            Body::Replace(id, _) => {
                let id = *id;
                // The original, should it still come, is outdated.
                self.seen.insert(id);
                match self.place(id, content) {
                    Effect::Shown => Effect::Replaced,
                    other => other,
                }
            }
            Body::Message(_) | Body::Notification(_) => self.place(content.id, content),
        })
    }

    /// Gives what is on the screen, the oldest first.
    pub fn shown(&self) -> Vec<&Content> {
        let mut shown: Vec<&Content> = self.shown.values().collect();
        shown.sort_by_key(|content| content.sequence);
        shown
    }

    /// Gives the texts on the screen, the oldest first.
    pub fn texts(&self) -> Vec<&str> {
        self.shown().into_iter().map(text_of).collect()
    }

    /// Whether a content with this id came, as itself or by what replaces it.
    pub fn has_seen(&self, id: Uuid) -> bool {
        self.seen.known.contains(&id)
    }

    fn place(&mut self, id: Uuid, content: Content) -> Effect {
        if self.withdrawn.known.contains(&id) {
            return Effect::Outdated;
        }
        let key = content.body.collapse_key();
        let same_place = |(other, shown): &(&Uuid, &Content)| {
            **other == id || (key.is_some() && shown.body.collapse_key() == key)
        };
        let others: Vec<(Uuid, u64)> =
            self.shown.iter().filter(same_place).map(|(id, c)| (*id, c.sequence)).collect();
        if others.iter().any(|(_, sequence)| *sequence > content.sequence) {
            return Effect::Outdated;
        }
        for (other, _) in &others {
            self.shown.remove(other);
        }
        self.shown.insert(id, content);
        if others.is_empty() { Effect::Shown } else { Effect::Replaced }
    }
}

// === impl Remembered ===

impl<T: Copy + Ord> Remembered<T> {
    /// Gives whether it is new.
    fn insert(&mut self, id: T) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

fn text_of(content: &Content) -> &str {
    match &content.body {
        Body::Message(letter) => &letter.text,
        Body::Notification(event) | Body::Replace(_, event) => &event.text,
        Body::Withdraw(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use sns_nas::client::message::{Level, Source};
    use sns_nas::content::{Event, Letter};

    use super::*;

    fn content(id: u128, sequence: u64, body: Body) -> Content {
        Content { id: Uuid::from_u128(id), sequence, written_at_unix_ms: sequence, body }
    }

    fn letter(text: &str, key: Option<&str>) -> Body {
        let (text, collapse_key) = (text.to_owned(), key.map(str::to_owned));
        Body::Message(Letter { text, collapse_key, ..Letter::default() })
    }

    fn replace(id: u128, text: &str) -> Body {
        let event = Event {
            source: Source::Dsm,
            level: Level::Info,
            tag: String::new(),
            category: String::new(),
            app: String::new(),
            title: String::new(),
            text: text.to_owned(),
            vars: BTreeMap::new(),
            collapse_key: None,
        };
        Body::Replace(Uuid::from_u128(id), event)
    }

    fn withdraw(id: u128) -> Body {
        Body::Withdraw(Uuid::from_u128(id))
    }

    /// Whatever the order in which they come and however often, the screen is the same.
    #[track_caller]
    fn check(contents: &[Content], expect: &[&str]) {
        let count = contents.len();
        for order in 0..count.pow(count as u32) {
            let picks: Vec<usize> =
                (0..count).map(|place| order / count.pow(place as u32) % count).collect();
            if (0..count).any(|pick| !picks.contains(&pick)) {
                continue;
            }
            let mut inbox = Inbox::default();
            for pick in picks.iter().chain(&picks) {
                inbox.take(&contents[*pick].encode_within(2000).unwrap()).unwrap();
            }
            assert_eq!(inbox.texts(), expect, "{picks:?}");
        }
    }

    #[test]
    fn each_content_is_shown_once() {
        check(
            &[content(1, 1, letter("one", None)), content(2, 2, letter("two", None))],
            &["one", "two"],
        );
    }

    #[test]
    fn of_one_collapse_key_the_latest_is_shown() {
        let key = Some("disk1");
        let hot = content(1, 1, letter("hot", key));
        let hotter = content(2, 2, letter("hotter", key));
        let cool = content(3, 3, letter("cool", key));
        check(&[hot, hotter, cool, content(4, 4, letter("other", None))], &["cool", "other"]);
    }

    #[test]
    fn the_latest_replacement_is_shown_in_the_place_of_the_first() {
        let first = content(1, 1, letter("first", None));
        check(
            &[first, content(2, 2, replace(1, "second")), content(3, 3, replace(1, "third"))],
            &["third"],
        );
    }

    #[test]
    fn what_is_withdrawn_is_gone_with_all_that_replaces_it() {
        let first = content(1, 1, letter("first", None));
        let second = content(2, 2, replace(1, "second"));
        let other = content(4, 4, letter("other", None));
        check(&[first, second, content(3, 3, withdraw(1)), other], &["other"]);
    }

    #[test]
    fn a_body_that_is_none_changes_nothing() {
        let mut inbox = Inbox::default();
        let one = content(1, 1, letter("one", None)).encode_within(2000).unwrap();
        assert_eq!(inbox.take(&one), Ok(Effect::Shown));
        assert_eq!(inbox.take(&one), Ok(Effect::Double));
        assert_eq!(inbox.take(b"hello"), Err(ContentError::Unreadable));
        assert_eq!(inbox.texts(), ["one"]);
    }

    #[test]
    fn it_remembers_so_many_ids_and_no_more() {
        let mut inbox = Inbox::default();
        for id in 0..IDS_MAX as u128 + 5 {
            inbox.take(&content(id, 1, withdraw(0)).encode_within(200).unwrap()).unwrap();
        }
        assert_eq!(inbox.seen.known.len(), IDS_MAX);
        assert!(!inbox.has_seen(Uuid::from_u128(4)));
        assert!(inbox.has_seen(Uuid::from_u128(5)));
    }
}

//! Which notification goes to which device: decided on the NAS, so that the relay needs to know
//! nobody's preferences.
//!
//! In: the rules, the devices, an event. Out: the devices that it goes to. For each device the
//! first rule that matches decides; without one, it goes. Named devices are taken whatever the
//! rules say.

use crate::content::Event;
use crate::journal::devices::{Device, NAS, Rule};

/// Gives the ids of the devices that an event goes to.
pub fn targets(rules: &[Rule], devices: &[Device], event: &Event) -> Vec<i64> {
    let wants = |device: &&Device| {
        let rule = rules.iter().find(|rule| matches(rule, device, event));
        rule.is_none_or(|rule| rule.sends)
    };
    let reachable =
        devices.iter().filter(|device| device.sender == NAS && device.gone_ms.is_none());
    reachable.filter(wants).map(|device| device.id).collect()
}

fn matches(rule: &Rule, device: &Device, event: &Event) -> bool {
    let any = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|w| w == found);
    any(&rule.device, &device.name)
        && rule.source.is_none_or(|source| source == event.source)
        && rule.level.is_none_or(|level| level == event.level)
        && any(&rule.category, &event.category)
        && any(&rule.tag, &event.tag)
        && any(&rule.app, &event.app)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::client::message::{Level, Source};
    use crate::seal::BodyCap;

    fn device(id: i64, name: &str, sender: &str) -> Device {
        Device {
            id,
            name: name.to_owned(),
            sender: sender.to_owned(),
            handle: String::new(),
            keys: None,
            cap: BodyCap::default(),
            paired_ms: 0,
            gone_ms: None,
        }
    }

    fn event(level: Level, tag: &str) -> Event {
        Event {
            source: Source::Dsm,
            level,
            tag: tag.to_owned(),
            category: "storage".to_owned(),
            app: String::new(),
            title: String::new(),
            text: String::new(),
            vars: BTreeMap::new(),
            collapse_key: None,
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides_for_each_device() {
        let gone = Device { gone_ms: Some(1), ..device(4, "old", NAS) };
        let devices =
            [device(1, "phone", NAS), device(2, "tablet", NAS), device(3, "chat", "chat"), gone];
        let some = |text: &str| Some(text.to_owned());
        let rules = [
            Rule { sends: true, tag: some("DiskFailed"), ..Rule::default() },
            Rule { device: some("tablet"), level: Some(Level::Info), ..Rule::default() },
            Rule { device: some("phone"), category: some("storage"), ..Rule::default() },
            Rule { source: Some(Source::Srm), ..Rule::default() },
            Rule { app: some("no such app"), ..Rule::default() },
        ];
        let check = |rules: &[Rule], event: &Event, expect: &[i64]| {
            assert_eq!(targets(rules, &devices, event), expect);
        };
        check(&[], &event(Level::Info, "x"), &[1, 2]);
        check(&rules, &event(Level::Info, "x"), &[]);
        check(&rules, &event(Level::Error, "x"), &[2]);
        check(&rules, &event(Level::Info, "DiskFailed"), &[1, 2]);
        let srm =
            Event { source: Source::Srm, category: "network".into(), ..event(Level::Warn, "x") };
        check(&rules, &srm, &[]);
    }
}

//! docs/metrics.md lists every metric with its kind and labels, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sns_relay::metrics::{Door, Metrics};
use sns_relay::outcome::{Code, Outcome};
use sns_relay::push::{AppName, PushService};

use crate::source::{backticked, cells, read};

/// Kind and labels of one metric.
type Described = BTreeMap<String, (String, BTreeSet<String>)>;

/// Makes every metric, writes the exposition, and compares it with the tables of the document.
#[test]
fn every_metric_stands_in_the_document_with_its_kind_and_labels_and_no_other_does() {
    let written = exposed(&exposition());
    let documented = documented(&read("docs/metrics.md"));
    for (name, described) in &written {
        assert_eq!(documented.get(name), Some(described), "docs/metrics.md: {name}");
    }
    let only: Vec<_> = documented.keys().filter(|name| !written.contains_key(*name)).collect();
    assert!(only.is_empty(), "docs/metrics.md has metrics that there are not: {only:?}");
}

/// A metric with labels shows only once it was touched, so a new one could stay unseen.
#[test]
fn the_test_touches_every_metric_that_the_source_names() {
    let source = read("src/metrics.rs");
    let named: BTreeSet<&str> =
        source.split('"').skip(1).step_by(2).filter(|text| text.starts_with("sns_")).collect();
    let written = exposed(&exposition());
    let seen: BTreeSet<&str> =
        written.keys().map(String::as_str).filter(|name| name.starts_with("sns_")).collect();
    assert_eq!(seen, named);
}

fn exposition() -> String {
    let app = AppName::parse("chat").unwrap();
    let metrics = Metrics::new([app.clone()].iter()).unwrap();
    metrics.settled(&app, PushService::Apns, &Outcome::Unknown { code: Code::NoAnswer });
    metrics.answered(Door::Push, Code::Accepted);
    metrics.own_part(Door::Push, Duration::from_millis(1));
    metrics.push_service_part(PushService::Fcm, Duration::from_millis(1));
    metrics.renewals(PushService::Apns).renewals.inc();
    metrics.certificate_expires(None, 1);
    String::from_utf8(metrics.text().unwrap()).unwrap()
}

/// Reads the text exposition format; the label `le` belongs to the format, not to us.
fn exposed(text: &str) -> Described {
    let mut described = Described::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            described.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, labels)) = line.split_once('{') {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|family| described.contains_key(*family))
                .unwrap_or(name);
            let (_, known) = described.get_mut(family).unwrap();
            let labels = labels.split("=\"").map(|part| part.rsplit([',', '"']).next().unwrap());
            known.extend(labels.filter(|l| !l.contains('}') && *l != "le").map(str::to_owned));
        }
    }
    described
}

/// Reads rows of the form: name, kind, labels, what it tells.
fn documented(text: &str) -> Described {
    let rows = text.lines().filter_map(cells).filter(|row| row.len() == 4);
    rows.filter_map(|row| {
        let name = row[0].strip_prefix('`')?.strip_suffix('`')?;
        let labels = backticked(row[2]).map(str::to_owned).collect();
        Some((name.to_owned(), (row[1].to_owned(), labels)))
    })
    .collect()
}

//! The fault matrix of docs/reliability.md: what `tests/it/faults.rs` holds the relay to.

use std::fmt::Write as _;

use sns_loadtest::device::DeviceKind;
use sns_loadtest::fault::{Fault, Moment, expected, service_name};
use sns_relay::outcome::Code;
use sns_relay::reply;

use crate::generated::check_part;

#[test]
fn the_fault_matrix_of_reliability_md_is_the_one_that_the_tests_check() {
    check_part("docs/reliability.md", "fault-outcomes", &table());
}

/// Push services that answer a fault alike share a row.
fn table() -> String {
    let mut table = "| fault | push service | before | during | after |\n\
                     | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for fault in Fault::ALL {
        let mut rows: Vec<(Vec<&str>, [String; 3])> = Vec::new();
        for kind in DeviceKind::ALL {
            let cells = Moment::ALL.map(|moment| cell(fault, kind, moment));
            match rows.iter_mut().find(|row| row.1 == cells) {
                Some(row) => row.0.push(service_name(kind)),
                None => rows.push((vec![service_name(kind)], cells)),
            }
        }
        for (services, [before, during, after]) in rows {
            let services = if services.len() == DeviceKind::ALL.len() {
                "all".to_owned()
            } else {
                services.join(", ")
            };
            let name = fault.name();
            writeln!(table, "| {name} | {services} | {before} | {during} | {after} |").unwrap();
        }
    }
    table
}

fn cell(fault: Fault, kind: DeviceKind, moment: Moment) -> String {
    if !fault.can_begin() && moment != Moment::Before {
        return "–".to_owned();
    }
    let told = expected(fault, kind, moment).iter().map(|label| {
        let code = Code::ALL.iter().find(|code| code.label() == *label).unwrap();
        match code {
            Code::Accepted => "accepted".to_owned(),
            code => format!("{} `{label}`", reply::row(*code).kind.label()),
        }
    });
    told.collect::<Vec<_>>().join(" or ")
}

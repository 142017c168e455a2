//! The operator's commands, as the program runs them, on a file and on a server.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sns_relay::store::NasStatus;
use sns_relay::store::records::Records;

use super::{Place, identity};
use crate::cluster::section;
use crate::process::Process;

/// Writes a configuration with the section `store` alone.
fn config_file(folder: &Path, name: &str, keys: &[(&'static str, String)]) -> PathBuf {
    let line = |(key, value): &(&str, String)| format!("{key} = '{value}'\n");
    let file = folder.join(name);
    std::fs::write(&file, keys.iter().map(line).collect::<String>()).unwrap();
    file
}

fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

/// Lists, shows, stops, restores and erases, as a table and as JSON; what is not there fails.
#[tokio::test(flavor = "multi_thread")]
async fn nas_commands_tell_and_change_the_records() {
    for place in [Place::file(), Place::server().await] {
        let folder = tempfile::tempdir().unwrap();
        let file = config_file(folder.path(), "relay.toml", &place.keys);
        let records = place.records().await;
        records.put(vec![identity(1), identity(2)]).await.unwrap();
        let ids = [identity(1).ds_id, identity(2).ds_id];
        let run = |arguments: &[&str]| Process::run(&file, arguments);
        let revoked = run(&["nas", "revoke", &ids[0]]);
        assert_eq!(revoked.trim(), format!("{} suspended", ids[0]), "{}", place.name);
        let list = run(&["nas", "list"]);
        let expected = [
            vec!["ds_id", "status", "enrolled_at", "model"],
            vec![&ids[0], "suspended", "1970-01-01T00:00:01Z", "DS1"],
            vec![&ids[1], "active", "1970-01-01T00:00:02Z", "DS2"],
        ];
        assert_eq!(words(&list), expected, "{}", place.name);
        let json: Value = serde_json::from_str(&run(&["nas", "list", "--json"])).unwrap();
        let shown: Value = serde_json::from_str(&run(&["nas", "show", &ids[1], "--json"])).unwrap();
        assert_eq!((json.as_array().unwrap().len(), &json[1]), (2, &shown), "{}", place.name);
        let table = run(&["nas", "show", &ids[1]]);
        assert_eq!(words(&table).len(), shown.as_object().unwrap().len());
        for line in words(&table) {
            assert_eq!(shown[line[0]], line[1], "{}", place.name);
        }
        run(&["nas", "restore", &ids[0]]);
        let status = records.nas_by_id(&ids[0]).await.unwrap().map(|nas| nas.status);
        assert_eq!(status, Some(NasStatus::Active), "{}", place.name);
        run(&["nas", "erase", &ids[0]]);
        assert!(records.nas_by_id(&ids[0]).await.unwrap().is_none(), "{}", place.name);
        for command in ["show", "revoke", "restore", "erase"] {
            let told = Process::fail(&file, &["nas", command, &ids[0]]);
            assert_eq!(told.trim(), "there is no such NAS", "{}: {command}", place.name);
        }
    }
}

/// Looks for a record that was erased in every byte of the file, its log and its index, while
/// another program has it open.
#[tokio::test(flavor = "multi_thread")]
async fn an_erased_record_is_nowhere_in_the_file() {
    let place = Place::file();
    let folder = tempfile::tempdir().unwrap();
    let file = config_file(folder.path(), "relay.toml", &place.keys);
    let records = place.records().await;
    let mut erased = identity(7);
    erased.model = "zqmodelzq".to_owned();
    let (ds_id, model) = (erased.ds_id.clone(), erased.model.clone());
    records.put((0..200).filter(|number| *number != 7).map(identity).collect()).await.unwrap();
    records.put(vec![erased]).await.unwrap();
    let store = Path::new(&place.keys[0].1).parent().unwrap();
    let holds = |needle: &str| {
        let files = std::fs::read_dir(store).unwrap().map(Result::unwrap);
        files
            .map(|file| std::fs::read(file.path()).unwrap())
            .any(|bytes| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
    };
    assert!(holds(&ds_id) && holds(&model), "the search finds what is there");
    Process::run(&file, &["nas", "erase", &ds_id]);
    assert!(!holds(&ds_id) && !holds(&model));
    assert!(holds(&identity(8).ds_id));
}

/// Mints, lists and cancels by name and by token; the store never holds a token.
#[tokio::test(flavor = "multi_thread")]
async fn enrolment_token_commands_mint_list_and_cancel() {
    for place in [Place::file(), Place::server().await] {
        let folder = tempfile::tempdir().unwrap();
        let file = config_file(folder.path(), "relay.toml", &place.keys);
        let run = |arguments: &[&str]| Process::run(&file, arguments);
        let plain = run(&["enrolment-token", "mint"]);
        let minted = run(&["enrolment-token", "mint", "--count", "2", "--json"]);
        let minted: Value = serde_json::from_str(&minted).unwrap();
        let list = || run(&["enrolment-token", "list"]);
        assert_eq!(list().lines().count(), 3, "{}", place.name);
        let (name, token) = (&minted[0]["name"], &minted[1]["token"]);
        for named in [name.as_str().unwrap(), token.as_str().unwrap(), plain.trim()] {
            assert!(!list().contains(token.as_str().unwrap()));
            run(&["enrolment-token", "cancel", named]);
            let told = Process::fail(&file, &["enrolment-token", "cancel", named]);
            assert_eq!(told.trim(), "there is no such token", "{}", place.name);
        }
        let json: Value =
            serde_json::from_str(&run(&["enrolment-token", "list", "--json"])).unwrap();
        assert_eq!(json, serde_json::json!([]), "{}", place.name);
    }
}

const MANY: u32 = 100_000;

/// Copies a hundred thousand identities from a file to a server while a relay serves from the file
/// and enrols; a second copy takes what came meanwhile. Backs the server up, and verifies all.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_identities_move_to_a_server_while_the_relay_serves() {
    let (from, to, kept) = (Place::file(), Place::server().await, Place::file());
    let folder = tempfile::tempdir().unwrap();
    let source = from.records().await;
    for start in (0..MANY).step_by(10_000) {
        source.put((start..start + 10_000).map(identity).collect()).await.unwrap();
    }
    let file = |name, place: &Place| config_file(folder.path(), name, &place.keys);
    let (from_file, to_file) = (file("from.toml", &from), file("to.toml", &to));
    let (from_arg, to_arg) = (from_file.to_str().unwrap(), to_file.to_str().unwrap());
    let serving = from.store(0).await;
    let enrolling = tokio::spawn(async move {
        for number in MANY..MANY + 100 {
            serving.enrol(identity(number), None).await.unwrap();
            let found = serving.nas_by_key(super::key(number / 2).thumbprint()).await.unwrap();
            assert!(found == Some(identity(number / 2)));
        }
    });
    let migrated = Process::run(&to_file, &["store", "migrate"]);
    assert_eq!(migrated, "the tables are up to date\n");
    let copy = ["store", "copy", "--from", from_arg, "--to", to_arg];
    // The first may end before the last enrolment, and then finds that the two differ.
    Process::command(&copy).output().unwrap();
    enrolling.await.unwrap();
    let copied = Process::command(&copy).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let told = String::from_utf8(copied.stdout).unwrap();
    let all = format!("{} identities", MANY + 100);
    assert!(told.lines().count() == 2 && told.lines().all(|line| line.contains(&all)), "{told}");

    Process::run(&from_file, &["store", "verify", "--against", to_arg]);
    let backup = kept.keys[0].1.as_str();
    assert!(Process::run(&to_file, &["store", "backup", backup]).contains(&all));
    let kept_file = file("kept.toml", &kept);
    assert!(Process::run(&kept_file, &["store", "verify"]).contains(&all));
    let target = Records::open(&section(&to.keys)).await.unwrap();
    target.set_status(&identity(5).ds_id, NasStatus::Suspended).await.unwrap();
    let told = Process::fail(&kept_file, &["store", "verify", "--against", to_arg]);
    assert_eq!(told, format!("1 identities differ; the first: {}\n", identity(5).ds_id));
}

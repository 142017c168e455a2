//! A relay that is away for a while: how the daemon knocks, and what goes first when it is back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sns_nas::client::message::Level;
use sns_nas::client::{LineError, RelayClient};
use sns_nas::daemon::hand_in;
use sns_nas::desk::Request;
use sns_nas::event::Raised;
use sns_nas::key::SenderKey;
use sns_proto::v1::PushRequest;
use sns_proto::v1::stream_request::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tonic::Code;
use uuid::Uuid;

use crate::relay::{Relay, told};
use crate::{Nas, PATIENCE, is_done};

const DEVICES: [&str; 3] = ["phone", "tablet", "browser"];
/// Of each level, the least grave first.
const OF_EACH_LEVEL: usize = 60;
/// The daemon's deliveries on their way at once.
const IN_FLIGHT_MAX: usize = 32;
/// The first wait between two knocks.
const WAIT: Duration = Duration::from_secs(1);

/// A port that closes each connection counts them. The alarms are handed in last, and all of them
/// reach the relay before anything else but what is on its way with the last of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_delivery_knocks_while_the_relay_is_away_and_alarms_go_first_when_it_is_back() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    let knocks: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let known = Arc::clone(&knocks);
    let turns_away = tokio::spawn(async move {
        while let Ok((stream, _)) = port.accept().await {
            known.lock().unwrap().push(Instant::now());
            drop(stream);
        }
    });
    let (mut nas, _) = Nas::new(&format!("http://{address}"), &DEVICES);
    nas.start().await;
    let mut levels = HashMap::new();
    for level in Level::ALL {
        for n in 0..OF_EACH_LEVEL {
            levels.insert(say(&nas, level, n).await.to_string(), level);
        }
    }
    let later =
        |knocks: &[Instant]| knocks.windows(2).filter(|two| two[1] - two[0] >= WAIT).count();
    let twice = async {
        while later(&knocks.lock().unwrap()) < 2 {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(PATIENCE, twice).await.expect("it knocks again");
    turns_away.abort();
    assert!(turns_away.await.unwrap_err().is_cancelled());
    let knocked = knocks.lock().unwrap().len();
    assert!(knocked <= 2 + DEVICES.len(), "{knocked}: the first attempt is one for each device");
    let waiting = nas.records();
    let mut fates = waiting.iter().flat_map(|record| &record.deliveries);
    assert!(fates.all(|fate| fate.attempts == 0), "nothing of it left, so nothing was tried");

    let listener = TcpListener::bind(address).await.unwrap();
    let relay = Relay::start_on(listener, |_, _| told("accepted"));
    nas.until(is_done).await;
    let got: Vec<Level> = relay.got().iter().map(|got| levels[&got.id]).collect();
    assert_eq!(got.len(), 3 * OF_EACH_LEVEL * DEVICES.len(), "each once");
    for grave in [Level::Warn, Level::Error] {
        let last = got.iter().rposition(|level| *level >= grave).unwrap();
        let overtaken = got[..last].iter().filter(|level| **level < grave).count();
        assert!(overtaken < IN_FLIGHT_MAX, "{overtaken} went before the last {grave:?}");
    }
}

/// A port that takes connections and says nothing. It was one attempt for all of them, and it ends
/// before their own time does.
#[tokio::test]
async fn all_that_wait_for_a_relay_which_says_nothing_hear_together_that_they_never_left() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    let patience = Duration::from_millis(900);
    let relay = RelayClient::new(&url, None).unwrap().with_timeout(patience);
    let line = relay.line(&Arc::new(SenderKey::generate().unwrap())).unwrap();
    let mut sends = JoinSet::new();
    for _ in 0..8 {
        let line = line.clone();
        sends.spawn(async move { line.send(Message::Push(PushRequest::default())).await });
    }
    let (_connection, _) = port.accept().await.unwrap();
    let told = sends.join_all().await;
    for results in told {
        match results {
            Err(LineError::NotOpened(status)) => assert_eq!(status.code(), Code::DeadlineExceeded),
            other => panic!("{other:?}"),
        }
    }
    let another = time::timeout(Duration::ZERO, port.accept()).await;
    assert!(another.is_err(), "one connection was tried");
}

async fn say(nas: &Nas, level: Level, n: usize) -> Uuid {
    let text = Some(format!("{n}"));
    let raised = Raised { level: Some(level), text, ..Raised::default() };
    hand_in(&nas.socket(), &Request::Notify(raised)).await.unwrap().id
}

//! A daemon whose clock is wrong at first, as on a NAS without a battery for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use sns_nas::catalogue::Catalogue;
use sns_nas::client::RelayClient;
use sns_nas::clock::now_unix_ms;
use sns_nas::courier::Courier;
use sns_nas::daemon::{self, Pace, Socket, hand_in};
use sns_nas::desk::{Desk, Request};
use sns_nas::event::Raised;
use tokio::sync::oneshot;

use crate::relay::{Relay, Told, told};
use crate::{Nas, is_done};

/// In 1970 the relay refuses the token; a quarter of an hour is the wait for that. When the time is
/// right, the alarm goes out at once, and its seven days count from when it was raised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_of_1970_goes_out_when_the_clock_is_right_and_is_not_erased_by_the_jump() {
    let clock_ms = Arc::new(AtomicU64::new(20_000));
    let judge = Arc::clone(&clock_ms);
    let relay = Relay::start(move |_, _| match judge.load(Ordering::Relaxed) {
        ..1_000_000 => {
            let members = json!({"status": 401, "code": "vapid_expired"});
            Some(Told { outcome: "problem", members })
        }
        _ => told("accepted"),
    })
    .await;
    let (nas, _) = Nas::new(&relay.url, &["phone"]);
    let journal = nas.journal();
    let courier = Courier::new(RelayClient::new(&relay.url, None).unwrap(), &journal).unwrap();
    let desk = Desk::new(journal, Catalogue::load(None).unwrap(), "attic".to_owned());
    let (_socket, asks) = Socket::listen(&nas.socket()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let time = Arc::clone(&clock_ms);
    let pace = Pace { tend_every: Duration::from_millis(50), ..Pace::default() };
    let running = tokio::spawn(daemon::run(
        desk,
        courier,
        pace,
        asks,
        move || time.load(Ordering::Relaxed),
        async { drop(stopped.await) },
    ));
    let raised = Raised { tag: Some("ImproperShutdown".to_owned()), ..Raised::default() };
    let request = Request::Notify(raised);
    let id = hand_in(&nas.socket(), &request).await.unwrap().id;
    nas.until(|_| {
        nas.journal().recall(&Default::default(), 20_000).unwrap()[0].deliveries[0].attempts == 1
    })
    .await;

    let right_ms = now_unix_ms();
    clock_ms.store(right_ms, Ordering::Relaxed);
    nas.until(is_done).await;
    let records = nas.records();
    assert_eq!((records.len(), records[0].content.id), (1, id));
    assert_eq!(records[0].written_ms, right_ms, "raised at the moment of the jump, by this clock");
    assert_eq!(records[0].deliveries[0].state, "accepted");
    assert_eq!(relay.got().len(), 2);
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

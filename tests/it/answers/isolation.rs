//! What one credential or connection suffers, and what the others do not notice.

use sns_loadtest::device::DeviceKind;
use sns_loadtest::sim::apns::error;
use sns_loadtest::sim::script::Step;

use tokio::time::{Duration, Instant, sleep};

use super::{Line, accepted, misconfigured};
use crate::house::House;

/// Apple refuses the key: after three messages the others are told at once, and Google's go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_credential_holds_its_own_messages_and_no_others() {
    let mut line = Line::to(DeviceKind::Ios).await;
    line.script().standing(Step::Answer(error(403, "InvalidProviderToken")));
    for _ in 0..20 {
        assert_eq!(line.push().await, misconfigured("apns_invalid_provider_token"));
    }
    assert_eq!(line.arrived().len(), 3);
    (line.device, line.endpoint) = line.house.paired(DeviceKind::Android, &line.sender).await;
    line.kind = DeviceKind::Android;
    for _ in 0..20 {
        assert_eq!(line.push().await, accepted());
    }
}

/// Our clock makes no token that old, so it is the connection that is wedged.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_calls_a_fresh_token_expired_twice_is_replaced() {
    let line = Line::to(DeviceKind::Ios).await;
    assert_eq!(line.push().await, accepted());
    line.script().standing(Step::Answer(error(403, "ExpiredProviderToken")));
    for _ in 0..2 {
        assert_eq!(line.push().await, misconfigured("apns_expired_provider_token"));
    }
    line.script().reset();
    assert_eq!(line.push().await, accepted());
    assert_eq!(line.connections().opened(), 2);
    let carriers: Vec<u64> =
        line.journal().entries().iter().map(|entry| entry.connection).collect();
    assert_eq!(carriers, [1, 1, 1, 2]);
}

/// Two apps: a connection each to Apple and Google, and an access token each; none to the sandbox.
#[tokio::test(flavor = "multi_thread")]
async fn connections_and_tokens_are_there_before_the_first_message() {
    let house = House::build().await;
    // The service's end of a handshake may lag behind ours.
    let ends_at = Instant::now() + Duration::from_secs(5);
    while house.stage.apns.connections().opened() < 2 && Instant::now() < ends_at {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(house.stage.apns.connections().opened(), 2);
    assert_eq!(house.stage.apns_sandbox.connections().opened(), 0);
    // The stage's two apps are under one service account.
    assert_eq!(house.stage.fcm.journal().token_fetches(), 1);
}

/// A push service that cannot be reached does not keep a relay from starting.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_starts_though_its_push_services_are_down() {
    let started = Instant::now();
    let house = House::with(|stage| {
        for key in ["apns.production_url", "fcm.base_url"] {
            stage.set_key(key, "https://localhost:1");
        }
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(house.stage.apns.connections().opened(), 0);
}

//! What a connection or a request may do to the relay at worst.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sns_nas::key::SenderKey;
use sns_nas::vapid::{self, Audience};
use sns_relay::clock::Clock;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::house::House;

type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// Opens an HTTP/2 connection by prior knowledge; the handle's task ends with the connection.
async fn connect(house: &House) -> (Sender, tokio::task::JoinHandle<()>) {
    let address = house.url.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let ended = tokio::spawn(async move {
        let _ended_by_the_relay = connection.await;
    });
    (sender, ended)
}

async fn status_of(house: &House, sender: &mut Sender) -> Result<u16, hyper::Error> {
    let request = Request::get(format!("{}/v1/apps/chat", house.url)).body(Empty::new()).unwrap();
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

/// The third request is the last one of its connection; it is answered, and then comes GOAWAY.
#[tokio::test(flavor = "multi_thread")]
async fn a_worn_out_connection_ends_without_losing_a_request() {
    let house = House::with(|stage| stage.set_key("server.requests_per_connection_max", 3)).await;
    let (mut sender, ended) = connect(&house).await;
    for _ in 0..3 {
        assert_eq!(status_of(&house, &mut sender).await.unwrap(), 200);
    }
    timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
    assert!(status_of(&house, &mut sender).await.is_err());
    let (mut another, _) = connect(&house).await;
    assert_eq!(status_of(&house, &mut another).await.unwrap(), 200);
}

/// A connection that is quiet for a second after its request is closed.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed() {
    let house = House::with(|stage| {
        stage.set_key("server.idle_timeout_s", 1);
        stage.set_key("server.header_timeout_ms", 200);
    })
    .await;
    let (mut sender, ended) = connect(&house).await;
    assert_eq!(status_of(&house, &mut sender).await.unwrap(), 200);
    timeout(Duration::from_secs(10), ended).await.unwrap().unwrap();
}

/// A panic in one request is that request's 500, and the next one on the connection is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_one_requests_fault_and_no_more() {
    let house = House::build().await;
    let key = SenderKey::generate().unwrap();
    let audience = Audience::of_url(&house.url).unwrap();
    let now_unix_s = Clock::system().unix_s();
    let authorization = vapid::authorization(&key, &audience, None, now_unix_s, 3600).unwrap();
    let (mut sender, _) = connect(&house).await;
    let mut identity = async || {
        let request = Request::get(format!("{}/v1/nas/self", house.url))
            .header("authorization", &authorization)
            .body(Empty::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (status, problem["code"].as_str().unwrap().to_owned())
    };
    house.break_clock(true);
    assert_eq!(identity().await, (500, "internal_fault".to_owned()));
    house.break_clock(false);
    assert_eq!(identity().await, (403, "nas_not_enrolled".to_owned()));
}

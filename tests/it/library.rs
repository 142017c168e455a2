//! An ordinary Web Push library as the sender: it knows RFC 8030 and 8291, and nothing of us.

use bytes::Bytes;
use http::Request;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sns_loadtest::measure::letter::Sender;
use web_push_native::p256::PublicKey;
use web_push_native::{Auth, WebPushBuilder};

use crate::house::{House, KINDS};

/// `web-push-native` makes the whole request; only the VAPID token is signed beside it (RFC 8292).
#[tokio::test(flavor = "multi_thread")]
async fn a_web_push_library_reaches_each_kind_of_device() {
    let house = House::build().await;
    let sender = Sender::new(&house.url).unwrap();
    let http = Client::builder(TokioExecutor::new()).build_http();
    for kind in KINDS {
        let (device, endpoint) = house.paired(kind, sender.key()).await;
        // What a browser's `PushSubscription` would give, with the relay's endpoint in it.
        let p256dh = PublicKey::from_sec1_bytes(&device.keys().p256dh()).unwrap();
        let auth = Auth::clone_from_slice(&device.keys().auth());
        let library = WebPushBuilder::new(endpoint.parse().unwrap(), p256dh, auth);
        let (mut head, body) = library.build("hello from a library").unwrap().into_parts();
        head.headers.insert(AUTHORIZATION, sender.authorization().clone());
        let request = Request::from_parts(head, Full::new(Bytes::from(body)));
        let answer = http.request(request).await.unwrap();
        let status = answer.status().as_u16();
        let problem = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status, 201, "{kind:?}: {}", String::from_utf8_lossy(&problem));
        assert_eq!(house.read_by(&device), ["hello from a library"], "{kind:?}");
    }
}

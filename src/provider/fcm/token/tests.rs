//! A real HTTP/2 token endpoint over an in-memory connection, under a paused clock.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::advance;

use super::*;
use crate::config::ServiceUrl;
use crate::provider::jwt::tests::{rsa_pem, verify_rs256};
use crate::provider::tests::{bare_pool, renewal_metrics};

const NOW_UNIX_S: u64 = 1_700_000_000;

/// The endpoint: gives what its script says, and a numbered token where the script is at its end.
#[derive(Default)]
struct Endpoint {
    script: Mutex<VecDeque<(u16, &'static str)>>,
    asked: AtomicUsize,
    forms: Mutex<Vec<String>>,
    delay: Mutex<Duration>,
}

struct Room {
    source: Arc<TokenSource>,
    endpoint: Arc<Endpoint>,
    public_key: Vec<u8>,
}

impl Endpoint {
    async fn serve(self: Arc<Self>, io: tokio::io::DuplexStream) {
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            let endpoint = Arc::clone(&self);
            tokio::spawn(endpoint.answer(request, respond));
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) {
        assert_eq!(request.uri().path(), "/token");
        let mut body = request.into_body();
        let mut form = Vec::new();
        while let Some(chunk) = body.data().await {
            form.extend_from_slice(&chunk.unwrap());
        }
        self.forms.lock().unwrap().push(String::from_utf8(form).unwrap());
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let delay = *self.delay.lock().unwrap();
        sleep(delay).await;
        let good = format!(
            r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":3600}}"#
        );
        let (status, text) = match self.script.lock().unwrap().pop_front() {
            Some((status, text)) => (status, text.to_owned()),
            None => (200, good),
        };
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        respond.send_response(response, false).unwrap().send_data(text.into(), true).unwrap();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Room {
    async fn open(script: &[(u16, &'static str)]) -> Self {
        let (pem, public_key) = rsa_pem();
        let app = AppFcm {
            project_id: "project".to_owned(),
            client_email: "relay@project.iam.gserviceaccount.com".to_owned(),
            private_key_id: "key-1".to_owned(),
            private_key_pem: pem,
            token_url: ServiceUrl { host: "oauth2.googleapis.com".to_owned(), port: 443 },
            token_path: "/token".to_owned(),
            token_uri: "https://oauth2.googleapis.com/token".to_owned(),
        };
        let endpoint = Arc::new(Endpoint::default());
        endpoint.script.lock().unwrap().extend(script);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(Arc::clone(&endpoint).serve(theirs));
        let pool = bare_pool("oauth2.googleapis.com");
        pool.adopt(ours);
        let clock = Clock::from_fn(|| NOW_UNIX_S * 1000);
        let source = TokenSource::over(&app, pool, clock, renewal_metrics()).ok().unwrap();
        Self { source: Arc::new(source), endpoint, public_key }
    }

    async fn token(&self) -> Result<String, Outcome> {
        let token = self.source.current(soon()).await?;
        assert!(token.authorization().is_sensitive());
        Ok(token.authorization().to_str().unwrap().to_owned())
    }

    /// Lets the background task do its work; the clock stands still.
    async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test(start_paused = true)]
async fn the_grant_has_googles_form_and_verifies() {
    let room = Room::open(&[]).await;
    assert_eq!(room.token().await, Ok("Bearer token-1".to_owned()));
    let form = room.endpoint.forms.lock().unwrap().pop().unwrap();
    let (grant_type, assertion) = form.split_once('&').unwrap();
    assert_eq!(grant_type, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer");
    let token = assertion.strip_prefix("assertion=").unwrap();
    let (header, claims) = verify_rs256(token, &room.public_key);
    assert_eq!(header, json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"}));
    let expected = json!({
        "iss": "relay@project.iam.gserviceaccount.com",
        "scope": SCOPE,
        "aud": "https://oauth2.googleapis.com/token",
        "iat": NOW_UNIX_S,
        "exp": NOW_UNIX_S + 3600,
    });
    assert_eq!(claims, expected);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_first_messages_fetch_once() {
    let room = Room::open(&[]).await;
    *room.endpoint.delay.lock().unwrap() = Duration::from_millis(300);
    let mut messages = JoinSet::new();
    for _ in 0..1000 {
        let source = Arc::clone(&room.source);
        messages.spawn(async move { source.current(soon()).await.is_ok() });
    }
    assert!(messages.join_all().await.into_iter().all(|got| got));
    assert_eq!(room.endpoint.asked(), 1);
    assert_eq!(room.source.shared.metrics.renewals.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_in_the_background_at_three_quarters_of_its_life() {
    let room = Room::open(&[]).await;
    let first = room.token().await;
    advance(Duration::from_secs(3600 * 69 / 100)).await;
    assert_eq!(room.token().await, first);
    room.settle().await;
    assert_eq!(room.endpoint.asked(), 1);
    advance(Duration::from_secs(3600 * 7 / 100)).await;
    // The message that finds it out goes with the old token, and does not wait.
    assert_eq!(room.token().await, first);
    room.settle().await;
    assert_eq!(room.token().await, Ok("Bearer token-2".to_owned()));
    assert_eq!(room.endpoint.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_is_never_used() {
    let room = Room::open(&[]).await;
    room.token().await.unwrap();
    advance(Duration::from_secs(3600 * 96 / 100)).await;
    assert_eq!(room.token().await, Ok("Bearer token-2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_leaves_the_old_token_in_use() {
    let room = Room::open(&[]).await;
    let first = room.token().await;
    room.endpoint.script.lock().unwrap().extend([(503, ""), (503, ""), (503, "")]);
    advance(Duration::from_secs(3600 * 76 / 100)).await;
    assert_eq!(room.token().await, first);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(room.endpoint.asked(), 4);
    assert_eq!(room.source.shared.metrics.failures.get(), 1);
    assert_eq!(room.token().await, first);
    room.settle().await;
    assert_eq!(room.token().await, Ok("Bearer token-5".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once_for_all_who_met_the_refusal() {
    let room = Room::open(&[]).await;
    let seen = room.source.current(soon()).await.ok().unwrap().version();
    let mut messages = JoinSet::new();
    for _ in 0..100 {
        let source = Arc::clone(&room.source);
        messages.spawn(async move { source.renew(seen, soon()).await });
    }
    assert!(messages.join_all().await.into_iter().all(|renewed| renewed));
    assert_eq!(room.endpoint.asked(), 2);
    // Google refuses the next one too: within a minute there is no third.
    let seen = room.source.current(soon()).await.ok().unwrap().version();
    assert!(!room.source.renew(seen, soon()).await);
    assert_eq!(room.endpoint.asked(), 2);
    advance(DISCARD_INTERVAL).await;
    assert!(room.source.renew(seen, soon()).await);
    assert_eq!(room.endpoint.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_grant_is_the_operators_fault_and_not_asked_for_again_at_once() {
    let refusal = (400, r#"{"error":"invalid_grant","error_description":"x"}"#);
    let room = Room::open(&[refusal]).await;
    for _ in 0..50 {
        let refused = Outcome::Misconfigured { code: Code::OauthRefused };
        assert_eq!(room.token().await, Err(refused));
    }
    assert_eq!(room.endpoint.asked(), 1);
    advance(REFUSED_PAUSE * 2).await;
    assert_eq!(room.token().await, Ok("Bearer token-2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_is_tried_three_times_and_then_left_alone() {
    let down = [(500, ""), (200, "<html>"), (429, ""), (500, ""), (500, ""), (500, "")];
    let room = Room::open(&down).await;
    for _ in 0..50 {
        assert_eq!(room.token().await.unwrap_err().code(), Code::OauthUnavailable);
    }
    assert_eq!(room.endpoint.asked(), 3);
    advance(UNAVAILABLE_PAUSE * 2).await;
    let Err(Outcome::NotNow { retry_after, .. }) = room.token().await else { panic!() };
    assert!(retry_after >= UNAVAILABLE_PAUSE * 2, "the pause doubles");
    assert_eq!(room.endpoint.asked(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_message_waits_no_longer_than_its_deadline_and_the_fetch_goes_on() {
    let room = Room::open(&[]).await;
    *room.endpoint.delay.lock().unwrap() = Duration::from_secs(5);
    let began = Instant::now();
    let outcome = room.source.current(began + Duration::from_secs(1)).await.err();
    assert_eq!(outcome, Some(unavailable(UNAVAILABLE_PAUSE)));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(room.token().await, Ok("Bearer token-1".to_owned()));
    assert_eq!(room.endpoint.asked(), 1);
}

//! Each provider against a TLS server on loopback: what stands on the wire, to the last header.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::authenticate::Authenticator;
use crate::clock::Clock;
use crate::config::{ApnsCredential, App, AppApns, AppFcm, AppWebPush, Authenticate, WebPush};
use crate::outcome::Kind;
use crate::pair::Pairer;
use crate::pair::farewell::Farewells;
use crate::pair::seal::{Ring, RingKey};
use crate::provider::jwt::Es256Key;
use crate::provider::jwt::tests::{p256_pem, rsa_pem, verify_es256};
use crate::push::{Address, AppName, Class, Content, Environment, MessageId, Push, Sealed, Topic};
use crate::push::{Ttl, Urgency};
use crate::route::Router;

const TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";

/// What came in: path, headers, body.
type Seen = (String, BTreeMap<String, String>, Vec<u8>);

/// A push service and token endpoint in one: the first answers are scripted, the rest are 200.
struct Service {
    seen: Mutex<Vec<Seen>>,
    script: Mutex<Vec<(u16, &'static str)>>,
}

struct House {
    service: Arc<Service>,
    url: ServiceUrl,
    dialling: Dialling,
    clock: Clock,
}

impl Service {
    async fn serve(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((tcp, _)) = listener.accept().await {
            let service = Arc::clone(&self);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let tls = acceptor.accept(tcp).await.unwrap();
                let mut connection = h2::server::handshake(tls).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(Arc::clone(&service).answer(request, respond));
                }
            });
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) {
        let (parts, mut stream) = request.into_parts();
        assert_eq!(parts.method, http::Method::POST);
        let mut body = Vec::new();
        while let Some(chunk) = stream.data().await {
            body.extend_from_slice(&chunk.unwrap());
        }
        let headers = parts.headers.iter();
        let headers = headers.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()));
        let path = parts.uri.path_and_query().unwrap().to_string();
        let (status, text) = match path.as_str() {
            "/token" => (200, r#"{"access_token":"a","expires_in":3600}"#),
            _ => self.script.lock().unwrap().pop().unwrap_or((200, "{}")),
        };
        self.seen.lock().unwrap().push((path, headers.collect(), body));
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        respond.send_response(response, false).unwrap().send_data(text.into(), true).unwrap();
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }
}

impl House {
    async fn open(script: &[(u16, &'static str)]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key.unwrap())
            .unwrap();
        server.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Mutex::new(script.iter().rev().copied().collect());
        let service = Arc::new(Service { seen: Mutex::default(), script });
        let acceptor = TlsAcceptor::from(Arc::new(server));
        tokio::spawn(Arc::clone(&service).serve(listener, acceptor));
        let roots = tls::Roots::load(Some(&ca_file)).ok().unwrap();
        let dialling = Dialling {
            roots,
            limits: Limits::default(),
            proxy: None,
            credential_probe: Duration::from_secs(30),
            metrics: pool_metrics(),
            holds: breaker_metrics(),
        };
        let url = ServiceUrl { host: "localhost".to_owned(), port };
        Self { service, url, dialling, clock: Clock::system() }
    }

    /// Walks a message through the real doors: token, handle, route.
    fn route(&self, address: Address) -> Route {
        let now = self.clock.unix_s();
        let origin = "https://relay.example";
        let limits = Authenticate {
            token_cache_entries_max: 1,
            token_lifetime_max: Duration::from_secs(86_400),
            clock_skew: Duration::ZERO,
        };
        let key = Es256Key::from_pem(&p256_pem()).ok().unwrap();
        let claims = json!({"aud": origin, "exp": now + 60});
        let token = key.sign(&json!({"typ": "JWT", "alg": "ES256"}), &claims).unwrap();
        let header = format!("vapid t={token}, k={}", key.public_point());
        let sender = Authenticator::new(&limits, origin.to_owned())
            .authenticate(Some(header.as_bytes()), now)
            .unwrap();
        let ring = Ring::new(vec![RingKey::new([1; 4], &[1; 32], 0).unwrap()]).unwrap();
        let pairer = Pairer::new(ring, Duration::from_secs(86_400));
        let app = AppName::parse("chat").unwrap();
        let paired = pairer.pair(app.clone(), address, sender.thumbprint(), now).ok().unwrap();
        let device = pairer.open(&paired.handle, &sender, now).ok().unwrap();
        let apps = BTreeMap::from([(app, Arc::new(self.app()))]);
        let mut body = vec![0; Sealed::HEADER_BYTES + 17];
        (body[18], body[20], body[21]) = (16, 65, 4);
        let push = Push {
            id: Some(MessageId::random()),
            ttl: Ttl::from_s(60),
            urgency: Urgency::Low,
            class: Class::Low,
            topic: Some(Topic::parse_header("word").unwrap()),
            sound: true,
            content: Content::Sealed(Sealed::parse(body.into()).ok().unwrap()),
        };
        let farewells = Arc::new(Farewells::new(&[8; 32]));
        let router = Router::new(&apps, &[7; 32], farewells, origin);
        router.route(&device, &push, now).ok().unwrap()
    }

    fn app(&self) -> App {
        App {
            name: AppName::parse("chat").unwrap(),
            allow_plain: false,
            apns: Some(AppApns {
                topic: "org.example.chat".to_owned(),
                credential: ApnsCredential::Certificate { pem: p256_pem() },
                title_loc_key: None,
                loc_key: "k".to_owned(),
                sound: None,
                time_sensitive: false,
            }),
            fcm: Some(self.fcm()),
            webpush: Some(webpush()),
            email: None,
        }
    }

    fn fcm(&self) -> AppFcm {
        AppFcm {
            project_id: "project".to_owned(),
            client_email: "relay@project.example".to_owned(),
            private_key_id: "key-1".to_owned(),
            private_key_pem: rsa_pem().0,
            token_url: self.url.clone(),
            token_path: "/token".to_owned(),
            token_uri: "https://localhost/token".to_owned(),
        }
    }
}

fn webpush() -> AppWebPush {
    AppWebPush {
        vapid_key_pem: p256_pem(),
        application_server_key: String::new(),
        subject: "mailto:push@example.com".to_owned(),
        body_bytes_max: 4096,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn apple_gets_the_message_and_nothing_more() {
    let expired = (403, r#"{"reason":"ExpiredProviderToken"}"#);
    let house = House::open(&[(200, ""), expired]).await;
    let clock = house.clock.clone();
    let tokens =
        apns::token::TokenSource::new(&p256_pem(), "KEY", "TEAM", clock, renewal_metrics());
    let tokens = Arc::new(tokens.ok().unwrap());
    let authorization = tokens.current().authorization().to_str().unwrap().to_owned();
    let credential = apns::Credential::Token(tokens);
    let apns = apns::Apns::new("org.example.chat", credential, &house.url, &house.dialling);
    let provider = AnyProvider::Apns(apns.ok().unwrap());
    let address = Address::parse_apns(TOKEN, Environment::Sandbox).ok().unwrap();
    let route = house.route(address);
    let attempt = provider.send(&route, soon()).await;
    assert_eq!(attempt.outcome.kind(), Kind::Accepted);
    assert!(attempt.upstream.is_some());
    let (path, seen, body) = house.service.last();
    assert_eq!(path, format!("/3/device/{TOKEN}"));
    let expected = headers(&[
        ("authorization", &authorization),
        ("apns-topic", "org.example.chat"),
        ("apns-push-type", "alert"),
        ("apns-priority", "5"),
        ("apns-expiration", &route.expiration_unix_s().to_string()),
        ("apns-id", &route.message_id().hyphenated().to_string()),
        ("apns-collapse-id", route.collapse_id().unwrap()),
        ("content-length", &body.len().to_string()),
    ]);
    assert_eq!(seen, expected);
    assert_eq!(body, route.body().as_ref());
    // Apple calls a token of this very minute expired: another one would only break Apple's rule.
    let attempt = provider.send(&route, soon()).await;
    assert_eq!(attempt.outcome.code(), Code::ApnsExpiredProviderToken);
    assert!(!provider.renew_credential(&attempt, soon()).await);
}

#[tokio::test]
async fn google_gets_the_message_under_an_access_token() {
    let house = House::open(&[(401, ""), (200, r#"{"name":"projects/p/messages/1"}"#)]).await;
    let app = house.fcm();
    let clock = house.clock.clone();
    let metrics = renewal_metrics();
    let tokens =
        fcm::token::TokenSource::new(&app, &house.dialling, clock.clone(), metrics.clone());
    let tokens = Arc::new(tokens.ok().unwrap());
    let fcm = fcm::Fcm::new(&app, &house.url, tokens, &house.dialling, clock);
    let provider = AnyProvider::Fcm(fcm.ok().unwrap());
    let route = house.route(Address::parse_fcm("a:b").ok().unwrap());
    let attempt = provider.send(&route, soon()).await;
    assert_eq!(attempt.outcome.code(), Code::FcmUnauthenticated);
    assert!(provider.renew_credential(&attempt, soon()).await);
    assert_eq!(metrics.renewals.get(), 2);
    let attempt = provider.send(&route, soon()).await;
    let name = Some("projects/p/messages/1".to_owned());
    assert_eq!(attempt.outcome, Outcome::Accepted { provider_message_id: name });
    let (path, seen, body) = house.service.last();
    assert_eq!(path, "/v1/projects/project/messages:send");
    let expected = headers(&[
        ("authorization", "Bearer a"),
        ("content-type", "application/json"),
        ("content-length", &body.len().to_string()),
    ]);
    assert_eq!(seen, expected);
    assert_eq!(body, route.body().as_ref());
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["message"]["token"], "a:b");
}

#[tokio::test]
async fn a_browsers_service_gets_the_body_as_it_is() {
    let house = House::open(&[(201, ""), (307, "")]).await;
    let origin = format!("localhost:{}", house.url.port);
    let config = WebPush {
        allow_hosts: Vec::new(),
        danger_allow_origins: vec![origin.clone()],
        ca_file: None,
        origins_max: 4,
    };
    let pools = webpush::WebPushPools::new(&config, &house.dialling).ok().unwrap();
    let provider =
        webpush::WebPush::new(&webpush(), Arc::new(pools), house.clock.clone(), renewal_metrics());
    let provider = AnyProvider::WebPush(provider.ok().unwrap());
    let endpoint = format!("https://{origin}/wpush/v2/x?y=%20");
    let route = house.route(Address::parse_webpush(&endpoint).ok().unwrap());
    let attempt = provider.send(&route, soon()).await;
    assert_eq!(attempt.outcome.kind(), Kind::Accepted);
    let (path, mut seen, body) = house.service.last();
    assert_eq!(path, "/wpush/v2/x?y=%20");
    let authorization = seen.remove("authorization").unwrap();
    let (token, key) = authorization.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
    let (_, claims) = verify_es256(token, key);
    assert_eq!(claims["aud"], format!("https://{origin}"));
    let expected = headers(&[
        ("ttl", "60"),
        ("urgency", "low"),
        ("topic", route.collapse_id().unwrap()),
        ("content-encoding", "aes128gcm"),
        ("content-type", "application/octet-stream"),
        ("content-length", &body.len().to_string()),
    ]);
    assert_eq!(seen, expected);
    assert_eq!(body, route.body().as_ref());
    let attempt = provider.send(&route, soon()).await;
    assert_eq!(attempt.outcome.code(), Code::WebpushRedirected);
    assert_eq!(house.service.seen.lock().unwrap().len(), 2, "no redirect is followed");
}

#[tokio::test]
async fn a_name_that_leads_into_our_own_network_is_not_dialled() {
    let house = House::open(&[]).await;
    let config = WebPush {
        allow_hosts: vec!["localhost".to_owned()],
        danger_allow_origins: Vec::new(),
        ca_file: None,
        origins_max: 4,
    };
    let pools = webpush::WebPushPools::new(&config, &house.dialling).ok().unwrap();
    let provider =
        webpush::WebPush::new(&webpush(), Arc::new(pools), house.clock.clone(), renewal_metrics());
    let provider = provider.ok().unwrap();
    let route = house.route(Address::parse_webpush("https://localhost/x").ok().unwrap());
    let attempt = provider.send(&route, soon()).await;
    assert_eq!(attempt.outcome.code(), Code::PushServiceUnreachable);
    let elsewhere = Address::parse_webpush("https://other.example/x").ok().unwrap();
    let attempt = provider.send(&house.route(elsewhere), soon()).await;
    assert_eq!(attempt.outcome.code(), Code::EndpointNotAllowed);
}

#[tokio::test]
async fn a_message_at_the_wrong_service_is_our_own_fault() {
    let house = House::open(&[]).await;
    let pem = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let pem = format!("{}{}", pem.cert.pem(), pem.signing_key.serialize_pem());
    let pem = config::Secret::new(pem);
    let credential = apns::Credential::Certificate(&pem);
    let apns = apns::Apns::new("org.example.chat", credential, &house.url, &house.dialling);
    let apns = apns.ok().unwrap();
    let attempt = apns.send(&house.route(Address::parse_fcm("a:b").ok().unwrap()), soon()).await;
    assert_eq!(attempt.outcome.code(), Code::InternalFault);
    let address = Address::parse_apns(TOKEN, Environment::Production).ok().unwrap();
    let attempt = apns.send(&house.route(address), soon()).await;
    assert_eq!(attempt.outcome.kind(), Kind::Accepted);
    assert!(!house.service.last().1.contains_key("authorization"));
    assert!(!apns.renew_credential(&attempt, soon()).await);
}

//! The e-mail channel before a real SMTP server: proof, mails, farewells, and every fault.

use std::time::Duration;

use sns_loadtest::sim::smtp::{ReceivedMail, Security, SmtpServer};
use sns_loadtest::stage::{PLAIN_APP, Stage};
use sns_nas::client::ClientError;
use sns_nas::client::message::{
    Channel, Content, Enrolment, Level, Message, Notification, Outcome, PairAnswer, Pairing,
    Source, Target, TargetResult, Urgency,
};
use sns_nas::key::SenderKey;
use sns_nas::seal::BodyCap;
use sns_proto::v1;
use tokio::time::Instant;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::house::House;
use crate::wire::{Ask, Told, ask_http1};

/// A NAS before a relay that sends mail.
struct Scene {
    smtp: SmtpServer,
    house: House,
    key: SenderKey,
}

// === impl Scene ===

impl Scene {
    async fn with(
        security: Security,
        login: Option<(&str, &str)>,
        change: impl FnOnce(&mut Stage),
    ) -> Self {
        let mut stage = Stage::set().await.unwrap();
        let smtp = SmtpServer::start(&stage.ca, security, login).unwrap();
        stage.serve_mail(&smtp, security, login).unwrap();
        stage.make_room();
        stage.set_key("pairing.proofs_per_address_per_hour", 100);
        change(&mut stage);
        let house = House::on(stage).await;
        let key = SenderKey::generate().unwrap();
        let enrolment =
            Enrolment { model: "DS923+".into(), serial: "2230ABC".into(), ..Enrolment::default() };
        house.client.enrol(&key, &enrolment).await.unwrap();
        Self { smtp, house, key }
    }

    async fn new() -> Self {
        Self::with(Security::StartTls, None, |_| {}).await
    }

    async fn pair(&self, address: &str) -> Result<PairAnswer, ClientError> {
        let channel = Channel::Email { address: address.to_owned() };
        let app = PLAIN_APP.to_owned();
        let pairing = Pairing { app, channel, client: None, sender_key: self.key.public() };
        self.house.client.pair(&pairing).await
    }

    /// Pairs an address whose mail tells its owner the handle.
    async fn handle_of(&self, address: &str) -> String {
        let mails = self.smtp.mails().len();
        assert!(self.pair(address).await.unwrap() == PairAnswer::TravelsToDevice);
        handle_in(self.smtp.wait_for(mails + 1).await.unwrap().last().unwrap())
    }

    /// Makes a handle for an address whose server will not take the mail with it.
    fn forged(&self, address: &str) -> String {
        crate::forge::mail_handle(&self.house, PLAIN_APP, address, &self.key)
    }

    async fn notify(&self, handle: &str, id: Uuid) -> TargetResult {
        self.say(&notification(handle, id, "Volume 1 has crashed", "Back up <now> & call."))
            .await
            .unwrap()
    }

    async fn say(&self, notification: &Notification) -> Result<TargetResult, ClientError> {
        let results = self.house.client.notify(&self.key, notification).await?;
        Ok(results.into_iter().next().unwrap())
    }

    async fn ask(&self, method: &'static str, path: &str, body: &str) -> Told {
        let ask = Ask::new(method, path).header("content-length", body.len().to_string());
        ask_http1(self.house.address(), &ask.body(body)).await
    }
}

fn notification(handle: &str, id: Uuid, title: &str, text: &str) -> Notification {
    Notification {
        id,
        source: Source::Dsm,
        level: Level::Error,
        ttl_s: 3600,
        collapse_key: None,
        sound: true,
        content: Some(Content {
            tag: "StgMgrVolumeCrash".into(),
            title: title.into(),
            text: text.into(),
            ..Content::default()
        }),
        targets: vec![Target { handle: handle.to_owned(), sealed: None }],
    }
}

/// The handle is the one long word of the mail's text.
fn handle_in(mail: &ReceivedMail) -> String {
    let text = mail.text.as_deref().unwrap();
    text.split_whitespace().find(|word| word.len() > 200).unwrap().to_owned()
}

/// Gives the path of the link that ends the mails.
fn farewell_in(mail: &ReceivedMail, origin: &str) -> String {
    let link = mail.header("List-Unsubscribe").unwrap().replace(['<', '>'], "");
    link.strip_prefix(origin).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_mailed_to_the_address_that_it_opens_and_told_to_nobody_else() {
    let scene = Scene::new().await;
    let handle = scene.handle_of("owner@example.com").await;
    let mails = scene.smtp.mails();
    assert_eq!(mails.len(), 1, "nothing else is sent to an address that has not answered");
    assert_eq!(mails[0].recipients, ["owner@example.com"]);
    assert_eq!(mails[0].header("Auto-Submitted"), Some("auto-generated"));
    assert_eq!(mails[0].html.as_deref().unwrap().matches(&handle).count(), 1);
    let result = scene.notify(&handle, Uuid::new_v4()).await;
    assert!(result.outcome == Outcome::Accepted, "{:?}", result.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_is_one_mail_in_text_and_html_with_a_way_to_end_them() {
    let scene = Scene::new().await;
    let handle = scene.handle_of("owner@example.com").await;
    let id = Uuid::new_v4();
    let accepted = scene.notify(&handle, id).await;
    assert!(accepted.outcome == Outcome::Accepted);
    // The same again is the same mail, and goes out once.
    assert!(scene.notify(&handle, id).await.outcome == Outcome::Accepted);
    assert!(scene.notify(&handle, Uuid::new_v4()).await.outcome == Outcome::Accepted);
    let mails = scene.smtp.wait_for(3).await.unwrap();
    assert_eq!(mails.len(), 3, "a handle and two notifications");
    let mail = &mails[1];
    assert!(mail.tls && mail.defects.is_empty(), "{:?}", mail.defects);
    assert_eq!(mail.sender, "nas@example.com");
    assert_eq!(mail.header("From"), Some("Owner's NAS <nas@example.com>"));
    assert_eq!(mail.header("Subject"), Some("Volume 1 has crashed"));
    assert_eq!(mail.header("Importance"), Some("high"));
    let name = accepted.provider_message_id.unwrap();
    assert_eq!(mail.header("Message-ID"), Some(&*format!("<{name}@example.com>")));
    assert_ne!(mail.header("Message-ID"), mails[2].header("Message-ID"));
    assert!(mail.text.as_deref().unwrap().starts_with("Back up <now> & call."));
    assert!(mail.html.as_deref().unwrap().contains("Back up &lt;now&gt; &amp; call.</p>"));
    assert_eq!(mail.header("List-Unsubscribe-Post"), Some("List-Unsubscribe=One-Click"));
    let link = farewell_in(mail, &scene.house.url);
    assert!(link.starts_with("/unsubscribe/"));
    for part in [&mail.text, &mail.html] {
        assert!(part.as_deref().unwrap().contains(&link));
    }
    for word in ["StgMgrVolumeCrash", "2230ABC", &*handle] {
        assert!(!mail.raw.contains(word), "{word} is nobody's business");
    }
}

/// Each way of protecting the connection, with a login and without, and the lines are used again.
#[tokio::test(flavor = "multi_thread")]
async fn mails_share_a_line_whatever_protects_it() {
    let login = Some(("relay", "correct horse"));
    for (security, login) in [
        (Security::StartTls, None),
        (Security::StartTls, login),
        (Security::Tls, login),
        (Security::Cleartext, None),
    ] {
        let scene = Scene::with(security, login, |_| {}).await;
        let handle = scene.handle_of("owner@example.com").await;
        for _ in 0..5 {
            let result = scene.notify(&handle, Uuid::new_v4()).await;
            assert!(result.outcome == Outcome::Accepted, "{security:?} {:?}", result.reason);
        }
        let mails = scene.smtp.wait_for(6).await.unwrap();
        for mail in mails {
            assert_eq!(mail.tls, security != Security::Cleartext, "{security:?}");
            assert_eq!(mail.login.as_deref(), login.map(|(name, _)| name));
        }
        assert_eq!(scene.smtp.connections(), 1, "{security:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_mail_is_closed() {
    let soon = |stage: &mut Stage| stage.set_key("email.idle_timeout_s", 1);
    let scene = Scene::with(Security::StartTls, None, soon).await;
    let handle = scene.handle_of("owner@example.com").await;
    scene.smtp.wait_for_closed(1).await.unwrap();
    assert!(scene.notify(&handle, Uuid::new_v4()).await.outcome == Outcome::Accepted);
    assert_eq!(scene.smtp.connections(), 2);
}

/// The server replies, to RCPT and to the whole mail, what the recipient's name says.
#[tokio::test(flavor = "multi_thread")]
async fn every_reply_becomes_its_outcome() {
    use Outcome::{Gone, Misconfigured, NotNow, Refused};
    let scene = Scene::new().await;
    for (name, outcome, reason) in [
        ("rcpt-550-5.1.1", Gone, "email_mailbox_unknown"),
        ("data-550-5.1.1", Gone, "email_mailbox_unknown"),
        ("rcpt-556-5.1.10", Gone, "email_mailbox_unknown"),
        ("rcpt-452-4.2.2", NotNow, "email_mailbox_full"),
        ("rcpt-451-4.7.1", NotNow, "email_throttled"),
        ("rcpt-450-4.1.1", NotNow, "email_deferred"),
        ("data-451", NotNow, "email_deferred"),
        ("rcpt-421-4.3.2", NotNow, "email_server_unavailable"),
        ("data-552-5.3.4", Refused, "email_too_large"),
        ("rcpt-530-5.7.0", Misconfigured, "email_login_refused"),
        ("rcpt-553-5.1.8", Misconfigured, "email_sender_refused"),
        ("data-554-5.7.1", Misconfigured, "email_policy_refused"),
        ("rcpt-503-5.5.1", Misconfigured, "email_protocol_error"),
        ("rcpt-550", Misconfigured, "email_other_rejection"),
    ] {
        let handle = scene.forged(&format!("{name}@example.com"));
        let result = scene.notify(&handle, Uuid::new_v4()).await;
        assert!(result.outcome == outcome, "{name}: {:?}", result.reason);
        assert_eq!(result.reason.as_deref(), Some(reason), "{name}");
        assert_eq!(result.retry_after_s.is_some(), outcome == NotNow, "{name}");
    }
    // None of it harms the next mail.
    let handle = scene.handle_of("owner@example.com").await;
    assert!(scene.notify(&handle, Uuid::new_v4()).await.outcome == Outcome::Accepted);
}

/// A server that is silent, or cuts the connection: unknown once it may hold the mail, else not.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_mail_that_the_server_may_hold_has_an_unknown_fate() {
    let room = |stage: &mut Stage| stage.set_key("email.reply_timeout_ms", 700);
    let scene = Scene::with(Security::StartTls, None, room).await;
    for (name, outcome, reason) in [
        ("rcpt-hang", Outcome::NotNow, "push_service_unreachable"),
        ("rcpt-drop", Outcome::NotNow, "push_service_unreachable"),
        ("data-hang", Outcome::Unknown, "no_answer"),
        ("data-drop", Outcome::Unknown, "no_answer"),
    ] {
        let handle = scene.forged(&format!("{name}@example.com"));
        let started = Instant::now();
        let result = scene.notify(&handle, Uuid::new_v4()).await;
        assert!(result.outcome == outcome, "{name}: {:?}", result.reason);
        assert_eq!(result.reason.as_deref(), Some(reason), "{name}");
        assert!(started.elapsed() < Duration::from_secs(5), "{name}");
    }
    assert_eq!(scene.smtp.mails().len(), 0);
    let handle = scene.handle_of("owner@example.com").await;
    assert!(scene.notify(&handle, Uuid::new_v4()).await.outcome == Outcome::Accepted);
}

/// The whole server stands still; the sender's deadline passes, the breaker opens, and the messages
/// to phones do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_is_left_alone_and_found_again() {
    let quick = |stage: &mut Stage| {
        stage.set_key("email.reply_timeout_ms", 300);
        stage.set_key("upstream.breaker_failures", 4);
        stage.set_key("upstream.breaker_open_min_ms", 200);
        stage.set_key("upstream.breaker_open_max_ms", 400);
    };
    let scene = Scene::with(Security::StartTls, None, quick).await;
    let handle = scene.handle_of("owner@example.com").await;
    scene.smtp.freeze().unwrap();
    let told_at_once = async {
        loop {
            let started = Instant::now();
            let result = scene.notify(&handle, Uuid::new_v4()).await;
            assert!(matches!(result.outcome, Outcome::NotNow), "{:?}", result.reason);
            if started.elapsed() < Duration::from_millis(150) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told_at_once).await.expect("the breaker opens");
    scene.smtp.resume().unwrap();
    let found = async {
        while scene.notify(&handle, Uuid::new_v4()).await.outcome != Outcome::Accepted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("it is found again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_trusted_gets_no_mail() {
    let login = Some(("relay", "correct horse"));
    type Case = (&'static str, Security, fn(&mut Stage));
    let cases: [Case; 5] = [
        ("email_login_refused", Security::StartTls, |stage| {
            std::fs::write(stage.folder().join("smtp-password"), "wrong horse").unwrap();
        }),
        ("email_login_refused", Security::StartTls, |stage| {
            stage.set_key("email.username", "");
            stage.set_key("email.password_file", "");
        }),
        ("email_tls_unavailable", Security::Cleartext, |stage| {
            stage.set_key("email.security", "starttls");
        }),
        // Its certificate is of an authority that nobody here trusts.
        ("push_service_unreachable", Security::StartTls, |stage| {
            stage.set_key("email.ca_file", "");
        }),
        // It waits for TLS, and we for its greeting.
        ("push_service_unreachable", Security::Tls, |stage| {
            stage.set_key("email.security", "starttls");
            stage.set_key("email.reply_timeout_ms", 500);
        }),
    ];
    for (index, (reason, security, change)) in cases.into_iter().enumerate() {
        let login = login.filter(|_| security != Security::Cleartext);
        let scene = Scene::with(security, login, change).await;
        let handle = scene.forged("owner@example.com");
        let result = scene.notify(&handle, Uuid::new_v4()).await;
        assert_eq!(result.reason.as_deref(), Some(reason), "case {index}");
        assert!(scene.smtp.mails().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_click_ends_the_mails_until_the_address_is_paired_anew() {
    let scene = Scene::new().await;
    let handle = scene.handle_of("owner@example.com").await;
    let other = scene.handle_of("other@example.com").await;
    scene.notify(&handle, Uuid::new_v4()).await;
    let link = farewell_in(&scene.smtp.wait_for(3).await.unwrap()[2], &scene.house.url);

    // A scanner follows the link and nothing happens; the page offers the click.
    let page = scene.ask("GET", &link, "").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(page.text().contains("<button>Unsubscribe</button>"));
    assert!(scene.notify(&handle, Uuid::new_v4()).await.outcome == Outcome::Accepted);

    scene.house.pass_time(10);
    let done = scene.ask("POST", &link, "List-Unsubscribe=One-Click").await;
    assert_eq!(done.status, 200);
    let gone = scene.notify(&handle, Uuid::new_v4()).await;
    assert!(gone.outcome == Outcome::Gone);
    assert_eq!(gone.reason.as_deref(), Some("email_unsubscribed"));
    assert!(gone.gone_since.is_some(), "the NAS compares it with its pairing");
    assert!(scene.notify(&other, Uuid::new_v4()).await.outcome == Outcome::Accepted);

    scene.house.pass_time(10);
    let anew = scene.handle_of("owner@example.com").await;
    assert!(scene.notify(&anew, Uuid::new_v4()).await.outcome == Outcome::Accepted);
    assert!(scene.notify(&handle, Uuid::new_v4()).await.outcome == Outcome::Gone);

    for wrong in ["/unsubscribe/x", "/unsubscribe/AAAA", &format!("{link}A")] {
        let refused = scene.ask("POST", wrong, "").await;
        assert_eq!((refused.status, &*refused.code()), (404, "unsubscribe_link_invalid"));
        assert_eq!(scene.ask("GET", wrong, "").await.status, 404);
    }
    let refused = scene.ask("PUT", &link, "").await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, POST")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_smuggled_into_a_mail() {
    let scene = Scene::new().await;
    for address in
        ["owner@example.com\r\nBcc: other@example.com", "a b@example.com", "owner", "<a@b.example>"]
    {
        let Err(ClientError::Problem(problem)) = scene.pair(address).await else {
            panic!("{address:?} is refused")
        };
        assert_eq!(problem.code, "address_invalid");
        assert_eq!(problem.field.as_deref(), Some("address"));
    }
    let handle = scene.handle_of("owner@example.com").await;
    let title = "hello\r\nBcc: other@example.com";
    let smuggled = notification(&handle, Uuid::new_v4(), title, "text");
    let refused = scene.say(&smuggled).await.unwrap();
    assert!(refused.outcome == Outcome::Refused);
    assert_eq!(refused.reason.as_deref(), Some("member_invalid"));
    let text = ".\r\nQUIT\r\n\r\n.\r\nMAIL FROM:<x@example.com>\r\nBcc: other@example.com";
    let dots = notification(&handle, Uuid::new_v4(), "Dots", text);
    assert!(scene.say(&dots).await.unwrap().outcome == Outcome::Accepted);
    let mails = scene.smtp.wait_for(2).await.unwrap();
    assert_eq!(mails.len(), 2);
    assert!(mails[1].text.as_deref().unwrap().replace("\r\n", "\n").contains("\nMAIL FROM:<x@"));
    assert_eq!((mails[1].header("Bcc"), mails[1].recipients.len()), (None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_takes_plain_text_alone() {
    let scene = Scene::new().await;
    let handle = scene.handle_of("owner@example.com").await;
    let device = sns_loadtest::device::Device::new_ios().unwrap();
    let sealed = sns_nas::seal::seal(&device.keys().device(), b"text", BodyCap::default()).unwrap();
    let message =
        Message { ttl_s: 60, urgency: Urgency::Normal, topic: None, body: sealed.clone().into() };
    let endpoint = format!("{}/push/{handle}", scene.house.url);
    let pushed = scene.house.client.push(&endpoint, &scene.key, &message).await.unwrap();
    assert_eq!((pushed.status, pushed.code.as_deref()), (400, Some("plain_missing")));
    let mut both = notification(&handle, Uuid::new_v4(), "title", "text");
    both.targets[0].sealed = Some(sealed.into());
    let refused = scene.say(&both).await.unwrap();
    assert_eq!(refused.reason.as_deref(), Some("plain_missing"));
    let long = notification(&handle, Uuid::new_v4(), "title", &"x".repeat(65_536));
    assert_eq!(scene.say(&long).await.unwrap().reason.as_deref(), Some("content_too_large"));
}

/// The other door pairs an address as this one does, and says the same of a wrong one.
#[tokio::test(flavor = "multi_thread")]
async fn both_doors_mail_the_handle() {
    let scene = Scene::new().await;
    let mut grpc = v1::relay_client::RelayClient::with_origin(
        crate::grpc::channel(None),
        scene.house.url.parse().unwrap(),
    );
    let request = |address: Option<&str>| v1::PairRequest {
        app: PLAIN_APP.to_owned(),
        service: v1::Service::Email.into(),
        sender_key: scene.key.public().to_vec(),
        address: address.map(|a| v1::pair_request::Address::MailAddress(a.to_owned())),
        ..v1::PairRequest::default()
    };
    let paired = grpc.pair(request(Some("owner@example.com"))).await.unwrap().into_inner();
    assert_eq!((&*paired.handle, &*paired.endpoint, paired.max_body_bytes), ("", "", 65_536));
    let handle = handle_in(&scene.smtp.wait_for(1).await.unwrap()[0]);
    assert!(scene.notify(&handle, Uuid::new_v4()).await.outcome == Outcome::Accepted);
    for (address, code) in [
        (Some("owner@example.com\nBcc: x@example.com"), "address_invalid"),
        (None, "member_missing"),
    ] {
        let status = grpc.pair(request(address)).await.unwrap_err();
        let details = status.get_error_details();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(details.error_info().unwrap().reason, code);
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "address");
    }
    let app = scene.house.client.app(PLAIN_APP).await.unwrap();
    assert_eq!(app.services["email"].max_body_bytes, 65_536);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_have_an_address_flooded_with_handles() {
    let few = |stage: &mut Stage| stage.set_key("pairing.proofs_per_address_per_hour", 2);
    let scene = Scene::with(Security::StartTls, None, few).await;
    for _ in 0..2 {
        scene.handle_of("owner@example.com").await;
    }
    let Err(ClientError::Problem(problem)) = scene.pair("owner@example.com").await else {
        panic!("the third within an hour")
    };
    assert_eq!((problem.status, &*problem.code), (429, "device_rate_exceeded"));
    assert!(problem.retry_after_s > Some(1700), "two an hour is one in half an hour");
    scene.handle_of("other@example.com").await;
    assert_eq!(scene.smtp.mails().len(), 3);
}

/// The mail with the handle is not taken: the asker is told, as the sender of a message would be.
#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_whose_mail_is_not_taken_fails_as_the_mail_did() {
    let scene = Scene::new().await;
    let path = "/v1/pairings";
    for (address, status, code) in [
        ("rcpt-550-5.1.1@example.com", 410, "email_mailbox_unknown"),
        ("rcpt-451-4.7.1@example.com", 429, "email_throttled"),
        ("data-554-5.7.1@example.com", 502, "email_policy_refused"),
        ("data-drop@example.com", 504, "no_answer"),
    ] {
        let body = serde_json::json!({
            "app": PLAIN_APP, "service": "email", "address": address,
            "sender_key": scene.key.public_base64url(),
        });
        let body = body.to_string();
        let ask = Ask::new("POST", path)
            .header("content-type", "application/json")
            .header("content-length", body.len().to_string());
        let told = ask_http1(scene.house.address(), &ask.body(body)).await;
        assert_eq!((told.status, &*told.code()), (status, code), "{address}");
    }
}

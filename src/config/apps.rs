//! The section `apps`: each published app with its credentials, read and parsed for validity.
//!
//! A push service without a section is not read. Secrets come from files and stay [`Secret`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::email::app_email;
use super::files;
use super::reader::Reader;
use super::url::Url;
use super::{ApnsCredential, App, AppApns, AppFcm, AppName, AppWebPush, Keys, Secret};
use crate::push::BASE64URL;
use base64::Engine as _;

/// The VAPID key that `sns-relay keys init` makes, in the folder of the keys.
pub const VAPID_KEY_FILE: &str = "vapid.pem";

/// Reads every app that has no fault.
pub(super) fn apps(r: &mut Reader, keys: Option<&Keys>) -> BTreeMap<AppName, Arc<App>> {
    let names = r.names_under("apps");
    if names.is_empty() {
        r.warn("apps", "there is none, so no device can be paired");
    }
    let mut apps = BTreeMap::new();
    for text in names {
        let section = format!("apps.{text}");
        if let Ok(name) = AppName::parse(&text) {
            let read = app(r, &section, name.clone(), keys);
            apps.extend(read.map(|app| (name, Arc::new(app))));
        } else {
            r.skip(&section);
            r.fault(&section, "an app's name must be 1 to 32 of a-z, 0-9 and \"-\"");
        }
    }
    apps
}

fn app(r: &mut Reader, section: &str, name: AppName, keys: Option<&Keys>) -> Option<App> {
    let of = |key: &str| format!("{section}.{key}");
    let proof = |text: &str| (text == "off").then_some(());
    let proof_expected = "off: proof of possession is there for e-mail alone, and always";
    let proof = r.parsed(&of("proof_of_possession"), proof, proof_expected);
    let allow_plain = r.flag(&of("allow_plain"));
    let known = ["apns", "fcm", "webpush", "email"].map(|service| r.has_section(&of(service)));
    let apns = known[0].then(|| apns(r, &of("apns")));
    let fcm = known[1].then(|| fcm(r, &of("fcm")));
    let webpush = known[2].then(|| webpush(r, &of("webpush"), keys));
    let email = known[3].then(|| app_email(r, &of("email")));
    if !known.contains(&true) {
        r.fault(section, "needs at least one of the sections apns, fcm, webpush and email");
    }
    proof?;
    Some(App {
        name,
        allow_plain: allow_plain?,
        apns: required_if_there(apns)?,
        fcm: required_if_there(fcm)?,
        webpush: required_if_there(webpush)?,
        email: required_if_there(email)?,
    })
}

/// Turns "there, but faulty" into a faulty app.
fn required_if_there<T>(section: Option<Option<T>>) -> Option<Option<T>> {
    section.map_or(Some(None), |read| read.map(Some))
}

fn apns(r: &mut Reader, section: &str) -> Option<AppApns> {
    let of = |key: &str| format!("{section}.{key}");
    let topic = |text: &str| {
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| text.to_owned())
    };
    let topic_expected = "the app's bundle id: 1 to 255 visible ASCII characters";
    let topic = r.parsed(&of("topic"), topic, topic_expected);
    let credential = apns_credential(r, section);
    let title_loc_key = r.text_of(&of("title_loc_key"), 0..=128);
    let loc_key = r.text_of(&of("loc_key"), 1..=128);
    let sound = r.text_of(&of("sound"), 0..=128);
    let time_sensitive = r.flag(&of("time_sensitive"));
    Some(AppApns {
        topic: topic?,
        credential: credential?,
        title_loc_key: Some(title_loc_key?).filter(|text| !text.is_empty()),
        loc_key: loc_key?,
        sound: Some(sound?).filter(|text| !text.is_empty()),
        time_sensitive: time_sensitive?,
    })
}

fn apns_credential(r: &mut Reader, section: &str) -> Option<ApnsCredential> {
    let [key_file, key_id, team_id, certificate_file] =
        ["key_file", "key_id", "team_id", "certificate_file"].map(|key| format!("{section}.{key}"));
    let certificate_path = r.optional_path(&certificate_file);
    let key_path = r.optional_path(&key_file);
    let ids = [&key_id, &team_id].map(|key| (key, r.text(key)));
    match (certificate_path, key_path) {
        (Some(path), None) => {
            for (key, id) in ids {
                if id.is_some_and(|id| !id.is_empty()) {
                    r.fault(key, "goes with key_file, not with certificate_file");
                }
            }
            let pem = r.secret_file(&certificate_file, &path)?;
            let checked = files::check_certificate_and_key(pem.expose(), pem.expose());
            r.note(&certificate_file, checked)?;
            Some(ApnsCredential::Certificate { pem })
        }
        (None, Some(path)) => {
            let [key_id, team_id] = ids.map(|(key, id)| {
                let id = id.filter(|id| is_apple_id(id));
                r.expect(key, id, "the 10 characters (A-Z, 0-9) that Apple gave")
            });
            let key_pem = r.secret_file(&key_file, &path)?;
            r.note(&key_file, files::check_p256(key_pem.expose()))?;
            Some(ApnsCredential::Token { key_pem, key_id: key_id?, team_id: team_id? })
        }
        (Some(_), Some(_)) => {
            r.fault(&certificate_file, "must not be set together with key_file");
            None
        }
        (None, None) => {
            r.fault(&key_file, "is required, unless certificate_file is set");
            None
        }
    }
}

fn is_apple_id(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn fcm(r: &mut Reader, section: &str) -> Option<AppFcm> {
    let key = format!("{section}.service_account_file");
    let path = r.path(&key)?;
    let text = r.secret_file(&key, &path)?;
    let Ok(Value::Object(mut members)) = serde_json::from_str(text.expose()) else {
        r.fault(&key, "must be a JSON object: the key file of a service account");
        return None;
    };
    let mut member = |name: &str| match members.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(format!("lacks the member {name}")),
    };
    let kind = member("type");
    let private_key = member("private_key").map(Secret::new);
    let project_id = member("project_id");
    let client_email = member("client_email");
    let private_key_id = member("private_key_id");
    let token_uri = member("token_uri");
    let mut take =
        |member: Result<String, String>| member.map_err(|fault| r.fault(&key, fault)).ok();
    let kind = take(kind);
    let project_id = take(project_id);
    let client_email = take(client_email);
    let private_key_id = take(private_key_id);
    let token_uri = take(token_uri);
    let private_key_pem = private_key.map_err(|fault| r.fault(&key, fault)).ok();
    if kind.is_some_and(|kind| kind != "service_account") {
        r.fault(&key, "the member type must be service_account");
    }
    if project_id.as_deref().is_some_and(|id| !is_project_id(id)) {
        r.fault(&key, "the member project_id must be a project's id, like my-project-1");
    }
    if let Some(pem) = &private_key_pem {
        r.note(&key, files::check_rsa(pem.expose()));
    }
    let url = token_uri.as_deref().map(|uri| Url::parse(uri).and_then(|url| url.token()));
    if matches!(url, Some(None)) {
        r.fault(&key, "the member token_uri must be an https URL");
    }
    let (token_url, token_path) = url??;
    Some(AppFcm {
        project_id: project_id?,
        client_email: client_email?,
        private_key_id: private_key_id?,
        private_key_pem: private_key_pem?,
        token_url,
        token_path,
        token_uri: token_uri?,
    })
}

/// Tells whether the id can stand in a URL's path; old projects have a domain before a colon.
fn is_project_id(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':'))
}

fn webpush(r: &mut Reader, section: &str, keys: Option<&Keys>) -> Option<AppWebPush> {
    let of = |key: &str| format!("{section}.{key}");
    let key = of("vapid_key_file");
    let made = keys.map(|keys| keys.directory.join(VAPID_KEY_FILE));
    let pem = match (r.optional_path(&key), made) {
        (Some(path), _) => r.secret_file(&key, &path),
        (None, Some(made)) if made.exists() => r.secret_file(&key, &made),
        (None, None) => None,
        (None, Some(_)) => {
            r.fault(&key, "is required where `sns-relay keys init` has not made vapid.pem");
            None
        }
    };
    let public = pem.as_ref().and_then(|pem| r.note(&key, files::p256_public(pem.expose())));
    let subject_expected = "mailto:address or https://URL, without spaces, not on localhost";
    let subject = r.parsed(&of("subject"), parse_subject, subject_expected);
    let body_bytes_max = r.integer(&of("body_bytes_max"), 1024..=4096);
    Some(AppWebPush {
        vapid_key_pem: pem?,
        application_server_key: BASE64URL.encode(public?),
        subject: subject?,
        body_bytes_max: body_bytes_max?,
    })
}

/// Parses a contact as Apple takes it: others answer `BadJwtToken` to every message.
fn parse_subject(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'\\' | b',');
    let host = if let Some(address) = text.strip_prefix("mailto:") {
        let (user, host) = address.split_once('@')?;
        super::url::parse_host(host).filter(|_| !user.is_empty())
    } else {
        Url::parse(text).filter(|url| url.https).map(|url| url.host)
    };
    let local = host.as_deref() == Some("localhost") || host?.ends_with(".localhost");
    (!local && text.bytes().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_what_apple_takes() {
        for (text, expect) in [
            ("mailto:push@example.com", true),
            ("https://example.com/contact", true),
            ("https://example.com", true),
            ("mailto: push@example.com", false),
            ("mailto:<push@example.com>", false),
            ("mailto:push", false),
            ("mailto:@example.com", false),
            ("push@example.com", false),
            ("mailto:push@localhost", false),
            ("https://localhost", false),
            ("https://LOCALHOST:8443/", false),
            ("https://a.localhost", false),
            ("http://example.com", false),
            ("", false),
        ] {
            assert_eq!(parse_subject(text).is_some(), expect, "{text:?}");
        }
    }
}

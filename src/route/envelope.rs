//! What a push service is given as the body: the app's envelope around the content, byte for byte.
//!
//! The envelope's parts that never change are written once; sizes are counted on the real bytes.
//! Invariant: nothing but the app's own placeholder keys, the ciphertext (or allowed plain text)
//! and the message's id is in it: no text, name or key of the NAS (design §2, promise 3).

use base64_simd::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::config::{AppApns, AppWebPush};
use crate::push::{MessageId, Plain, Push, Sealed, Urgency};

/// APNs takes this many bytes of JSON (reference: Apple, "Generating a remote notification").
const APNS_BYTES_MAX: usize = 4096;

/// FCM takes this many bytes of data keys and values for a token (reference: Google, "About FCM
/// messages").
const FCM_BYTES_MAX: usize = 4096;

/// `,"i":"…"` with a UUID.
const ID_MEMBER_BYTES: usize = 43;

/// The message did not fit its push service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// The envelope of one app at Apple.
pub struct ApnsEnvelope {
    /// `{"aps":{"alert":{…},"mutable-content":1`.
    sealed_start: String,
    /// `,"sound":"…"`, or nothing for a silent app.
    sound: String,
    /// `,"interruption-level":"time-sensitive"`, or nothing.
    time_sensitive: &'static str,
    body_bytes_max: usize,
}

/// The envelope of Google's data messages: the same for all apps.
pub struct FcmEnvelope;

/// The parts of a message that FCM wants inside the JSON.
pub struct FcmFields<'a> {
    /// The registration token.
    pub token: &'a str,
    /// 0 to 2419200.
    pub ttl_s: u32,
    /// The keyed hash of the sender's topic.
    pub collapse_key: Option<&'a str>,
}

// === impl ApnsEnvelope ===

impl ApnsEnvelope {
    /// Writes the constant parts for an app.
    pub fn new(app: &AppApns) -> Self {
        let mut alert = json!({ "loc-key": app.loc_key });
        if let Some(title) = &app.title_loc_key {
            alert["title-loc-key"] = Value::from(title.as_str());
        }
        let sealed_start = format!(r#"{{"aps":{{"alert":{alert},"mutable-content":1"#);
        let sound = match &app.sound {
            Some(sound) => format!(r#","sound":{}"#, Value::from(sound.as_str())),
            None => String::new(),
        };
        let time_sensitive = match app.time_sensitive {
            true => r#","interruption-level":"time-sensitive""#,
            false => "",
        };
        let constant = sealed_start.len() + sound.len() + time_sensitive.len();
        let envelope = constant + r#"},"e":""}"#.len() + ID_MEMBER_BYTES;
        let body_bytes_max = APNS_BYTES_MAX.saturating_sub(envelope) * 3 / 4;
        Self { sealed_start, sound, time_sensitive, body_bytes_max }
    }

    /// Gives the largest sealed body that fits whatever else the message carries.
    pub const fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// Wraps a sealed body.
    /// Shape: `{"aps":{"alert":…,"mutable-content":1},"e":"<base64url>","i":"<uuid>"}`.
    pub fn sealed(
        &self,
        push: &Push,
        id: Option<MessageId>,
        body: &Sealed,
    ) -> Result<Bytes, TooLarge> {
        if body.as_bytes().len() > self.body_bytes_max {
            return Err(TooLarge);
        }
        let mut text =
            String::with_capacity(self.sealed_start.len() + 160 + body.as_bytes().len() * 4 / 3);
        text.push_str(&self.sealed_start);
        text.push_str(self.manner(push).0);
        text.push_str(self.manner(push).1);
        text.push_str(r#"},"e":""#);
        URL_SAFE_NO_PAD.encode_append(body.as_bytes(), &mut text);
        text.push('"');
        push_id(&mut text, id);
        text.push('}');
        Ok(Bytes::from(text))
    }

    /// Writes plain text as an alert that iOS shows by itself.
    pub fn plain(
        &self,
        push: &Push,
        id: Option<MessageId>,
        plain: &Plain,
    ) -> Result<Bytes, TooLarge> {
        let alert = json!({ "title": plain.title, "body": plain.text });
        let (sound, level) = self.manner(push);
        let mut text = format!(
            r#"{{"aps":{{"alert":{alert}{sound}{level}}},"tag":{}"#,
            Value::from(plain.tag.as_str())
        );
        push_id(&mut text, id);
        text.push('}');
        if text.len() > APNS_BYTES_MAX { Err(TooLarge) } else { Ok(Bytes::from(text)) }
    }

    fn manner(&self, push: &Push) -> (&str, &str) {
        let audible = push.sound && push.urgency >= Urgency::Normal;
        let level = if push.urgency == Urgency::High { self.time_sensitive } else { "" };
        (if audible { &self.sound } else { "" }, level)
    }
}

// === impl FcmEnvelope ===

impl FcmEnvelope {
    /// Gives the largest sealed body that fits, the id included: keys `e` and `i`, and a UUID.
    pub const fn body_bytes_max() -> usize {
        (FCM_BYTES_MAX - 1 - 1 - 36) * 3 / 4
    }

    /// Wraps a sealed body into a data message.
    /// Shape: `{"message":{"token":…,"data":{"e":"<base64url>","i":"<uuid>"},"android":{…}}}`.
    pub fn sealed(
        fields: &FcmFields<'_>,
        push: &Push,
        id: Option<MessageId>,
        body: &Sealed,
    ) -> Result<Bytes, TooLarge> {
        if body.as_bytes().len() > Self::body_bytes_max() {
            return Err(TooLarge);
        }
        let mut text = String::with_capacity(512 + body.as_bytes().len() * 4 / 3);
        text.push_str(r#"{"message":{"data":{"e":""#);
        URL_SAFE_NO_PAD.encode_append(body.as_bytes(), &mut text);
        text.push('"');
        push_id(&mut text, id);
        push_fields(&mut text, fields, push);
        Ok(Bytes::from(text))
    }

    /// Writes plain text as a data message, which the app shows.
    pub fn plain(
        fields: &FcmFields<'_>,
        push: &Push,
        id: Option<MessageId>,
        plain: &Plain,
    ) -> Result<Bytes, TooLarge> {
        let Plain { tag, title, text } = plain;
        let id_bytes = id.map_or(0, |_| 37);
        let data_bytes =
            "tag".len() + "title".len() + "text".len() + tag.len() + title.len() + text.len();
        if data_bytes + id_bytes > FCM_BYTES_MAX {
            return Err(TooLarge);
        }
        let mut body = format!(
            r#"{{"message":{{"data":{{"tag":{},"title":{},"text":{}"#,
            Value::from(tag.as_str()),
            Value::from(title.as_str()),
            Value::from(text.as_str())
        );
        push_id(&mut body, id);
        push_fields(&mut body, fields, push);
        Ok(Bytes::from(body))
    }
}

/// Gives the largest body for a browser: as it is, without an envelope.
pub const fn webpush_body_bytes_max(app: &AppWebPush) -> usize {
    app.body_bytes_max
}

fn push_id(text: &mut String, id: Option<MessageId>) {
    if let Some(id) = id {
        text.push_str(r#","i":""#);
        text.push_str(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
        text.push('"');
    }
}

/// The token was parsed to hold nothing that JSON escapes; the collapse key is base64url.
fn push_fields(text: &mut String, fields: &FcmFields<'_>, push: &Push) {
    let priority = if push.urgency >= Urgency::High { "HIGH" } else { "NORMAL" };
    text.push_str(r#"},"token":""#);
    text.push_str(fields.token);
    text.push_str(r#"","android":{"priority":""#);
    text.push_str(priority);
    text.push_str(r#"","ttl":""#);
    text.push_str(&fields.ttl_s.to_string());
    text.push_str(r#"s""#);
    if let Some(collapse_key) = fields.collapse_key {
        text.push_str(r#","collapse_key":""#);
        text.push_str(collapse_key);
        text.push('"');
    }
    text.push_str("}}}");
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::config::{ApnsCredential, Secret};
    use crate::push::{BASE64URL, Class, Content, Ttl};

    fn app(title_loc_key: Option<&str>, time_sensitive: bool) -> AppApns {
        AppApns {
            topic: "com.example.chat".to_owned(),
            credential: ApnsCredential::Certificate { pem: Secret::new(String::new()) },
            title_loc_key: title_loc_key.map(str::to_owned),
            loc_key: "NEW_\"MESSAGE\"".to_owned(),
            sound: Some("default".to_owned()),
            time_sensitive,
        }
    }

    /// A body that passes the door's check, of a length.
    fn sealed(length: usize) -> Sealed {
        let mut body = vec![0_u8; length];
        body[16..20].copy_from_slice(&4096_u32.to_be_bytes());
        (body[20], body[21]) = (65, 4);
        Sealed::parse(Bytes::from(body)).unwrap()
    }

    fn push(urgency: Urgency, sound: bool) -> Push {
        let content = Content::Sealed(sealed(200));
        Push {
            id: None,
            ttl: Ttl::from_s(60),
            urgency,
            class: Class::of(urgency),
            topic: None,
            sound,
            content,
        }
    }

    fn parsed(body: &Bytes) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn the_largest_body_fits_apns_with_all_that_can_stand_around_it() {
        for app in [app(None, false), app(Some("TITLE"), true)] {
            let envelope = ApnsEnvelope::new(&app);
            let id = Some(MessageId::random());
            let at = |length| envelope.sealed(&push(Urgency::High, true), id, &sealed(length));
            let body = at(envelope.body_bytes_max()).unwrap();
            assert!((4094..=4096).contains(&body.len()), "{}", body.len());
            assert_eq!(at(envelope.body_bytes_max() + 1), Err(TooLarge));
        }
    }

    #[test]
    fn the_largest_body_fits_fcm() {
        let fields = FcmFields { token: "t", ttl_s: 60, collapse_key: Some("c") };
        let id = Some(MessageId::random());
        let at =
            |length| FcmEnvelope::sealed(&fields, &push(Urgency::High, true), id, &sealed(length));
        let body = parsed(&at(FcmEnvelope::body_bytes_max()).unwrap());
        let data = body["message"]["data"].as_object().unwrap();
        let bytes: usize = data.iter().map(|(k, v)| k.len() + v.as_str().unwrap().len()).sum();
        assert!((4094..=4096).contains(&bytes), "{bytes}");
        assert_eq!(at(FcmEnvelope::body_bytes_max() + 1), Err(TooLarge));
    }

    #[test]
    fn apple_sees_the_placeholder_the_manner_and_the_ciphertext_alone() {
        let envelope = ApnsEnvelope::new(&app(Some("TITLE"), true));
        let alert = json!({ "loc-key": "NEW_\"MESSAGE\"", "title-loc-key": "TITLE" });
        let check = |urgency, sound, aps: Value| {
            let body = parsed(&envelope.sealed(&push(urgency, sound), None, &sealed(103)).unwrap());
            assert_eq!(body["aps"], aps, "{urgency:?}");
            assert_eq!(body.as_object().unwrap().len(), 2);
            assert_eq!(body["e"], BASE64URL.encode(sealed(103).as_bytes()));
        };
        let quiet = json!({ "alert": alert, "mutable-content": 1 });
        let audible = json!({ "alert": alert, "mutable-content": 1, "sound": "default" });
        let urgent = json!({ "alert": alert, "mutable-content": 1, "sound": "default",
                             "interruption-level": "time-sensitive" });
        check(Urgency::Low, true, quiet.clone());
        check(Urgency::Normal, false, quiet);
        check(Urgency::Normal, true, audible);
        check(Urgency::High, true, urgent);
    }

    #[test]
    fn google_gets_a_data_message_with_the_manner_outside_it() {
        let fields = FcmFields { token: "tok:en", ttl_s: 5, collapse_key: None };
        let id = MessageId::random();
        let body =
            FcmEnvelope::sealed(&fields, &push(Urgency::Normal, true), Some(id), &sealed(103));
        let e = BASE64URL.encode(sealed(103).as_bytes());
        let expected = json!({ "message": {
            "token": "tok:en",
            "data": { "e": e, "i": id.hyphenated().to_string() },
            "android": { "priority": "NORMAL", "ttl": "5s" },
        } });
        assert_eq!(parsed(&body.unwrap()), expected);
    }

    #[test]
    fn plain_text_is_escaped_and_measured() {
        let plain = |text: &str| Plain {
            tag: "StgMgrVolumeCrash".to_owned(),
            title: "a \"quoted\" title".to_owned(),
            text: text.to_owned(),
        };
        let push = push(Urgency::High, true);
        let envelope = ApnsEnvelope::new(&app(None, false));
        let apns = parsed(&envelope.plain(&push, None, &plain("line\nline")).unwrap());
        assert_eq!(apns["aps"]["alert"]["body"], "line\nline");
        assert_eq!(apns["tag"], "StgMgrVolumeCrash");
        assert_eq!(envelope.plain(&push, None, &plain(&"x".repeat(4096))), Err(TooLarge));
        let fields = FcmFields { token: "t", ttl_s: 5, collapse_key: Some("c") };
        let fcm = parsed(&FcmEnvelope::plain(&fields, &push, None, &plain("line\nline")).unwrap());
        assert_eq!(fcm["message"]["data"]["title"], "a \"quoted\" title");
        assert_eq!(fcm["message"]["android"]["collapse_key"], "c");
        assert_eq!(
            FcmEnvelope::plain(&fields, &push, None, &plain(&"x".repeat(4096))),
            Err(TooLarge)
        );
    }
}

//! Letters that differ in nothing but their id: sealed once, so that a load of messages that are
//! all new costs its driver little.
//!
//! In: a paired device. Out: for each id a letter and the key under which its push service's
//! journal knows the message. The id takes the place of the first bytes of the body's salt
//! (RFC 8188 §2.1): every hop carries such a body like any other, though no device could open it.

use http::HeaderValue;
use http::uri::PathAndQuery;
use sns_nas::base64url;
use sns_nas::seal::{self, BodyCap};
use uuid::Uuid;

use super::MeasureError;
use super::letter::{Form, Letter, Sender};
use crate::device::Device;
use crate::sim::journal::MessageKey;

/// A sealed message with room for an id.
pub(super) struct Stencil {
    path: PathAndQuery,
    authorization: HeaderValue,
    sealed: Vec<u8>,
    alarm: Option<Alarm>,
}

/// The parts of a notification of level `error` around its sealed body's first characters.
struct Alarm {
    handle: String,
    rest: String,
}

/// Bytes of the salt that carry the id: as many as whole groups of base64 hold.
const STAMP_BYTES: usize = 15;
const STAMP_CHARS: usize = STAMP_BYTES / 3 * 4;

// === impl Stencil ===

impl Stencil {
    /// Makes one for the application door: an ordinary message.
    /// Errors: the message is too long, or the endpoint is no URL.
    pub(super) fn of_message(
        sender: &Sender,
        device: &Device,
        endpoint: &str,
        message: &[u8],
    ) -> Result<Stencil, MeasureError> {
        let uri: http::Uri = endpoint.parse().map_err(|_| MeasureError::BadUrl)?;
        let path = uri.path_and_query().cloned().ok_or(MeasureError::BadUrl)?;
        Ok(Stencil {
            path,
            authorization: sender.authorization().clone(),
            sealed: seal::seal(&device.keys().device(), message, BodyCap::default())?,
            alarm: None,
        })
    }

    /// Makes one for the NAS door: an alarm. The sender must be enrolled.
    /// Errors: as above.
    pub(super) fn of_alarm(
        sender: &Sender,
        device: &Device,
        endpoint: &str,
        message: &[u8],
    ) -> Result<Stencil, MeasureError> {
        let stencil = Stencil::of_message(sender, device, endpoint, message)?;
        let handle = endpoint.rsplit('/').next().unwrap_or_default().to_owned();
        let rest = base64url::encode(&stencil.sealed).split_off(STAMP_CHARS);
        Ok(Stencil {
            path: PathAndQuery::from_static("/v1/notifications"),
            alarm: Some(Alarm { handle, rest }),
            ..stencil
        })
    }

    /// Gives the message of this id, and its key.
    pub(super) fn letter(&self, id: Uuid) -> (Letter, MessageKey) {
        let stamp = &id.as_bytes()[..STAMP_BYTES];
        let mut sealed = self.sealed.clone();
        sealed[..STAMP_BYTES].copy_from_slice(stamp);
        let key = MessageKey::sealed(&sealed);
        let (form, body) = match &self.alarm {
            None => (Form::Push, sealed),
            Some(alarm) => (Form::Json, alarm.json(id, stamp).into_bytes()),
        };
        let (path, authorization) = (self.path.clone(), self.authorization.clone());
        (Letter::new(path, authorization, form, body.into()), key)
    }
}

// === impl Alarm ===

impl Alarm {
    fn json(&self, id: Uuid, stamp: &[u8]) -> String {
        format!(r#"{{"id":"{id}","source":"dsm","level":"error","ttl_s":60,"sound":true,"#,)
            + &format!(
                r#""targets":[{{"handle":"{}","sealed":"{}{}"}}]}}"#,
                self.handle,
                base64url::encode(stamp),
                self.rest
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The alarm's sealed body is the stamped one, and two ids give two messages.
    #[test]
    fn every_id_gives_another_message_and_its_key() {
        let sender = Sender::new("http://localhost:1").unwrap();
        let device = Device::new_ios().unwrap();
        let endpoint = "http://localhost:1/push/handle";
        let alarm = Stencil::of_alarm(&sender, &device, endpoint, b"text").unwrap();
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        assert_ne!(alarm.letter(one).1, alarm.letter(two).1);
        let text = alarm.alarm.as_ref().unwrap().json(one, &one.as_bytes()[..STAMP_BYTES]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sealed = json["targets"][0]["sealed"].as_str().unwrap();
        let sealed = base64url::decode(sealed).unwrap();
        assert_eq!(MessageKey::sealed(&sealed), alarm.letter(one).1);
        assert_eq!(sealed[STAMP_BYTES..], alarm.sealed[STAMP_BYTES..]);
    }
}

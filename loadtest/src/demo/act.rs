//! What is played: a Chat message to each device, then one alert to all of them.

use bytes::Bytes;
use sns_nas::client::message::{
    Level, Message, Notification, Outcome, PushAnswer, Source, Target, TargetResult, Urgency,
};
use sns_nas::seal::{self, BodyCap};

use super::DemoError;
use super::cast::{Cast, PairedDevice};
use super::sight::Sight;
use crate::stage::Stage;

/// One message's walk to one device.
pub(super) struct Scene {
    /// By which door.
    pub(super) door: &'static str,
    /// To which device.
    pub(super) device: &'static str,
    /// What the sender wrote.
    pub(super) text: String,
    /// What the sender handed to the relay: the sealed body.
    pub(super) sealed: Bytes,
    /// What the relay answered.
    pub(super) answer: String,
    /// What the push service saw.
    pub(super) sight: Option<Sight>,
    /// What the device read, or why it could not.
    pub(super) read: Result<String, String>,
    outcome: Outcome,
}

const CHAT: [&str; 3] =
    ["Mia: see you at seven?", "Ben: the backup is through", "Lea: call me back, please"];
const ALERT: &str = "ds923: drive 3 has failed, volume 1 is degraded. Replace it now.";

const TTL_S: u32 = 3600;

// === impl Scene ===

impl Scene {
    /// Whether the relay said accepted and the device read the very text.
    pub(super) fn is_good(&self) -> bool {
        self.outcome == Outcome::Accepted && self.read.as_ref() == Ok(&self.text)
    }
}

/// Sends each device its Chat message through the application door.
pub(super) async fn chat(stage: &Stage, cast: &Cast) -> Result<Vec<Scene>, DemoError> {
    let mut scenes = Vec::new();
    for (to, text) in cast.devices.iter().zip(CHAT) {
        let sealed = seal_for(to, text, to.chat.max_body_bytes)?;
        let message =
            Message { ttl_s: TTL_S, urgency: Urgency::Normal, topic: None, body: sealed.clone() };
        let pushed = cast.client.push(&to.chat.endpoint, &cast.chat_key, &message).await?;
        scenes.push(scene(
            stage,
            to,
            ("application", text, sealed),
            (pushed_text(&pushed), pushed.outcome),
        ));
    }
    Ok(scenes)
}

/// Sends one alert to all devices through the NAS door.
pub(super) async fn alert(stage: &Stage, cast: &Cast) -> Result<Vec<Scene>, DemoError> {
    let mut targets = Vec::new();
    let mut bodies = Vec::new();
    for to in &cast.devices {
        let sealed = seal_for(to, ALERT, to.alerts.max_body_bytes)?;
        targets.push(Target { handle: to.alerts.handle.clone(), sealed: Some(sealed.clone()) });
        bodies.push(sealed);
    }
    let notification = Notification {
        id: uuid::Uuid::new_v4(),
        source: Source::Dsm,
        level: Level::Error,
        ttl_s: TTL_S,
        collapse_key: Some("volume1".to_owned()),
        sound: true,
        content: None,
        targets,
    };
    let results = cast.client.notify(&cast.nas_key, &notification).await?;
    let scenes = cast.devices.iter().zip(bodies).zip(results).map(|((to, sealed), result)| {
        scene(stage, to, ("NAS", ALERT, sealed), (result_text(&result), result.outcome))
    });
    Ok(scenes.collect())
}

fn seal_for(to: &PairedDevice, text: &str, body_bytes_max: usize) -> Result<Bytes, DemoError> {
    let cap = BodyCap::new(body_bytes_max)?;
    Ok(Bytes::from(seal::seal(&to.device.keys().device(), text.as_bytes(), cap)?))
}

fn scene(
    stage: &Stage,
    to: &PairedDevice,
    (door, text, sealed): (&'static str, &str, Bytes),
    (answer, outcome): (String, Outcome),
) -> Scene {
    let delivered = to.delivered(stage);
    let read = match delivered.last() {
        Some(delivered) => to.read(delivered),
        None => Err("nothing was delivered".to_owned()),
    };
    let sight = Sight::of_last(stage, to);
    Scene { door, device: to.name, text: text.to_owned(), sealed, answer, sight, read, outcome }
}

fn pushed_text(answer: &PushAnswer) -> String {
    match (&answer.code, &answer.location) {
        (Some(code), _) => format!("{} {code}", answer.status),
        (None, Some(_)) => format!("{} accepted", answer.status),
        (None, None) => format!("{} without Location", answer.status),
    }
}

fn result_text(result: &TargetResult) -> String {
    let outcome = serde_json::to_value(result.outcome).unwrap_or_default();
    let outcome = outcome.as_str().unwrap_or("?").to_owned();
    match &result.reason {
        Some(reason) => format!("200 {outcome}: {reason}"),
        None => format!("200 {outcome}"),
    }
}

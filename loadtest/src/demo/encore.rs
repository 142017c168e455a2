//! The demo that stays up: what to type, and what the devices read meanwhile.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::DemoError;
use super::cast::Cast;
use super::relay_process::{RelayProcess, beside_this_program};
use crate::device::DeviceKind;
use crate::stage::Stage;

/// What is typed after the variables; `README.md` shows the very same.
pub const LINES: &str = r#"# What an app's clients must know, and every call there is
curl -sw '\n' $RELAY/v1/apps/chat
curl -sw '\n' $RELAY/openapi.json

# A sender's key; the iPhone pairs with it, and you push to it
sns-nas keygen --key $DEMO/sender.pem
PUSH=$(curl -s $RELAY/v1/pairings -H "$JSON" -d '{"app": "chat", "service": "apns",
  "token": "'$TOKEN'", "sender_key": "'$(sns-nas public --key $DEMO/sender.pem)'"}' |
  grep -o 'http[^"]*')
echo 'Hello, iPhone' | sns-nas seal --p256dh $P256DH --auth=$AUTH |
  curl -isw '\n' $PUSH -H "$(sns-nas token --key $DEMO/sender.pem --audience $RELAY)" \
    -H 'TTL: 60' -H 'Content-Encoding: aes128gcm' --data-binary @-

# The same message under another key: the handle is worth nothing to a thief
sns-nas keygen --key $DEMO/thief.pem
echo 'Hello, iPhone' | sns-nas seal --p256dh $P256DH --auth=$AUTH |
  curl -isw '\n' $PUSH -H "$(sns-nas token --key $DEMO/thief.pem --audience $RELAY)" \
    -H 'TTL: 60' -H 'Content-Encoding: aes128gcm' --data-binary @-

# The sender becomes a NAS, and uses the NAS door with the same handle
NAS=$(sns-nas token --key $DEMO/sender.pem --audience $RELAY)
curl -sw '\n' $RELAY/v1/nas -H "$NAS" -H "$JSON" -d '{"model": "DS224+", "serial": "1234"}'
BODY=$(echo 'Disk 1 is hot' | sns-nas seal --p256dh $P256DH --auth=$AUTH |
  base64 -w 0 | tr +/ -_)
curl -sw '\n' $RELAY/v1/notifications -H "$NAS" -H "$JSON" -d '{
  "id": "'$(cat /proc/sys/kernel/random/uuid)'", "source": "dsm", "level": "warn",
  "ttl_s": 3600, "targets": [{"handle": "'${PUSH##*/}'", "sealed": "'$BODY'"}]}'

# What the relay keeps of it, and what it counts
curl -sw '\n' $RELAY/v1/nas/self -H "$NAS"
curl -s $ADMIN/metrics | grep sns_outcomes_total
"#;

/// How long the demo looks away between two looks at the devices, when nothing wakes it.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// Prints lines to try, then what each device reads; ends only with an error.
pub(super) async fn play(
    stage: &Stage,
    relay: &mut RelayProcess,
    cast: &Cast,
    out: &mut impl Write,
) -> DemoError {
    if let Err(error) = lines(stage, relay, cast, out) {
        return error;
    }
    let mut seen = cast.devices.iter().map(|to| to.delivered(stage).len()).collect::<Vec<_>>();
    loop {
        let accepted = accepted(stage);
        if let Err(error) = readings(stage, cast, &mut seen, out) {
            return error.into();
        }
        tokio::select! {
            () = more_accepted(stage, accepted) => {}
            ended = relay.ended() => return match ended {
                Ok(status) => relay.fault(format!("the relay ended with {status}")),
                Err(error) => error,
            },
        }
    }
}

/// Prints what the devices have read since they were last looked at.
fn readings(
    stage: &Stage,
    cast: &Cast,
    seen: &mut [usize],
    out: &mut impl Write,
) -> io::Result<()> {
    for (to, seen) in cast.devices.iter().zip(seen) {
        let delivered = to.delivered(stage);
        for one in delivered.iter().skip(*seen) {
            match to.read(one) {
                Ok(text) => writeln!(out, "{} read: {}", to.name, text.trim_end())?,
                Err(why) => writeln!(out, "{} read nothing: {why}", to.name)?,
            }
        }
        *seen = delivered.len();
    }
    out.flush()
}

fn lines(
    stage: &Stage,
    relay: &RelayProcess,
    cast: &Cast,
    out: &mut impl Write,
) -> Result<(), DemoError> {
    let tool = beside_this_program("sns-nas")?;
    let folder = tool.parent().unwrap_or(Path::new("."));
    writeln!(out, "The relay stays up. Paste these lines into another shell; what a device reads")?;
    writeln!(out, "is printed here. Ctrl-C ends it all.\n")?;
    writeln!(out, "export PATH=\"{}:$PATH\"", folder.display())?;
    writeln!(out, "export RELAY={} ADMIN={}", relay.url(), relay.admin_url())?;
    writeln!(out, "export DEMO={}", stage.folder().display())?;
    writeln!(out, "export JSON='Content-Type: application/json'")?;
    if let Some(to) = cast.devices.iter().find(|to| to.device.kind() == DeviceKind::Ios) {
        writeln!(
            out,
            "# The iPhone: its device token and its keys, which only its own senders know"
        )?;
        writeln!(out, "export TOKEN={}", to.device.address())?;
        writeln!(out, "export P256DH={}", to.device.p256dh())?;
        writeln!(out, "export AUTH={}\n", to.device.auth())?;
    }
    Ok(writeln!(out, "{LINES}")?)
}

fn accepted(stage: &Stage) -> [u64; 3] {
    [stage.apns.journal(), stage.fcm.journal(), stage.webpush.journal()]
        .map(crate::sim::journal::Journal::accepted)
}

async fn more_accepted(stage: &Stage, [apns, fcm, webpush]: [u64; 3]) {
    tokio::select! {
        _ = stage.apns.journal().wait_accepted(apns + 1, LOOK_LIMIT) => {}
        _ = stage.fcm.journal().wait_accepted(fcm + 1, LOOK_LIMIT) => {}
        _ = stage.webpush.journal().wait_accepted(webpush + 1, LOOK_LIMIT) => {}
    }
}

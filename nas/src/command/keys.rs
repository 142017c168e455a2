//! Keys, tokens and sealed bodies for the shell, so that curl can speak to a relay.

use std::error::Error;
use std::io::{self, Read as _};
use std::path::PathBuf;

use clap::Subcommand;
use sns_nas::clock;
use sns_nas::key::SenderKey;
use sns_nas::seal::{BodyCap, DeviceKeys, seal};
use sns_nas::vapid::{self, Audience};

use super::{Failure, print};

#[derive(Subcommand)]
pub(super) enum Keys {
    /// Make a sender key in a new file that only its owner can read.
    Keygen {
        /// The PEM file to make; one that exists is never overwritten.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Print the public key in base64url.
    Public {
        /// The sender key's PEM file.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Print an Authorization header for one relay: curl -H "$(sns-nas token …)".
    Token {
        /// The sender key's PEM file.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The relay's public URL, or any URL under it.
        #[arg(long, value_name = "URL", value_parser = Audience::of_url)]
        audience: Audience,
        /// Whom the relay's operator may ask: a mailto: or https: URI.
        #[arg(long, value_name = "URI")]
        subject: Option<String>,
        /// How long the token is good, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = vapid::LIFE_S_DEFAULT,
            value_parser = clap::value_parser!(u64).range(1..=vapid::LIFE_S_MAX))]
        life_s: u64,
    },
    /// Seal standard input for one device and write the body to standard output.
    Seal {
        /// The device's public key in base64url.
        #[arg(long, value_name = "BASE64URL")]
        p256dh: String,
        /// The device's auth secret in base64url.
        #[arg(long, value_name = "BASE64URL", allow_hyphen_values = true)]
        auth: String,
        /// The largest body that the app takes (its max_body_bytes), in bytes.
        #[arg(long, value_name = "BYTES", value_parser = parse_cap, default_value = "2744")]
        cap_bytes: BodyCap,
    },
}

// === impl Keys ===

impl Keys {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Keygen { key } => Ok(SenderKey::generate()?.save(&key)?),
            Self::Public { key } => print(SenderKey::load(&key)?.public_base64url() + "\n"),
            Self::Token { key, audience, subject, life_s } => {
                let key = SenderKey::load(&key)?;
                let now_unix_s = clock::now_unix_ms() / 1000;
                let token =
                    vapid::authorization(&key, &audience, subject.as_deref(), now_unix_s, life_s)?;
                print(format!("Authorization: {token}\n"))
            }
            Self::Seal { p256dh, auth, cap_bytes } => {
                let device = DeviceKeys::parse(&p256dh, &auth)?;
                let mut message = Vec::new();
                // One byte more than fits is enough to refuse it.
                let limit = cap_bytes.message_bytes_max() as u64 + 1;
                io::stdin().lock().take(limit).read_to_end(&mut message)?;
                print(seal(&device, &message, cap_bytes)?)
            }
        }
    }
}

fn parse_cap(text: &str) -> Result<BodyCap, Box<dyn Error + Send + Sync>> {
    Ok(BodyCap::new(text.parse()?)?)
}

//! One published app with its credentials, checked.

use super::{AppEmail, Secret, ServiceUrl};
use crate::push::AppName;

/// Section `apps.<name>`: one published app with its credentials.
pub struct App {
    /// Its name.
    pub name: AppName,
    /// Whether plain text may be sent to it.
    pub allow_plain: bool,
    /// Its credentials at Apple.
    pub apns: Option<AppApns>,
    /// Its credentials at Google.
    pub fcm: Option<AppFcm>,
    /// Its key for browsers.
    pub webpush: Option<AppWebPush>,
    /// Its sender of mails.
    pub email: Option<AppEmail>,
}

/// Section `apps.<name>.apns`.
pub struct AppApns {
    /// The bundle id.
    pub topic: String,
    /// Token or certificate.
    pub credential: ApnsCredential,
    /// Key of the placeholder's title in the app's own strings; none shows no title.
    pub title_loc_key: Option<String>,
    /// Key of the placeholder's text in the app's own strings.
    pub loc_key: String,
    /// Sound file in the app, or `default`; none is silent.
    pub sound: Option<String>,
    /// Whether urgent messages are marked `time-sensitive` (the app needs Apple's capability).
    pub time_sensitive: bool,
}

/// How we prove to Apple who we are.
pub enum ApnsCredential {
    /// A provider token, signed with a `.p8` key.
    Token {
        /// The key: PKCS#8 PEM.
        key_pem: Secret<String>,
        /// Ten characters.
        key_id: String,
        /// Ten characters.
        team_id: String,
    },
    /// A TLS client certificate: PEM with the chain and the key.
    Certificate {
        /// The file's text.
        pem: Secret<String>,
    },
}

/// Section `apps.<name>.fcm`: a service account.
pub struct AppFcm {
    /// The Firebase project.
    pub project_id: String,
    /// The account's e-mail address.
    pub client_email: String,
    /// Names the key in the token's header.
    pub private_key_id: String,
    /// RSA key, PKCS#8 PEM.
    pub private_key_pem: Secret<String>,
    /// Where access tokens are fetched: host, port and path.
    pub token_url: ServiceUrl,
    /// The path of the token endpoint.
    pub token_path: String,
    /// The token endpoint as the key file has it: the `aud` of the grant.
    pub token_uri: String,
}

/// Section `apps.<name>.webpush`.
pub struct AppWebPush {
    /// The VAPID key: P-256, PKCS#8 PEM.
    pub vapid_key_pem: Secret<String>,
    /// Its public half in base64url: what a browser subscribes with.
    pub application_server_key: String,
    /// `mailto:` or `https:` contact, as push services want it.
    pub subject: String,
    /// Bytes of a body; 4096, or 2744 where Firefox on Android matters.
    pub body_bytes_max: usize,
}

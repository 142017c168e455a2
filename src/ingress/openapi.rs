//! The OpenAPI 3.1 description, generated from the doors' own code; docs/openapi.json is its copy.

use std::sync::OnceLock;

use bytes::Bytes;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{farewell, http_door, webpush, wire};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "sns-relay",
        description = "A stateless push relay: NAS messages to APNs, FCM and Web Push devices.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        http_door::enrol,
        http_door::identity,
        http_door::rotate_key,
        http_door::pair,
        http_door::app,
        http_door::notify,
        webpush::push,
        farewell::ask,
        farewell::take
    ),
    components(schemas(wire::Problem)),
    modifiers(&Vapid)
)]
struct Description;

struct Vapid;

impl Modify for Vapid {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let text = "RFC 8292: `vapid t=<ES256 JWT>, k=<public key>`; `aud` is this relay's origin.";
        let key = ApiKeyValue::with_description("Authorization", text);
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("vapid", SecurityScheme::ApiKey(ApiKey::Header(key)));
    }
}

/// Gives the description as JSON.
pub fn json() -> Bytes {
    static JSON: OnceLock<Bytes> = OnceLock::new();
    JSON.get_or_init(|| Bytes::from(text())).clone()
}

/// Writes the description as JSON with line breaks, as it is checked in.
pub fn text() -> String {
    Description::openapi().to_pretty_json().unwrap_or_default()
}

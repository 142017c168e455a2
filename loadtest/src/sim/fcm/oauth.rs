//! The token endpoint: a signed assertion of a known service account against an access token.
//!
//! The assertion must be RS256 by the account's key, `aud` the endpoint itself or Google's, `scope`
//! containing Firebase messaging or the whole platform, `exp` at most an hour after `iat`.
//! RFC 7523 §3; Google, "Using OAuth 2.0 for server to server applications".

use std::collections::HashMap;
use std::sync::Mutex;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::super::jws::Jws;
use super::super::lock;
use super::super::script::Answer;
use super::super::server::Received;
use super::{FcmCredentials, error, gateway_error, oauth_error};

/// The accounts that are known and the access tokens that were issued.
pub(crate) struct Tokens {
    endpoint: String,
    life_s: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<String, Account>,
    issued: HashMap<String, Issued>,
    /// Whether a token that was not issued here is one of an earlier process's.
    knows_earlier: bool,
}

#[derive(Clone)]
struct Account {
    project: String,
    public_key: Vec<u8>,
}

struct Issued {
    project: String,
    expires_s: i64,
}

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
];
/// Google's own libraries name it whatever the key file's `token_uri` says.
const GOOGLE_ENDPOINT: &str = "https://oauth2.googleapis.com/token";
const ASSERTION_LIFE_MAX_S: i64 = 3600;
const CLOCK_SKEW_MAX_S: i64 = 300;

impl Tokens {
    pub(crate) fn new(endpoint: &str, life_s: u32) -> Tokens {
        Tokens { endpoint: endpoint.to_owned(), life_s, state: Mutex::default() }
    }

    pub(crate) fn enter(&self, credentials: &FcmCredentials) {
        let account = Account {
            project: credentials.project_id.clone(),
            public_key: credentials.public_key.clone(),
        };
        lock(&self.state).accounts.insert(credentials.client_email.clone(), account);
    }

    /// Takes tokens that an earlier process issued.
    pub(crate) fn know_earlier(&self) {
        lock(&self.state).knows_earlier = true;
    }

    /// The project whose account makes this grant.
    pub(crate) fn check_grant(&self, received: &Received, now_s: i64) -> Result<String, Answer> {
        if received.method != Method::POST {
            return Err(oauth_error(405, "invalid_request"));
        }
        let kind = received.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        if kind.is_none_or(|kind| !kind.starts_with(b"application/x-www-form-urlencoded")) {
            return Err(oauth_error(400, "invalid_request"));
        }
        let invalid = || oauth_error(400, "invalid_request");
        let body = std::str::from_utf8(&received.body).map_err(|_| invalid())?;
        let form = form(body).ok_or_else(invalid)?;
        if form.get("grant_type").map(String::as_str) != Some(GRANT) {
            return Err(oauth_error(400, "unsupported_grant_type"));
        }
        let assertion = form.get("assertion").ok_or_else(invalid)?;
        self.check_assertion(assertion, now_s).ok_or_else(|| oauth_error(400, "invalid_grant"))
    }

    fn check_assertion(&self, assertion: &str, now_s: i64) -> Option<String> {
        let jws = Jws::parse(assertion)?;
        let account = lock(&self.state).accounts.get(jws.text("iss")?)?.clone();
        let (issued_s, expires_s) = (jws.seconds("iat")?, jws.seconds("exp")?);
        let is_good = jws.is_plain("RS256")
            && jws.verify_rs256(&account.public_key)
            && jws.text("aud").is_some_and(|aud| aud == self.endpoint || aud == GOOGLE_ENDPOINT)
            && jws.text("scope")?.split(' ').any(|scope| SCOPES.contains(&scope))
            && issued_s <= now_s + CLOCK_SKEW_MAX_S
            && expires_s > now_s
            && expires_s > issued_s
            && expires_s <= issued_s + ASSERTION_LIFE_MAX_S;
        is_good.then_some(account.project)
    }

    /// The answer with a fresh access token.
    pub(crate) fn issue(&self, project: String, now_s: i64) -> Answer {
        let token = format!("ya29.{}", Uuid::new_v4().simple());
        let state = &mut *lock(&self.state);
        state.issued.retain(|_, issued| issued.expires_s > now_s);
        let expires_s = now_s + i64::from(self.life_s);
        state.issued.insert(token.clone(), Issued { project, expires_s });
        let body =
            json!({ "access_token": token, "token_type": "Bearer", "expires_in": self.life_s });
        Answer::json(StatusCode::OK, &body)
    }

    /// Gives the access token when it was issued here for this project and still lives.
    pub(crate) fn check_bearer<'a>(
        &self,
        headers: &'a HeaderMap,
        project: &str,
        now_s: i64,
    ) -> Result<&'a str, Answer> {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| error(401, "UNAUTHENTICATED", None))?;
        let state = lock(&self.state);
        match state.issued.get(token) {
            Some(issued) if issued.expires_s <= now_s => {}
            Some(issued) if issued.project != project => {
                return Err(gateway_error(403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED"));
            }
            Some(_) => return Ok(token),
            None if state.knows_earlier => return Ok(token),
            None => {}
        }
        Err(gateway_error(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED"))
    }

    pub(crate) fn revoke(&self) {
        let state = &mut *lock(&self.state);
        state.issued.clear();
        state.knows_earlier = false;
    }
}

/// Reads `application/x-www-form-urlencoded`; `None` for a bad escape or a key given twice.
fn form(body: &str) -> Option<HashMap<String, String>> {
    let mut fields = HashMap::new();
    for pair in body.split('&') {
        let (key, value) = pair.split_once('=')?;
        if fields.insert(unescape(key)?, unescape(value)?).is_some() {
            return None;
        }
    }
    Some(fields)
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

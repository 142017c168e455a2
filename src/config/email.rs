//! Section `email`: the SMTP server that takes the mails, and an app's sender of them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::url::parse_host;
use super::{Secret, files};
use crate::push::Mailbox;

/// Section `email`: the operator's SMTP server.
pub struct Email {
    /// DNS name or address: who its certificate must be of.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the connection is protected.
    pub security: EmailSecurity,
    /// Who we are; none where the server asks for no login.
    pub login: Option<EmailLogin>,
    /// PEM file of roots to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What we call ourselves in EHLO.
    pub hello_name: String,
    /// Connections at once.
    pub connections_max: usize,
    /// A connection without mail is closed after this.
    pub idle_timeout: Duration,
    /// How long one reply may take.
    pub reply_timeout: Duration,
}

/// How a connection to an SMTP server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailSecurity {
    /// STARTTLS, and nothing without it (RFC 3207).
    StartTls,
    /// TLS from the first byte (RFC 8314).
    Tls,
    /// None at all.
    Cleartext,
}

/// A login at an SMTP server.
pub struct EmailLogin {
    /// Whose.
    pub username: String,
    /// The proof.
    pub password: Secret<String>,
}

/// Section `apps.<name>.email`.
pub struct AppEmail {
    /// The sender's address.
    pub from: Mailbox,
    /// The sender's name as readers see it; none shows the address.
    pub from_name: Option<String>,
}

/// Bytes of a password file's content.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Gives nothing inside where there is no server.
pub(super) fn email(r: &mut Reader) -> Option<Option<Email>> {
    let host = r.text("email.host");
    let is_set = host.as_deref().is_some_and(|host| !host.is_empty());
    let host = host.and_then(|host| match is_set {
        true => r.expect("email.host", parse_host(&host), "a host name or an IPv4 address"),
        false => Some(host),
    });
    let port = r.integer("email.port", 1..=65535);
    let security = |text: &str| match text {
        "starttls" => Some(EmailSecurity::StartTls),
        "tls" => Some(EmailSecurity::Tls),
        "cleartext" => Some(EmailSecurity::Cleartext),
        _ => None,
    };
    let security = r.parsed("email.security", security, "starttls, tls or cleartext");
    let username = r.text_of("email.username", 0..=256);
    let password_file = r.optional_path("email.password_file");
    let password = password_file.map(|file| password(r, &file));
    let ca_file = r.optional_file("email.ca_file", files::check_authorities);
    let hello_name = r.parsed("email.hello_name", parse_host, "a host name");
    let connections_max = r.integer("email.connections_max", 1..=1000);
    let idle_timeout = r.seconds("email.idle_timeout_s", 1..=3600);
    let reply_timeout = r.milliseconds("email.reply_timeout_ms", 100..=600_000);
    let login = login(r, username?, password, security);
    if !is_set {
        return Some(None);
    }
    Some(Some(Email {
        host: host?,
        port: port?,
        security: security?,
        login: login?,
        ca_file,
        hello_name: hello_name?,
        connections_max: connections_max?,
        idle_timeout: idle_timeout?,
        reply_timeout: reply_timeout?,
    }))
}

fn password(r: &mut Reader, file: &std::path::Path) -> Option<Secret<String>> {
    let text = r.secret_file("email.password_file", file)?;
    let password = text.expose().trim_end_matches(['\r', '\n']);
    let fits = (1..=PASSWORD_BYTES_MAX).contains(&password.len());
    let plain = fits && !password.contains(char::is_control);
    let password = plain.then(|| Secret::new(password.to_owned()));
    r.expect("email.password_file", password, "a file with one line: the password")
}

/// Gives nothing inside where the server asks for no login.
fn login(
    r: &mut Reader,
    username: String,
    password: Option<Option<Secret<String>>>,
    security: Option<EmailSecurity>,
) -> Option<Option<EmailLogin>> {
    match (username.is_empty(), password) {
        (true, None) => Some(None),
        (true, Some(_)) => {
            r.fault("email.username", "is required where email.password_file is set");
            None
        }
        (false, None) => {
            r.fault("email.password_file", "is required where email.username is set");
            None
        }
        (false, Some(_)) if security == Some(EmailSecurity::Cleartext) => {
            r.fault("email.security", "must be starttls or tls, or the password shows on the way");
            None
        }
        (false, Some(password)) => Some(Some(EmailLogin { username, password: password? })),
    }
}

/// Reads an app's sender.
pub(super) fn app_email(r: &mut Reader, section: &str) -> Option<AppEmail> {
    let of = |key: &str| format!("{section}.{key}");
    let from = |text: &str| Mailbox::parse(text).ok();
    let from = r.parsed(&of("from_address"), from, "a mail address, like nas@example.com");
    let from_name = r.text_of(&of("from_name"), 0..=128);
    Some(AppEmail { from: from?, from_name: Some(from_name?).filter(|name| !name.is_empty()) })
}

/// Notes what the section and those of the apps make impossible together.
pub(super) fn check_with_apps<'a>(
    r: &mut Reader,
    has_server: bool,
    public_origin: &str,
    apps: impl Iterator<Item = (&'a dyn fmt::Display, bool)>,
) {
    for (name, allow_plain) in apps {
        if !has_server {
            r.fault("email.host", format!("is required where apps.{name}.email is set"));
        }
        if !allow_plain {
            let key = format!("apps.{name}.allow_plain");
            r.fault(&key, "must be true where the app has e-mail, which nobody can open sealed");
        }
        if !public_origin.starts_with("https://") {
            let text = "is not https, so mail programs will not offer to unsubscribe (RFC 8058)";
            r.warn("server.public_url", text);
        }
    }
}

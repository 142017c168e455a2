//! What an SMTP server is given: one mail in MIME, as text and as HTML.
//!
//! Invariant: no part of a header comes from outside but the recipient, which was parsed, and the
//! title, which holds no control character; and no mail goes out without a way to end them. The
//! mail with a new handle holds nothing at all of whoever asked for it.
//! Sources: RFC 5322, RFC 2045 to 2047, RFC 3834 (`Auto-Submitted`), RFC 8058 (one-click).

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{self, MessageBuilder, MultiPart};
use lettre::{Address, Message};

use crate::clock;
use crate::config::AppEmail;
use crate::outcome::{Code, Outcome, Refusal};
use crate::push::{AppName, Mailbox, MessageId, Plain, Push, Urgency};

/// Writes the mails of one app.
pub struct MailEnvelope {
    app: AppName,
    from: message::Mailbox,
    domain: String,
    public_origin: String,
}

/// A new handle on its way to its address.
pub struct Proof<'a> {
    /// The handle.
    pub handle: &'a str,
    /// Seconds since 1970.
    pub expires_at_unix_s: u64,
}

/// Title and text together: a mail that people read.
const TEXT_BYTES_MAX: usize = 65_536;

/// Written by a machine, so that no machine answers it.
const AUTO_SUBMITTED: &str = "Auto-Submitted";
const IMPORTANCE: &str = "Importance";
const LIST_UNSUBSCRIBE: &str = "List-Unsubscribe";
const LIST_UNSUBSCRIBE_POST: &str = "List-Unsubscribe-Post";

// === impl MailEnvelope ===

impl MailEnvelope {
    /// Takes an app's sender and the origin of the links.
    pub fn new(app: &AppName, email: &AppEmail, public_origin: &str) -> Option<Self> {
        let address = address(&email.from)?;
        Some(Self {
            app: app.clone(),
            from: message::Mailbox::new(email.from_name.clone(), address),
            domain: email.from.domain().to_owned(),
            public_origin: public_origin.to_owned(),
        })
    }

    /// Gives the most that title and text may have together, in bytes.
    pub const fn text_bytes_max() -> usize {
        TEXT_BYTES_MAX
    }

    /// Writes a notification, with the link that ends them.
    /// Errors: `content_too_large`; `member_invalid` for a title with a control character, which
    /// could begin a header of its own.
    pub fn notification(
        &self,
        to: &Mailbox,
        push: &Push,
        id: MessageId,
        plain: &Plain,
        link: &str,
        now_unix_s: u64,
    ) -> Result<Bytes, Outcome> {
        if plain.title.len() + plain.text.len() > TEXT_BYTES_MAX {
            return Err(Refusal::of_field(Code::ContentTooLarge, "content").into());
        }
        if plain.title.contains(char::is_control) {
            return Err(Refusal::of_field(Code::MemberInvalid, "content.title").into());
        }
        let link = format!("{}/unsubscribe/{link}", self.public_origin);
        let mut mail = self
            .begin(to, id, &plain.title, now_unix_s)?
            .raw_header(header(LIST_UNSUBSCRIBE, format!("<{link}>")))
            .raw_header(header(LIST_UNSUBSCRIBE_POST, "List-Unsubscribe=One-Click".to_owned()));
        if push.urgency == Urgency::High {
            mail = mail.raw_header(header(IMPORTANCE, "high".to_owned()));
        }
        let app = &self.app;
        let why = format!("This address is paired with \"{app}\". To end these mails: ");
        let text = format!("{}\r\n\r\n-- \r\n{why}{link}\r\n", plain.text);
        let html = page(
            &plain.title,
            &format!(
                "<p style=\"white-space:pre-wrap\">{}</p><hr><p><small>{}<a href=\"{link}\">\
                 unsubscribe</a></small></p>",
                escape(&plain.text),
                escape(&why)
            ),
        );
        end(mail, text, html)
    }

    /// Writes the mail that brings a new handle to its address.
    /// Errors: `internal_fault`.
    pub fn proof(
        &self,
        to: &Mailbox,
        id: MessageId,
        proof: &Proof<'_>,
        now_unix_s: u64,
    ) -> Result<Bytes, Outcome> {
        let (app, handle) = (&self.app, proof.handle);
        let subject = format!("Confirm notifications of \"{app}\" by e-mail");
        let asked = format!(
            "Somebody asked that notifications of \"{app}\" be sent to this address. If that was \
             you, give the device that asked this handle:"
        );
        let until = clock::format_rfc3339(proof.expires_at_unix_s);
        let end_of_it = format!(
            "It is good until {until}, for the one key that it was asked for. If it was not you, \
             do nothing: without the handle nothing more is sent to you."
        );
        let text = format!("{asked}\r\n\r\n{handle}\r\n\r\n{end_of_it}\r\n");
        let html = page(
            &subject,
            &format!(
                "<p>{}</p><p style=\"word-break:break-all\"><code>{handle}</code></p><p>{}</p>",
                escape(&asked),
                escape(&end_of_it)
            ),
        );
        end(self.begin(to, id, &subject, now_unix_s)?, text, html)
    }

    fn begin(
        &self,
        to: &Mailbox,
        id: MessageId,
        subject: &str,
        now_unix_s: u64,
    ) -> Result<MessageBuilder, Outcome> {
        let to = address(to).ok_or(INTERNAL_FAULT)?;
        Ok(Message::builder()
            .from(self.from.clone())
            .to(message::Mailbox::new(None, to))
            .subject(subject)
            .date(UNIX_EPOCH + Duration::from_secs(now_unix_s))
            .message_id(Some(format!("<{}@{}>", id.hyphenated(), self.domain)))
            .raw_header(header(AUTO_SUBMITTED, "auto-generated".to_owned())))
    }
}

const INTERNAL_FAULT: Outcome = Outcome::Misconfigured { code: Code::InternalFault };

/// Takes an address into the mail library's own word; every [`Mailbox`] is one there too.
pub fn address(mailbox: &Mailbox) -> Option<Address> {
    Address::new(mailbox.local(), mailbox.domain()).ok()
}

fn end(mail: MessageBuilder, text: String, html: String) -> Result<Bytes, Outcome> {
    let mail = mail.multipart(MultiPart::alternative_plain_html(text, html));
    mail.map(|mail| mail.formatted().into()).map_err(|_| INTERNAL_FAULT)
}

/// A header without anything from outside: none is encoded or folded.
fn header(name: &'static str, value: String) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str(name);
    HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value)
}

fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>{title}</title></head>\
         <body><h1>{title}</h1>{body}</body></html>"
    )
}

/// Makes text safe inside HTML, attributes included.
/// Source: HTML Living Standard §13.3.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::{Class, Content, Ttl};

    fn envelope() -> MailEnvelope {
        let from = Mailbox::parse("nas@example.com").ok().unwrap();
        let email = AppEmail { from, from_name: Some("Müller's NAS".to_owned()) };
        let app = AppName::parse("dsm").unwrap();
        MailEnvelope::new(&app, &email, "https://push.example.com").unwrap()
    }

    fn plain(title: &str, text: &str) -> Plain {
        Plain { tag: "Tag".to_owned(), title: title.to_owned(), text: text.to_owned() }
    }

    fn write(plain: &Plain) -> Result<String, Outcome> {
        let to = Mailbox::parse("owner@example.com").ok().unwrap();
        let push = Push {
            id: None,
            ttl: Ttl::from_s(60),
            urgency: Urgency::High,
            class: Class::Alarm,
            topic: None,
            sound: true,
            content: Content::Plain(plain.clone()),
        };
        let id = MessageId::parse("123e4567-e89b-12d3-a456-426614174000").unwrap();
        let mail = envelope().notification(&to, &push, id, plain, "LINK", 1_700_000_000)?;
        Ok(String::from_utf8(mail.to_vec()).unwrap())
    }

    /// Undoes the soft line breaks of RFC 2045 §6.7.
    fn unfolded(text: &str) -> String {
        text.replace("=\r\n", "")
    }

    #[test]
    fn a_mail_says_what_it_is_and_how_to_end_it() {
        let mail = write(&plain("Volume 1 has crashed", "Back up <now> & call")).unwrap();
        let (headers, body) = mail.split_once("\r\n\r\n").unwrap();
        for line in [
            "To: owner@example.com",
            "Subject: Volume 1 has crashed",
            "Date: Tue, 14 Nov 2023 22:13:20 +0000",
            "Message-ID: <123e4567-e89b-12d3-a456-426614174000@example.com>",
            "Auto-Submitted: auto-generated",
            "List-Unsubscribe: <https://push.example.com/unsubscribe/LINK>",
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
            "Importance: high",
            "MIME-Version: 1.0",
        ] {
            assert!(headers.lines().any(|have| have == line), "{line}\n{headers}");
        }
        assert!(headers.contains("Content-Type: multipart/alternative"));
        let body = unfolded(body);
        assert!(body.contains("Back up <now> & call\r\n\r\n--=20\r\n"), "{body}");
        assert!(body.contains("Back up &lt;now&gt; &amp; call</p>"), "{body}");
        assert!(mail.is_ascii(), "no extension of the server's is needed");
    }

    #[test]
    fn whatever_the_text_is_the_mail_is_ascii_in_short_lines() {
        let long = "Ünïcödé ".repeat(2000);
        let mail = write(&plain("Ein \u{201e}Titel\u{201c} mit Ünicode", &long)).unwrap();
        assert!(mail.is_ascii());
        assert!(mail.lines().all(|line| line.len() <= 998));
    }

    #[test]
    fn a_title_that_could_begin_a_header_is_refused() {
        for title in ["a\r\nBcc: other@example.com", "a\nb", "a\rb", "a\0b", "a\u{85}b"] {
            let refused = write(&plain(title, "text")).unwrap_err();
            let expected = Refusal::of_field(Code::MemberInvalid, "content.title");
            assert_eq!(refused, Outcome::Refused(expected), "{title:?}");
        }
    }

    #[test]
    fn a_text_cannot_end_the_mail_or_begin_a_part() {
        let mail = write(&plain("t", "a\r\n.\r\nQUIT\r\n--x--\r\nSubject: b")).unwrap();
        let (headers, body) = mail.split_once("\r\n\r\n").unwrap();
        assert_eq!(headers.matches("Subject:").count(), 1);
        let (_, boundary) = headers.split_once("boundary=\"").unwrap();
        let boundary = boundary.split('"').next().unwrap();
        assert_eq!(body.matches(boundary).count(), 3, "two parts and the end: {body}");
    }

    #[test]
    fn a_mail_has_a_size() {
        let at = |bytes: usize| write(&plain("t", &"x".repeat(bytes - 1)));
        assert!(at(TEXT_BYTES_MAX).is_ok());
        let expected = Refusal::of_field(Code::ContentTooLarge, "content");
        assert_eq!(at(TEXT_BYTES_MAX + 1).unwrap_err(), Outcome::Refused(expected));
    }

    #[test]
    fn the_mail_with_a_handle_holds_the_handle_and_nothing_of_the_asker() {
        let to = Mailbox::parse("owner@example.com").ok().unwrap();
        let proof = Proof { handle: "HANDLE", expires_at_unix_s: 1_700_000_000 };
        let mail = envelope().proof(&to, MessageId::random(), &proof, 1_600_000_000).unwrap();
        let mail = unfolded(std::str::from_utf8(&mail).unwrap());
        assert!(mail.contains("\r\nHANDLE\r\n") && mail.contains("<code>HANDLE</code>"), "{mail}");
        assert!(mail.contains("2023-11-14T22:13:20Z"), "{mail}");
    }
}

//! The SMTP server's words: one exhaustive table from step × reply code × enhanced code to an
//! outcome.
//!
//! The basic code decides whether it is for now or for good; the enhanced code, where there is one,
//! says whose fault it is. A device is `gone` only for the enhanced codes that name the mailbox: a
//! bare 550 may as well be a policy, and is the operator's to look at.
//! Sources: RFC 5321 §4.2, RFC 3463 §3, RFC 7504, RFC 7505 §4.2, RFC 4954 §6, RFC 3207 §4.

use std::error::Error as _;
use std::time::Duration;

use lettre::transport::smtp;

use super::line::{Fault, Step};
use crate::outcome::{Code, Outcome, Refusal};
use crate::provider::upstream::Verdict;

/// A server that throttles or greylists wants some minutes of peace.
const DEFERRED_WAIT: Duration = Duration::from_secs(300);

/// A full mailbox is emptied by a person.
const FULL_WAIT: Duration = Duration::from_secs(3600);

/// A server that closes or cannot be reached is back in a minute, or tells again.
const AWAY_WAIT: Duration = Duration::from_secs(60);

/// `class.subject.detail` (RFC 3463 §2).
type Enhanced = (u16, u16, u16);

/// Says what became of a mail that came to nothing at a step, and what that says of the server.
pub(super) fn read(step: Step, fault: &Fault) -> (Outcome, Verdict) {
    let error = match fault {
        Fault::Silence => return (no_reply(step), Verdict::Failing),
        Fault::Smtp(error) => error,
    };
    if let Some(code) = error.status() {
        let outcome = refused(step, u16::from(code), enhanced(error));
        // 421 and 4xx at the greeting: it is there, and takes nothing.
        let away = outcome.code() == Code::EmailServerUnavailable;
        return (outcome, if away { Verdict::Failing } else { Verdict::Alive });
    }
    // What the library itself finds missing: the server offers no STARTTLS, or no such login.
    let missing = match step {
        Step::StartTls if error.is_client() => Some(Code::EmailTlsUnavailable),
        Step::Login if error.is_client() => Some(Code::EmailLoginRefused),
        _ if error.is_client() => Some(Code::EmailProtocolError),
        _ => None,
    };
    match missing {
        Some(code) => (Outcome::Misconfigured { code }, Verdict::Nothing),
        None => (no_reply(step), Verdict::Failing),
    }
}

/// No reply, or a connection that broke: the server may hold the mail once it has been sent whole.
const fn no_reply(step: Step) -> Outcome {
    match step {
        Step::Content => Outcome::Unknown { code: Code::NoAnswer },
        _ => not_now(Code::PushServiceUnreachable, AWAY_WAIT),
    }
}

/// The table.
fn refused(step: Step, code: u16, enhanced: Option<Enhanced>) -> Outcome {
    let misconfigured = |code| Outcome::Misconfigured { code };
    let is_transient = (400..500).contains(&code);
    match (step, code, enhanced) {
        // The mailbox, by the codes that name it.
        (_, 500..600, Some((5, 1, 1..=3 | 6 | 10) | (5, 2, 1))) => {
            Outcome::Gone { code: Code::EmailMailboxUnknown, since_unix_ms: None }
        }
        (_, 400..600, Some((_, 2, 2))) | (_, 452 | 552, None) => {
            not_now(Code::EmailMailboxFull, FULL_WAIT)
        }
        (_, 500..600, Some((5, 2, 3) | (5, 3, 4))) => {
            Outcome::Refused(Refusal::new(Code::EmailTooLarge))
        }
        // The server as a whole.
        (_, 421, _) | (Step::Connect, 400..500, _) => {
            not_now(Code::EmailServerUnavailable, AWAY_WAIT)
        }
        (Step::StartTls, _, _) => misconfigured(Code::EmailTlsUnavailable),
        // RFC 4954 §6: the login did not fail, the server did.
        (Step::Login, 454, _) => not_now(Code::EmailServerUnavailable, AWAY_WAIT),
        (Step::Login, _, _) | (_, 530 | 534 | 535 | 538, _) => {
            misconfigured(Code::EmailLoginRefused)
        }
        (_, 400..500, Some((4, 7, _))) | (_, 450 | 451, Some((_, 3, 2))) => {
            not_now(Code::EmailThrottled, DEFERRED_WAIT)
        }
        _ if is_transient => not_now(Code::EmailDeferred, DEFERRED_WAIT),
        (_, 500..=504, _) => misconfigured(Code::EmailProtocolError),
        (Step::Sender, _, _) | (_, _, Some((5, 1, 7 | 8))) => {
            misconfigured(Code::EmailSenderRefused)
        }
        (_, 554, None) | (_, _, Some((5, 7, _) | (5, 6, _))) => {
            misconfigured(Code::EmailPolicyRefused)
        }
        _ => misconfigured(Code::EmailOtherRejection),
    }
}

const fn not_now(code: Code, retry_after: Duration) -> Outcome {
    Outcome::NotNow { code, retry_after }
}

/// Gives the enhanced code: the first word of the reply's text, which is the error's source.
fn enhanced(error: &smtp::Error) -> Option<Enhanced> {
    parse_enhanced(&error.source()?.to_string())
}

/// Source: RFC 2034 §4.
fn parse_enhanced(text: &str) -> Option<Enhanced> {
    let mut parts = text.split_ascii_whitespace().next()?.split('.');
    let mut number = |digits_max: usize| {
        let part = parts.next()?;
        let fits = (1..=digits_max).contains(&part.len());
        (fits && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok()).flatten()
    };
    let whole = (number(1)?, number(3)?, number(3)?);
    parts.next().is_none().then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Kind;

    const FOR_GOOD: [Step; 7] = [
        Step::Connect,
        Step::StartTls,
        Step::Login,
        Step::Sender,
        Step::Recipient,
        Step::Data,
        Step::Content,
    ];

    #[test]
    fn every_reply_has_its_outcome() {
        use Code::*;
        let at = Step::Recipient;
        for (step, code, enhanced, expected) in [
            (at, 550, Some((5, 1, 1)), EmailMailboxUnknown),
            (at, 550, Some((5, 1, 2)), EmailMailboxUnknown),
            (at, 501, Some((5, 1, 3)), EmailMailboxUnknown),
            (at, 556, Some((5, 1, 10)), EmailMailboxUnknown),
            (at, 550, Some((5, 2, 1)), EmailMailboxUnknown),
            (Step::Content, 550, Some((5, 1, 1)), EmailMailboxUnknown),
            (at, 550, None, EmailOtherRejection),
            (at, 550, Some((5, 7, 1)), EmailPolicyRefused),
            (at, 554, None, EmailPolicyRefused),
            (Step::Content, 554, Some((5, 6, 0)), EmailPolicyRefused),
            (at, 452, Some((4, 2, 2)), EmailMailboxFull),
            (at, 552, Some((5, 2, 2)), EmailMailboxFull),
            (at, 552, None, EmailMailboxFull),
            (Step::Sender, 552, Some((5, 3, 4)), EmailTooLarge),
            (Step::Content, 552, Some((5, 2, 3)), EmailTooLarge),
            (at, 450, None, EmailDeferred),
            (at, 451, Some((4, 7, 1)), EmailThrottled),
            (at, 450, Some((4, 7, 0)), EmailThrottled),
            (at, 451, Some((4, 3, 2)), EmailThrottled),
            (at, 421, Some((4, 7, 0)), EmailServerUnavailable),
            (Step::Connect, 454, None, EmailServerUnavailable),
            (Step::Connect, 554, None, EmailPolicyRefused),
            (Step::StartTls, 454, None, EmailTlsUnavailable),
            (Step::Login, 535, Some((5, 7, 8)), EmailLoginRefused),
            (Step::Login, 454, Some((4, 7, 0)), EmailServerUnavailable),
            (Step::Sender, 530, Some((5, 7, 0)), EmailLoginRefused),
            (Step::Sender, 550, None, EmailSenderRefused),
            (at, 553, Some((5, 1, 8)), EmailSenderRefused),
            (Step::Data, 503, None, EmailProtocolError),
        ] {
            let outcome = refused(step, code, enhanced);
            assert_eq!(outcome.code(), expected, "{step:?} {code} {enhanced:?}");
        }
    }

    #[test]
    fn whatever_a_server_replies_a_mailbox_is_gone_only_by_its_own_codes() {
        for step in FOR_GOOD {
            for code in 400..600 {
                for enhanced in [None, Some((5, 7, 1)), Some((5, 0, 0)), Some((5, 1, 0))] {
                    let kind = refused(step, code, enhanced).kind();
                    assert_ne!(kind, Kind::Gone, "{step:?} {code} {enhanced:?}");
                    assert_ne!(kind, Kind::Accepted, "{step:?} {code} {enhanced:?}");
                }
                let transient = refused(step, code, Some((4, 1, 1))).kind();
                assert_ne!(transient, Kind::Gone, "{code}: a transient code names no dead mailbox");
            }
        }
    }

    #[test]
    fn only_a_mail_that_was_sent_whole_has_an_unknown_fate() {
        for step in FOR_GOOD {
            let (outcome, verdict) = read(step, &Fault::Silence);
            let unknown = outcome.kind() == Kind::Unknown;
            assert_eq!(unknown, step == Step::Content, "{step:?}");
            assert_eq!(verdict, Verdict::Failing);
        }
    }

    #[test]
    fn an_enhanced_code_is_the_first_word_of_the_text() {
        for (text, expected) in [
            ("5.1.1 no such user", Some((5, 1, 1))),
            ("5.7.999 x\n5.7.1 y", Some((5, 7, 999))),
            ("4.2.2", Some((4, 2, 2))),
            ("user 5.1.1 unknown", None),
            ("5.1 x", None),
            ("5.1.1.1 x", None),
            ("55.1.1 x", None),
            ("5.1000.1 x", None),
            ("", None),
        ] {
            assert_eq!(parse_enhanced(text), expected, "{text:?}");
        }
    }
}

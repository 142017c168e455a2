//! A device's address as both doors know it, between their wire forms and the vocabulary.

use crate::outcome::{Code, Refusal};
use crate::push::{Address, Environment, PushService};

/// Which members of a pairing say where the device is; each service takes its own.
pub(super) struct Pairing<'a> {
    pub(super) service: PushService,
    pub(super) token: Option<&'a str>,
    pub(super) endpoint: Option<&'a str>,
    pub(super) mail_address: Option<&'a str>,
    pub(super) environment: Option<Environment>,
}

// === impl Pairing ===

impl Pairing<'_> {
    /// Parses the members that the service takes and refuses the others.
    /// Errors: `member_missing`, `member_invalid` and those of the address.
    pub(super) fn address(&self) -> Result<Address, Refusal> {
        let missing = |member| Refusal::of_field(Code::MemberMissing, member);
        let refuse_other = |given: bool, member| match given {
            true => Err(Refusal::of_field(Code::MemberInvalid, member)),
            false => Ok(()),
        };
        let is_apns = self.service == PushService::Apns;
        refuse_other(!is_apns && self.environment.is_some(), "environment")?;
        refuse_other(self.service != PushService::Email && self.mail_address.is_some(), "address")?;
        if self.service == PushService::Email {
            refuse_other(self.token.is_some(), "token")?;
            refuse_other(self.endpoint.is_some(), "subscription")?;
            return Address::parse_email(self.mail_address.ok_or_else(|| missing("address"))?);
        }
        if self.service == PushService::WebPush {
            refuse_other(self.token.is_some(), "token")?;
            return Address::parse_webpush(self.endpoint.ok_or_else(|| missing("subscription"))?);
        }
        refuse_other(self.endpoint.is_some(), "subscription")?;
        let token = self.token.ok_or_else(|| missing("token"))?;
        if self.service == PushService::Fcm {
            return Address::parse_fcm(token);
        }
        Address::parse_apns(token, self.environment.unwrap_or(Environment::Production))
    }
}

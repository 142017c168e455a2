//! The rows, one for each code: outcome, HTTP status, and what happened in words.

use super::Row;
use crate::outcome::{Code, Kind};

#[expect(clippy::too_many_lines, reason = "a table, one row for each code")]
pub(super) const fn row(code: Code) -> Row {
    match code {
        Code::Accepted => row_of(Kind::Accepted, 201, "the push service accepted the message"),
        Code::RouteUnknown => refused(404, "there is no such resource"),
        Code::MethodNotAllowed => refused(405, "the resource does not know this method"),
        Code::HeaderDuplicate => refused(400, "the header may be sent only once"),
        Code::ContentTypeInvalid => refused(415, "the body must be sent as application/json"),
        Code::BodyTooLarge => refused(413, "the body is larger than the relay takes"),
        Code::BodyTimeout => refused(408, "the body did not arrive in time"),
        Code::JsonMalformed => refused(400, "the body is not one JSON object"),
        Code::MessageMalformed => refused(400, "the message is not the one that the method takes"),
        Code::MemberUnknown => refused(400, "the member is not known"),
        Code::MemberMissing => refused(400, "the member is required"),
        Code::MemberDuplicate => refused(400, "the member may be given only once"),
        Code::MemberInvalid => refused(400, "the member has a wrong type or value"),
        Code::TtlMissing => refused(400, "the TTL header is required (RFC 8030 section 5.2)"),
        Code::TtlInvalid => {
            refused(400, "the TTL must be a number of seconds (RFC 8030 section 5.2)")
        }
        Code::UrgencyInvalid => {
            refused(400, "the urgency must be very-low, low, normal or high (RFC 8030 section 5.3)")
        }
        Code::TimeoutInvalid => refused(400, "the timeout must be a number of milliseconds"),
        Code::TopicInvalid => {
            refused(400, "the topic must be 1 to 32 characters of base64url (RFC 8030 section 5.4)")
        }
        Code::ContentEncodingInvalid => {
            refused(400, "the content encoding must be aes128gcm (RFC 8291 section 4)")
        }
        Code::BodyNotAes128gcm => refused(
            400,
            "the body is not one aes128gcm record under a P-256 key (RFC 8188, RFC 8291 section 4)",
        ),
        Code::ContentTooLarge => {
            refused(413, "the content does not fit this device: see max_body_bytes")
        }
        Code::VapidMissing => refused(401, "a VAPID authorization is required (RFC 8292)"),
        Code::VapidMalformed => refused(
            401,
            "the authorization is not of the form: vapid t=<ES256 JWT>, k=<public key> (RFC 8292)",
        ),
        Code::VapidKeyInvalid => {
            refused(401, "k is not an uncompressed P-256 public key in base64url")
        }
        Code::VapidSignatureInvalid => refused(401, "the signature of t does not verify under k"),
        Code::VapidExpired => refused(401, "exp has passed"),
        Code::VapidLifetimeTooLong => refused(401, "exp is further ahead than the relay allows"),
        Code::VapidAudienceWrong => refused(403, "aud is not the origin of this relay"),
        Code::VapidSubjectInvalid => refused(401, "sub is neither a mailto: nor an https: URI"),
        Code::HandleInvalid => {
            refused(404, "the handle does not open, has expired, or is bound to another key")
        }
        Code::NasNotEnrolled => refused(403, "no NAS is enrolled under this key"),
        Code::NasSuspended => refused(403, "the operator has suspended this NAS"),
        Code::EnrolmentTokenInvalid => {
            refused(403, "an enrolment token of the operator is required, and each works once")
        }
        Code::KeyInUse => refused(400, "the new key is enrolled for another NAS"),
        Code::KeyProofInvalid => {
            refused(403, "the proof is not a valid VAPID authorization by the new key")
        }
        Code::AppUnknown => refused(404, "there is no such app here"),
        Code::ServiceNotConfigured => {
            refused(400, "the app has no credentials for this push service here")
        }
        Code::DeviceTokenInvalid => {
            refused(400, "the device token is not of the form that its push service gives")
        }
        Code::EndpointNotAllowed => refused(
            400,
            "the endpoint is not an https URL of a push service that this relay reaches",
        ),
        Code::AddressInvalid => refused(
            400,
            "the address is not of the form name@example.com, in ASCII and without quotes",
        ),
        Code::PlainNotAllowed => refused(403, "the app takes sealed content only"),
        Code::SealedMissing => refused(400, "this target needs sealed content"),
        Code::PlainMissing => refused(400, "a mail address takes plain content, never sealed"),
        Code::UnsubscribeLinkInvalid => refused(404, "the link is not one of this relay's"),
        Code::Overloaded => not_now(503, "the relay has too many requests in work"),
        Code::SenderRateExceeded => not_now(429, "this sender's rate is used up"),
        Code::DeviceRateExceeded => not_now(429, "the rate of messages to this device is used up"),
        Code::TooManyStreams => not_now(429, "this sender has too many streams open"),
        Code::TwinUnderWay => not_now(
            503,
            "the same notification to this device is under way; its fate is not known yet",
        ),
        Code::Draining => not_now(503, "the relay is shutting down"),
        Code::StoreUnavailable => not_now(503, "the identity store does not answer"),
        Code::PushServiceBusy => {
            not_now(503, "no stream to the push service came free in time; nothing was sent")
        }
        Code::PushServiceUnreachable => {
            not_now(503, "the push service cannot be reached, or keeps failing; nothing was sent")
        }
        Code::OauthUnavailable => {
            not_now(503, "the token endpoint of the push service does not answer; nothing was sent")
        }
        Code::NoAnswer => {
            row_of(Kind::Unknown, 504, "sent, but the push service did not answer in time")
        }
        Code::CredentialUnavailable => {
            misconfigured(502, "the relay has no usable credential for this app and push service")
        }
        Code::OauthRefused => {
            misconfigured(502, "the token endpoint refused the relay's service account")
        }
        Code::MassGoneSuspected => misconfigured(
            502,
            "too many devices look dead at once; the credential is suspected, not the device",
        ),
        Code::InternalFault => misconfigured(500, "a fault of this relay"),
        Code::ApnsBadDeviceToken => {
            row_of(Kind::Gone, 410, "APNs: the token is not one of this environment")
        }
        Code::ApnsUnregistered => {
            row_of(Kind::Gone, 410, "APNs: the token is no longer active for the app")
        }
        Code::ApnsExpiredToken => row_of(Kind::Gone, 410, "APNs: the token has expired"),
        Code::ApnsTooManyRequests => not_now(429, "APNs: too many messages to this device"),
        Code::ApnsTooManyProviderTokenUpdates => {
            not_now(503, "APNs: the provider token was renewed too often")
        }
        Code::ApnsOtherThrottle => {
            not_now(503, "APNs: throttled, for a reason that is not documented")
        }
        Code::ApnsIdleTimeout => not_now(503, "APNs: the connection had been idle too long"),
        Code::ApnsInternalServerError => not_now(503, "APNs: a fault at Apple"),
        Code::ApnsServiceUnavailable => not_now(503, "APNs: Apple's service is unavailable"),
        Code::ApnsShutdown => not_now(503, "APNs: Apple's server is shutting down"),
        Code::ApnsOtherServerError => not_now(503, "APNs: a fault at Apple that is not documented"),
        Code::ApnsPayloadTooLarge => refused(413, "APNs: the payload is too large"),
        Code::ApnsBadCollapseId => misconfigured(502, "APNs: the collapse id is bad"),
        Code::ApnsBadExpirationDate => misconfigured(502, "APNs: the expiration is bad"),
        Code::ApnsBadMessageId => misconfigured(502, "APNs: the apns-id is bad"),
        Code::ApnsBadPriority => misconfigured(502, "APNs: the priority is bad"),
        Code::ApnsBadTopic => misconfigured(502, "APNs: the topic is bad"),
        Code::ApnsDeviceTokenNotForTopic => misconfigured(502, "APNs: the token is of another app"),
        Code::ApnsDuplicateHeaders => misconfigured(502, "APNs: a header was sent twice"),
        Code::ApnsInvalidPushType => misconfigured(502, "APNs: the push type is bad"),
        Code::ApnsMissingDeviceToken => misconfigured(502, "APNs: the token is missing"),
        Code::ApnsMissingTopic => misconfigured(502, "APNs: the topic is missing"),
        Code::ApnsPayloadEmpty => misconfigured(502, "APNs: the payload is empty"),
        Code::ApnsTopicDisallowed => {
            misconfigured(502, "APNs: the credential may not push to this topic")
        }
        Code::ApnsBadCertificate => misconfigured(502, "APNs: the certificate is bad"),
        Code::ApnsBadCertificateEnvironment => {
            misconfigured(502, "APNs: the certificate is of the other environment")
        }
        Code::ApnsExpiredProviderToken => {
            misconfigured(502, "APNs: the provider token has expired, even after a renewal")
        }
        Code::ApnsForbidden => misconfigured(502, "APNs: the action is forbidden"),
        Code::ApnsInvalidProviderToken => {
            misconfigured(502, "APNs: the provider token is not valid")
        }
        Code::ApnsMissingProviderToken => misconfigured(502, "APNs: the provider token is missing"),
        Code::ApnsUnrelatedKeyIdInToken => {
            misconfigured(502, "APNs: the key is not related to this connection's")
        }
        Code::ApnsBadEnvironmentKeyIdInToken => {
            misconfigured(502, "APNs: the key is of the other environment")
        }
        Code::ApnsBadPath => misconfigured(502, "APNs: the path is bad"),
        Code::ApnsMethodNotAllowed => misconfigured(502, "APNs: the method is not POST"),
        Code::ApnsOtherRejection => {
            misconfigured(502, "APNs: refused for a reason that is not documented")
        }
        Code::FcmUnregistered => {
            row_of(Kind::Gone, 410, "FCM: the app was uninstalled or the token has expired")
        }
        Code::FcmQuotaExceeded => not_now(429, "FCM: too many messages to this device"),
        Code::FcmProjectQuotaExceeded => not_now(429, "FCM: the project's quota is used up"),
        Code::FcmOtherThrottle => {
            not_now(429, "FCM: throttled, for a reason that is not documented")
        }
        Code::FcmInternal => not_now(503, "FCM: a fault at Google"),
        Code::FcmUnavailable => not_now(503, "FCM: Google's service is overloaded"),
        Code::FcmOtherServerError => not_now(503, "FCM: a fault at Google that is not documented"),
        Code::FcmInvalidArgument => refused(400, "FCM: the token or the message is not valid"),
        Code::FcmBadRequest => misconfigured(502, "FCM: the request is malformed"),
        Code::FcmUnauthenticated => {
            misconfigured(502, "FCM: the access token was refused, even after a renewal")
        }
        Code::FcmThirdPartyAuthError => {
            misconfigured(502, "FCM: the project's own APNs or Web Push credential is bad")
        }
        Code::FcmSenderIdMismatch => {
            misconfigured(502, "FCM: the token belongs to another project")
        }
        Code::FcmPermissionDenied => {
            misconfigured(502, "FCM: the service account may not send, or the API is off")
        }
        Code::FcmProjectNotFound => misconfigured(502, "FCM: there is no such project"),
        Code::FcmOtherRejection => {
            misconfigured(502, "FCM: refused for a reason that is not documented")
        }
        Code::WebpushSubscriptionUnknown => {
            row_of(Kind::Gone, 410, "Web Push: there is no such subscription")
        }
        Code::WebpushSubscriptionExpired => {
            row_of(Kind::Gone, 410, "Web Push: the subscription has ended")
        }
        Code::WebpushUserGone => row_of(Kind::Gone, 410, "Web Push: the browser's user is gone"),
        Code::WebpushThrottled => not_now(429, "Web Push: too many messages to this subscription"),
        Code::WebpushIdleTimeout => not_now(503, "Web Push: the connection had been idle too long"),
        Code::WebpushShutdown => not_now(503, "Web Push: the server is shutting down"),
        Code::WebpushBridgeFault => not_now(503, "Web Push: the service's own bridge failed"),
        Code::WebpushServerError => not_now(503, "Web Push: a fault at the push service"),
        Code::WebpushUnavailable => not_now(503, "Web Push: the push service is unavailable"),
        Code::WebpushPayloadTooLarge => refused(413, "Web Push: the payload is too large"),
        Code::WebpushCryptoRejected => {
            refused(400, "Web Push: the encryption headers were refused")
        }
        Code::WebpushRouterInvalid => {
            refused(400, "Web Push: the endpoint's router type is not valid")
        }
        Code::WebpushTtlRejected => misconfigured(502, "Web Push: the TTL was refused"),
        Code::WebpushTopicRejected => misconfigured(502, "Web Push: the topic was refused"),
        Code::WebpushUrgencyRejected => misconfigured(502, "Web Push: the urgency was refused"),
        Code::WebpushRequestRejected => misconfigured(502, "Web Push: the request was refused"),
        Code::WebpushVapidRejected => {
            misconfigured(502, "Web Push: the relay's VAPID token was refused")
        }
        Code::WebpushVapidKeyMismatch => misconfigured(
            502,
            "Web Push: the subscription was made with another application server key",
        ),
        Code::WebpushPathRejected => misconfigured(502, "Web Push: the path was refused"),
        Code::WebpushMethodRejected => misconfigured(502, "Web Push: the method was refused"),
        Code::WebpushRedirected => {
            misconfigured(502, "Web Push: the endpoint redirects, and redirects are not followed")
        }
        Code::EmailUnsubscribed => {
            row_of(Kind::Gone, 410, "e-mail: the owner of the address has unsubscribed")
        }
        Code::EmailMailboxUnknown => {
            row_of(Kind::Gone, 410, "e-mail: there is no such mailbox, or it takes no mail")
        }
        Code::EmailMailboxFull => not_now(503, "e-mail: the mailbox is full"),
        Code::EmailDeferred => not_now(503, "e-mail: the server asks to come again later"),
        Code::EmailThrottled => not_now(429, "e-mail: the server takes no more for now"),
        Code::EmailServerUnavailable => not_now(503, "e-mail: the server is shutting down"),
        Code::EmailTooLarge => refused(413, "e-mail: the message is too large"),
        Code::EmailLoginRefused => {
            misconfigured(502, "e-mail: the server refuses the relay's login, or wants one")
        }
        Code::EmailTlsUnavailable => misconfigured(502, "e-mail: no TLS with the server"),
        Code::EmailSenderRefused => misconfigured(502, "e-mail: the server refuses the sender"),
        Code::EmailPolicyRefused => {
            misconfigured(502, "e-mail: refused by the server's policy, not for the mailbox")
        }
        Code::EmailProtocolError => misconfigured(502, "e-mail: the server does not speak SMTP"),
        Code::EmailOtherRejection => {
            misconfigured(502, "e-mail: refused for a reason that is not documented")
        }
        Code::WebpushOtherRejection => {
            misconfigured(502, "Web Push: refused for a reason that is not documented")
        }
    }
}

const fn refused(http: u16, text: &'static str) -> Row {
    row_of(Kind::Refused, http, text)
}

const fn not_now(http: u16, text: &'static str) -> Row {
    row_of(Kind::NotNow, http, text)
}

const fn misconfigured(http: u16, text: &'static str) -> Row {
    row_of(Kind::Misconfigured, http, text)
}

const fn row_of(kind: Kind, http: u16, text: &'static str) -> Row {
    Row { kind, http, text }
}

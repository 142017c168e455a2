//! Every stable code, in one closed list: senders, metrics and docs/errors.md know no other.

/// Declares the codes with their labels, so that the list and the labels cannot drift.
macro_rules! codes {
    ($($variant:ident $label:literal)*) => {
        /// Why a message ended as it did. The label is stable and part of the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "docs/errors.md describes each, as a test checks")]
        pub enum Code {
            $($variant,)*
        }

        impl Code {
            /// Every code, in the order of docs/errors.md.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Gives the label that answers, metrics and docs/errors.md use.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

codes! {
    // The push service took it.
    Accepted "accepted"
    // Refused at our doors: form
    RouteUnknown "route_unknown"
    MethodNotAllowed "method_not_allowed"
    HeaderDuplicate "header_duplicate"
    ContentTypeInvalid "content_type_invalid"
    BodyTooLarge "body_too_large"
    BodyTimeout "body_timeout"
    JsonMalformed "json_malformed"
    MessageMalformed "message_malformed"
    MemberUnknown "member_unknown"
    MemberMissing "member_missing"
    MemberDuplicate "member_duplicate"
    MemberInvalid "member_invalid"
    TtlMissing "ttl_missing"
    TtlInvalid "ttl_invalid"
    UrgencyInvalid "urgency_invalid"
    TimeoutInvalid "timeout_invalid"
    TopicInvalid "topic_invalid"
    ContentEncodingInvalid "content_encoding_invalid"
    BodyNotAes128gcm "body_not_aes128gcm"
    ContentTooLarge "content_too_large"
    // Refused at our doors: authority
    VapidMissing "vapid_missing"
    VapidMalformed "vapid_malformed"
    VapidKeyInvalid "vapid_key_invalid"
    VapidSignatureInvalid "vapid_signature_invalid"
    VapidExpired "vapid_expired"
    VapidLifetimeTooLong "vapid_lifetime_too_long"
    VapidAudienceWrong "vapid_audience_wrong"
    VapidSubjectInvalid "vapid_subject_invalid"
    HandleInvalid "handle_invalid"
    NasNotEnrolled "nas_not_enrolled"
    NasSuspended "nas_suspended"
    EnrolmentTokenInvalid "enrolment_token_invalid"
    KeyInUse "key_in_use"
    KeyProofInvalid "key_proof_invalid"
    AppUnknown "app_unknown"
    ServiceNotConfigured "service_not_configured"
    DeviceTokenInvalid "device_token_invalid"
    EndpointNotAllowed "endpoint_not_allowed"
    AddressInvalid "address_invalid"
    PlainNotAllowed "plain_not_allowed"
    SealedMissing "sealed_missing"
    PlainMissing "plain_missing"
    UnsubscribeLinkInvalid "unsubscribe_link_invalid"
    // Not now, by ourselves
    Overloaded "overloaded"
    SenderRateExceeded "sender_rate_exceeded"
    DeviceRateExceeded "device_rate_exceeded"
    TooManyStreams "too_many_streams"
    TwinUnderWay "twin_under_way"
    Draining "draining"
    StoreUnavailable "store_unavailable"
    PushServiceBusy "push_service_busy"
    PushServiceUnreachable "push_service_unreachable"
    OauthUnavailable "oauth_unavailable"
    // Sent, but no answer
    NoAnswer "no_answer"
    // The operator's fault, found by ourselves
    CredentialUnavailable "credential_unavailable"
    OauthRefused "oauth_refused"
    MassGoneSuspected "mass_gone_suspected"
    InternalFault "internal_fault"
    // APNs (reference: Apple, "Handling notification responses from APNs")
    ApnsBadCollapseId "apns_bad_collapse_id"
    ApnsBadDeviceToken "apns_bad_device_token"
    ApnsBadExpirationDate "apns_bad_expiration_date"
    ApnsBadMessageId "apns_bad_message_id"
    ApnsBadPriority "apns_bad_priority"
    ApnsBadTopic "apns_bad_topic"
    ApnsDeviceTokenNotForTopic "apns_device_token_not_for_topic"
    ApnsDuplicateHeaders "apns_duplicate_headers"
    ApnsIdleTimeout "apns_idle_timeout"
    ApnsInvalidPushType "apns_invalid_push_type"
    ApnsMissingDeviceToken "apns_missing_device_token"
    ApnsMissingTopic "apns_missing_topic"
    ApnsPayloadEmpty "apns_payload_empty"
    ApnsTopicDisallowed "apns_topic_disallowed"
    ApnsBadCertificate "apns_bad_certificate"
    ApnsBadCertificateEnvironment "apns_bad_certificate_environment"
    ApnsExpiredProviderToken "apns_expired_provider_token"
    ApnsForbidden "apns_forbidden"
    ApnsInvalidProviderToken "apns_invalid_provider_token"
    ApnsMissingProviderToken "apns_missing_provider_token"
    ApnsUnrelatedKeyIdInToken "apns_unrelated_key_id_in_token"
    ApnsBadEnvironmentKeyIdInToken "apns_bad_environment_key_id_in_token"
    ApnsBadPath "apns_bad_path"
    ApnsMethodNotAllowed "apns_method_not_allowed"
    ApnsUnregistered "apns_unregistered"
    ApnsExpiredToken "apns_expired_token"
    ApnsPayloadTooLarge "apns_payload_too_large"
    ApnsTooManyProviderTokenUpdates "apns_too_many_provider_token_updates"
    ApnsTooManyRequests "apns_too_many_requests"
    ApnsInternalServerError "apns_internal_server_error"
    ApnsServiceUnavailable "apns_service_unavailable"
    ApnsShutdown "apns_shutdown"
    ApnsOtherRejection "apns_other_rejection"
    ApnsOtherThrottle "apns_other_throttle"
    ApnsOtherServerError "apns_other_server_error"
    // FCM (reference: Google, FCM v1 ErrorCode)
    FcmBadRequest "fcm_bad_request"
    FcmInvalidArgument "fcm_invalid_argument"
    FcmUnauthenticated "fcm_unauthenticated"
    FcmThirdPartyAuthError "fcm_third_party_auth_error"
    FcmSenderIdMismatch "fcm_sender_id_mismatch"
    FcmPermissionDenied "fcm_permission_denied"
    FcmUnregistered "fcm_unregistered"
    FcmProjectNotFound "fcm_project_not_found"
    FcmQuotaExceeded "fcm_quota_exceeded"
    FcmProjectQuotaExceeded "fcm_project_quota_exceeded"
    FcmInternal "fcm_internal"
    FcmUnavailable "fcm_unavailable"
    FcmOtherRejection "fcm_other_rejection"
    FcmOtherThrottle "fcm_other_throttle"
    FcmOtherServerError "fcm_other_server_error"
    // Web Push (RFC 8030, RFC 8292; Mozilla's errno, Apple's reasons, WNS's statuses)
    WebpushCryptoRejected "webpush_crypto_rejected"
    WebpushRouterInvalid "webpush_router_invalid"
    WebpushTtlRejected "webpush_ttl_rejected"
    WebpushTopicRejected "webpush_topic_rejected"
    WebpushUrgencyRejected "webpush_urgency_rejected"
    WebpushRequestRejected "webpush_request_rejected"
    WebpushVapidRejected "webpush_vapid_rejected"
    WebpushVapidKeyMismatch "webpush_vapid_key_mismatch"
    WebpushSubscriptionUnknown "webpush_subscription_unknown"
    WebpushSubscriptionExpired "webpush_subscription_expired"
    WebpushUserGone "webpush_user_gone"
    WebpushPathRejected "webpush_path_rejected"
    WebpushMethodRejected "webpush_method_rejected"
    WebpushPayloadTooLarge "webpush_payload_too_large"
    WebpushThrottled "webpush_throttled"
    WebpushRedirected "webpush_redirected"
    WebpushIdleTimeout "webpush_idle_timeout"
    WebpushShutdown "webpush_shutdown"
    WebpushBridgeFault "webpush_bridge_fault"
    WebpushServerError "webpush_server_error"
    WebpushUnavailable "webpush_unavailable"
    WebpushOtherRejection "webpush_other_rejection"
    // E-mail (RFC 5321 replies, RFC 3463 and 7505 enhanced codes, RFC 4954 and 3207)
    EmailUnsubscribed "email_unsubscribed"
    EmailMailboxUnknown "email_mailbox_unknown"
    EmailMailboxFull "email_mailbox_full"
    EmailDeferred "email_deferred"
    EmailThrottled "email_throttled"
    EmailServerUnavailable "email_server_unavailable"
    EmailTooLarge "email_too_large"
    EmailLoginRefused "email_login_refused"
    EmailTlsUnavailable "email_tls_unavailable"
    EmailSenderRefused "email_sender_refused"
    EmailPolicyRefused "email_policy_refused"
    EmailProtocolError "email_protocol_error"
    EmailOtherRejection "email_other_rejection"
}

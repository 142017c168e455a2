//! The gRPC contract of sns-relay: messages, client and server, generated from
//! `sns/relay/v1/relay.proto`; and what sealed bodies hold, from `sns/device/v1/content.proto`.
//!
//! What each call and member means, with its limits and statuses, is written in those files;
//! nothing is here but what was generated from them. The relay's gRPC door and its clients both
//! build on this crate; the relay itself never touches [`device`].

pub mod codec;

/// Package `sns.relay.v1`.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        reason = "generated; the documentation is in the .proto file, and a test holds it there"
    )]

    tonic::include_proto!("sns.relay.v1");
}

/// Package `sns.device.v1`: what a NAS and its devices say to each other under seal.
pub mod device {
    /// Package `sns.device.v1`.
    pub mod v1 {
        #![allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            reason = "generated; the documentation is in the .proto file, and a test holds it there"
        )]

        tonic::include_proto!("sns.device.v1");
    }
}

/// The encoded `google.protobuf.FileDescriptorSet` of the contract, for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("relay");

/// The encoded `google.protobuf.FileDescriptorSet` of the sealed content.
pub const CONTENT_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("content");

//! The gRPC contract of sns-relay: messages, client and server, generated from
//! `sns/relay/v1/relay.proto`.
//!
//! What each call means, with its limits and statuses, is written in that file; nothing is here but
//! what was generated from it. The relay's gRPC door and its clients both build on this crate.

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

/// The encoded `google.protobuf.FileDescriptorSet` of the contract, for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("relay");

//! One call of gRPC `Stream`, kept full: all messages on it, and every acknowledgement checked.
//!
//! In: mail. Out: a tally. An acknowledgement names a message that is in flight and has one result,
//! or the turn fails: a relay that loses or doubles one would otherwise look fast.

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Request, StatusCode};
use prost::Message as _;
use sns_proto::v1;
use tokio::time::Instant;

use super::super::MeasureError;
use super::super::pace::Tally;
use super::line::grpc_status;
use super::mail::Mail;

/// An open call.
pub(crate) struct Stream {
    messages: SendStream<Bytes>,
    acknowledgements: RecvStream,
    inbox: BytesMut,
    _connection: SendRequest<Bytes>,
}

const GRPC_HEAD_BYTES: usize = 5;

// === impl Stream ===

impl Stream {
    /// Opens the call.
    /// Errors: the relay does not take it.
    pub(crate) async fn open(
        connection: SendRequest<Bytes>,
        call: Request<()>,
    ) -> Result<Stream, MeasureError> {
        let mut connection = connection.ready().await?;
        let (answer, messages) = connection.send_request(call, false)?;
        let (head, acknowledgements) = answer.await?.into_parts();
        if head.status != StatusCode::OK || head.headers.contains_key("grpc-status") {
            return Err(MeasureError::Missing("a stream"));
        }
        let inbox = BytesMut::new();
        Ok(Stream { messages, acknowledgements, inbox, _connection: connection })
    }

    /// Sends so many messages from number `first` on, so many of them at once, reads every
    /// acknowledgement and ends the call.
    /// Errors: an acknowledgement of no message in flight, or the call's end before its time.
    pub(crate) async fn carry(
        &mut self,
        mail: &Mail,
        first: usize,
        messages: usize,
        in_flight: usize,
    ) -> Result<Tally, MeasureError> {
        let mut tally = Tally::new()?;
        // The sequence number is the place, from 1 on.
        let mut sent: Vec<Option<Instant>> = Vec::with_capacity(messages);
        let mut ended = 0;
        while ended < messages {
            let more = (messages - sent.len()).min(in_flight - (sent.len() - ended));
            if more > 0 {
                let mut bytes = BytesMut::new();
                let now = Instant::now();
                for _ in 0..more {
                    sent.push(Some(now));
                    mail.put(first + sent.len() - 1, sent.len(), &mut bytes);
                }
                self.messages.send_data(bytes.freeze(), sent.len() == messages)?;
            }
            self.read().await?;
            while let Some(told) = self.acknowledgement()? {
                let place = usize::try_from(told.sequence).ok().and_then(|n| n.checked_sub(1));
                let sent_at = place.and_then(|place| sent.get_mut(place)?.take());
                let sent_at = sent_at.ok_or(MeasureError::Missing("each acknowledgement once"))?;
                let [result] = &told.results[..] else {
                    return Err(MeasureError::Missing("one result for each message"));
                };
                let other = result.outcome() != v1::Outcome::Accepted;
                tally.note(sent_at.elapsed(), other.then(|| result.reason.clone()));
                ended += 1;
            }
        }
        self.end().await?;
        Ok(tally)
    }

    async fn read(&mut self) -> Result<(), MeasureError> {
        let chunk = self.acknowledgements.data().await;
        let chunk = chunk.ok_or(MeasureError::Missing("every acknowledgement"))??;
        self.acknowledgements.flow_control().release_capacity(chunk.len())?;
        self.inbox.extend_from_slice(&chunk);
        Ok(())
    }

    /// Takes the next one that is there as a whole.
    fn acknowledgement(&mut self) -> Result<Option<v1::StreamResponse>, MeasureError> {
        let Some(head) = self.inbox.first_chunk::<GRPC_HEAD_BYTES>() else { return Ok(None) };
        let [0, length @ ..] = *head else {
            return Err(MeasureError::Missing("acknowledgements without compression"));
        };
        let end = GRPC_HEAD_BYTES + u32::from_be_bytes(length) as usize;
        if self.inbox.len() < end {
            return Ok(None);
        }
        let mut message = self.inbox.split_to(end);
        message.advance(GRPC_HEAD_BYTES);
        let told = v1::StreamResponse::decode(message);
        told.map(Some).map_err(|_| MeasureError::Missing("acknowledgements of the contract"))
    }

    async fn end(&mut self) -> Result<(), MeasureError> {
        if self.acknowledgements.data().await.is_some() {
            return Err(MeasureError::Missing("no more than the acknowledgements"));
        }
        match self.acknowledgements.trailers().await?.as_ref().and_then(grpc_status) {
            Some("0") => Ok(()),
            _ => Err(MeasureError::Missing("a good end of the stream")),
        }
    }
}

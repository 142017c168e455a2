//! Reading a body: never more than its limit, never longer than its time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time;

use crate::outcome::{Code, Refusal};

/// Reads a whole body; a body that comes in one piece is not copied.
/// Units: bytes; the time runs from the end of the headers.
/// Errors: `body_too_large` as soon as it is, `body_timeout`, and `body_timeout` too for a body
/// that breaks off.
pub async fn read<B>(body: B, bytes_max: usize, timeout: Duration) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Refusal::new(Code::BodyTooLarge));
    }
    match time::timeout(timeout, collect(body, bytes_max)).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::new(Code::BodyTimeout)),
    }
}

async fn collect<B>(mut body: B, bytes_max: usize) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::new(Code::BodyTimeout))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > bytes_max {
            return Err(Refusal::new(Code::BodyTooLarge));
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn a_body_at_its_limit_is_read_and_one_byte_more_is_not() {
        let body = |length: usize| Full::new(Bytes::from(vec![b'x'; length]));
        let timeout = Duration::from_secs(1);
        assert_eq!(read(body(10), 10, timeout).await.unwrap().len(), 10);
        assert_eq!(read(body(11), 10, timeout).await.unwrap_err().code, Code::BodyTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_ends_at_its_timeout() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        sender.send(Bytes::from_static(b"x")).await.unwrap();
        let body = ChannelBody(receiver);
        let refusal = read(body, 10, Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(refusal.code, Code::BodyTimeout);
        drop(sender);
    }

    struct ChannelBody(tokio::sync::mpsc::Receiver<Bytes>);

    impl Body for ChannelBody {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            self.0.poll_recv(context).map(|data| data.map(|data| Ok(http_body::Frame::data(data))))
        }
    }
}

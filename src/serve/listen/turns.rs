//! HTTP/1.1: one request after the other, and between them, when it is quiet, no buffers.
//!
//! A connection that has been at rest for a while is taken back from hyper, whose buffers go. What
//! hyper had read and not understood yet goes back to the line. A busy connection never comes here.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::pin;
use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::life::Life;
use super::line::Line;
use super::{Port, stopped};

/// A connection that has been at rest for this long gives its buffers up.
const REST: Duration = Duration::from_millis(200);

/// What a connection's next move was.
enum Turn {
    /// It is over.
    Ended,
    /// It has had its number of requests: the one in work is the last.
    Last,
}

// === impl Port ===

impl Port {
    /// Answers until the connection rests, and gives the line back then; nothing where it ended.
    pub(super) async fn take_turns<S>(
        &self,
        line: Line<S>,
        life: &Arc<Life>,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<Line<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| life.enter(self.doors.handle(request)));
        let mut connection = self.http1.serve_connection(TokioIo::new(line), service);
        let stopped = stopped(stop);
        let look = time::sleep(REST.min(self.silence_max()));
        pin!(stopped, look);
        let requests_before = life.requests();
        let mut leaving = false;
        loop {
            let turn = poll_fn(|context| match connection.poll_without_shutdown(context) {
                Poll::Ready(_) => Poll::Ready(Turn::Ended),
                Poll::Pending if !leaving && life.is_worn_out() => Poll::Ready(Turn::Last),
                Poll::Pending => Poll::Pending,
            });
            let rests = tokio::select! {
                biased;
                turn = turn => match turn {
                    Turn::Ended => {
                        let _ = connection.into_parts().io.into_inner().shutdown().await;
                        return None;
                    }
                    Turn::Last => false,
                },
                () = &mut stopped, if !leaving => false,
                () = &mut look => {
                    let now = Instant::now();
                    let rests_since = life.rests_since(now);
                    let silent = rests_since.map(|since| now - since).unwrap_or_default();
                    if silent >= self.silence_max() {
                        return None;
                    }
                    look.as_mut().reset(now + REST.min(self.silence_max() - silent));
                    // Before its first request, hyper would take this for a wish to leave.
                    let has_asked = life.requests() > requests_before;
                    if leaving || !has_asked || silent < REST {
                        continue;
                    }
                    true
                }
            };
            leaving = true;
            Pin::new(&mut connection).graceful_shutdown();
            if rests {
                // At rest, hyper ends at once, without a word; else it ends after what it is at.
                let ended = poll_fn(|context| {
                    Poll::Ready(connection.poll_without_shutdown(context).is_ready())
                });
                if ended.await {
                    let parts = connection.into_parts();
                    let mut line = parts.io.into_inner();
                    line.put_back(&parts.read_buf);
                    return Some(line);
                }
            }
        }
    }
}

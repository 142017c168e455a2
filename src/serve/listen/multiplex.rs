//! HTTP/2: many requests at once on one connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::pin;
use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::life::Life;
use super::line::Line;
use super::{Port, stopped};
use crate::provider::upstream::Rest;

// === impl Port ===

impl Port {
    /// Answers until the connection ends.
    pub(super) async fn multiplex<S>(
        &self,
        line: Line<S>,
        life: &Arc<Life>,
        stop: &mut watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| life.enter(self.doors.handle(request)));
        let connection = self.http2.serve_connection(TokioIo::new(line), service);
        let stopped = stopped(stop);
        let look = time::sleep(self.begin_timeout);
        pin!(connection, stopped, look);
        let mut leaving = false;
        let mut rest = Rest::default();
        loop {
            // Answers that are ready leave together: every task that is ready goes first.
            let moved_on = poll_fn(|context| {
                if rest.is_due(context) {
                    return Poll::Pending;
                }
                let ended = connection.as_mut().poll(context).map(|_| true);
                let worn_out = ended.is_pending() && !leaving && life.is_worn_out();
                if worn_out { Poll::Ready(false) } else { ended }
            });
            tokio::select! {
                biased;
                ended = moved_on => match ended {
                    true => return,
                    false => leaving = true,
                },
                () = &mut stopped, if !leaving => leaving = true,
                () = &mut look => {
                    let now = Instant::now();
                    match life.rests_since(now) {
                        Some(_) if leaving || life.requests() == 0 => return,
                        Some(since) if now < since + self.idle_timeout => {
                            look.as_mut().reset(since + self.idle_timeout);
                        }
                        Some(_) => {
                            leaving = true;
                            look.as_mut().reset(now + self.begin_timeout);
                        }
                        None => look.as_mut().reset(now + self.idle_timeout),
                    }
                }
            }
            if leaving {
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

//! One program on the host.

use crate::error::Error;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use russh::ChannelMsg;
use russh::client::Msg;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What comes back from a program.
#[derive(Debug)]
pub(crate) enum Event {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The program has ended with this status; a signal counts as 128 + n.
    Exit(u32),
    /// Nothing more will come.
    Closed,
}

/// A running program. Its output must be read: an unread channel stops the whole connection.
pub(crate) struct Exec {
    read: russh::ChannelReadHalf,
    write: Arc<russh::ChannelWriteHalf<Msg>>,
    send: Option<BoxFuture<'static, Result<(), russh::Error>>>,
    host: String,
    /// Whether the program's input stays open.
    stays: bool,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Exec {
    fn drop(&mut self) {
        if self.stays {
            // The end of its input ends a program that stays. When it cannot be sent at once, the connection's end does.
            self.write.eof().now_or_never();
        }
    }
}

impl Exec {
    pub(super) fn new(
        channel: russh::Channel<Msg>,
        permit: OwnedSemaphorePermit,
        input: Bytes,
        stays: bool,
        host: String,
    ) -> Self {
        let (read, write) = channel.split();
        let mut exec = Exec { read, write: Arc::new(write), send: None, host, stays, _permit: permit };
        exec.input(input);
        exec
    }

    fn input(&mut self, input: Bytes) {
        let (write, before, last) = (self.write.clone(), self.send.take(), !self.stays);
        self.send = Some(Box::pin(async move {
            if let Some(before) = before {
                before.await?;
            }
            write.data_bytes(input).await?;
            if last { write.eof().await } else { Ok(()) }
        }));
    }

    /// Sends more input to a program that stays; it goes out while events are awaited.
    pub(crate) fn tell(&mut self, text: String) {
        self.feed(text.into());
    }

    /// The same for bytes.
    pub(crate) fn feed(&mut self, bytes: Bytes) {
        self.input(bytes);
    }

    /// The same for a line that may as well be left out: it is, while other input is still on its way.
    pub(crate) fn nudge(&mut self) {
        if self.send.is_none() {
            self.tell("\n".to_owned());
        }
    }

    /// The next event. The input is sent meanwhile: a writer that waits for window is not woken by the end of the
    /// channel, therefore both are polled together.
    ///
    /// **Cancel**: safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let message = match self.send.as_mut() {
                Some(send) => tokio::select! {
                    biased;
                    message = self.read.wait() => message,
                    _sent = send => {
                        self.send = None;
                        continue;
                    }
                },
                None => self.read.wait().await,
            };
            return match message {
                None | Some(ChannelMsg::Close) => Event::Closed,
                Some(ChannelMsg::Data { data }) => Event::Stdout(data),
                Some(ChannelMsg::ExtendedData { data, .. }) => Event::Stderr(data),
                Some(ChannelMsg::ExitStatus { exit_status }) => Event::Exit(exit_status),
                Some(ChannelMsg::ExitSignal { .. }) => Event::Exit(255),
                Some(_) => continue,
            };
        }
    }

    /// Collects the whole output of a short program, at most `limit` bytes of it.
    ///
    /// **Errors**: `Lost` when the channel ended without an exit status.
    pub(crate) async fn collect(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let (mut out, mut ended) = (Vec::new(), false);
        loop {
            match self.next().await {
                Event::Stdout(data) => {
                    let room = limit.saturating_sub(out.len());
                    out.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                }
                Event::Stderr(_) => {}
                Event::Exit(_) => ended = true,
                Event::Closed if ended => return Ok(out),
                Event::Closed => {
                    return Err(Error::Lost {
                        host: self.host.clone(),
                        why: "the channel ended without an exit status".into(),
                    });
                }
            }
        }
    }
}

//! One script unit: start it, stream its output into the log, survive lost connections, end it on request.

use crate::command::Job;
use crate::error::Error;
use crate::holder::{self, Ended, Found, Greeting, Script, StreamEnd};
use crate::session::{Event, Lease};
use crate::talk::{Next, Talk};
use bytes::Bytes;
use executor_api::{Level, Stream, UnitLog};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The position of one stream.
struct Position {
    /// Bytes given to the log so far, over all connections.
    taken: u64,
    /// Offset that the host was told of.
    acknowledged: u64,
    end: Option<StreamEnd>,
}

impl Position {
    fn ended(&self) -> Option<&Ended> {
        self.end.as_ref().and_then(StreamEnd::ended)
    }
}

/// How one connection's part of following ended.
enum Part {
    Ended(Ended),
    /// The follower is gone and the host has to be asked.
    Gone(String),
}

/// A unit being followed.
pub(crate) struct Follow<'a> {
    job: &'a Job<'a>,
    key: &'a str,
    log: Arc<dyn UnitLog>,
    out: Position,
    err: Position,
}

impl<'a> Follow<'a> {
    /// Begins where the log's durable part ends.
    pub(crate) fn new(job: &'a Job<'a>, key: &'a str, log: Arc<dyn UnitLog>) -> Self {
        let at = |stream| {
            let taken = log.resume_at(stream);
            Position { taken, acknowledged: taken, end: None }
        };
        let (out, err) = (at(Stream::Stdout), at(Stream::Stderr));
        Follow { job, key, log, out, err }
    }

    /// Starts the units, the first of which is this one, or attaches to it, and follows it to its end. When the units
    /// before it were started with it, their follower goes on to it.
    ///
    /// **Errors**: those of the host; a lost connection only when it stays lost until the deadline.
    /// **Cancel**: the script runs on. **Repeat**: attaches.
    pub(crate) async fn run(&mut self, units: &[(&str, Script<'_>)]) -> Result<Ended, Error> {
        let mut confirmed = self.job.attach_only.load(Ordering::Relaxed);
        let mut quick_ends = 0u32;
        let mut onward =
            self.job.onward(self.key).await.filter(|_| (self.out.taken, self.err.taken) == (0, 0));
        loop {
            let before = (self.out.taken, self.err.taken);
            let (session, part) = match onward.take() {
                Some((mut talk, next)) => {
                    confirmed = true;
                    let part = self.go_on(&mut talk, next).await;
                    (self.keep(talk, &part), part)
                }
                None => {
                    let session = self.job.patient(confirmed, self.log.as_ref()).await?;
                    let nonce = holder::random_word();
                    let program = if confirmed {
                        holder::attach(&nonce, self.key, before)
                    } else {
                        holder::boot(&nonce, units, self.job.settings().spool_limit, before)
                    };
                    match session.talk(program).await {
                        Ok(exec) => {
                            let mut talk = Talk::new(exec, session, nonce);
                            let part = self.begin(&mut talk, units, &mut confirmed).await;
                            (self.keep(talk, &part), part)
                        }
                        Err(error) => (session, Err(error)),
                    }
                }
            };
            let why = match part {
                Ok(Part::Ended(ended)) => return Ok(ended),
                Ok(Part::Gone(why)) => why,
                Err(error) if error.is_transient() => error.to_string(),
                Err(error) => return Err(error),
            };
            if session.is_closed() {
                let text = format!(
                    "Connection to {} lost ({why}); the script runs on, connecting again",
                    session.host
                );
                self.log.line(Level::Warn, &text).await?;
                continue;
            }
            if (self.out.taken, self.err.taken) != before {
                quick_ends = 0;
            }
            // The connection is fine, so the host can say how the unit stands.
            match self.job.look(&session, self.key).await {
                Ok(Found::Ended(ended)) => {
                    // Its end mark did not come through: the disk of the host was full, or the spooler was killed.
                    quick_ends += 1;
                    if (self.out.taken, self.err.taken) == before && quick_ends > 2 {
                        let text =
                            "The end of the output is missing: the spool on the host was cut (disk full?)";
                        self.log.line(Level::Warn, text).await?;
                        return Ok(ended);
                    }
                }
                Ok(Found::Vanished(evidence)) => {
                    return Err(Error::Vanished { host: session.host.clone(), evidence });
                }
                Ok(Found::Running) => {
                    quick_ends += 1;
                    if quick_ends > 20 {
                        return Err(Error::Protocol { what: format!("the follower ends at once: {why}") });
                    }
                    self.job.pause().await;
                }
                Ok(Found::Never) if confirmed => {
                    let evidence = "its folder is gone from the host".to_owned();
                    return Err(Error::Vanished { host: session.host.clone(), evidence });
                }
                Ok(Found::Never) => {
                    quick_ends += 1;
                    if quick_ends > 3 {
                        return Err(Error::Protocol {
                            what: format!("the script could not be started: {why}"),
                        });
                    }
                    self.job.pause().await;
                }
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A follower that has come to the end marks is kept for what comes next. Returns its connection.
    fn keep(&mut self, mut talk: Talk, part: &Result<Part, Error>) -> Lease {
        let lease = talk.lease.clone();
        if let Ok(Part::Ended(_)) = part {
            let after = |position: &mut Position| position.end.take().map(StreamEnd::into_after);
            talk.out = after(&mut self.out).unwrap_or_default();
            talk.err = after(&mut self.err).unwrap_or_default();
            self.job.keep(talk);
        }
        lease
    }

    async fn begin(
        &mut self,
        talk: &mut Talk,
        units: &[(&str, Script<'_>)],
        confirmed: &mut bool,
    ) -> Result<Part, Error> {
        let (exec, session) = (&mut talk.exec, &talk.lease);
        let mut greeting = Greeting::new(&talk.nonce);
        let mut noise = String::new();
        // Whatever stderr brings before the greeting comes from login scripts or the shell, not from the unit.
        let first = loop {
            match exec.next().await {
                Event::Stdout(data) => match greeting.feed(&data) {
                    Ok(Some(found)) => break found,
                    Ok(None) => {}
                    Err(what) => return Err(Error::Protocol { what }),
                },
                Event::Stderr(data) => {
                    if noise.len() < 300 {
                        noise.push_str(&String::from_utf8_lossy(&data));
                    }
                }
                Event::Exit(code) => {
                    let why = format!("exit {code} {} {}", greeting.so_far(), noise.trim());
                    return Ok(Part::Gone(why.trim().to_owned()));
                }
                Event::Closed => return Ok(Part::Gone("the channel was closed".into())),
            }
        };
        let (line, rest) = first;
        let mut words = line.splitn(3, ' ');
        let token = match (words.next(), words.next()) {
            (Some("started" | "attached"), Some(token)) => token.to_owned(),
            (Some("refused"), why) => {
                let why = format!("{} {}", why.unwrap_or_default(), words.next().unwrap_or_default());
                return Err(Error::Folder { host: session.host.clone(), why: why.trim().to_owned() });
            }
            (Some("stopped"), _) => {
                return Err(Error::Protocol { what: "the script was stopped before it began".into() });
            }
            (Some("never"), _) => return Ok(Part::Gone("the unit is not there".into())),
            _ => return Err(Error::Protocol { what: format!("unknown greeting `{line}`") }),
        };
        *confirmed = true;
        let count: usize = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
        talk.keys = units.iter().take(count).skip(1).map(|(key, _)| (*key).to_owned()).collect();
        self.go_on(talk, Next { token, out: rest, err: Bytes::new() }).await
    }

    /// Follows a unit that has been announced.
    async fn go_on(&mut self, talk: &mut Talk, next: Next) -> Result<Part, Error> {
        self.out.end = Some(StreamEnd::new(&next.token));
        self.err.end = Some(StreamEnd::new(&next.token));
        self.take(Stream::Stdout, next.out).await?;
        self.take(Stream::Stderr, next.err).await?;
        let (exec, session) = (&mut talk.exec, &talk.lease);
        let mut ack: Option<BoxFuture<'_, Result<(u64, u64), Error>>> = None;
        let step = (self.job.settings().spool_limit / 16).max(64 << 10);
        loop {
            if let (Some(out), Some(_)) = (self.out.ended(), self.err.ended()) {
                let ended = out.clone();
                self.log.end_of_stream(Stream::Stdout).await?;
                self.log.end_of_stream(Stream::Stderr).await?;
                return Ok(Part::Ended(ended));
            }
            if ack.is_none()
                && (self.out.taken - self.out.acknowledged >= step
                    || self.err.taken - self.err.acknowledged >= step)
            {
                ack = Some(Box::pin(acknowledge(self.job, session, self.key, self.log.clone())));
            }
            let event = match ack.as_mut() {
                Some(running) => tokio::select! {
                    event = exec.next() => event,
                    done = running => {
                        ack = None;
                        // A failed one is made up for by the next.
                        if let Ok((out, err)) = done {
                            self.out.acknowledged = out.max(self.out.acknowledged);
                            self.err.acknowledged = err.max(self.err.acknowledged);
                        }
                        continue;
                    }
                },
                None => exec.next().await,
            };
            match event {
                Event::Stdout(data) => self.take(Stream::Stdout, data).await?,
                Event::Stderr(data) => self.take(Stream::Stderr, data).await?,
                Event::Exit(_) => {}
                Event::Closed => return Ok(Part::Gone("the channel was closed".into())),
            }
        }
    }

    async fn take(&mut self, stream: Stream, data: Bytes) -> Result<(), Error> {
        let position = match stream {
            Stream::Stdout => &mut self.out,
            Stream::Stderr => &mut self.err,
        };
        let Some(end) = position.end.as_mut() else { return Ok(()) };
        let output = end.feed(data);
        if !output.is_empty() {
            position.taken += output.len() as u64;
            self.log.write(stream, output).await?;
        }
        Ok(())
    }
}

/// Waits until what was written is durable on the agent, and lets the host delete that much.
async fn acknowledge(
    job: &Job<'_>,
    session: &Lease,
    key: &str,
    log: Arc<dyn UnitLog>,
) -> Result<(u64, u64), Error> {
    let upto = (log.durable(Stream::Stdout).await?, log.durable(Stream::Stderr).await?);
    job.ask(session, |nonce| holder::ack(nonce, key, upto)).await?;
    Ok(upto)
}

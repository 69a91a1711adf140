//! One script unit: start it, stream its output into the log, survive lost connections, end it on request.

use crate::command::Job;
use crate::error::Error;
use crate::holder::{self, Ended, Found, Greeting, Script, StreamEnd};
use crate::session::{Event, Lease};
use crate::talk::Talk;
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
    /// Where in the spool the unit's part begins.
    base: u64,
    /// Where in the spool the bytes end that have come.
    at: u64,
    /// Units in the spool before this one that are still to pass.
    before: u64,
    /// Bytes of the unit that come although the log has them.
    known: u64,
    end: Option<StreamEnd>,
}

impl Position {
    fn ended(&self) -> Option<&Ended> {
        self.end.as_ref().filter(|_| self.before == 0).and_then(StreamEnd::ended)
    }

    /// A stream of which comes what begins at `base`: `before` units, and then this one.
    fn begin(&mut self, token: &str, before: u64, base: u64) {
        (self.before, self.base) = (before, base);
        // A host that does not know where the unit's part begins sends all of it.
        (self.at, self.known) = if before > 0 { (base, self.taken) } else { (base + self.taken, 0) };
        self.end = Some(StreamEnd::new(token));
    }

    /// Takes a chunk and returns what of it is new output of the unit. **Errors**: too much to keep.
    fn feed(&mut self, token: &str, mut data: Bytes) -> Result<Bytes, Error> {
        self.at += data.len() as u64;
        loop {
            let Some(end) = self.end.as_mut() else { return Ok(Bytes::new()) };
            let mut output = end.feed(data);
            if self.before == 0 {
                let known = self.known.min(output.len() as u64);
                self.known -= known;
                return Ok(output.split_off(usize::try_from(known).unwrap_or(0)));
            }
            if end.ended().is_none() {
                return Ok(Bytes::new());
            }
            data = self.rest()?;
            self.before -= 1;
            self.base = self.at - data.len() as u64;
            self.end = Some(StreamEnd::new(token));
        }
    }

    /// What has come after the mark.
    fn rest(&mut self) -> Result<Bytes, Error> {
        let rest = self.end.take().map(StreamEnd::into_after).unwrap_or_default();
        rest.ok_or_else(|| Error::Protocol { what: "one stream is far ahead of the other".into() })
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
    token: String,
    out: Position,
    err: Position,
}

impl<'a> Follow<'a> {
    /// Begins where the log's durable part ends.
    pub(crate) fn new(job: &'a Job<'a>, key: &'a str, log: Arc<dyn UnitLog>) -> Self {
        let at = |stream| {
            let taken = log.resume_at(stream);
            // What an earlier agent told the host of is not known. It may be so little that the script waits for room.
            Position { taken, acknowledged: 0, base: 0, at: 0, before: 0, known: 0, end: None }
        };
        let (out, err) = (at(Stream::Stdout), at(Stream::Stderr));
        Follow { job, key, log, token: String::new(), out, err }
    }

    /// Starts the units, the first of which is this one, or attaches to it, and follows it to its end. When the units
    /// before it were started with it, their follower goes on to it.
    ///
    /// **Errors**: those of the host; a lost connection only when it stays lost until the deadline.
    /// **Cancel**: the script runs on. **Repeat**: attaches.
    pub(crate) async fn run(&mut self, units: &[(&str, Script<'_>)]) -> Result<Ended, Error> {
        let mut confirmed = self.job.attach_only.load(Ordering::Relaxed);
        let mut quick_ends = 0u32;
        let mut onward = self.job.onward(self.key).filter(|_| (self.out.taken, self.err.taken) == (0, 0));
        loop {
            let before = (self.out.taken, self.err.taken);
            let (session, part) = match onward.take() {
                Some(mut talk) => {
                    confirmed = true;
                    let part = self.take_over(&mut talk).await;
                    self.keep(talk, part)
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
                            let part = self.begin(&mut talk, &mut confirmed).await;
                            self.keep(talk, part)
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
    fn keep(&mut self, mut talk: Talk, part: Result<Part, Error>) -> (Lease, Result<Part, Error>) {
        let lease = talk.lease.clone();
        if let Ok(Part::Ended(ended)) = &part
            && self.out.end.is_some()
        {
            let rest = self.out.rest().and_then(|out| Ok((out, self.err.rest()?)));
            match rest {
                Ok((out, err)) => {
                    talk.at = (self.out.at - out.len() as u64, self.err.at - err.len() as u64);
                    (talk.out, talk.err) = (out, err);
                    talk.next.clone_from(&ended.next);
                    self.job.keep(talk);
                }
                // The next unit is attached to.
                Err(error) => tracing::debug!(%error, "a follower is given up"),
            }
        }
        (lease, part)
    }

    /// Goes on in the streams that the unit before has left off.
    async fn take_over(&mut self, talk: &mut Talk) -> Result<Part, Error> {
        self.token.clone_from(&talk.token);
        self.out.begin(&talk.token, 0, talk.at.0);
        self.err.begin(&talk.token, 0, talk.at.1);
        let (out, err) = (std::mem::take(&mut talk.out), std::mem::take(&mut talk.err));
        self.go_on(talk, out, err).await
    }

    async fn begin(&mut self, talk: &mut Talk, confirmed: &mut bool) -> Result<Part, Error> {
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
        let (word, words) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        match word {
            "started" | "attached" => {}
            "ended" => {
                *confirmed = true;
                let ended = Ended::parse(words);
                let what = || Error::Protocol { what: format!("unknown greeting `{line}`") };
                self.log.end_of_stream(Stream::Stdout).await?;
                self.log.end_of_stream(Stream::Stderr).await?;
                return ended.map(Part::Ended).ok_or_else(what);
            }
            "refused" => {
                return Err(Error::Folder { host: session.host.clone(), why: words.to_owned() });
            }
            "stopped" => {
                return Err(Error::Protocol { what: "the script was stopped before it began".into() });
            }
            "never" => return Ok(Part::Gone("the unit is not there".into())),
            _ => return Err(Error::Protocol { what: format!("unknown greeting `{line}`") }),
        }
        *confirmed = true;
        let mut words = words.split(' ');
        self.token = words.next().unwrap_or_default().to_owned();
        talk.token.clone_from(&self.token);
        let mut number = || words.next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let (before, out, err) = (number(), number(), number());
        self.out.begin(&self.token, before, out);
        self.err.begin(&self.token, before, err);
        self.go_on(talk, rest, Bytes::new()).await
    }

    /// Follows a unit that has been announced; of its outputs this has come.
    async fn go_on(&mut self, talk: &mut Talk, out: Bytes, err: Bytes) -> Result<Part, Error> {
        self.take(Stream::Stdout, out).await?;
        self.take(Stream::Stderr, err).await?;
        let (exec, session, pace) = (&mut talk.exec, &talk.lease, &mut talk.pace);
        let mut ack: Option<BoxFuture<'_, Result<(u64, u64), Error>>> = None;
        // More than two segments of units that share a spool: a unit that is acknowledged in parts is their last one.
        let step = (self.job.settings().spool_limit / 16).max(256 << 10);
        loop {
            if let (Some(out), Some(_)) = (self.out.ended(), self.err.ended()) {
                let ended = out.clone();
                self.log.end_of_stream(Stream::Stdout).await?;
                self.log.end_of_stream(Stream::Stderr).await?;
                return Ok(Part::Ended(ended));
            }
            // Where the unit's part begins is known once the units before it have passed on both streams.
            if ack.is_none()
                && (self.out.before, self.err.before) == (0, 0)
                && (self.out.taken - self.out.acknowledged >= step
                    || self.err.taken - self.err.acknowledged >= step)
            {
                let base = (self.out.base, self.err.base);
                ack = Some(Box::pin(acknowledge(self.job, session, self.key, base, self.log.clone())));
            }
            let acknowledged = async {
                match ack.as_mut() {
                    Some(running) => running.await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                event = exec.next() => event,
                () = self.job.cx.clock.sleep(pace.pause()) => {
                    exec.nudge();
                    pace.looked();
                    continue;
                }
                done = acknowledged => {
                    ack = None;
                    // A failed one is made up for by the next.
                    if let Ok((out, err)) = done {
                        self.out.acknowledged = out.max(self.out.acknowledged);
                        self.err.acknowledged = err.max(self.err.acknowledged);
                    }
                    continue;
                }
            };
            match event {
                Event::Stdout(data) => {
                    pace.came(data.len());
                    self.take(Stream::Stdout, data).await?;
                }
                Event::Stderr(data) => {
                    pace.came(data.len());
                    self.take(Stream::Stderr, data).await?;
                }
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
        let output = position.feed(&self.token, data)?;
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
    base: (u64, u64),
    log: Arc<dyn UnitLog>,
) -> Result<(u64, u64), Error> {
    let upto = (log.durable(Stream::Stdout).await?, log.durable(Stream::Stderr).await?);
    job.ask(session, |nonce| holder::ack(nonce, key, base, upto)).await?;
    Ok(upto)
}

//! Keeps a copy of a collection up to date: list once, then watch; list again only after 410.

use super::wire::{Event, Selector, Trouble, Wire};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// First pause after a failure; doubled up to [`SLOWEST`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const SLOWEST: Duration = Duration::from_secs(3);

/// One change of a collection.
#[derive(Debug)]
pub(crate) enum Delta<T> {
    /// All of it.
    All(Vec<T>),
    /// A new or changed object.
    Put(T),
    /// A removed object, as it was last.
    Gone(T),
}

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum News<T> {
    Delta(Delta<T>),
    /// It does not get through at the moment and goes on trying.
    Troubled(Trouble),
    /// It got through again.
    Well,
    /// The server refuses; the watch is over.
    Refused {
        code: u16,
        message: String,
    },
}

/// Follows a collection until the receiver is gone or the server refuses.
///
/// **Cancel**: safe to drop at any point.
///
/// It goes on from the place `from` in history, or begins with a list.
pub(crate) async fn follow<T: DeserializeOwned>(
    wire: &Wire,
    path: &str,
    selector: &Selector,
    from: Option<String>,
    to: &Sender<(usize, super::Change)>,
    id: usize,
    wrap: fn(News<T>) -> super::Change,
) {
    let mut pause = FIRST_PAUSE;
    let mut well = true;
    let mut version = from;
    loop {
        let trouble =
            match round(wire, path, selector, &mut version, &mut well, &mut pause, to, id, wrap).await {
                Ok(()) => return,
                Err(trouble) => trouble,
            };
        let wait = match &trouble {
            Trouble::Expired => {
                version = None;
                // The next list is the answer; a pause guards against a server that says so for ever.
                pause
            }
            Trouble::Throttled(span) => *span,
            Trouble::Unreachable(_) => pause,
            Trouble::Refused { code, message } => {
                let refused = News::Refused { code: *code, message: message.clone() };
                let _nobody_waits_any_more = to.send((id, wrap(refused))).await;
                return;
            }
        };
        if trouble != Trouble::Expired {
            well = false;
            if to.send((id, wrap(News::Troubled(trouble)))).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(SLOWEST);
    }
}

/// One list if needed, and watches until one fails. `Ok`: nobody listens any more.
#[expect(clippy::too_many_arguments, reason = "The state of `follow`, which lives over rounds.")]
async fn round<T: DeserializeOwned>(
    wire: &Wire,
    path: &str,
    selector: &Selector,
    version: &mut Option<String>,
    well: &mut bool,
    pause: &mut Duration,
    to: &Sender<(usize, super::Change)>,
    id: usize,
    wrap: fn(News<T>) -> super::Change,
) -> Result<(), Trouble> {
    // The first watch after a list is part of it.
    let mut resumes = version.is_some();
    let mut at = match version.clone() {
        Some(at) => at,
        None => {
            let listed = wire.list::<T>(path, selector).await?;
            *version = Some(listed.version.clone());
            if to.send((id, wrap(News::Delta(Delta::All(listed.items))))).await.is_err() {
                return Ok(());
            }
            listed.version
        }
    };
    loop {
        if std::mem::replace(&mut resumes, true) {
            wire.resumes();
        }
        let mut watching = wire.watch::<T>(path, selector, &at).await?;
        if !std::mem::replace(well, true) && to.send((id, wrap(News::Well))).await.is_err() {
            return Ok(());
        }
        let mut quiet = true;
        while let Some(event) = watching.next().await? {
            quiet = false;
            *pause = FIRST_PAUSE;
            let delta = match event {
                Event::Bookmark(version) => {
                    at = version;
                    None
                }
                Event::Put(object, version) => {
                    at = version;
                    Some(Delta::Put(object))
                }
                Event::Gone(object, version) => {
                    at = version;
                    Some(Delta::Gone(object))
                }
            };
            *version = Some(at.clone());
            if let Some(delta) = delta
                && to.send((id, wrap(News::Delta(delta)))).await.is_err()
            {
                return Ok(());
            }
        }
        if quiet {
            // A server that ends each watch at once (it goes down) must not be asked in a loop.
            return Err(Trouble::Unreachable("it ended the watch".into()));
        }
    }
}

impl<T> News<T> {
    /// The same without what it is about; `None` for a delta.
    pub(crate) fn without_delta(self) -> Option<News<()>> {
        match self {
            News::Delta(_) => None,
            News::Troubled(trouble) => Some(News::Troubled(trouble)),
            News::Well => Some(News::Well),
            News::Refused { code, message } => Some(News::Refused { code, message }),
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

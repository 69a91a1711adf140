//! Answers that bring a pack, over HTTP or SSH, and what there is instead of one.

use super::ssh;
use crate::error;
use crate::http::{Access, Answer};
use executor_api::StepError;
use url::Url;

/// A fetch that brought no pack.
pub(super) enum Failed {
    Step(StepError),
    /// The server refused in words of its own.
    Refused(String),
}

impl From<StepError> for Failed {
    fn from(error: StepError) -> Self {
        Failed::Step(error)
    }
}

impl Failed {
    pub(super) fn classify(self, url: &Url) -> StepError {
        match self {
            Failed::Step(error) => error,
            Failed::Refused(words) => {
                let words: String = words.chars().take(300).collect();
                error::unexpected(
                    url,
                    format!("it refused the fetch: {words}"),
                    "a Git server that hands out one commit",
                )
            }
        }
    }
}

/// An answer that brings a pack.
pub(super) enum Chunks<'a> {
    Http(&'a mut Answer),
    Ssh(ssh::Reply<'a>),
}

impl Chunks<'_> {
    pub(super) async fn next(
        &mut self,
        access: &Access,
        base: &Url,
    ) -> Result<Option<bytes::Bytes>, StepError> {
        match self {
            Chunks::Http(answer) => answer.chunk(access).await,
            Chunks::Ssh(reply) => reply.next(access, base).await,
        }
    }
}

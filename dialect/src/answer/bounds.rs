//! How large an answer may become.

use std::borrow::Cow;

/// An answer has at most so many bytes. Whether the manager has a limit of its own is not known; this one keeps agent and
/// manager from choking on a single task.
pub const MAX_ANSWER: usize = 16 << 20;

/// Bytes of a failure's message, and of its hint.
pub(super) const MAX_MESSAGE: usize = 64 << 10;

/// Bytes of a name: of a pod, a label, an ARN.
pub(super) const MAX_NAME: usize = 4 << 10;

/// Bytes of a body: of an HTTP response, of rendered manifests. A lean answer has [`MAX_MESSAGE`].
pub(super) const MAX_BODY: usize = 5 << 20;

/// Pods or tasks of one answer; each becomes an instance of the service in the manager.
pub(super) const MAX_INSTANCES: usize = 10_000;

/// Entries of a list or map inside one instance: containers, labels.
pub(super) const MAX_PARTS: usize = 200;

/// A text of at most `limit` bytes and a word about what is missing, cut between characters.
pub(super) fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kept = text.get(..end).unwrap_or_default();
    Cow::Owned(format!("{kept}… ({} more bytes)", text.len() - end))
}

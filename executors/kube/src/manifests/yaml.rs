//! YAML documents within limits, and the tags of their images.

use super::fetch::File;
use super::{Document, error};
use executor_api::{StepContext, StepError};
use proto::task::ArtifactSource;
use saphyr_parser::{Event, Parser, ScanError, Span};
use std::collections::BTreeMap;

/// All documents of a manifest together. Ten times what the largest sets have that we know of.
const MAX_BYTES: usize = 10 << 20;
/// Deepest nesting of a document.
const MAX_DEPTH: usize = 100;
/// Most values of a document, aliases counted by what they expand to: this is what stops a YAML bomb.
const MAX_VALUES: usize = 1_000_000;

/// How much has been read so far, over all files of a manifest.
#[derive(Default)]
pub(super) struct Size(usize);

/// Splits a file into documents and checks each. Documents without content are left out.
pub(super) fn documents(file: &str, text: &str, size: &mut Size) -> Result<Vec<String>, StepError> {
    size.0 = size.0.saturating_add(text.len());
    if size.0 > MAX_BYTES {
        let problem = format!("with this file the manifest has more than {} MiB", MAX_BYTES >> 20);
        return Err(error::too_much(file, &problem));
    }
    if let Some(at) = text.find('\0') {
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        return Err(error::unreadable(file, line, "holds a NUL byte; expected text"));
    }
    let text = text.trim_start_matches('\u{feff}');
    let mut documents = Vec::new();
    // A line that begins with `---` or `...` ends a document wherever it stands, also inside of scalars.
    let mut rest = Vec::new();
    let mut first = 1;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = |marker: &str| {
            line.strip_prefix(marker)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        };
        if marker("---") || marker("...") {
            take(file, &mut rest, first, &mut documents)?;
            first = number + 1;
            // What follows on the line of a `---` belongs to the new document: a comment, or content.
            let after = line.get(3..).unwrap_or_default();
            rest.push(if line.starts_with("---") { after } else { "\n" });
        } else {
            rest.push(line);
        }
    }
    take(file, &mut rest, first, &mut documents)?;
    Ok(documents)
}

fn take(
    file: &str,
    lines: &mut Vec<&str>,
    first: usize,
    documents: &mut Vec<String>,
) -> Result<(), StepError> {
    let lines = std::mem::take(lines);
    let says_nothing = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with('%')
    };
    if lines.iter().all(says_nothing) {
        return Ok(());
    }
    let text = lines.concat();
    let looked = look(file, &text, first)?;
    if looked.root != Root::Null {
        if looked.root != Root::Map {
            let problem = "the document is no mapping; expected an object with apiVersion, kind and metadata";
            return Err(error::unreadable(file, first + leading(&text), problem));
        }
        documents.push(text);
    }
    Ok(())
}

fn leading(text: &str) -> usize {
    text.lines().take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('#')).count()
}

/// Values are one mapping.
pub(super) fn check_values(file: &File) -> Result<(), StepError> {
    let found = documents(&file.path, &file.text, &mut Size::default());
    match found {
        Ok(documents) if documents.len() <= 1 => Ok(()),
        Ok(documents) => {
            let problem = format!("values are one document, these are {}", documents.len());
            Err(error::unreadable(&file.path, 1, &problem))
        }
        Err(mut wrong) => {
            wrong.what = wrong.what.replace(
                "expected an object with apiVersion, kind and metadata",
                "expected values, a mapping of names to values",
            );
            Err(wrong)
        }
    }
}

/// What stands at the top of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Null,
    Map,
    Other,
}

/// What was seen in a document.
struct Looked {
    root: Root,
    /// Where the values of `image` keys with the placeholder stand, in characters.
    images: Vec<Span>,
}

enum Open {
    List,
    /// The key whose value comes next.
    Map(Option<String>),
}

struct Frame {
    open: Open,
    anchor: usize,
    before: usize,
}

/// Walks through a document once, without building it: limits, the kind of its root, images.
fn look(file: &str, text: &str, first: usize) -> Result<Looked, StepError> {
    let mut looked = Looked { root: Root::Null, images: Vec::new() };
    let mut stack: Vec<Frame> = Vec::new();
    let mut anchors: BTreeMap<usize, usize> = BTreeMap::new();
    let mut values = 0usize;
    let syntax = |failed: &ScanError| {
        let line = first + failed.marker().line().saturating_sub(1);
        error::unreadable(file, line, &format!("is not valid YAML: {}", failed.info()))
    };
    for item in Parser::new_from_str(text) {
        let (event, span) = item.map_err(|failed| syntax(&failed))?;
        // What comes now is a key, a value of `key`, or an element.
        let begins = matches!(
            event,
            Event::Scalar(..) | Event::Alias(_) | Event::SequenceStart(..) | Event::MappingStart(..)
        );
        let mut key = None;
        let mut is_key = false;
        if begins {
            values += 1;
            match stack.last_mut().map(|frame| &mut frame.open) {
                Some(Open::Map(waiting)) => {
                    key = waiting.take();
                    is_key = key.is_none();
                }
                Some(Open::List) => {}
                None => {
                    looked.root = match &event {
                        Event::MappingStart(..) => Root::Map,
                        Event::Scalar(text, ..) if matches!(&**text, "" | "~" | "null") => Root::Null,
                        _ => Root::Other,
                    };
                }
            }
        }
        match event {
            Event::Scalar(value, _, anchor, _) => {
                if key.as_deref() == Some("image") && value.trim().ends_with(PLACEHOLDER) {
                    looked.images.push(span);
                }
                if is_key && let Some(Open::Map(waiting)) = stack.last_mut().map(|frame| &mut frame.open) {
                    *waiting = Some(value.into_owned());
                }
                if anchor > 0 {
                    anchors.insert(anchor, 1);
                }
            }
            Event::Alias(anchor) => {
                values = values.saturating_add(anchors.get(&anchor).copied().unwrap_or(1));
                if is_key && let Some(Open::Map(waiting)) = stack.last_mut().map(|frame| &mut frame.open) {
                    *waiting = Some(String::new());
                }
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if is_key {
                    let problem = "a key of a mapping is a collection; expected a text";
                    return Err(error::unreadable(
                        file,
                        first + span.start.line().saturating_sub(1),
                        problem,
                    ));
                }
                let open =
                    if matches!(event, Event::MappingStart(..)) { Open::Map(None) } else { Open::List };
                stack.push(Frame { open, anchor, before: values });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = stack.pop()
                    && frame.anchor > 0
                {
                    anchors.insert(frame.anchor, values.saturating_sub(frame.before) + 1);
                }
            }
            _ => {}
        }
        if stack.len() > MAX_DEPTH {
            return Err(error::too_much(file, &format!("is nested more than {MAX_DEPTH} levels deep")));
        }
        if values > MAX_VALUES {
            let problem =
                format!("holds more than {MAX_VALUES} values, aliases counted by what they stand for");
            return Err(error::too_much(file, &problem));
        }
    }
    Ok(looked)
}

/// What rule R13 replaces at the end of an image.
const PLACEHOLDER: &str = ":PLACEHOLDER_TAG";

/// What rule R13 did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tagged {
    /// How many images it were.
    pub(super) places: usize,
    /// The tag and where it is from; `None` when no image wanted one.
    pub(super) tag: Option<(String, &'static str)>,
}

/// R13: an image whose tag is exactly `PLACEHOLDER_TAG` gets the artifact's tag, else the service variable `imageTag`.
/// Nothing else is rewritten.
pub(super) fn put_image_tags(documents: &mut [Document], cx: &StepContext) -> Result<Tagged, StepError> {
    let mut tagged = Tagged::default();
    for document in documents {
        // Walking through a document is not free, and most have no placeholder.
        if !document.text.contains(PLACEHOLDER) {
            continue;
        }
        let images = look(&document.source, &document.text, 1)?.images;
        if images.is_empty() {
            continue;
        }
        let (tag, from) = tag(cx, &document.source)?;
        // From the back, so that places before are not moved.
        for span in images.iter().rev() {
            let start = byte_at(&document.text, span.start.index());
            let end = byte_at(&document.text, span.end.index());
            let scalar = document.text.get(start..end).unwrap_or_default();
            if let Some(at) = scalar.rfind(PLACEHOLDER) {
                let from = start + at + 1;
                document.text.replace_range(from..from + PLACEHOLDER.len() - 1, &tag);
                tagged.places += 1;
            }
        }
        tagged.tag = Some((tag, from));
    }
    Ok(tagged)
}

/// The parser counts characters.
fn byte_at(text: &str, chars: usize) -> usize {
    text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at)
}

/// The tag, and where it is from.
fn tag(cx: &StepContext, file: &str) -> Result<(String, &'static str), StepError> {
    let artifact = cx.task.artifact.as_ref().filter(|artifact| {
        let image =
            matches!(artifact.source, ArtifactSource::DockerRegistry { .. } | ArtifactSource::Ecr { .. });
        image && !artifact.tag.trim().is_empty()
    });
    let variable = cx.task.service.as_ref().and_then(|service| service.variables.get("imageTag"));
    let (tag, from) = match (artifact, variable) {
        (Some(artifact), _) => (artifact.tag.trim().to_owned(), "the artifact's tag"),
        (None, Some(variable)) => (variable.as_str().trim().to_owned(), "the service variable `imageTag`"),
        (None, None) => {
            let problem = format!(
                "{file}: an image has the tag PLACEHOLDER_TAG, and the service has neither an artifact nor a variable `imageTag`"
            );
            return Err(error::image_tag(&problem));
        }
    };
    let mut letters = tag.chars();
    let fits = letters.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-'))
        && tag.len() <= 128
        && tag != "PLACEHOLDER_TAG";
    if fits {
        Ok((tag, from))
    } else {
        Err(error::image_tag(&format!("{from} is `{tag}`, which is no tag of an image")))
    }
}

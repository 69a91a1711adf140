//! Text to trees, within limits.

use super::{Entry, Map, Node, Value};
use crate::fault::{Fault, Place};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Longest document. The longest real pipelines that we know are a tenth of this; the bound keeps the time and memory
/// of a refusal small.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Deepest nesting. Real pipelines stay under 40; everything that walks a tree recursively relies on this bound.
pub const MAX_DEPTH: usize = 100;

/// Most values in one file, aliases counted by what they expand to: this is what stops a YAML bomb.
pub const MAX_NODES: usize = 100_000;

/// Reads every document of a file. Empty documents are left out.
///
/// **Errors**: one fault per violated limit or duplicate key; a syntax error ends the reading, so it is the last one.
/// **Limits**: [`MAX_BYTES`], [`MAX_DEPTH`], [`MAX_NODES`].
pub fn parse_documents(source: &str, text: &str) -> Result<Vec<Node>, Vec<Fault>> {
    let start = Place::start(source);
    if text.len() > MAX_BYTES {
        let message = format!("the document has {} bytes; the limit is {MAX_BYTES}", text.len());
        return Err(vec![Fault::at(&start, "", message)]);
    }
    if let Some(fault) = crate::template::unrendered(source, text) {
        return Err(vec![fault]);
    }
    let mut builder = Builder::new(source);
    for item in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let stop = match item {
            Ok((event, span)) => builder.event(event, span.start),
            Err(error) => Err(builder.syntax(&error)),
        };
        if let Err(fault) = stop {
            builder.faults.push(*fault);
            break;
        }
    }
    if builder.faults.is_empty() { Ok(builder.documents) } else { Err(builder.faults) }
}

/// A collection that is being read.
enum Open {
    List {
        items: Vec<Node>,
        at: Place,
        anchor: usize,
        before: usize,
    },
    Map {
        map: Map,
        seen: HashSet<String>,
        /// Values of `<<`; what the map does not write itself is taken from them, the first one wins.
        merges: Vec<Node>,
        key: Option<(String, Place)>,
        at: Place,
        anchor: usize,
        before: usize,
    },
}

struct Builder {
    source: Arc<str>,
    stack: Vec<Open>,
    documents: Vec<Node>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    faults: Vec<Fault>,
}

impl Builder {
    fn new(source: &str) -> Self {
        Builder {
            source: source.into(),
            stack: Vec::new(),
            documents: Vec::new(),
            anchors: BTreeMap::new(),
            nodes: 0,
            faults: Vec::new(),
        }
    }

    fn place(&self, mark: Marker) -> Place {
        Place { source: self.source.clone(), line: mark.line() as u32, column: mark.col() as u32 + 1 }
    }

    fn syntax(&self, error: &ScanError) -> Box<Fault> {
        let place = self.place(*error.marker());
        Box::new(Fault::at(&place, self.path(), format!("is not valid YAML: {}", error.info())))
    }

    /// The path to what is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.stack {
            match open {
                Open::List { items, .. } => path.push_str(&format!("[{}]", items.len())),
                Open::Map { key: Some((key, _)), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Open::Map { key: None, .. } => {}
            }
        }
        path
    }

    fn event(&mut self, event: Event<'_>, mark: Marker) -> Result<(), Box<Fault>> {
        let at = self.place(mark);
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let is_null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value =
                    if is_null { Value::Null } else { Value::Scalar { text: text.into_owned(), plain } };
                self.count(1, &at)?;
                self.add(Node { value, at }, anchor, 1)
            }
            Event::SequenceStart(anchor, _) => {
                self.deeper(&at)?;
                let before = self.nodes;
                self.stack.push(Open::List { items: Vec::new(), at, anchor, before });
                Ok(())
            }
            Event::MappingStart(anchor, _) => {
                self.deeper(&at)?;
                let before = self.nodes;
                let (map, seen, merges) = (Map::default(), HashSet::new(), Vec::new());
                self.stack.push(Open::Map { map, seen, merges, key: None, at, anchor, before });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::List { items, at, anchor, before }) => {
                    let size = self.nodes - before + 1;
                    self.add(Node { value: Value::List(items), at }, anchor, size)
                }
                Some(Open::Map { mut map, mut seen, merges, at, anchor, before, .. }) => {
                    for merge in merges {
                        self.merge(&mut map, &mut seen, merge);
                    }
                    let size = self.nodes - before + 1;
                    self.add(Node { value: Value::Map(map), at }, anchor, size)
                }
                None => Ok(()),
            },
            Event::Alias(id) => match self.anchors.get(&id) {
                Some((node, size)) => {
                    let (node, size) = (node.clone(), *size);
                    self.count(size, &at)?;
                    self.add(node, 0, size)
                }
                None => Err(Box::new(Fault::at(&at, self.path(), "the alias stands inside its own anchor"))),
            },
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    /// Takes over what `map` does not write itself.
    fn merge(&mut self, map: &mut Map, seen: &mut HashSet<String>, from: Node) {
        match from.value {
            Value::Map(other) => {
                for entry in other.entries {
                    if seen.insert(entry.key.clone()) {
                        map.entries.push(entry);
                    }
                }
            }
            Value::List(list) => list.into_iter().for_each(|node| self.merge(map, seen, node)),
            Value::Null | Value::Scalar { .. } => {
                let path = self.path();
                self.faults.push(Fault::at(&from.at, path, "`<<` takes a map or a list of maps"));
            }
        }
    }

    fn deeper(&mut self, at: &Place) -> Result<(), Box<Fault>> {
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("the document is nested deeper than {MAX_DEPTH} levels");
            return Err(Box::new(Fault::at(at, "", message)));
        }
        self.count(1, at)
    }

    fn count(&mut self, more: usize, at: &Place) -> Result<(), Box<Fault>> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_NODES {
            let message =
                format!("the document has more than {MAX_NODES} values (aliases counted as expanded)");
            return Err(Box::new(Fault::at(at, self.path(), message)));
        }
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Box<Fault>> {
        // Anchors are numbered from 1; 0 means that there is none.
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let path = self.path();
        match self.stack.last_mut() {
            None => {
                if !node.is_null() {
                    self.documents.push(node);
                }
                Ok(())
            }
            Some(Open::List { items, .. }) => {
                items.push(node);
                Ok(())
            }
            Some(Open::Map { map, seen, merges, key, .. }) => match key.take() {
                None => match node.value {
                    Value::Scalar { text, .. } => {
                        *key = Some((text, node.at));
                        Ok(())
                    }
                    Value::Null => {
                        *key = Some(("null".to_owned(), node.at));
                        Ok(())
                    }
                    Value::List(_) | Value::Map(_) => {
                        Err(Box::new(Fault::at(&node.at, path, "a key must be a single value")))
                    }
                },
                Some((name, _)) if name == "<<" => {
                    merges.push(node);
                    Ok(())
                }
                Some((name, at)) => {
                    if seen.insert(name.clone()) {
                        map.entries.push(Entry { key: name, at, value: node });
                    } else {
                        let first = map.entries.iter().find(|entry| entry.key == name);
                        let line = first.map_or(0, |entry| entry.at.line);
                        let message = format!("`{name}` was written before, in line {line}");
                        self.faults.push(Fault::at(&at, path, message));
                    }
                    Ok(())
                }
            },
        }
    }
}

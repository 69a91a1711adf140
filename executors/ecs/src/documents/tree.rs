//! The text of a document as a tree with lines, before anybody knows what its members mean.
//!
//! Expressions are cut out before the text is parsed and put back as values afterwards, so that neither their own
//! characters nor their results can change the structure of the document.

use super::blocks::Blocks;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::Value;
use std::collections::BTreeMap;

/// Longest text of one file. A task definition has at most 64 KiB (ECS quota).
const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;
/// Most values in one file, aliases counted by what they stand for.
const MAX_VALUES: usize = 100_000;

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes: it may be a number, a boolean or nothing at all.
    Plain,
    /// In double quotes, as in JSON.
    Double,
    /// In single quotes or as a block.
    Other,
}

/// A value with the line on which it begins; 0 when it came from no text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Scalar {
        text: String,
        style: Style,
    },
    /// A scalar whose type is known: of a JSON document, or what an expression gave.
    Value(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// What is wrong with a text, and on which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) text: String,
}

fn problem(line: usize, text: impl Into<String>) -> Problem {
    Problem { line, text: text.into() }
}

impl From<Value> for Node {
    fn from(value: Value) -> Node {
        let content = match value {
            Value::Array(items) => Content::List(items.into_iter().map(Node::from).collect()),
            Value::Object(map) => {
                Content::Map(map.into_iter().map(|(key, value)| (key, Node::from(value))).collect())
            }
            scalar => Content::Value(scalar),
        };
        Node { line: 0, content }
    }
}

/// Every document of a text that holds anything, YAML or JSON, and the expressions that were cut out of it.
///
/// **Errors**: the first place that is neither.
pub(super) fn parse(text: &str) -> Result<(Vec<Node>, Blocks), Problem> {
    let (marked, blocks) = Blocks::cut(bounded(text)?).map_err(|(line, text)| problem(line, text))?;
    Ok((documents(&marked)?, blocks))
}

/// The same of a text in which nothing is an expression any more.
pub(super) fn parse_rendered(text: &str) -> Result<(Vec<Node>, Blocks), Problem> {
    Ok((documents(bounded(text)?)?, Blocks::default()))
}

fn bounded(text: &str) -> Result<&str, Problem> {
    if text.len() > MAX_BYTES {
        let most = MAX_BYTES >> 10;
        return Err(problem(1, format!("the file has {} bytes; at most {most} KiB are read", text.len())));
    }
    Ok(text.trim_start_matches('\u{feff}'))
}

fn documents(text: &str) -> Result<Vec<Node>, Problem> {
    match yaml(text) {
        // JSON that is no YAML: tabs, escaped surrogates. What is neither is told of as YAML.
        Err(wrong) => match serde_json::from_str::<Value>(text) {
            Ok(value) if within(&value, 0) => Ok(vec![Node::from(value)]),
            _ => Err(wrong),
        },
        documents => documents,
    }
}

fn within(value: &Value, depth: usize) -> bool {
    depth <= MAX_DEPTH
        && match value {
            Value::Array(items) => items.iter().all(|item| within(item, depth + 1)),
            Value::Object(map) => map.values().all(|item| within(item, depth + 1)),
            _ => true,
        }
}

fn yaml(text: &str) -> Result<Vec<Node>, Problem> {
    let mut builder = Builder::default();
    for item in Parser::new_from_str(text) {
        let (event, span) = item.map_err(|wrong| {
            problem(wrong.marker().line(), format!("is not valid YAML: {}", wrong.info()))
        })?;
        builder.event(event, span.start.line())?;
    }
    Ok(builder.documents)
}

enum Open {
    List(Vec<Node>),
    Map { entries: Vec<(String, Node)>, merged: Vec<Node>, key: Option<String> },
}

struct Frame {
    open: Open,
    line: usize,
    anchor: usize,
    before: usize,
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    documents: Vec<Node>,
    /// What an anchor stands for, and how many values that are.
    anchors: BTreeMap<usize, (Node, usize)>,
    values: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, line)?;
                let style = match style {
                    ScalarStyle::Plain if tag.is_some_and(|tag| tag.suffix == "str") => Style::Other,
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::DoubleQuoted => Style::Double,
                    _ => Style::Other,
                };
                let content = Content::Scalar { text: text.into_owned(), style };
                self.add(Node { line, content }, anchor, 1)
            }
            Event::SequenceStart(anchor, _) => self.open(Open::List(Vec::new()), anchor, line),
            Event::MappingStart(anchor, _) => {
                self.open(Open::Map { entries: Vec::new(), merged: Vec::new(), key: None }, anchor, line)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Frame { open, line, anchor, before }) = self.stack.pop() else { return Ok(()) };
                let size = self.values.saturating_sub(before) + 1;
                let content = match open {
                    Open::List(items) => Content::List(items),
                    Open::Map { mut entries, merged, .. } => {
                        for from in merged {
                            merge(&mut entries, from)?;
                        }
                        Content::Map(entries)
                    }
                };
                self.add(Node { line, content }, anchor, size)
            }
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((node, size)) => {
                    self.count(size, line)?;
                    self.add(node, 0, size)
                }
                None => Err(problem(line, "an alias stands inside of its own anchor")),
            },
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), Problem> {
        self.values = self.values.saturating_add(more);
        if self.values > MAX_VALUES {
            return Err(problem(line, format!("holds more than {MAX_VALUES} values, aliases expanded")));
        }
        Ok(())
    }

    fn open(&mut self, open: Open, anchor: usize, line: usize) -> Result<(), Problem> {
        self.count(1, line)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(problem(line, format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        self.stack.push(Frame { open, line, anchor, before: self.values });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.stack.last_mut().map(|frame| &mut frame.open) {
            None => {
                let nothing = matches!(&node.content,
                    Content::Scalar { text, style: Style::Plain } if is_null(text));
                if !nothing {
                    self.documents.push(node);
                }
            }
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map { entries, merged, key }) => match key.take() {
                None => match node.content {
                    Content::Scalar { text, .. } => *key = Some(text),
                    _ => return Err(problem(node.line, "a key is a list or a map; expected a text")),
                },
                Some(name) if name == "<<" => merged.push(node),
                Some(name) if entries.iter().any(|(other, _)| *other == name) => {
                    return Err(problem(node.line, format!("the key `{name}` is written twice")));
                }
                Some(name) => entries.push((name, node)),
            },
        }
        Ok(())
    }
}

/// `<<`: entries that the map does not have itself.
fn merge(entries: &mut Vec<(String, Node)>, from: Node) -> Result<(), Problem> {
    match from.content {
        Content::Map(more) => {
            for (key, node) in more {
                if entries.iter().all(|(other, _)| *other != key) {
                    entries.push((key, node));
                }
            }
            Ok(())
        }
        Content::List(items) => items.into_iter().try_for_each(|item| merge(entries, item)),
        _ => Err(problem(from.line, "`<<` names no map")),
    }
}

/// Whether a scalar without quotes says that there is no value.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// A scalar without quotes by the core rules of YAML 1.2, for members whose type nobody knows.
pub(super) fn resolve(text: &str) -> Value {
    if is_null(text) {
        return Value::Null;
    }
    match text {
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Value::from(whole);
    }
    let number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    let number = number.then(|| text.parse::<f64>().ok()).flatten().filter(|number| number.is_finite());
    number.map_or_else(|| Value::from(text), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain(node: &Node) -> Value {
        match &node.content {
            Content::Scalar { text, style: Style::Plain } => resolve(text),
            Content::Scalar { text, .. } => Value::from(text.as_str()),
            Content::Value(value) => value.clone(),
            Content::List(items) => items.iter().map(plain).collect(),
            Content::Map(entries) => {
                Value::Object(entries.iter().map(|(key, node)| (key.clone(), plain(node))).collect())
            }
        }
    }

    fn read(text: &str) -> Value {
        let (documents, _) = parse(text).unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        plain(&documents[0])
    }

    fn wrong(text: &str) -> (usize, String) {
        let problem = parse(text).unwrap_err();
        (problem.line, problem.text)
    }

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        let wanted = json!({"family": "a", "containerDefinitions": [{"name": "x", "cpu": 256, "essential": true}],
            "nothing": null, "half": 0.5, "version": "1.10"});
        assert_eq!(
            read(
                "family: a\ncontainerDefinitions:\n- {name: x, cpu: 256, essential: true}\nnothing:\nhalf: 0.5\nversion: '1.10'\n"
            ),
            wanted
        );
        assert_eq!(read(&wanted.to_string()), wanted);
        assert_eq!(read(&serde_json::to_string_pretty(&wanted).unwrap().replace("  ", "\t")), wanted);
        assert_eq!(read("{\"a\": \"\\ud83d\\ude00\"}"), json!({"a": "😀"}));
    }

    #[test]
    fn anchors_merge_and_empty_documents_are_left_out() {
        let (documents, _) =
            parse("---\n# nothing\n---\na: &x {n: 1, m: 2}\nb: {<<: *x, m: 3}\n---\n").unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!(plain(&documents[0]), json!({"a": {"n": 1, "m": 2}, "b": {"m": 3, "n": 1}}));
        assert!(parse("").unwrap().0.is_empty());
    }

    #[test]
    fn faults_have_their_line() {
        assert_eq!(wrong("a: 1\nb: 2\na: 3\n"), (3, "the key `a` is written twice".into()));
        assert_eq!(wrong("a: 1\n  b: 2\n").0, 2);
        assert_eq!(wrong("a: &a [*a]\n"), (1, "an alias stands inside of its own anchor".into()));
        assert_eq!(wrong("a: 1\n? [b]\n: 2\n"), (2, "a key is a list or a map; expected a text".into()));
        let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
        assert!(wrong(&deep).1.contains("deeper than 64"));
        let bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
        assert!(wrong(bomb).1.contains("more than 100000 values"));
    }
}

//! A small XML reader and the subset of XPath that `xml.select` takes.
//!
//! Reader: elements, attributes, text, CDATA, comments, processing instructions, the five named entities and numeric
//! ones. A DOCTYPE is refused, so there are no external entities and no entity bombs. Prefixes are part of names.
//!
//! XPath: `/a/b`, `//b`, `*`, `.`, `..` not; `@x`, `text()`; predicates `[2]`, `[last()]`, `[@x='v']`, `[child='v']`,
//! `[child]`, `[text()='v']`; functions `count(path)`, `string(path)`, `name(path)`. The answer is the string value of
//! the first node found, or "".

use std::collections::BTreeMap;

/// Elements may nest this deep.
const MAX_DEPTH: usize = 200;
/// Nodes that one path may visit.
const MAX_VISITED: usize = 1_000_000;

struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    /// Child elements, as positions in the document's list, and text, in their order.
    content: Vec<Content>,
}

enum Content {
    Element(usize),
    Text(String),
}

struct Document {
    /// Element 0 is the document itself; its only child is the root.
    elements: Vec<Element>,
}

/// What `path` finds in `source`, as text.
pub(crate) fn select(path: &str, source: &str) -> Result<String, String> {
    let document = read(source)?;
    let path = path.trim();
    for (function, act) in [("count", 0), ("string", 1), ("name", 2)] {
        let argument =
            path.strip_prefix(function).map(str::trim_start).and_then(|rest| rest.strip_prefix('('));
        let Some(inner) = argument.and_then(|rest| rest.strip_suffix(')')) else { continue };
        let nodes = document.find(inner.trim())?;
        return Ok(match (act, nodes.first()) {
            (0, _) => nodes.len().to_string(),
            (1, Some(node)) => document.text_of(node),
            (_, Some(Node::Element(element))) => {
                document.element(*element).map_or("", |e| &e.name).to_owned()
            }
            (_, Some(Node::Attribute(_, name))) => name.clone(),
            _ => String::new(),
        });
    }
    let nodes = document.find(path)?;
    Ok(nodes.first().map(|node| document.text_of(node)).unwrap_or_default())
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Element(usize),
    Attribute(usize, String),
    Text(usize),
}

impl Document {
    fn element(&self, index: usize) -> Option<&Element> {
        self.elements.get(index)
    }

    fn children(&self, index: usize) -> impl Iterator<Item = usize> {
        self.element(index).into_iter().flat_map(|element| {
            element.content.iter().filter_map(|content| match content {
                Content::Element(child) => Some(*child),
                Content::Text(_) => None,
            })
        })
    }

    fn text_of(&self, node: &Node) -> String {
        match node {
            Node::Attribute(element, name) => {
                self.element(*element).and_then(|e| e.attributes.get(name)).cloned().unwrap_or_default()
            }
            Node::Text(element) => self.own_text(*element),
            Node::Element(element) => {
                let mut out = String::new();
                let mut stack = vec![*element];
                // Text of an element is that of everything inside, in document order.
                self.collect(&mut stack, &mut out);
                out
            }
        }
    }

    fn own_text(&self, element: usize) -> String {
        let content = self.element(element).map(|e| e.content.as_slice()).unwrap_or(&[]);
        content
            .iter()
            .filter_map(|content| match content {
                Content::Text(text) => Some(text.as_str()),
                Content::Element(_) => None,
            })
            .collect()
    }

    fn collect(&self, stack: &mut Vec<usize>, out: &mut String) {
        enum Item<'d> {
            Element(usize),
            Text(&'d str),
        }
        let mut items: Vec<Item<'_>> = stack.drain(..).map(Item::Element).collect();
        while let Some(item) = items.pop() {
            match item {
                Item::Text(text) => out.push_str(text),
                Item::Element(index) => {
                    let Some(element) = self.element(index) else { continue };
                    items.extend(element.content.iter().rev().map(|content| match content {
                        Content::Element(child) => Item::Element(*child),
                        Content::Text(text) => Item::Text(text),
                    }));
                }
            }
        }
    }

    fn find(&self, path: &str) -> Result<Vec<Node>, String> {
        let mut nodes = vec![Node::Element(0)];
        let mut rest = path;
        let mut visited = 0;
        let mut first = true;
        while !rest.is_empty() {
            let mut deep = false;
            if let Some(after) = rest.strip_prefix("//") {
                (rest, deep) = (after, true);
            } else if let Some(after) = rest.strip_prefix('/') {
                rest = after;
            } else if !first {
                return Err(format!("the XPath `{path}` is wrong at `{rest}`"));
            }
            first = false;
            let (test, predicates, after) = split_step(rest, path)?;
            rest = after;
            let mut next = Vec::new();
            for node in &nodes {
                let Node::Element(element) = node else { continue };
                let bases = if deep { self.below(*element) } else { vec![*element] };
                for base in bases {
                    visited += 1;
                    let mut found = self.step(base, test);
                    visited += found.len();
                    if visited > MAX_VISITED {
                        return Err(format!("the XPath visits more than {MAX_VISITED} nodes"));
                    }
                    for predicate in &predicates {
                        found = self.keep(found, predicate, path)?;
                    }
                    next.append(&mut found);
                }
            }
            next.sort();
            next.dedup();
            nodes = next;
        }
        Ok(nodes)
    }

    /// The element and every element inside.
    fn below(&self, element: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut stack = vec![element];
        while let Some(index) = stack.pop() {
            found.push(index);
            stack.extend(self.children(index));
        }
        found
    }

    fn step(&self, base: usize, test: &str) -> Vec<Node> {
        if test == "." {
            return vec![Node::Element(base)];
        }
        if test == "text()" {
            let has_text = !self.own_text(base).is_empty();
            return if has_text { vec![Node::Text(base)] } else { Vec::new() };
        }
        if let Some(name) = test.strip_prefix('@') {
            let attributes = self.element(base).map(|e| &e.attributes);
            let names =
                attributes.into_iter().flat_map(|a| a.keys()).filter(|key| name == "*" || *key == name);
            return names.map(|key| Node::Attribute(base, key.clone())).collect();
        }
        let matches = |child: &usize| test == "*" || self.element(*child).is_some_and(|e| e.name == test);
        self.children(base).filter(matches).map(Node::Element).collect()
    }

    fn keep(&self, nodes: Vec<Node>, predicate: &str, path: &str) -> Result<Vec<Node>, String> {
        let predicate = predicate.trim();
        if predicate == "last()" {
            return Ok(nodes.into_iter().next_back().into_iter().collect());
        }
        if let Ok(position) = predicate.parse::<usize>() {
            return Ok(nodes.into_iter().skip(position.wrapping_sub(1)).take(1).collect());
        }
        let (test, wanted) = match predicate.split_once('=') {
            None => (predicate, None),
            Some((test, literal)) => {
                let literal = literal.trim();
                let unquoted = ['\'', '"']
                    .iter()
                    .find_map(|quote| literal.strip_prefix(*quote)?.strip_suffix(*quote))
                    .or_else(|| literal.parse::<f64>().is_ok().then_some(literal));
                let Some(unquoted) = unquoted else {
                    return Err(format!(
                        "the XPath `{path}` has a predicate that is not supported: [{predicate}]"
                    ));
                };
                (test.trim(), Some(unquoted))
            }
        };
        let plain = test.strip_prefix('@').unwrap_or(test);
        if !(test == "text()" || test == "." || plain == "*" || is_name(plain)) {
            return Err(format!("the XPath `{path}` has a predicate that is not supported: [{predicate}]"));
        }
        let holds = |node: &Node| {
            let Node::Element(element) = node else { return false };
            self.step(*element, test)
                .iter()
                .any(|found| wanted.is_none_or(|wanted| self.text_of(found) == wanted))
        };
        Ok(nodes.into_iter().filter(|node| holds(node)).collect())
    }
}

/// The node test, the predicates and what follows.
fn split_step<'p>(step: &'p str, path: &str) -> Result<(&'p str, Vec<&'p str>, &'p str), String> {
    let wrong = || format!("the XPath `{path}` is wrong at `{step}`");
    let end = step.find(['/', '[']).unwrap_or(step.len());
    let (test, mut rest) = step.split_at_checked(end).ok_or_else(wrong)?;
    let test = test.trim();
    let name = test.strip_prefix('@').unwrap_or(test);
    let known = matches!(test, "." | "text()") || name == "*" || is_name(name);
    if !known {
        return Err(wrong());
    }
    let mut predicates = Vec::new();
    while let Some(after) = rest.strip_prefix('[') {
        let mut quote = None;
        let close = after.char_indices().find(|(_, c)| {
            match (quote, c) {
                (None, '\'' | '"') => quote = Some(*c),
                (Some(open), c) if open == *c => quote = None,
                _ => {}
            }
            quote.is_none() && *c == ']'
        });
        let (close, _) = close.ok_or_else(wrong)?;
        predicates.push(after.get(..close).unwrap_or(""));
        rest = after.get(close + 1..).unwrap_or("");
    }
    Ok((test, predicates, rest))
}

/// Whether a node test is a plain name; `..` is none.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| is_name_char(c) && c != '.') && name.chars().all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')
}

fn read(source: &str) -> Result<Document, String> {
    let root = Element { name: String::new(), attributes: BTreeMap::new(), content: Vec::new() };
    let mut document = Document { elements: vec![root] };
    let mut open = vec![0_usize];
    let mut rest = source;
    while !rest.is_empty() {
        let before = rest;
        if let Some(after) = rest.strip_prefix("<!--") {
            rest = behind(after, "-->", "a comment")?;
        } else if let Some(after) = rest.strip_prefix("<![CDATA[") {
            rest = behind(after, "]]>", "a CDATA section")?;
            let length = after.len() - rest.len() - 3;
            push(&mut document, &open, Content::Text(after.get(..length).unwrap_or("").to_owned()));
        } else if let Some(after) = rest.strip_prefix("<?") {
            rest = behind(after, "?>", "a processing instruction")?;
        } else if rest.starts_with("<!") {
            return Err("the XML has a DOCTYPE, which is not accepted".to_owned());
        } else if let Some(after) = rest.strip_prefix("</") {
            let (name, after) = after.split_once('>').ok_or("the XML ends inside of a tag")?;
            let closed = open.pop().and_then(|index| document.element(index));
            if open.is_empty() || closed.is_none_or(|element| element.name != name.trim()) {
                return Err(format!("the XML closes `{}`, which is not open", name.trim()));
            }
            rest = after;
        } else if let Some(after) = rest.strip_prefix('<') {
            rest = open_tag(&mut document, &mut open, after)?;
        } else {
            let end = rest.find('<').unwrap_or(rest.len());
            let (text, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            if open.len() > 1 {
                push(&mut document, &open, Content::Text(unescape(text)?));
            } else if !text.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']).is_empty() {
                return Err("the XML has text outside of its root element".to_owned());
            }
            rest = after;
        }
        debug_assert!(rest.len() < before.len());
    }
    if open.len() > 1 {
        return Err("the XML ends with an element that is not closed".to_owned());
    }
    if document.elements.len() < 2 {
        return Err("the XML has no root element".to_owned());
    }
    Ok(document)
}

fn behind<'s>(text: &'s str, end: &str, what: &str) -> Result<&'s str, String> {
    let at = text.find(end).ok_or_else(|| format!("the XML ends inside of {what}"))?;
    Ok(text.get(at + end.len()..).unwrap_or(""))
}

fn push(document: &mut Document, open: &[usize], content: Content) {
    if let Some(element) = open.last().and_then(|index| document.elements.get_mut(*index)) {
        element.content.push(content);
    }
}

/// Reads a tag behind its `<`; returns what follows it.
fn open_tag<'s>(document: &mut Document, open: &mut Vec<usize>, text: &'s str) -> Result<&'s str, String> {
    let end = text.find(|c| !is_name_char(c)).ok_or("the XML ends inside of a tag")?;
    let (name, mut rest) = text.split_at_checked(end).unwrap_or((text, ""));
    if name.is_empty() {
        return Err("the XML has a `<` that begins no tag".to_owned());
    }
    let mut attributes = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        let empty = rest.strip_prefix("/>");
        if let Some(after) = empty.or_else(|| rest.strip_prefix('>')) {
            if open.len() == 1 && document.elements.len() > 1 {
                return Err("the XML has two root elements".to_owned());
            }
            if open.len() > MAX_DEPTH {
                return Err(format!("the XML is nested deeper than {MAX_DEPTH}"));
            }
            let index = document.elements.len();
            document.elements.push(Element { name: name.to_owned(), attributes, content: Vec::new() });
            push(document, open, Content::Element(index));
            if empty.is_none() {
                open.push(index);
            }
            return Ok(after);
        }
        let (key, after) = rest.split_once('=').ok_or_else(|| format!("the tag `{name}` is not closed"))?;
        let key = key.trim();
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = quote.and_then(|quote| after.get(1..)?.split_once(quote));
        let Some((value, after)) = value.filter(|_| !key.is_empty() && key.chars().all(is_name_char)) else {
            return Err(format!("the tag `{name}` has a wrong attribute"));
        };
        attributes.insert(key.to_owned(), unescape(value)?);
        rest = after;
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (entity, after) = after.split_once(';').ok_or("the XML has a `&` that begins no entity")?;
        let number = entity.strip_prefix('#').map(|n| match n.strip_prefix('x') {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => n.parse().ok(),
        });
        let decoded = match (entity, number) {
            ("lt", _) => Some('<'),
            ("gt", _) => Some('>'),
            ("amp", _) => Some('&'),
            ("quot", _) => Some('"'),
            ("apos", _) => Some('\''),
            (_, Some(number)) => number.and_then(char::from_u32),
            _ => None,
        };
        out.push(decoded.ok_or_else(|| {
            format!("the XML names the unknown entity `&{};`", crate::ops::shorten(entity))
        })?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POM: &str = r#"<?xml version="1.0"?><!-- c --><project><version>1.2</version>
        <deps><dep scope="test"><id>a</id></dep><dep scope="run"><id>b &amp; &#x63;</id></dep><dep/></deps>
        <note><![CDATA[x < y]]></note></project>"#;

    #[test]
    fn paths_of_the_subset() {
        for (path, found) in [
            ("/project/version", "1.2"),
            ("/project/deps/dep[2]/id", "b & c"),
            ("//dep[@scope='test']/id", "a"),
            ("//dep[id='b & c']/@scope", "run"),
            ("//dep[last()]/id", ""),
            ("/project/note/text()", "x < y"),
            ("count(//dep)", "3"),
            ("name(/*)", "project"),
            ("string(//id)", "a"),
            ("/project/nope", ""),
        ] {
            assert_eq!(select(path, POM).unwrap(), found, "{path}");
        }
    }

    #[test]
    fn what_is_no_xml_or_unsafe_is_refused() {
        for source in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a",
            "<a x=1/>",
            "<a>&nope;</a>",
            "<a>&lt</a>",
            "</a>",
            "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>",
            &"<a>".repeat(100_000),
        ] {
            assert!(select("/a", source).is_err(), "{}", crate::ops::shorten(source));
        }
        for path in ["/a[", "/a[b", "a//", "/a[position() > 2]", "/a/../b", "!"] {
            assert!(select(path, "<a/>").is_err(), "{path}");
        }
    }
}

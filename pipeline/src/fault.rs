//! What a person is told about a document: faults that refuse it, notices about tolerance rules that were applied.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A place in a document. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// File name or whatever else the caller calls the document.
    pub source: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl Place {
    /// The start of a document.
    pub fn start(source: &str) -> Self {
        Place { source: source.into(), line: 1, column: 1 }
    }
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Document.
    pub source: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Path of keys to the faulty value; list elements that have an identifier are named by it.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// The nearest known name, or what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Fault {
    /// A fault at a place.
    pub fn at(place: &Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Fault {
            source: place.source.to_string(),
            line: place.line,
            column: place.column,
            path: path.into(),
            message: message.into(),
            suggestion: None,
        }
    }

    /// Adds a suggestion.
    #[must_use]
    pub fn suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: ", self.source, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " ({suggestion})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// One applied tolerance rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// Stable code: `R7.implicit-hosts`, `unknown-key` …
    pub code: String,
    /// Where in the document.
    pub yaml_path: String,
    /// What was assumed.
    pub assumed: String,
    /// Document.
    pub source: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// Collects faults and notices while a document is read. Nothing stops at the first fault.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What refuses the document.
    pub faults: Vec<Fault>,
    /// What was assumed.
    pub notices: Vec<Notice>,
    /// In strict mode a notice is a fault.
    pub strict: bool,
}

impl Findings {
    /// Lenient or strict.
    pub fn new(mode: Mode) -> Self {
        Findings { faults: Vec::new(), notices: Vec::new(), strict: mode == Mode::Strict }
    }

    /// Records a fault.
    pub fn fault(&mut self, place: &Place, path: &str, message: impl Into<String>) {
        self.push(Fault::at(place, path, message));
    }

    /// Records a finished fault; one that stands already is not repeated.
    pub fn push(&mut self, fault: Fault) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Records a notice: in strict mode the assumption is refused instead.
    pub fn notice(&mut self, code: &str, place: &Place, path: &str, assumed: impl Into<String>) {
        let assumed = assumed.into();
        if self.strict {
            self.push(Fault::at(place, path, format!("{code}: strict mode does not assume: {assumed}")));
            return;
        }
        self.remark(code, place, path, assumed);
    }

    /// Records a notice that is a remark and no assumption: it stands in strict mode too.
    pub fn remark(&mut self, code: &str, place: &Place, path: &str, assumed: impl Into<String>) {
        let notice = Notice {
            code: code.to_owned(),
            yaml_path: path.to_owned(),
            assumed: assumed.into(),
            source: place.source.to_string(),
            line: place.line,
            column: place.column,
        };
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }

    /// Faults ordered by place.
    pub fn sorted_faults(mut self) -> Vec<Fault> {
        self.faults.sort_by(|a, b| (&a.source, a.line, a.column).cmp(&(&b.source, b.line, b.column)));
        self.faults
    }
}

/// How tolerant to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Rules are applied, each with a notice.
    #[default]
    Lenient,
    /// A document that needs a rule is refused.
    Strict,
}

/// The known name nearest to `name`, if one is near enough to be a slip of the pen.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    expr::nearest(name, known).into_iter().next()
}

/// A suggestion sentence for [`nearest`].
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest("Comand", ["Http", "Command"]), Some("Command"));
        assert_eq!(nearest("FooBar", ["Http", "Command"]), None);
    }

    #[test]
    fn a_fault_reads_as_file_line_column() {
        let place = Place { source: "a.yaml".into(), line: 3, column: 7 };
        let fault = Fault::at(&place, "pipeline.name", "is missing").suggest(Some("write one".into()));
        assert_eq!(fault.to_string(), "a.yaml:3:7: pipeline.name: is missing (write one)");
    }
}

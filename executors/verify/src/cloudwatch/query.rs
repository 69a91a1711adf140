//! The text of a CloudWatch query: a statistic around a metric.
//!
//! ```text
//! query      = statistic "(" metric ")" | metric          the latter when the step has a key `statistic`
//! statistic  = avg | sum | min | max | count | pN | tmN   N: a percentile, as in p99 or p99.9
//! metric     = [ namespace ":" ] name [ "{" dimension { "," dimension } "}" ]
//! dimension  = name "=" value
//! ```
//! Whatever holds one of `:{}(),="` or begins or ends with a blank stands in double quotes, with `\"` and `\\` inside.
//! A value of a dimension may hold `:`, `=` and brackets without them. Examples: `p99(TargetResponseTime)`,
//! `avg(AWS/ApplicationELB:TargetResponseTime{TargetGroup=targetgroup/web/0123,LoadBalancer=app/web/4567})`,
//! `sum("My App":Orders{Stage="prod, west"})`.

use std::collections::BTreeMap;
use std::fmt;

/// Dimensions that CloudWatch takes for one metric.
const MAX_DIMENSIONS: usize = 30;
/// Bytes of a name that CloudWatch takes.
const MAX_NAME: usize = 255;
/// Characters of the value of a dimension that CloudWatch takes.
const MAX_VALUE: usize = 1024;

/// A statistic as CloudWatch names it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Statistic {
    Average,
    Sum,
    Minimum,
    Maximum,
    SampleCount,
    /// `p99.9`.
    Percentile(f64),
    /// `tm99`: the mean of what lies below the percentile.
    TrimmedMean(f64),
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statistic::Average => f.write_str("Average"),
            Statistic::Sum => f.write_str("Sum"),
            Statistic::Minimum => f.write_str("Minimum"),
            Statistic::Maximum => f.write_str("Maximum"),
            Statistic::SampleCount => f.write_str("SampleCount"),
            Statistic::Percentile(percent) => write!(f, "p{percent}"),
            Statistic::TrimmedMean(percent) => write!(f, "tm{percent}"),
        }
    }
}

impl Statistic {
    /// Reads one; case does not matter.
    pub(crate) fn read(text: &str) -> Result<Statistic, String> {
        let lower = text.trim().to_ascii_lowercase();
        let percent = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            digits.parse::<f64>().ok().filter(|percent| plain && (0.0..=100.0).contains(percent))
        };
        match lower.as_str() {
            "avg" | "average" | "mean" => return Ok(Statistic::Average),
            "sum" => return Ok(Statistic::Sum),
            "min" | "minimum" => return Ok(Statistic::Minimum),
            "max" | "maximum" => return Ok(Statistic::Maximum),
            "count" | "samplecount" => return Ok(Statistic::SampleCount),
            _ => {}
        }
        let trimmed = lower.strip_prefix("tm").and_then(percent).map(Statistic::TrimmedMean);
        let percentile = || lower.strip_prefix('p').and_then(percent).map(Statistic::Percentile);
        trimmed.or_else(percentile).ok_or_else(|| {
            format!(
                "`{}` is no statistic; expected avg, sum, min, max, count, or a percentile such as p99 or p99.9",
                text.trim()
            )
        })
    }
}

/// What a query asks for, as far as it says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    pub(crate) statistic: Option<Statistic>,
    pub(crate) namespace: Option<String>,
    pub(crate) metric: String,
    pub(crate) dimensions: BTreeMap<String, String>,
}

impl Query {
    /// Reads the text of a query.
    ///
    /// **Errors**: what is wrong and what was expected, for the field `query`.
    pub(crate) fn read(text: &str) -> Result<Query, String> {
        let mut rest = Rest { text, at: 0 };
        let first = rest.word(":{(")?;
        let statistic = if rest.takes('(') { Some(Statistic::read(&first)?) } else { None };
        let name = if statistic.is_some() { rest.word(":{)")? } else { first };
        let (namespace, metric) = if rest.takes(':') {
            let mut parts = vec![name, rest.word(":{)")?];
            // A namespace may hold colons; the name of a metric then is what stands behind the last.
            while rest.takes(':') {
                parts.push(rest.word(":{)")?);
            }
            let metric = parts.pop().unwrap_or_default();
            (Some(bounded("namespace", parts.join(":"))?), metric)
        } else {
            (None, name)
        };
        let mut dimensions = BTreeMap::new();
        if rest.takes('{') {
            while !rest.takes('}') {
                let name = bounded("name of a dimension", rest.word("=,}")?)?;
                rest.wants('=', &format!("behind the dimension `{name}`"))?;
                let value = rest.value()?;
                if value.is_empty() || value.chars().count() > MAX_VALUE {
                    return Err(format!(
                        "the value of dimension `{name}` is empty or longer than {MAX_VALUE} characters"
                    ));
                }
                if dimensions.insert(name.clone(), value).is_some() {
                    return Err(format!("dimension `{name}` stands there twice"));
                }
                if !rest.takes(',') && rest.peek() != Some('}') {
                    return Err(rest.unexpected("`,` or `}` behind a dimension"));
                }
            }
        }
        if statistic.is_some() {
            rest.wants(')', "at the end")?;
        }
        if rest.peek().is_some() {
            return Err(rest.unexpected("nothing more; one statistic of one metric is a query"));
        }
        if dimensions.len() > MAX_DIMENSIONS {
            return Err(format!(
                "{} dimensions are named; CloudWatch takes {MAX_DIMENSIONS}",
                dimensions.len()
            ));
        }
        Ok(Query { statistic, namespace, metric: bounded("name of a metric", metric)?, dimensions })
    }
}

fn bounded(what: &str, text: String) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME {
        return Err(format!(
            "a {what} is missing or longer than {MAX_NAME} bytes; expected for example `avg(TargetResponseTime)`"
        ));
    }
    Ok(text)
}

/// What is left of the text.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl Rest<'_> {
    fn left(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next character that is no blank.
    fn peek(&self) -> Option<char> {
        self.left().trim_start().chars().next()
    }

    fn skip_blanks(&mut self) {
        self.at += self.left().len() - self.left().trim_start().len();
    }

    /// Whether `wanted` comes next; if so, it is behind us.
    fn takes(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.skip_blanks();
            self.at += wanted.len_utf8();
        }
        found
    }

    fn wants(&mut self, wanted: char, place: &str) -> Result<(), String> {
        if self.takes(wanted) { Ok(()) } else { Err(self.unexpected(&format!("`{wanted}` {place}"))) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        let column = self.text.get(..self.at).unwrap_or_default().chars().count() + 1;
        let found = match self.peek() {
            Some(found) => format!("`{found}`"),
            None => "the end".to_owned(),
        };
        format!("`{}`: found {found} at column {column}; expected {wanted}", self.text)
    }

    /// A word up to one of `ends`, or a quoted one.
    fn word(&mut self, ends: &str) -> Result<String, String> {
        self.skip_blanks();
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let length = self.left().find(|c: char| ends.contains(c)).unwrap_or(self.left().len());
        let word = self.left().get(..length).unwrap_or_default().trim_end().to_owned();
        if let Some(odd) = word.chars().find(|c| "(){}\",=".contains(*c)) {
            return Err(format!("`{}`: `{odd}` in `{word}`; put the name in double quotes", self.text));
        }
        self.at += length;
        Ok(word)
    }

    /// The value of a dimension.
    fn value(&mut self) -> Result<String, String> {
        self.skip_blanks();
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let length = self.left().find([',', '}']).unwrap_or(self.left().len());
        let value = self.left().get(..length).unwrap_or_default().trim_end().to_owned();
        self.at += length;
        Ok(value)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut word = String::new();
        let mut escaped = false;
        let begin = self.at + 1;
        for (offset, c) in self.text.get(begin..).unwrap_or_default().char_indices() {
            match c {
                _ if escaped => {
                    word.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.at = begin + offset + 1;
                    return Ok(word);
                }
                _ => word.push(c),
            }
        }
        Err(format!("`{}`: a quote is not closed", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Query {
        Query::read(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn plain(statistic: Statistic, metric: &str) -> Query {
        let (statistic, metric) = (Some(statistic), metric.to_owned());
        Query { statistic, namespace: None, metric, dimensions: BTreeMap::new() }
    }

    #[test]
    fn a_statistic_of_a_metric() {
        for (text, statistic) in [
            ("avg(TargetResponseTime)", Statistic::Average),
            (" Average ( TargetResponseTime ) ", Statistic::Average),
            ("SUM(TargetResponseTime)", Statistic::Sum),
            ("min(TargetResponseTime)", Statistic::Minimum),
            ("maximum(TargetResponseTime)", Statistic::Maximum),
            ("count(TargetResponseTime)", Statistic::SampleCount),
            ("p99(TargetResponseTime)", Statistic::Percentile(99.0)),
            ("p99.9(TargetResponseTime)", Statistic::Percentile(99.9)),
            ("tm90(TargetResponseTime)", Statistic::TrimmedMean(90.0)),
        ] {
            assert_eq!(read(text), plain(statistic, "TargetResponseTime"), "{text}");
        }
        assert_eq!(Statistic::Percentile(99.9).to_string(), "p99.9");
        assert_eq!(Statistic::Percentile(50.0).to_string(), "p50");
        assert_eq!(read("CPUUtilization").statistic, None);
    }

    #[test]
    fn namespace_and_dimensions_may_be_written() {
        let query = read(
            "p90(AWS/ApplicationELB:TargetResponseTime{TargetGroup=arn:aws:x:y, LoadBalancer = app/web/50dc })",
        );
        assert_eq!(query.namespace.as_deref(), Some("AWS/ApplicationELB"));
        assert_eq!(query.metric, "TargetResponseTime");
        let wanted = [("LoadBalancer", "app/web/50dc"), ("TargetGroup", "arn:aws:x:y")];
        assert_eq!(query.dimensions, wanted.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        let query = read(r#"sum("My: App":Orders{Stage="prod, \"west\"",})"#);
        assert_eq!(query.namespace.as_deref(), Some("My: App"));
        assert_eq!(query.dimensions["Stage"], "prod, \"west\"");
        assert_eq!(read("avg(a:b:c)").namespace.as_deref(), Some("a:b"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, wanted) in [
            ("", "missing"),
            ("avg()", "missing"),
            ("avg(:X)", "missing"),
            ("median(X)", "`median` is no statistic"),
            ("p101(X)", "`p101` is no statistic"),
            ("pinf(X)", "is no statistic"),
            ("avg(X", "found the end at column 6; expected `)`"),
            ("avg(X) / 2", "found `/`"),
            ("avg(sum(X))", "double quotes"),
            ("avg(X{a})", "expected `=` behind the dimension `a`"),
            ("avg(X{a=})", "dimension `a` is empty"),
            ("avg(X{a=1,a=2})", "twice"),
            ("avg(X{a=1", "found the end"),
            ("avg(\"X)", "a quote is not closed"),
        ] {
            let problem = Query::read(text).unwrap_err();
            assert!(problem.contains(wanted), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _any = Query::read(&text);
        }

        #[test]
        fn what_was_quoted_comes_back(metric in "[ -~]{1,40}", value in "[ -~]{1,40}") {
            let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let query = read(&format!("max({}{{d={}}})", quoted(&metric), quoted(&value)));
            prop_assert_eq!(query.metric, metric);
            prop_assert_eq!(&query.dimensions["d"], &value);
        }
    }
}

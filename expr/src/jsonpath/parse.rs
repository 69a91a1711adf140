//! From the text of a path to its steps.

use super::{Filter, Operand, Step};
use crate::error::Kind;
use crate::ops::{self, Fault};
use crate::value::{Segment, Value};

/// Brackets in a filter may nest this deep.
const MAX_FILTER_DEPTH: usize = 20;

/// The steps of a whole path; nothing may be left over.
pub(super) fn steps(path: &str) -> Result<Vec<Step>, Fault> {
    let mut parser = Parser { text: path, at: 0 };
    parser.space();
    parser.eat("$");
    let steps = parser.steps(true)?;
    parser.space();
    if parser.at < path.len() {
        return Err(parser.fault("something is left over"));
    }
    Ok(steps)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn need(&mut self, sign: &str) -> Result<(), Fault> {
        self.space();
        if self.eat(sign) { Ok(()) } else { Err(self.fault(&format!("`{sign}` is missing"))) }
    }

    fn fault(&self, what: &str) -> Fault {
        let at = self.text.get(..self.at).map_or(0, |before| before.chars().count()) + 1;
        (
            Kind::Functor,
            format!("the JSON path `{}` is wrong at character {at}: {what}", ops::shorten(self.text)),
        )
    }

    /// Steps up to something that is none. `bare`: a name may stand first without a dot.
    fn steps(&mut self, bare: bool) -> Result<Vec<Step>, Fault> {
        let mut steps = Vec::new();
        loop {
            if self.eat("..") {
                steps.push(Step::Descend);
                if !self.rest().starts_with('[') {
                    steps.push(self.name_or_all()?);
                }
            } else if self.eat(".") || (bare && steps.is_empty() && self.starts_name()) {
                steps.push(self.name_or_all()?);
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else {
                return Ok(steps);
            }
        }
    }

    fn starts_name(&self) -> bool {
        self.rest().chars().next().is_some_and(|c| is_name_char(c) || c == '*')
    }

    fn name_or_all(&mut self) -> Result<Step, Fault> {
        if self.eat("*") {
            return Ok(Step::All);
        }
        let rest = self.rest();
        let length = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
        let name = rest.get(..length).unwrap_or("");
        if name.is_empty() {
            return Err(self.fault("a name is missing"));
        }
        self.at += length;
        Ok(Step::Child(Segment::from(name)))
    }

    fn bracket(&mut self) -> Result<Step, Fault> {
        self.space();
        if self.eat("?") {
            self.need("(")?;
            let filter = self.filter(0)?;
            self.need(")")?;
            self.need("]")?;
            return Ok(Step::Filter(filter));
        }
        if self.eat("*") {
            self.need("]")?;
            return Ok(Step::All);
        }
        let mut items = Vec::new();
        loop {
            self.space();
            if self.rest().starts_with(['\'', '"']) {
                items.push(Segment::Name(self.quoted()?.into()));
            } else {
                let from = self.integer();
                self.space();
                if items.is_empty() && self.eat(":") {
                    self.space();
                    let to = self.integer();
                    self.need("]")?;
                    return Ok(Step::Slice(from, to));
                }
                let index =
                    from.ok_or_else(|| self.fault("a position, a quoted name, `*` or a filter is missing"))?;
                items.push(Segment::Index(index));
            }
            self.space();
            if self.eat(",") {
                continue;
            }
            self.need("]")?;
            break;
        }
        let mut items = items.into_iter();
        match (items.next(), items.len()) {
            (Some(only), 0) => Ok(Step::Child(only)),
            (first, _) => Ok(Step::Children(first.into_iter().chain(items).collect())),
        }
    }

    fn integer(&mut self) -> Option<i64> {
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        let length = rest.len() - digits.len() + count;
        let number = rest.get(..length)?.parse().ok()?;
        self.at += length;
        Some(number)
    }

    fn quoted(&mut self) -> Result<String, Fault> {
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map(|(_, c)| c);
        let mut out = String::new();
        while let Some((i, c)) = chars.next() {
            if Some(c) == quote {
                self.at += i + c.len_utf8();
                return Ok(out);
            }
            if c == '\\' {
                out.extend(chars.next().map(|(_, escaped)| escaped));
            } else {
                out.push(c);
            }
        }
        Err(self.fault("the quoted text is not closed"))
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, Fault> {
        if depth > MAX_FILTER_DEPTH {
            return Err((Kind::TooDeep, format!("the filter is nested deeper than {MAX_FILTER_DEPTH}")));
        }
        let mut any = vec![self.all_of(depth)?];
        loop {
            self.space();
            if !self.eat("||") {
                break;
            }
            any.push(self.all_of(depth)?);
        }
        Ok(if any.len() > 1 { Filter::Or(any) } else { any.pop().unwrap_or(Filter::And(Vec::new())) })
    }

    fn all_of(&mut self, depth: usize) -> Result<Filter, Fault> {
        let mut all = vec![self.term(depth)?];
        loop {
            self.space();
            if !self.eat("&&") {
                break;
            }
            all.push(self.term(depth)?);
        }
        Ok(if all.len() > 1 { Filter::And(all) } else { all.pop().unwrap_or(Filter::And(Vec::new())) })
    }

    fn term(&mut self, depth: usize) -> Result<Filter, Fault> {
        self.space();
        if self.eat("!") {
            if depth > MAX_FILTER_DEPTH {
                return Err((Kind::TooDeep, format!("the filter is nested deeper than {MAX_FILTER_DEPTH}")));
            }
            return Ok(Filter::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.eat("(") {
            let inner = self.filter(depth + 1)?;
            self.need(")")?;
            return Ok(inner);
        }
        let left = self.operand(depth)?;
        self.space();
        const SIGNS: [&str; 9] = ["==", "!=", "<=", ">=", "=~", "<", ">", "in ", "nin "];
        let Some(sign) = SIGNS.into_iter().find(|sign| self.rest().starts_with(sign)) else {
            return Ok(Filter::Exists(left));
        };
        self.at += sign.len();
        self.space();
        let right = self.operand(depth)?;
        Ok(Filter::Compare(left, sign.trim(), right))
    }

    fn operand(&mut self, depth: usize) -> Result<Operand, Fault> {
        if self.eat("@") {
            return Ok(Operand::Path(true, self.nested_steps(depth)?));
        }
        if self.eat("$") {
            return Ok(Operand::Path(false, self.nested_steps(depth)?));
        }
        if self.rest().starts_with(['\'', '"']) {
            return Ok(Operand::Literal(Value::text(self.quoted()?)));
        }
        if let Some(pattern) = self.rest().strip_prefix('/') {
            let end = pattern.find('/').ok_or_else(|| self.fault("the regular expression is not closed"))?;
            self.at += end + 2;
            let flags = if self.eat("i") { "(?i)" } else { "" };
            return Ok(Operand::Literal(Value::text(format!("{flags}{}", pattern.get(..end).unwrap_or("")))));
        }
        if self.eat("[") {
            let mut items = Vec::new();
            loop {
                self.space();
                if self.eat("]") {
                    return Ok(Operand::Literal(Value::list(items)));
                }
                match self.literal()? {
                    Operand::Literal(value) => items.push(value),
                    Operand::Path(..) => return Err(self.fault("a list holds values only")),
                }
                self.space();
                self.eat(",");
            }
        }
        self.literal()
    }

    /// Paths inside of a filter may hold filters of their own; their depth counts.
    fn nested_steps(&mut self, depth: usize) -> Result<Vec<Step>, Fault> {
        if depth > 0 && self.rest().contains("[?") {
            return Err((Kind::TooDeep, "filters inside of a bracketed filter are not supported".to_owned()));
        }
        let filters = self.rest().matches("[?").count();
        if filters > MAX_FILTER_DEPTH {
            return Err((Kind::TooDeep, format!("the filter is nested deeper than {MAX_FILTER_DEPTH}")));
        }
        self.steps(false)
    }

    fn literal(&mut self) -> Result<Operand, Fault> {
        if self.rest().starts_with(['\'', '"']) {
            return Ok(Operand::Literal(Value::text(self.quoted()?)));
        }
        let rest = self.rest();
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')))
            .unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or("");
        let value = match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null,
            number => match (number.parse::<i64>(), number.parse::<f64>()) {
                (Ok(i), _) => Value::Int(i),
                (_, Ok(x)) if x.is_finite() => Value::Float(x),
                _ => return Err(self.fault("a value is missing")),
            },
        };
        self.at += length;
        Ok(Operand::Literal(value))
    }
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '@')
}

//! Where actions stand: a rule of a listener, or its default rule. Pure.

use super::fault::Fault;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A rule. The default rule of a listener is changed through the listener, every other one by its own ARN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    /// ARN of the listener.
    pub(crate) listener: String,
    /// ARN of the rule; none: the default rule.
    pub(crate) arn: Option<String>,
}

impl Rule {
    /// The default rule of a listener.
    pub(crate) fn default_of(listener: impl Into<String>) -> Rule {
        Rule { listener: listener.into(), arn: None }
    }

    /// A rule by its ARN, which holds that of its listener:
    /// `…:listener-rule/app/NAME/LB/LISTENER/RULE` belongs to `…:listener/app/NAME/LB/LISTENER`.
    ///
    /// **Errors**: the ARN is none of a rule.
    pub(crate) fn of_arn(arn: &str) -> Result<Rule, Fault> {
        let wrong = || {
            Fault::Missing(format!(
                "`{arn}` is no ARN of a rule; expected arn:aws:elasticloadbalancing:…:listener-rule/…"
            ))
        };
        let (before, after) = arn.split_once(":listener-rule/").ok_or_else(wrong)?;
        let (path, _) = after.rsplit_once('/').ok_or_else(wrong)?;
        Ok(Rule { listener: format!("{before}:listener/{path}"), arn: Some(arn.to_owned()) })
    }

    /// Its own ARN, else that of its listener.
    pub(crate) fn id(&self) -> &str {
        self.arn.as_deref().unwrap_or(&self.listener)
    }
}

/// For people: `rule app/web/50dc6c495c0c9188/f2f7dc8efc522ab2/9683b2d02a6cabee`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |arn: &str| arn.split_once('/').map_or(arn, |(_, path)| path).to_owned();
        match &self.arn {
            Some(arn) => write!(f, "rule {}", path(arn)),
            None => write!(f, "the default rule of listener {}", path(&self.listener)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arn_of_a_rule_holds_its_listener() {
        let base = "arn:aws:elasticloadbalancing:us-east-1:1:listener";
        let rule = Rule::of_arn(&format!("{base}-rule/app/web/50dc/f2f7/9683")).unwrap();
        assert_eq!(rule.listener, format!("{base}/app/web/50dc/f2f7"));
        assert_eq!(rule.to_string(), "rule app/web/50dc/f2f7/9683");
        assert_eq!(rule.id(), format!("{base}-rule/app/web/50dc/f2f7/9683"));
        let rule = Rule::default_of(format!("{base}/app/web/50dc/f2f7"));
        assert_eq!(rule.to_string(), "the default rule of listener app/web/50dc/f2f7");
        for wrong in [
            "",
            "web",
            "arn:aws:elasticloadbalancing:us-east-1:1:listener/app/web/50dc/f2f7",
            "a:listener-rule/x",
        ] {
            assert!(Rule::of_arn(wrong).is_err(), "{wrong}");
        }
    }
}

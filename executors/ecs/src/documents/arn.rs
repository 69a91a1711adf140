//! Names of AWS resources.

use crate::error::bad_spec;
use executor_api::StepError;
use std::fmt;

/// `arn:partition:service:region:account:resource`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arn {
    pub(crate) partition: String,
    pub(crate) service: String,
    pub(crate) region: String,
    pub(crate) account: String,
    pub(crate) resource: String,
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arn { partition, service, region, account, resource } = self;
        write!(f, "arn:{partition}:{service}:{region}:{account}:{resource}")
    }
}

impl Arn {
    /// Reads an ARN; the text says what is wrong with another one.
    pub(crate) fn parse(text: &str) -> Result<Arn, String> {
        let wrong = |what: &str| {
            format!("`{text}` is no ARN ({what}); expected arn:aws:service:region:account:resource")
        };
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let [scheme, partition, service, region, account, resource] = parts.as_slice() else {
            return Err(wrong("it has fewer than six parts"));
        };
        let small = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        if *scheme != "arn" || !small(partition) || !partition.starts_with("aws") || !small(service) {
            return Err(wrong("it begins with something else"));
        }
        if !region.is_empty() && !small(region) {
            return Err(wrong("its region is none"));
        }
        if !account.is_empty()
            && *account != "aws"
            && (account.len() != 12 || !account.chars().all(|c| c.is_ascii_digit()))
        {
            return Err(wrong("its account has not twelve digits"));
        }
        if resource.is_empty() || resource.contains(char::is_whitespace) {
            return Err(wrong("its resource is empty or holds white space"));
        }
        let own = |part: &str| part.to_owned();
        Ok(Arn {
            partition: own(partition),
            service: own(service),
            region: own(region),
            account: own(account),
            resource: own(resource),
        })
    }
}

/// A task definition as DescribeTaskDefinition takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) family: String,
    /// The newest active one when not said.
    pub(crate) number: Option<u64>,
    /// As it was written.
    pub(crate) text: String,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "{}:{number}", self.family),
            None => f.write_str(&self.family),
        }
    }
}

impl Revision {
    /// Reads `arn:…:task-definition/family:revision` or `family[:revision]` for a step that works in `region`.
    ///
    /// **Errors**: `ECS-014` names what is wrong, and another region.
    pub(crate) fn parse(text: &str, region: &str) -> Result<Revision, StepError> {
        let text = text.trim();
        let wrong = |what: String| bad_spec("ECS-014", format!("the task definition {what}"));
        let name = if text.starts_with("arn:") {
            let arn = Arn::parse(text).map_err(wrong)?;
            if arn.service != "ecs" {
                return Err(wrong(format!("`{text}` belongs to the service {}; expected ecs", arn.service)));
            }
            if arn.region != region {
                let what = format!("`{text}` lies in {}; the infrastructure is in {region}", arn.region);
                return Err(wrong(what).hint("a service takes task definitions of its own region only"));
            }
            match arn.resource.strip_prefix("task-definition/") {
                Some(name) => name.to_owned(),
                None => {
                    let what = format!(
                        "`{text}` names a {}; expected task-definition/family:revision",
                        arn.resource
                    );
                    return Err(wrong(what));
                }
            }
        } else {
            text.to_owned()
        };
        let (family, number) = match name.split_once(':') {
            None => (name.clone(), None),
            Some((family, number)) => match number.parse::<u64>() {
                Ok(number) if number > 0 => (family.to_owned(), Some(number)),
                _ => {
                    return Err(wrong(format!(
                        "`{text}` has the revision `{number}`; expected a number from 1"
                    )));
                }
            },
        };
        family_name(&family).map_err(|what| wrong(format!("`{text}`: {what}")))?;
        Ok(Revision { family, number, text: text.to_owned() })
    }
}

/// Whether ECS takes the name of a family: up to 255 letters, digits, `-` and `_`.
pub(crate) fn family_name(family: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match family {
        "" => Err("the family is empty".to_owned()),
        _ if family.len() > 255 => Err(format!("the family has {} characters; at most 255", family.len())),
        _ if !family.chars().all(fits) => {
            Err(format!("the family `{family}` may hold letters, digits, `-` and `_` only"))
        }
        _ => Ok(()),
    }
}

/// The last part of an ARN: `family:revision`, a name, an id; the text itself when it is none. For messages.
pub(crate) fn short(arn: &str) -> &str {
    arn.rsplit_once('/').map_or(arn, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ARN: &str = "arn:aws:ecs:us-east-1:123456789012:task-definition/myapp-task:10";

    #[test]
    fn arns_and_families_are_read() {
        let revision = Revision::parse(&format!(" {ARN} "), "us-east-1").unwrap();
        assert_eq!((revision.family.as_str(), revision.number), ("myapp-task", Some(10)));
        assert_eq!(revision.to_string(), "myapp-task:10");
        assert_eq!(short(ARN), "myapp-task:10");
        assert_eq!(Revision::parse("web", "eu-west-1").unwrap().number, None);
        let gov = "arn:aws-us-gov:ecs:us-gov-west-1:123456789012:task-definition/a:1";
        assert_eq!(Revision::parse(gov, "us-gov-west-1").unwrap().text, gov);
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (text, wanted) in [
            (ARN, "lies in us-east-1; the infrastructure is in eu-west-1"),
            ("arn:aws:ecs:eu-west-1:1234:task-definition/a:1", "its account has not twelve digits"),
            ("arn:aws:s3:eu-west-1:123456789012:task-definition/a:1", "belongs to the service s3"),
            ("arn:aws:ecs:eu-west-1:123456789012:service/c/a", "expected task-definition/"),
            ("arn:aws:ecs", "fewer than six parts"),
            ("arn:Aws:ecs:eu-west-1:123456789012:x", "begins with something else"),
            ("web:0", "expected a number from 1"),
            ("web:latest", "expected a number from 1"),
            ("we b", "letters, digits"),
            ("", "the family is empty"),
        ] {
            let error = Revision::parse(text, "eu-west-1").unwrap_err();
            assert_eq!(error.code, "ECS-014");
            assert!(error.what.contains(wanted), "{text}: {}", error.what);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(text in "arn:aws:[a-z]{2,5}:[a-z]{2}-[a-z]{4}-[1-3]:[0-9]{12}:[a-z/:0-9-]{1,30}") {
            prop_assert_eq!(Arn::parse(&text).unwrap().to_string(), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}", region in "[a-z-]{0,12}") {
            drop(Revision::parse(&text, &region));
            drop(Revision::parse(&format!("arn:{text}"), &region));
        }
    }
}

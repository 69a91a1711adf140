//! Where an image lies: the host of a registry says account and region.

use crate::endpoint;

/// A repository as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Host, when one is written.
    pub(super) host: Option<Host>,
    /// Path of the repository.
    pub(super) repository: String,
}

/// The host of a registry: `123456789012.dkr.ecr.us-east-1.amazonaws.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) account: String,
    pub(super) region: String,
}

impl Place {
    /// Reads `[host/]repository`; a scheme in front and a tag or digest at the end are refused.
    ///
    /// **Errors**: what is wrong, for the field `imagePath`.
    pub(super) fn read(text: &str) -> Result<Place, String> {
        let text = text.trim().trim_matches('/');
        let problem = |what: &str| {
            format!(
                "imagePath is `{text}`: {what}; expected `repository` or \
                 `ACCOUNT.dkr.ecr.REGION.amazonaws.com/repository`"
            )
        };
        let (first, rest) = text.split_once('/').unwrap_or((text, ""));
        let (host, repository) = match Host::read(first) {
            Some(host) => (Some(host), rest),
            // The names of repositories may hold dots, but nobody else's registry is asked here.
            None if first.contains(':') || (first.contains('.') && first.contains("amazonaws")) => {
                return Err(problem("it begins with the host of something that is no ECR registry"));
            }
            None => (None, text),
        };
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        if repository.contains(['@', ':']) {
            return Err(problem("the tag stands in `tag`, not in the path"));
        }
        if repository.is_empty() || !repository.chars().all(fits) || repository.contains("//") {
            return Err(problem("that is no name of a repository"));
        }
        Ok(Place { host, repository: repository.to_owned() })
    }
}

impl Host {
    /// `ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com[.cn]`, or `ACCOUNT.dkr-ecr[-fips].REGION.on.aws`.
    fn read(name: &str) -> Option<Host> {
        let (account, rest) = name.split_once('.')?;
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let heads = ["dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."];
        let rest = heads.iter().find_map(|head| rest.strip_prefix(head))?;
        let (region, suffix) = rest.split_once('.')?;
        let suffixes =
            ["amazonaws.", "on.aws", "on.amazonwebservices.", "c2s.", "sc2s.", "cloud.adc-e.", "csp."];
        let known = suffixes.iter().any(|known| suffix.starts_with(known));
        let fits = is_account && known && endpoint::check_region(region).is_ok();
        fits.then(|| Host { name: name.to_owned(), account: account.to_owned(), region: region.to_owned() })
    }
}

/// The host of an account's registry.
pub(super) fn host_of(account: &str, region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("{account}.dkr.ecr.{region}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_say_account_and_region() {
        for (text, region, repository) in [
            ("123456789012.dkr.ecr.us-east-1.amazonaws.com/myapp", "us-east-1", "myapp"),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/team/my.app", "cn-north-1", "team/my.app"),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com/a", "us-gov-west-1", "a"),
            ("123456789012.dkr-ecr.eu-west-1.on.aws/a/b-c", "eu-west-1", "a/b-c"),
        ] {
            let place = Place::read(text).unwrap();
            let host = place.host.unwrap();
            assert_eq!((host.account.as_str(), host.region.as_str()), ("123456789012", region), "{text}");
            assert_eq!(place.repository, repository);
        }
        assert_eq!(Place::read("team/myapp"), Ok(Place { host: None, repository: "team/myapp".into() }));
        let host = host_of("123456789012", "cn-north-1");
        assert_eq!(Host::read(&host).unwrap().region, "cn-north-1");
    }

    #[test]
    fn what_is_no_repository_of_ecr_is_refused() {
        for (text, wanted) in [
            ("", "no name of a repository"),
            ("123456789012.dkr.ecr.us-east-1.amazonaws.com/", "no name of a repository"),
            ("myapp:1.2", "host of something"),
            ("team/myapp:1.2", "the tag stands in `tag`"),
            ("team/myapp@sha256:00", "the tag stands in `tag`"),
            ("My App", "no name of a repository"),
            ("a//b", "no name of a repository"),
            ("localhost:5000/a", "host of something"),
            ("s3.amazonaws.com/a", "host of something"),
        ] {
            let problem = Place::read(text).unwrap_err();
            assert!(problem.contains(wanted), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Ok(place) = Place::read(&text) {
                prop_assert!(!place.repository.is_empty());
            }
        }
    }
}

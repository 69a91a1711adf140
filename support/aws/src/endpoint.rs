//! Where a service is reached: what the connector says, then the agent's environment, then AWS' own name. Pure.

use crate::operation::Service;
use executor_api::HostAliases;
use std::collections::BTreeMap;
use url::Url;

/// The variable for every service; with `_SERVICE` behind it, for one.
pub(crate) const VARIABLE: &str = "AWS_ENDPOINT_URL";
const IGNORE: &str = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS";
const FIPS: &str = "AWS_USE_FIPS_ENDPOINT";

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    /// Whether it is not AWS' own.
    pub(crate) replaced: bool,
}

/// What is wrong with an endpoint or region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: `{value}` is not {expected}")]
pub(crate) struct EndpointFault {
    pub(crate) field: String,
    pub(crate) value: String,
    pub(crate) expected: &'static str,
}

/// The agent's variables with the connector's endpoints laid over them: what every part that looks for an endpoint reads,
/// AWS' own crates and the awscli among them. `endpoints` is as in [`proto::task::AwsAccount`].
pub(crate) fn effective(
    environment: &BTreeMap<String, String>,
    endpoints: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut all = environment.clone();
    let ignored = all.get(IGNORE).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    // The connector's own ones are asked for by name, so no variable of the agent puts them out of force.
    let general = endpoints.get("").is_some_and(|url| !url.trim().is_empty());
    if ignored || general {
        all.retain(|name, _| !name.starts_with(VARIABLE));
        all.remove(IGNORE);
    }
    for (service, url) in endpoints {
        let name = if service.is_empty() {
            VARIABLE.to_owned()
        } else {
            format!("{VARIABLE}_{}", service.to_ascii_uppercase().replace(['-', ' '], "_"))
        };
        if !url.trim().is_empty() {
            all.insert(name, url.trim().to_owned());
        }
    }
    all
}

/// Where `service` is reached in `region`, by the variables that [`effective`] gave.
pub(crate) fn resolve(
    service: Service,
    region: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Endpoint, EndpointFault> {
    let own = format!("{VARIABLE}_{}", service.variable());
    for name in [own.as_str(), VARIABLE] {
        if let Some(value) = environment.get(name).filter(|value| !value.trim().is_empty()) {
            return Ok(Endpoint { url: parse(name, value)?, replaced: true });
        }
    }
    let fips = environment.get(FIPS).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    let host = match service {
        // IAM has one endpoint for a partition.
        Service::Iam if region.starts_with("cn-") => format!("iam.cn-north-1.{}", suffix(region)),
        Service::Iam if region.starts_with("us-gov-") => format!("iam.us-gov.{}", suffix(region)),
        Service::Iam => format!("{}.{}", host(service, region, fips), suffix(region)),
        _ => format!("{}.{region}.{}", host(service, region, fips), suffix(region)),
    };
    Ok(Endpoint { url: parse("region", &format!("https://{host}"))?, replaced: false })
}

/// What is out of the ordinary about the endpoints of a session, for people: those that are not AWS' own, and the aliases
/// of their hosts.
pub(crate) fn notes(
    region_of: impl Fn(Service) -> String,
    environment: &BTreeMap<String, String>,
    aliases: &HostAliases,
) -> Vec<String> {
    let mut replaced: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut lines = Vec::new();
    for service in Service::ALL {
        let Ok(endpoint) = resolve(service, &region_of(service), environment) else { continue };
        if endpoint.replaced {
            replaced.entry(endpoint.url.to_string()).or_default().push(service.title());
        }
        let host = endpoint.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = endpoint.url.port_or_known_default().unwrap_or_default();
        if let Some((to_host, to_port)) = aliases.lookup(host, port) {
            lines.push(alias_line(host, port, &to_host, to_port));
        }
    }
    let every = replaced.len() == 1;
    lines.extend(replaced.into_iter().map(|(url, services)| {
        if every && services.len() == Service::ALL.len() {
            format!("endpoint of every AWS service: {url}")
        } else {
            format!("endpoint of {}: {url}", services.join(", "))
        }
    }));
    lines
}

/// The line about an alias that is used (D17).
pub(crate) fn alias_line(host: &str, port: u16, to_host: &str, to_port: u16) -> String {
    format!("host alias: {host}:{port} -> {to_host}:{to_port}")
}

/// Whether `region` can be one: it becomes part of a host name.
pub(crate) fn check_region(region: &str) -> Result<(), EndpointFault> {
    let good = !region.is_empty()
        && region.len() <= 32
        && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !region.starts_with('-')
        && !region.ends_with('-');
    if good {
        return Ok(());
    }
    Err(EndpointFault {
        field: "region".into(),
        value: region.into(),
        expected: "a region such as us-east-1",
    })
}

fn parse(field: &str, value: &str) -> Result<Url, EndpointFault> {
    let fault = |expected| EndpointFault { field: field.into(), value: shown(value), expected };
    let url = Url::parse(value.trim()).map_err(|_| fault("a URL such as https://HOST:PORT"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(fault("an http or https URL with a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fault("a URL without user and password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(fault("a URL without query and fragment"));
    }
    Ok(url)
}

/// A URL for messages: whatever stands before `@` may be a password.
fn shown(value: &str) -> String {
    match value.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => value.to_owned(),
    }
}

/// The first part of the host name; the FIPS name if it is asked for (endpoint rules of AWS' models).
fn host(service: Service, region: &str, fips: bool) -> String {
    // Where a government's endpoints have no other name, they are FIPS endpoints.
    let only = region.starts_with("us-gov-")
        && !matches!(service, Service::Ecs | Service::Ecr | Service::SecretsManager);
    let suffix = if fips && !only { "-fips" } else { "" };
    format!("{}{suffix}", service.host())
}

/// The domain of the partition that `region` is in (AWS' `partitions.json`).
fn suffix(region: &str) -> &'static str {
    let prefixes = [
        ("cn-", "amazonaws.com.cn"),
        ("eusc-", "amazonaws.eu"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
    ];
    prefixes
        .into_iter()
        .find(|(prefix, _)| region.starts_with(prefix))
        .map_or("amazonaws.com", |(_, suffix)| suffix)
}

/// The region that requests to `service` are signed for.
pub(crate) fn signing_region(service: Service, region: &str) -> &str {
    match service {
        Service::Iam if region.starts_with("cn-") => "cn-north-1",
        Service::Iam if region.starts_with("us-gov-") => "us-gov-west-1",
        Service::Iam => "us-east-1",
        _ => region,
    }
}

/// Whether two regions are in one partition: credentials of one are worth nothing in another.
pub(crate) fn same_partition(a: &str, b: &str) -> bool {
    suffix(a) == suffix(b) && a.starts_with("us-gov-") == b.starts_with("us-gov-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn url(
        service: Service,
        region: &str,
        environment: &[(&str, &str)],
        endpoints: &[(&str, &str)],
    ) -> String {
        let all = effective(&map(environment), &map(endpoints));
        resolve(service, region, &all).unwrap().url.to_string()
    }

    #[test]
    fn aws_own_names_in_every_partition() {
        let own = |service, region| url(service, region, &[], &[]);
        assert_eq!(own(Service::Ecs, "us-east-1"), "https://ecs.us-east-1.amazonaws.com/");
        assert_eq!(own(Service::Ecr, "eu-west-1"), "https://api.ecr.eu-west-1.amazonaws.com/");
        assert_eq!(own(Service::CloudWatch, "cn-north-1"), "https://monitoring.cn-north-1.amazonaws.com.cn/");
        assert_eq!(own(Service::Sts, "us-gov-west-1"), "https://sts.us-gov-west-1.amazonaws.com/");
        assert_eq!(
            own(Service::LoadBalancing, "us-isob-east-1"),
            "https://elasticloadbalancing.us-isob-east-1.sc2s.sgov.gov/"
        );
    }

    #[test]
    fn the_connector_goes_before_the_environment_and_one_service_before_all() {
        let environment = [("AWS_ENDPOINT_URL", "http://all:1"), ("AWS_ENDPOINT_URL_ECS", "http://ecs:2")];
        let ecs = |endpoints: &[_]| url(Service::Ecs, "us-east-1", &environment, endpoints);
        let sts = |endpoints: &[_]| url(Service::Sts, "us-east-1", &environment, endpoints);
        assert_eq!((ecs(&[]), sts(&[])), ("http://ecs:2/".into(), "http://all:1/".into()));
        assert_eq!(ecs(&[("ecs", "http://mine:3/path")]), "http://mine:3/path");
        // The connector's general one outweighs what the environment says of one service.
        assert_eq!(
            (ecs(&[("", "http://mine:3")]), sts(&[("", "http://mine:3")])),
            ("http://mine:3/".into(), "http://mine:3/".into())
        );
        let alb = url(
            Service::LoadBalancing,
            "us-east-1",
            &environment,
            &[("elastic_load_balancing_v2", "http://lb:4")],
        );
        assert_eq!(alb, "http://lb:4/");
    }

    #[test]
    fn configured_endpoints_can_be_ignored_but_not_the_connector_s() {
        let environment = [("AWS_ENDPOINT_URL", "http://all:1"), (IGNORE, "true")];
        assert_eq!(url(Service::Ecs, "us-east-1", &environment, &[]), "https://ecs.us-east-1.amazonaws.com/");
        assert_eq!(
            url(Service::Ecs, "us-east-1", &environment, &[("ecs", "http://mine:3")]),
            "http://mine:3/"
        );
    }

    #[test]
    fn fips_names() {
        let fips = [(FIPS, "true")];
        assert_eq!(url(Service::Ecs, "us-east-1", &fips, &[]), "https://ecs-fips.us-east-1.amazonaws.com/");
        assert_eq!(
            url(Service::Ecr, "us-east-1", &fips, &[]),
            "https://api.ecr-fips.us-east-1.amazonaws.com/"
        );
        assert_eq!(
            url(Service::Sts, "us-gov-west-1", &fips, &[]),
            "https://sts.us-gov-west-1.amazonaws.com/"
        );
    }

    #[test]
    fn what_is_no_endpoint_is_named_with_its_field_and_without_a_password() {
        let fault = |value: &str| {
            let all = effective(&map(&[]), &map(&[("ecs", value)]));
            resolve(Service::Ecs, "us-east-1", &all).unwrap_err().to_string()
        };
        assert_eq!(
            fault("ecs.local:80"),
            "AWS_ENDPOINT_URL_ECS: `ecs.local:80` is not an http or https URL with a host"
        );
        let hidden = fault("http://user:hidden@ecs");
        assert!(!hidden.contains("hidden") && hidden.contains("without user and password"), "{hidden}");
        for region in ["", "US-EAST-1", "us-east-1.evil", "-x", "a/b"] {
            assert!(check_region(region).is_err(), "{region}");
        }
        check_region("ap-southeast-5").unwrap();
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_told() {
        let said = |environment: &[(&str, &str)], aliases: &[(&str, &str)]| {
            let aliases = aliases.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let environment = effective(&map(environment), &map(&[]));
            notes(|_| "us-east-1".to_owned(), &environment, &HostAliases::new(aliases))
        };
        assert!(said(&[], &[]).is_empty());
        assert_eq!(
            said(&[(VARIABLE, "http://all:1")], &[]),
            ["endpoint of every AWS service: http://all:1/"]
        );
        let two = [("AWS_ENDPOINT_URL_ECS", "http://e:1"), ("AWS_ENDPOINT_URL_STS", "http://e:1")];
        assert_eq!(said(&two, &[]), ["endpoint of ECS, STS: http://e:1/"]);
        let alias = [("ecs.us-east-1.amazonaws.com", "10.0.0.1:8443")];
        assert_eq!(said(&[], &alias), ["host alias: ecs.us-east-1.amazonaws.com:443 -> 10.0.0.1:8443"]);
    }

    #[test]
    fn partitions() {
        assert!(same_partition("us-east-1", "eu-west-1"));
        assert!(!same_partition("us-east-1", "cn-north-1"));
        assert!(!same_partition("us-east-1", "us-gov-east-1"));
    }
}

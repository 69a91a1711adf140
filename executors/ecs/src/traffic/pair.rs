//! Which of two services is blue and which is green: derived from where requests go. Pure.
//!
//! Blue gets the production requests, green is the other one. Names and tags say nothing that counts: a pipeline that runs a
//! second time finds the colours the other way round (settled facts §3.6, facts `ecs-ssh-steps.md` A9).

use super::fault::Fault;
use super::find::groups_of;
use super::look::Balancer;
use super::rule::Rule;
use super::weights::Weights;
use crate::service::{self, is_active};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Tag of Harness on both services.
pub(crate) const COLOUR: &str = "BG_VERSION";
/// Its value on the service that gets the requests.
pub(crate) const BLUE: &str = "BLUE";
/// Its value on the other one.
pub(crate) const GREEN: &str = "GREEN";

/// Two services and what sends requests to them, as decided once for a whole stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pair {
    /// The service that gets the requests; none before the first deployment.
    pub(crate) blue: Option<String>,
    /// The service that is deployed; empty where only its target group is known.
    pub(crate) green: String,
    /// ARN of the target group that gets the requests.
    pub(crate) blue_group: String,
    /// ARN of the target group of green.
    pub(crate) green_group: String,
    /// The rule of production.
    pub(crate) production: Rule,
    /// The rule that lets people look at green, when there is one that follows the colours.
    #[serde(default)]
    pub(crate) stage: Option<Rule>,
    /// Rules of test listeners that sent requests to blue when the deployment began, and do not follow.
    #[serde(default)]
    pub(crate) tests: Vec<Rule>,
    /// The load balancer of all of them.
    pub(crate) balancer: Balancer,
}

/// The name of a service, its ARN's last part where it has none.
pub(crate) fn name(service: &Value) -> &str {
    service.get("serviceName").and_then(Value::as_str).unwrap_or_default()
}

/// The one of the services that has this name, while it is there.
pub(crate) fn service_named<'a>(live: &'a [Value], wanted: &str) -> Option<&'a Value> {
    live.iter().find(|service| name(service) == wanted && is_active(service))
}

/// Weight of what a service is registered in.
fn weight(service: &Value, weights: &Weights) -> u32 {
    groups_of(service).into_iter().map(|group| weights.of(group)).sum()
}

/// The colours of two services by the weights of the production rule. `named` is the one that the step wants to deploy,
/// `other` that of the stage. Returns blue and green.
///
/// **Errors**: nobody can be green, or it is not clear who is blue.
pub(crate) fn colours(
    named: &str,
    other: Option<&str>,
    live: &[Value],
    weights: &Weights,
) -> Result<(Option<String>, String), Fault> {
    let other = other.filter(|other| *other != named);
    let gets = |name: &str| service_named(live, name).map(|service| weight(service, weights));
    let (mine, theirs) = (gets(named), other.and_then(gets));
    let unfit = |text: String| Err(Fault::Unfit(text));
    match (mine, theirs) {
        (None | Some(0), None) => Ok((None, named.to_owned())),
        (Some(_), None) => match other {
            Some(other) => Ok((Some(named.to_owned()), other.to_owned())),
            None => unfit(format!(
                "service {named} gets the production requests, and the stage's service definition names no other one that \
                 could be deployed beside it"
            )),
        },
        (Some(0), Some(0)) => unfit(format!(
            "neither {named} nor {} gets requests by the production rule",
            other.unwrap_or_default()
        )),
        (None, Some(0)) => {
            unfit(format!("service {} gets no requests by the production rule", other.unwrap_or_default()))
        }
        (mine, Some(theirs)) if mine.unwrap_or(0) > theirs => {
            Ok((Some(named.to_owned()), other.unwrap_or_default().to_owned()))
        }
        (_, Some(_)) => Ok((other.map(str::to_owned), named.to_owned())),
    }
}

/// What is known of the pair `<name>__1`, `<name>__2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Colours {
    /// The live service; none before the first deployment.
    pub(crate) blue: Option<String>,
    /// The one to be deployed.
    pub(crate) green: String,
    /// What a person should know about tags that say otherwise.
    pub(crate) warnings: Vec<String>,
}

/// The two names of a pair.
pub(crate) fn names(service: &str) -> [String; 2] {
    [format!("{service}__1"), format!("{service}__2")]
}

/// The colour that a service is tagged with.
pub(crate) fn tag(service: &Value) -> Option<&str> {
    let tags = aws::document::list(service, &["tags"]);
    let found = tags.iter().find(|tag| tag.get("key").and_then(Value::as_str) == Some(COLOUR))?;
    found.get("value")?.as_str()
}

/// The colours of a pair by the target group that production requests go to. Tags decide only where both colours share one
/// group.
///
/// **Errors**: both services are registered in the production group.
pub(crate) fn live_colours(
    names: &[String; 2],
    live: &[Value],
    production: &str,
    stage: &str,
) -> Result<Colours, Fault> {
    let [first, second] = names;
    let active: Vec<&Value> = names.iter().filter_map(|name| service_named(live, name)).collect();
    let on = |group: &str| -> Vec<&Value> {
        active.iter().filter(|service| groups_of(service).contains(&group)).copied().collect()
    };
    let tagged = |colour: &str| -> Vec<&Value> {
        active.iter().filter(|service| tag(service) == Some(colour)).copied().collect()
    };
    let blue = if production == stage {
        match (tagged(BLUE).as_slice(), active.as_slice()) {
            ([one], _) => Some(*one),
            (_, []) => None,
            (_, several) => several.iter().copied().max_by_key(|live| service::desired(live)),
        }
    } else {
        match on(production).as_slice() {
            [] => None,
            [one] => Some(*one),
            _ => {
                let text = format!("both {first} and {second} are registered in the production target group");
                return Err(Fault::Unfit(text));
            }
        }
    };
    let mut warnings = Vec::new();
    let green = match blue {
        Some(blue) => {
            if name(blue) == first {
                second
            } else {
                first
            }
        }
        // Nobody is live. What is there is left alone if it can be.
        None => [first, second]
            .into_iter()
            .find(|name| service_named(live, name).is_none())
            .or_else(|| {
                [first, second].into_iter().find(|name| service_named(live, name).and_then(tag) != Some(BLUE))
            })
            .unwrap_or(first),
    };
    for service in &active {
        let colour = if blue.is_some_and(|blue| name(blue) == name(service)) { BLUE } else { GREEN };
        match tag(service) {
            Some(found) if found == colour => {}
            found => warnings.push(format!(
                "service {} is tagged {COLOUR}={}, but {}; the requests count",
                name(service),
                found.unwrap_or("(nothing)"),
                if colour == BLUE { "gets the production requests" } else { "gets no production requests" }
            )),
        }
    }
    Ok(Colours { blue: blue.map(|blue| name(blue).to_owned()), green: green.clone(), warnings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, group: &str, colour: &str) -> Value {
        json!({"serviceName": name, "status": "ACTIVE", "desiredCount": 2, "loadBalancers": [{"targetGroupArn": group}],
            "tags": [{"key": COLOUR, "value": colour}]})
    }

    fn weights(blue: u32, green: u32) -> Weights {
        Weights::read([("tg-1".to_owned(), blue), ("tg-2".to_owned(), green)])
    }

    #[test]
    fn green_is_the_one_with_less_weight_whatever_it_is_called() {
        let (web, next) = (service("web", "tg-1", ""), service("web-green", "tg-2", ""));
        let decide = |live: &[Value], weights: &Weights| colours("web-green", Some("web"), live, weights);
        let is = |blue: Option<&str>, green: &str| (blue.map(str::to_owned), green.to_owned());
        // The first run, and the same again.
        assert_eq!(
            decide(std::slice::from_ref(&web), &weights(100, 0)).unwrap(),
            is(Some("web"), "web-green")
        );
        assert_eq!(
            decide(&[web.clone(), next.clone()], &weights(100, 0)).unwrap(),
            is(Some("web"), "web-green")
        );
        // The second run: what was green is live.
        assert_eq!(
            decide(std::slice::from_ref(&next), &weights(0, 100)).unwrap(),
            is(Some("web-green"), "web")
        );
        let gone = json!({"serviceName": "web", "status": "INACTIVE", "loadBalancers": [{"targetGroupArn": "tg-1"}]});
        assert_eq!(decide(&[gone, next.clone()], &weights(0, 100)).unwrap(), is(Some("web-green"), "web"));
        assert_eq!(
            decide(&[web.clone(), next.clone()], &weights(10, 90)).unwrap(),
            is(Some("web-green"), "web")
        );
        // In the middle of a run that was given up.
        assert_eq!(
            decide(&[web.clone(), next.clone()], &weights(50, 50)).unwrap(),
            is(Some("web"), "web-green")
        );
        // The first deployment of all.
        assert_eq!(decide(&[], &weights(100, 0)).unwrap(), is(None, "web-green"));
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let (web, next) = (service("web", "tg-1", ""), service("web-green", "tg-2", ""));
        let elsewhere = Weights::read([("other".to_owned(), 1)]);
        for (named, other, live) in [
            ("web-green", Some("web"), vec![web.clone(), next.clone()]),
            ("web-green", Some("web"), vec![web.clone()]),
        ] {
            assert!(colours(named, other, &live, &elsewhere).is_err());
        }
        let said =
            colours("web", None, std::slice::from_ref(&web), &weights(100, 0)).unwrap_err().to_string();
        assert!(said.contains("names no other one"), "{said}");
        let said = colours("web", Some("web"), &[web], &weights(100, 0)).unwrap_err().to_string();
        assert!(said.contains("names no other one"), "{said}");
    }

    #[test]
    fn a_pair_is_coloured_by_its_requests_and_tags_are_told_off() {
        let names = names("web");
        let (one, two) = (service("web__1", "prod", GREEN), service("web__2", "stage", BLUE));
        let found = live_colours(&names, &[one.clone(), two.clone()], "prod", "stage").unwrap();
        assert_eq!((found.blue.as_deref(), found.green.as_str()), (Some("web__1"), "web__2"));
        assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
        assert!(found.warnings[0].contains("web__1 is tagged BG_VERSION=GREEN"), "{:?}", found.warnings);
        // After the swap the same services have the other colours.
        let found = live_colours(&names, &[one.clone(), two.clone()], "stage", "prod").unwrap();
        assert_eq!((found.blue.as_deref(), found.green.as_str()), (Some("web__2"), "web__1"));
        assert!(found.warnings.is_empty());
        assert!(
            live_colours(&names, &[one.clone(), service("web__2", "prod", GREEN)], "prod", "stage").is_err()
        );
        // Nobody is live: the free name is taken.
        let found = live_colours(&names, &[service("web__1", "stage", BLUE)], "prod", "stage").unwrap();
        assert_eq!((found.blue, found.green.as_str()), (None, "web__2"));
        let found = live_colours(&names, &[], "prod", "stage").unwrap();
        assert_eq!((found.blue, found.green.as_str()), (None, "web__1"));
    }

    #[test]
    fn where_both_share_a_group_the_tag_decides_then_the_size() {
        let names = names("web");
        let (one, two) = (service("web__1", "prod", GREEN), service("web__2", "prod", BLUE));
        let found = live_colours(&names, &[one.clone(), two], "prod", "prod").unwrap();
        assert_eq!((found.blue.as_deref(), found.green.as_str()), (Some("web__2"), "web__1"));
        let mut large = service("web__2", "prod", GREEN);
        large["desiredCount"] = json!(5);
        let found = live_colours(&names, &[one, large], "prod", "prod").unwrap();
        assert_eq!(found.blue.as_deref(), Some("web__2"));
    }
}

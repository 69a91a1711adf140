//! Which rule, which target group: decided from what was read. Pure.
//!
//! The live colour is derived from where requests go, never from names or tags (facts `ecs-ssh-steps.md` A9, D1 #25). What
//! is not unique is not guessed.

use super::actions::Actions;
use super::fault::Fault;
use super::rule::Rule;
use super::weights::short;
use serde_json::Value;

/// Ports on which browsers expect a site. A listener on another one, beside the production listener, is for tests.
const PUBLIC: [u16; 2] = [80, 443];

/// A rule with what it does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// Which.
    pub(crate) rule: Rule,
    /// What it does.
    pub(crate) actions: Actions,
    /// Port of its listener.
    pub(crate) port: Option<u16>,
}

/// A target group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Group {
    /// ARN.
    pub(crate) arn: String,
    /// ARNs of the load balancers that know it.
    pub(crate) load_balancers: Vec<String>,
    /// `ip`, `instance`, `lambda`, `alb`.
    pub(crate) target_type: String,
    /// Protocol of its targets.
    pub(crate) protocol: String,
    /// Seconds between two health checks.
    pub(crate) interval: u32,
    /// Good checks in a row that make a target healthy.
    pub(crate) threshold: u32,
}

impl Group {
    /// As DescribeTargetGroups answers it.
    pub(crate) fn read(value: &Value) -> Group {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str, otherwise: u32| {
            aws::document::whole(value, &[name]).and_then(|n| u32::try_from(n).ok()).unwrap_or(otherwise)
        };
        Group {
            arn: text("TargetGroupArn"),
            load_balancers: aws::document::list(value, &["LoadBalancerArns"])
                .iter()
                .filter_map(|arn| arn.as_str().map(str::to_owned))
                .collect(),
            target_type: text("TargetType"),
            protocol: text("Protocol"),
            interval: number("HealthCheckIntervalSeconds", 30),
            threshold: number("HealthyThresholdCount", 5),
        }
    }
}

/// The load balancer of a target group.
///
/// **Errors**: none, or several.
pub(crate) fn balancer_of(group: &Group) -> Result<&str, Fault> {
    match group.load_balancers.as_slice() {
        [one] => Ok(one),
        [] => Err(Fault::NotUnique {
            what: format!("the load balancer of target group {}", short(&group.arn)),
            found: "no listener or rule forwards to it".to_owned(),
            set: SET.to_owned(),
        }),
        several => Err(Fault::NotUnique {
            what: format!("the load balancer of target group {}", short(&group.arn)),
            found: format!("there are {}: {}", several.len(), several.join(", ")),
            set: SET.to_owned(),
        }),
    }
}

/// What settles every such question.
const SET: &str = "the service variable `ecs_bg_listener_rule_arn` (or `ecs_bg_listener_arn` for a listener's default rule), \
                   or `listenerRuleArn` in the spec of the step";

/// The rule that sends production requests, and others that send requests to the same service and are for tests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Routes<'a> {
    /// Of production.
    pub(crate) production: &'a Found,
    /// Of test listeners.
    pub(crate) tests: Vec<&'a Found>,
}

/// The one rule that sends requests to a group of `live`. Of several, the one that names another group of the `pair` too,
/// provided that the others belong to listeners for tests.
///
/// **Errors**: none or several; the text lists them.
pub(crate) fn production<'a>(all: &'a [Found], live: &[&str], pair: &[&str]) -> Result<Routes<'a>, Fault> {
    let sending: Vec<&Found> = all.iter().filter(|found| sends_to(&found.actions, live)).collect();
    let names: Vec<&str> = live.iter().map(|group| short(group)).collect();
    let not_unique = |found: String| Fault::NotUnique {
        what: format!("the rule that sends requests to target group {}", names.join(" or ")),
        found,
        set: SET.to_owned(),
    };
    let listed = || {
        let lines: Vec<String> =
            sending.iter().map(|found| format!("{} ({})", found.rule, found.actions.shown())).collect();
        lines.join("; ")
    };
    match sending.as_slice() {
        [] => Err(not_unique("there is none".to_owned())),
        [one] => Ok(Routes { production: one, tests: Vec::new() }),
        several => {
            let both: Vec<&&Found> = several
                .iter()
                .filter(|found| pair.iter().filter(|group| names_group(&found.actions, group)).count() > 1)
                .collect();
            let [production] = both.as_slice() else {
                return Err(not_unique(format!("there are {}: {}", several.len(), listed())));
            };
            let tests: Vec<&Found> =
                several.iter().filter(|found| found.rule != production.rule).copied().collect();
            if tests.iter().all(|test| is_for_tests(test, production)) {
                Ok(Routes { production, tests })
            } else {
                Err(not_unique(format!("there are {}: {}", several.len(), listed())))
            }
        }
    }
}

/// Rules beside `production` that send requests to one of the groups and are for tests; and those that are not.
pub(crate) fn others<'a>(
    all: &'a [Found],
    production: &Rule,
    groups: &[&str],
) -> (Vec<&'a Found>, Vec<&'a Found>) {
    let port = all.iter().find(|found| found.rule == *production);
    all.iter()
        .filter(|found| found.rule != *production && sends_to(&found.actions, groups))
        .partition(|found| port.is_some_and(|production| is_for_tests(found, production)))
}

fn is_for_tests(found: &Found, production: &Found) -> bool {
    found.rule.listener != production.rule.listener && found.port.is_some_and(|port| !PUBLIC.contains(&port))
}

/// Whether one of the groups gets requests.
pub(crate) fn sends_to(actions: &Actions, groups: &[&str]) -> bool {
    actions.weights().is_ok_and(|weights| groups.iter().any(|group| weights.of(group) > 0))
}

fn names_group(actions: &Actions, group: &str) -> bool {
    actions.weights().is_ok_and(|weights| weights.names(group))
}

/// The one group of a load balancer that nobody uses: without targets, without requests, of the kind of `like`.
/// `busy` are groups with targets or of services.
///
/// **Errors**: none or several; the text lists them.
pub(crate) fn unused<'a>(groups: &'a [Group], busy: &[&str], like: &Group) -> Result<&'a Group, Fault> {
    let fitting: Vec<&Group> = groups
        .iter()
        .filter(|group| group.arn != like.arn && !busy.contains(&group.arn.as_str()))
        .filter(|group| group.target_type == like.target_type && group.protocol == like.protocol)
        .collect();
    match fitting.as_slice() {
        [one] => Ok(one),
        other => {
            let found = match other {
                [] => "there is none".to_owned(),
                several => {
                    let names: Vec<&str> = several.iter().map(|group| short(&group.arn)).collect();
                    format!("there are {}: {}", several.len(), names.join(", "))
                }
            };
            Err(Fault::NotUnique {
                what: format!(
                    "the unused target group ({}, {}) for green on the load balancer of {}",
                    like.target_type,
                    like.protocol,
                    short(&like.arn)
                ),
                found,
                set: "`targetGroupArn` in the spec of the step, or the service variable `ecs_bg_green_target_group_arn`".to_owned(),
            })
        }
    }
}

/// Target groups of a service, as its `loadBalancers` name them.
pub(crate) fn groups_of(service: &Value) -> Vec<&str> {
    aws::document::list(service, &["loadBalancers"])
        .iter()
        .filter_map(|entry| entry.get("targetGroupArn")?.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BALANCER: &str = "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/app/web/50dc";

    fn listener(name: &str) -> String {
        format!("arn:aws:elasticloadbalancing:us-east-1:1:listener/app/web/50dc/{name}")
    }

    fn found(name: &str, port: u16, groups: &[(&str, u32)]) -> Found {
        let tuples: Vec<Value> =
            groups.iter().map(|(group, weight)| json!({"TargetGroupArn": group, "Weight": weight})).collect();
        Found {
            rule: Rule::default_of(listener(name)),
            actions: Actions::new(vec![
                json!({"Type": "forward", "ForwardConfig": {"TargetGroups": tuples}}),
            ]),
            port: Some(port),
        }
    }

    #[test]
    fn the_one_rule_that_sends_requests_is_found() {
        let redirect = Found {
            rule: Rule::default_of(listener("http")),
            actions: Actions::new(vec![json!({"Type": "redirect"})]),
            port: Some(80),
        };
        let all = [redirect, found("https", 443, &[("blue", 1)]), found("test", 9001, &[("green", 1)])];
        let routes = production(&all, &["blue"], &["blue"]).unwrap();
        assert_eq!(routes.production.rule, all[1].rule);
        assert!(routes.tests.is_empty());
        let said = production(&all, &["other"], &[]).unwrap_err().to_string();
        assert!(said.contains("there is none"), "{said}");
    }

    #[test]
    fn of_several_the_one_with_both_colours_when_the_others_are_for_tests() {
        let all = [found("https", 443, &[("blue", 0), ("green", 100)]), found("test", 9001, &[("green", 1)])];
        let routes = production(&all, &["green"], &["blue", "green"]).unwrap();
        assert_eq!((&routes.production.rule, routes.tests.len()), (&all[0].rule, 1));
        // A second public listener is no test: somebody has to say which one is meant.
        let all = [found("https", 443, &[("blue", 0), ("green", 100)]), found("http", 80, &[("green", 1)])];
        let error = production(&all, &["green"], &["blue", "green"]).unwrap_err();
        assert!(error.to_string().contains("there are 2"), "{error}");
        let step = error.into_step();
        assert_eq!(step.code, "ECS-053");
        assert!(step.hint.unwrap().contains("ecs_bg_listener_rule_arn"));
        // Nor is one known by a group that is none of the pair.
        let all = [found("https", 443, &[("old", 0), ("green", 100)]), found("test", 9001, &[("green", 1)])];
        assert!(production(&all, &["green"], &["blue", "green"]).is_err());
    }

    #[test]
    fn a_group_of_two_load_balancers_or_of_none_is_not_guessed() {
        let group = |balancers: &[&str]| {
            Group::read(&json!({"TargetGroupArn": "a:targetgroup/blue/1", "LoadBalancerArns": balancers}))
        };
        assert_eq!(balancer_of(&group(&[BALANCER])).unwrap(), BALANCER);
        assert!(balancer_of(&group(&[])).unwrap_err().to_string().contains("no listener"));
        let said = balancer_of(&group(&[BALANCER, "arn:two"])).unwrap_err().to_string();
        assert!(said.contains("there are 2") && said.contains("arn:two"), "{said}");
    }

    #[test]
    fn the_only_unused_group_of_the_same_kind_is_for_green() {
        let group = |arn: &str, kind: &str| {
            Group::read(&json!({"TargetGroupArn": arn, "TargetType": kind, "Protocol": "HTTP",
                "HealthCheckIntervalSeconds": "10", "HealthyThresholdCount": "2"}))
        };
        let blue = group("blue", "ip");
        assert_eq!((blue.interval, blue.threshold), (10, 2));
        let all = [blue.clone(), group("green", "ip"), group("lambda", "lambda"), group("other", "ip")];
        assert_eq!(unused(&all, &["other"], &blue).unwrap().arn, "green");
        let said = unused(&all, &[], &blue).unwrap_err();
        assert!(said.to_string().contains("green, other"), "{said}");
        assert!(said.into_step().hint.unwrap().contains("ecs_bg_green_target_group_arn"));
        assert!(unused(&all, &["green", "other"], &blue).unwrap_err().to_string().contains("there is none"));
    }

    #[test]
    fn rules_beside_production_are_told_apart() {
        let all = [
            found("https", 443, &[("blue", 1)]),
            found("http", 80, &[("blue", 1)]),
            found("test", 9001, &[("blue", 1)]),
            found("else", 9002, &[("green", 1)]),
        ];
        let (tests, public) = others(&all, &all[0].rule, &["blue"]);
        assert_eq!(tests, [&all[2]]);
        assert_eq!(public, [&all[1]]);
    }
}

//! Finding the rule, the load balancer and the target groups of a deployment that does not name them (rule R9 shape 5,
//! settled facts §3.6). Everything is read before anything is changed; what is not unique ends the step.

use super::actions::Actions;
use super::fault::Fault;
use super::find::{self, Found, Group, groups_of};
use super::health::healthy;
use super::look::{self, Balancer};
use super::pair::{self, Pair};
use super::rule::Rule;
use super::weights::{Weights, short};
use crate::service::is_active;
use crate::session::{Session, ecs};
use executor_api::StepError;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the spec of the step and the variables of the service say. The spec goes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// ARN of the production rule.
    pub(crate) rule: Option<String>,
    /// ARN of the production listener, for its default rule.
    pub(crate) listener: Option<String>,
    /// ARN of the target group of the one colour, by the author's naming.
    pub(crate) blue_group: Option<String>,
    /// ARN of that of the other.
    pub(crate) green_group: Option<String>,
    /// ARN of a rule that is to follow green, for people who look before requests come.
    pub(crate) test_rule: Option<String>,
    /// ARN of a listener whose default rule is to follow green.
    pub(crate) test_listener: Option<String>,
}

impl Told {
    /// What variables of the service say.
    pub(crate) fn by_variables(variables: &BTreeMap<String, String>) -> Told {
        let get = |name: &str| {
            variables.get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Told {
            rule: get("ecs_bg_listener_rule_arn"),
            listener: get("ecs_bg_listener_arn"),
            blue_group: get("ecs_bg_blue_target_group_arn"),
            green_group: get("ecs_bg_green_target_group_arn"),
            test_rule: get("ecs_bg_test_listener_rule_arn"),
            test_listener: get("ecs_bg_test_listener_arn"),
        }
    }

    /// `self` where it says something, else `otherwise`. Rule and listener are one question.
    pub(crate) fn over(self, otherwise: Told) -> Told {
        let (rule, listener) = match (&self.rule, &self.listener) {
            (None, None) => (otherwise.rule, otherwise.listener),
            _ => (self.rule, self.listener),
        };
        Told {
            rule,
            listener,
            blue_group: self.blue_group.or(otherwise.blue_group),
            green_group: self.green_group.or(otherwise.green_group),
            test_rule: self.test_rule.or(otherwise.test_rule),
            test_listener: self.test_listener.or(otherwise.test_listener),
        }
    }

    /// Every group that is named.
    fn groups(&self) -> impl Iterator<Item = &str> {
        self.blue_group.as_deref().into_iter().chain(self.green_group.as_deref())
    }
}

/// The production rule and everything beside it on its load balancer.
#[derive(Clone, Debug)]
pub(crate) struct Routing {
    /// Whose rules these are.
    pub(crate) balancer: Balancer,
    /// Every rule of it.
    pub(crate) all: Vec<Found>,
    /// That of production.
    pub(crate) production: Rule,
    /// What it does.
    pub(crate) actions: Actions,
}

/// Finds the production rule: as told, else by the target groups of `live` services. `pair` are all groups that the two
/// colours are known to use.
///
/// **Errors**: `ECS-051`, `ECS-053`. **Repeat**: safe, as everything here.
pub(crate) async fn routing(
    session: &Session,
    told: &Told,
    live: &[&str],
    pair: &[&str],
) -> Result<Routing, StepError> {
    let named = match (&told.rule, &told.listener) {
        (Some(arn), _) => Some(look::rule(session, arn).await?),
        (None, Some(listener)) => Some(Rule::default_of(listener.clone())),
        (None, None) => None,
    };
    let balancer = match &named {
        Some(rule) => look::belongs(&look::listener(session, &rule.listener).await?).0,
        None => balancer_of(session, live).await?,
    };
    let balancer = look::balancer(session, &balancer).await?;
    let all = look::rules(session, &balancer.arn).await?;
    let production = match named {
        Some(rule) => rule,
        None => find::production(&all, live, pair).map_err(Fault::into_step)?.production.rule.clone(),
    };
    let actions = match all.iter().find(|found| found.rule == production) {
        Some(found) => found.actions.clone(),
        None => look::actions(session, &production).await?,
    };
    Ok(Routing { balancer, all, production, actions })
}

/// The one load balancer of all these groups.
async fn balancer_of(session: &Session, groups: &[&str]) -> Result<String, StepError> {
    let mut found: Option<String> = None;
    for arn in groups {
        let group = look::group(session, arn).await?;
        let balancer = find::balancer_of(&group).map_err(Fault::into_step)?;
        match &found {
            Some(first) if first != balancer => {
                let fault = Fault::NotUnique {
                    what: "the load balancer of the two services".to_owned(),
                    found: format!("there are 2: {first}, {balancer}"),
                    set: "the service variable `ecs_bg_listener_rule_arn`".to_owned(),
                };
                return Err(fault.into_step());
            }
            _ => found = Some(balancer.to_owned()),
        }
    }
    found.ok_or_else(|| {
        let fault = Fault::NotUnique {
            what: "the production rule".to_owned(),
            found: "no live service of the pair has a target group".to_owned(),
            set: "the service variable `ecs_bg_listener_rule_arn` (or `ecs_bg_listener_arn`)".to_owned(),
        };
        fault.into_step()
    })
}

/// What is known before green is deployed.
#[derive(Clone, Debug)]
pub(crate) struct Discovered {
    /// The decision.
    pub(crate) pair: Pair,
    /// Whether no rule names green's target group yet.
    pub(crate) unattached: bool,
    /// For people.
    pub(crate) warnings: Vec<String>,
}

/// Decides colours, rule and groups for a step that deploys `named` beside the stage's service `other`. `live` are those of
/// the two that ECS knows, `declared` the target groups that the stage's service definition names.
///
/// **Errors**: `ECS-051`, `ECS-053`, `ECS-058`; nothing was changed.
pub(crate) async fn for_green(
    session: &Session,
    told: &Told,
    named: &str,
    other: Option<&str>,
    live: &[Value],
    declared: &[&str],
) -> Result<Discovered, StepError> {
    let active: Vec<&Value> = live.iter().filter(|service| is_active(service)).collect();
    let mut held: Vec<&str> = active.iter().flat_map(|service| groups_of(service)).collect();
    if held.is_empty() {
        held = declared.iter().copied().chain(told.blue_group.as_deref()).collect();
    }
    unique(&mut held);
    let known: Vec<&str> =
        held.iter().copied().chain(declared.iter().copied()).chain(told.groups()).collect();
    let known = {
        let mut known = known;
        unique(&mut known);
        known
    };
    let routing = routing(session, told, &held, &known).await?;
    let weights = routing.actions.weights().map_err(Fault::into_step)?;
    let (blue, green) = pair::colours(named, other, live, &weights).map_err(Fault::into_step)?;
    let of = |name: &str| active.iter().find(|service| pair::name(service) == name).copied();
    let blue_group = match blue.as_deref().and_then(of) {
        Some(service) => group_of_blue(service, &weights, told).map_err(Fault::into_step)?,
        None => routing.actions.only_group().map_err(Fault::into_step)?,
    };
    let like = look::group(session, &blue_group).await?;
    let group = match of(&green).map(groups_of).filter(|groups| !groups.is_empty()) {
        Some(groups) => group_of_green(&green, &groups, &blue_group).map_err(Fault::into_step)?.to_owned(),
        None => free_group(session, told, &routing, &weights, &like).await?,
    };
    let group = look::group(session, &group).await?;
    fits(&group, &like, &routing.balancer).map_err(Fault::into_step)?;
    let (tests, public) = find::others(&routing.all, &routing.production, &[&blue_group]);
    let mut warnings = Vec::new();
    for found in public {
        warnings.push(format!(
            "{} sends requests to {} too and is not shifted; service variables name one production rule only",
            found.rule,
            short(&blue_group)
        ));
    }
    let stage = test_rule(session, told).await?;
    if stage.is_none() {
        for found in &tests {
            warnings.push(format!(
                "{} sends requests to {}, which is live: whoever looks there looks at blue; set the service variable \
                 `ecs_bg_test_listener_arn` (or `ecs_bg_test_listener_rule_arn`) and it follows green",
                found.rule,
                short(&blue_group)
            ));
        }
    }
    let stage_is = |found: &&Found| stage.as_ref() != Some(&found.rule);
    Ok(Discovered {
        unattached: group.load_balancers.is_empty(),
        pair: Pair {
            blue,
            green,
            blue_group,
            green_group: group.arn,
            production: routing.production,
            tests: tests.into_iter().filter(stage_is).map(|found| found.rule.clone()).collect(),
            stage,
            balancer: routing.balancer,
        },
        warnings,
    })
}

/// Decides rule and groups for a step that shifts requests in a stage that did not deploy green itself. `service` is the
/// stage's service, `live` what ECS knows of it.
///
/// **Errors**: `ECS-051`, `ECS-053`, `ECS-058`; nothing was changed.
pub(crate) async fn for_shift(
    session: &Session,
    told: &Told,
    service: Option<&str>,
    live: &[Value],
) -> Result<Pair, StepError> {
    let active = live.iter().find(|service| is_active(service));
    let held: Vec<&str> = match (&told.blue_group, active) {
        (Some(group), _) => vec![group],
        (None, Some(service)) => groups_of(service),
        (None, None) => Vec::new(),
    };
    let known: Vec<&str> = held.iter().copied().chain(told.groups()).collect();
    let routing = routing(session, told, &held, &known).await?;
    let weights = routing.actions.weights().map_err(Fault::into_step)?;
    // Of two groups in the rule, the one that is not known is the other one.
    let remaining = |known: Option<&str>, colour: &str| {
        let others: Vec<&str> =
            weights.iter().map(|(group, _)| group).filter(|group| Some(*group) != known).collect();
        match others.as_slice() {
            [one] => Ok((*one).to_owned()),
            _ => Err(Fault::NotUnique {
                what: format!("the target group of {colour}"),
                found: format!("{} sends {}", routing.production, weights.shown()),
                set: format!(
                    "`{colour}TargetGroupArn` in the spec of the step, or the service variable \
                     `ecs_bg_{colour}_target_group_arn`"
                ),
            }),
        }
    };
    let blue_group = match (&told.blue_group, active) {
        (Some(group), _) => Ok(group.clone()),
        (None, Some(service)) => group_of_blue(service, &weights, told),
        (None, None) => remaining(told.green_group.as_deref(), "blue"),
    };
    let blue_group = blue_group.map_err(Fault::into_step)?;
    let green_group = match &told.green_group {
        Some(group) => group.clone(),
        None => remaining(Some(&blue_group), "green").map_err(Fault::into_step)?,
    };
    let (blue, green) = (look::group(session, &blue_group).await?, look::group(session, &green_group).await?);
    fits(&green, &blue, &routing.balancer).map_err(Fault::into_step)?;
    let (tests, _) = find::others(&routing.all, &routing.production, &[&blue_group]);
    Ok(Pair {
        blue: service.map(str::to_owned),
        green: String::new(),
        blue_group,
        green_group,
        production: routing.production,
        stage: None,
        tests: tests.into_iter().map(|found| found.rule.clone()).collect(),
        balancer: routing.balancer,
    })
}

/// The rule that the variables name for tests.
async fn test_rule(session: &Session, told: &Told) -> Result<Option<Rule>, StepError> {
    Ok(match (&told.test_rule, &told.test_listener) {
        (Some(arn), _) => Some(look::rule(session, arn).await?),
        (None, Some(listener)) => {
            look::listener(session, listener).await?;
            Some(Rule::default_of(listener.clone()))
        }
        (None, None) => None,
    })
}

fn unique(groups: &mut Vec<&str>) {
    let mut seen = Vec::new();
    groups.retain(|group| {
        let new = !seen.contains(group);
        seen.push(*group);
        new
    });
}

/// The group by which blue gets its requests.
fn group_of_blue(service: &Value, weights: &Weights, told: &Told) -> Result<String, Fault> {
    let groups = groups_of(service);
    let receiving: Vec<&str> = groups.iter().copied().filter(|group| weights.of(group) > 0).collect();
    match (receiving.as_slice(), groups.as_slice()) {
        ([one], _) | ([], [one]) => Ok((*one).to_owned()),
        (several, _) => match told.blue_group.as_deref().filter(|told| several.contains(told)) {
            Some(told) => Ok(told.to_owned()),
            None => Err(Fault::NotUnique {
                what: format!("the target group of service {}", pair::name(service)),
                found: format!(
                    "it has {}",
                    groups.iter().map(|group| short(group)).collect::<Vec<_>>().join(", ")
                ),
                set: "the service variable `ecs_bg_blue_target_group_arn`".to_owned(),
            }),
        },
    }
}

/// The group of a green service that is there already.
fn group_of_green<'a>(service: &str, groups: &[&'a str], blue: &str) -> Result<&'a str, Fault> {
    let free: Vec<&&str> = groups.iter().filter(|group| **group != blue).collect();
    match free.as_slice() {
        [one] => Ok(one),
        [] => Err(Fault::Unfit(format!(
            "service {service} is registered in {}, where blue gets its requests: it cannot be deployed without getting some",
            short(blue)
        ))),
        _ => Err(Fault::Unfit(format!("service {service} has {} target groups; expected one", free.len()))),
    }
}

/// A group for a green service that is not there yet.
async fn free_group(
    session: &Session,
    told: &Told,
    routing: &Routing,
    weights: &Weights,
    blue: &Group,
) -> Result<String, StepError> {
    // Of two groups that the author calls blue and green, production holds one; the other is free.
    let told: Vec<&str> =
        [told.green_group.as_deref(), told.blue_group.as_deref()].into_iter().flatten().collect();
    if let Some(group) = told.iter().find(|group| **group != blue.arn) {
        return Ok((*group).to_owned());
    }
    let named: Vec<&str> =
        weights.iter().map(|(group, _)| group).filter(|group| *group != blue.arn).collect();
    if let [one] = named.as_slice() {
        return Ok((*one).to_owned());
    }
    let groups = look::groups(session, &routing.balancer.arn).await?;
    let mut busy: Vec<String> = groups_of_services(session).await?;
    for group in &groups {
        if group.arn != blue.arn
            && !busy.contains(&group.arn)
            && healthy(session, &group.arn).await?.registered() > 0
        {
            busy.push(group.arn.clone());
        }
    }
    let busy: Vec<&str> = busy.iter().map(String::as_str).collect();
    Ok(find::unused(&groups, &busy, blue).map_err(Fault::into_step)?.arn.clone())
}

/// Every target group that a service of the cluster holds, also one without tasks.
async fn groups_of_services(session: &Session) -> Result<Vec<String>, StepError> {
    let input = json!({"cluster": session.cluster, "maxResults": 100});
    let arns = session
        .pages(ecs("ListServices"), input, "serviceArns")
        .await
        .map_err(|fault| session.fault(fault, "list the services of the cluster"))?;
    let arns: Vec<&str> = arns.iter().filter_map(Value::as_str).collect();
    let services = session
        .services(&arns)
        .await
        .map_err(|fault| session.fault(fault, "look at the services of the cluster"))?;
    Ok(services
        .iter()
        .filter(|service| is_active(service))
        .flat_map(|service| groups_of(service))
        .map(str::to_owned)
        .collect())
}

/// Whether green's group can take blue's place.
pub(crate) fn fits(green: &Group, blue: &Group, balancer: &Balancer) -> Result<(), Fault> {
    let unfit = |text: String| Err(Fault::Unfit(format!("target group {} {text}", short(&green.arn))));
    if green.arn == blue.arn {
        return unfit("is blue's own; green needs another one".to_owned());
    }
    let foreign: Vec<&str> =
        green.load_balancers.iter().map(String::as_str).filter(|arn| *arn != balancer.arn).collect();
    if !foreign.is_empty() {
        return unfit(format!(
            "belongs to another load balancer than {}: {}",
            balancer.name,
            foreign.join(", ")
        ));
    }
    if green.target_type != blue.target_type {
        return unfit(format!(
            "takes targets of type {}; that of blue, {}, takes {}",
            green.target_type,
            short(&blue.arn),
            blue.target_type
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer() -> Balancer {
        Balancer { arn: "arn:lb".into(), name: "web".into() }
    }

    fn group(arn: &str, kind: &str, balancers: &[&str]) -> Group {
        Group::read(
            &json!({"TargetGroupArn": arn, "TargetType": kind, "Protocol": "HTTP", "LoadBalancerArns": balancers}),
        )
    }

    #[test]
    fn the_spec_goes_before_the_variables() {
        let variables = [
            ("ecs_bg_listener_rule_arn", "rule-v"),
            ("ecs_bg_green_target_group_arn", " green-v "),
            ("ecs_bg_blue_target_group_arn", ""),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let told = Told { listener: Some("listener-s".into()), ..Told::default() }
            .over(Told::by_variables(&variables));
        assert_eq!((told.rule, told.listener.as_deref()), (None, Some("listener-s")));
        assert_eq!((told.green_group.as_deref(), told.blue_group), (Some("green-v"), None));
    }

    #[test]
    fn a_group_for_green_must_be_able_to_take_blue_s_place() {
        let blue = group("blue", "ip", &["arn:lb"]);
        assert!(fits(&group("green", "ip", &["arn:lb"]), &blue, &balancer()).is_ok());
        assert!(fits(&group("green", "ip", &[]), &blue, &balancer()).is_ok());
        for (bad, words) in [
            (blue.clone(), "blue's own"),
            (group("green", "instance", &["arn:lb"]), "type instance"),
            (group("green", "ip", &["arn:lb", "arn:two"]), "arn:two"),
        ] {
            let fault = fits(&bad, &blue, &balancer()).unwrap_err();
            assert!(fault.to_string().contains(words), "{fault}");
            assert_eq!(fault.into_step().code, "ECS-058");
        }
    }

    #[test]
    fn the_groups_of_services_are_told_apart_by_their_requests() {
        let service = json!({"serviceName": "web", "loadBalancers": [{"targetGroupArn": "a"}, {"targetGroupArn": "b"}]});
        let weights = |a: u32, b: u32| Weights::read([("a".to_owned(), a), ("b".to_owned(), b)]);
        assert_eq!(group_of_blue(&service, &weights(0, 1), &Told::default()).unwrap(), "b");
        assert!(group_of_blue(&service, &weights(1, 1), &Told::default()).is_err());
        let told = Told { blue_group: Some("a".into()), ..Told::default() };
        assert_eq!(group_of_blue(&service, &weights(1, 1), &told).unwrap(), "a");
        assert_eq!(group_of_green("web", &["a", "b"], "a").unwrap(), "b");
        assert!(group_of_green("web", &["a"], "a").is_err());
        assert!(group_of_green("web", &["a", "b"], "c").is_err());
    }
}

//! Lists of actions of listeners and rules, in Elastic Load Balancing's own member names. Pure.
//!
//! A list is read, changed in the one place that says where requests go, and written back: authenticate actions, order,
//! stickiness and members that are newer than this program stay (facts `ecs-ssh-steps.md` A9). Answers in XML hold text
//! where requests may hold numbers; both are taken.

use super::fault::Fault;
use super::weights::{Weights, short};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::Duration;

const CONFIG: &str = "ForwardConfig";
const GROUPS: &str = "TargetGroups";
const GROUP: &str = "TargetGroupArn";
const WEIGHT: &str = "Weight";
const STICKY: &str = "TargetGroupStickinessConfig";
const OIDC: &str = "AuthenticateOidcConfig";

/// The actions of one rule, as AWS answers them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Actions(Vec<Value>);

impl Actions {
    pub(crate) fn new(list: Vec<Value>) -> Actions {
        Actions(list)
    }

    /// The forward action with the highest order: what comes before it authenticates.
    fn forward(&self) -> Result<(usize, &Value), Fault> {
        let forwards = self.0.iter().enumerate().filter(|(_, action)| kind(action) == "forward");
        forwards
            .max_by_key(|(at, action)| order(action, *at))
            .ok_or_else(|| Fault::Forward(format!("no action forwards requests: {}", self.kinds())))
    }

    fn kinds(&self) -> String {
        let kinds: Vec<&str> = self.0.iter().map(kind).collect();
        if kinds.is_empty() { "there is none".to_owned() } else { format!("there is {}", kinds.join(", ")) }
    }

    /// Where the requests go.
    ///
    /// **Errors**: nothing is forwarded.
    pub(crate) fn weights(&self) -> Result<Weights, Fault> {
        Ok(Weights::read(self.forward()?.1.members()))
    }

    /// The one group that gets requests.
    ///
    /// **Errors**: nothing is forwarded, or to several groups.
    pub(crate) fn only_group(&self) -> Result<String, Fault> {
        let weights = self.weights()?;
        match weights.receiving().as_slice() {
            [group] => Ok((*group).to_owned()),
            [] => Err(Fault::Forward("no target group of the forward action gets requests".to_owned())),
            _ => {
                let text = format!("the requests are split already: {}", weights.shown());
                Err(Fault::Forward(text))
            }
        }
    }

    /// How long a client that has been answered by a group stays with it, whatever the weights say.
    pub(crate) fn sticky(&self) -> Option<Duration> {
        let (_, forward) = self.forward().ok()?;
        let config = forward.get(CONFIG)?.get(STICKY)?;
        let enabled = config.get("Enabled").is_some_and(|flag| text(flag) == "true");
        let seconds = config.get("DurationSeconds").and_then(|seconds| text(seconds).parse().ok());
        enabled.then(|| Duration::from_secs(seconds.unwrap_or(0)))
    }

    /// The same with these weights. Groups that are not named stay, as long as they get nothing.
    ///
    /// **Errors**: nothing is forwarded; a third group gets requests; more than five groups.
    pub(crate) fn with_weights(&self, wanted: &Weights) -> Result<Actions, Fault> {
        let now = self.weights()?;
        let others: Vec<(String, u32)> = now
            .iter()
            .filter(|(group, _)| !wanted.names(group))
            .map(|(group, weight)| (group.to_owned(), weight))
            .collect();
        if let Some((group, weight)) = others.iter().find(|(_, weight)| *weight > 0) {
            let text = format!(
                "{} gets requests too (weight {weight} of {}), and this step knows nothing of it",
                short(group),
                now.shown()
            );
            return Err(Fault::Forward(text));
        }
        self.forwarding(&Weights::new(wanted.iter().map(|(g, w)| (g.to_owned(), w)).chain(others))?)
    }

    /// The same, forwarding to exactly these groups. What the wire says about a group that stays is kept.
    ///
    /// **Errors**: nothing is forwarded.
    pub(crate) fn forwarding(&self, wanted: &Weights) -> Result<Actions, Fault> {
        let (_, forward) = self.forward()?;
        let before = forward.tuples();
        // Groups stay in their order; new ones come behind.
        let mut names: Vec<&str> = before.iter().filter_map(|tuple| tuple.get(GROUP)?.as_str()).collect();
        names.retain(|group| wanted.names(group));
        names.extend(wanted.iter().map(|(group, _)| group).filter(|group| !forward_names(&before, group)));
        let tuples = names.into_iter().map(|group| {
            let mut tuple = before
                .iter()
                .find(|tuple| tuple.get(GROUP).and_then(Value::as_str) == Some(group))
                .cloned()
                .unwrap_or_else(|| json!({GROUP: group}));
            set(&mut tuple, WEIGHT, json!(wanted.of(group)));
            tuple
        });
        self.with_tuples(tuples.collect())
    }

    /// The same with two groups in each other's place.
    ///
    /// **Errors**: nothing is forwarded.
    pub(crate) fn exchanged(&self, one: &str, other: &str) -> Result<Actions, Fault> {
        let (_, forward) = self.forward()?;
        let mut tuples = forward.tuples();
        for tuple in &mut tuples {
            let group = tuple.get(GROUP).and_then(Value::as_str).unwrap_or_default();
            let group = match group {
                group if group == one => other.to_owned(),
                group if group == other => one.to_owned(),
                group => group.to_owned(),
            };
            set(tuple, GROUP, json!(group));
        }
        self.with_tuples(tuples)
    }

    fn with_tuples(&self, tuples: Vec<Value>) -> Result<Actions, Fault> {
        let (at, _) = self.forward()?;
        let mut list = self.0.clone();
        if let Some(Value::Object(action)) = list.get_mut(at) {
            // The short form names one group only, and must not differ from the long one.
            action.shift_remove(GROUP);
            let config = action.entry(CONFIG).or_insert_with(|| Value::Object(Map::new()));
            if !config.is_object() {
                *config = Value::Object(Map::new());
            }
            set(config, GROUPS, Value::Array(tuples));
        }
        Ok(Actions(list))
    }

    /// As ModifyRule and ModifyListener take it. AWS does not give out the client secret of an identity provider; it keeps
    /// the one it has when told so.
    pub(crate) fn to_input(&self) -> Value {
        let list = self.0.iter().map(|action| {
            let mut action = action.clone();
            if let Some(config) = action.get_mut(OIDC)
                && config.get("ClientSecret").is_none_or(|secret| text(secret).is_empty())
            {
                if let Some(members) = config.as_object_mut() {
                    members.shift_remove("ClientSecret");
                }
                set(config, "UseExistingClientSecret", json!(true));
            }
            action
        });
        Value::Array(list.collect())
    }

    /// Whether both mean the same to AWS, whatever it fills in or leaves out when it answers.
    pub(crate) fn same(&self, other: &Actions) -> bool {
        self.normal() == other.normal()
    }

    /// Whether both send requests to the same groups with the same weights.
    pub(crate) fn same_weights(&self, other: &Actions) -> bool {
        let normal = |actions: &Actions| actions.forward().ok().map(|(_, forward)| normal_tuples(forward));
        normal(self) == normal(other)
    }

    fn normal(&self) -> Vec<Value> {
        let mut list: Vec<(u32, Value)> = self
            .0
            .iter()
            .enumerate()
            .map(|(at, action)| (order(action, at), normal_action(action)))
            .collect();
        list.sort_by_key(|(order, _)| *order);
        list.into_iter().map(|(_, action)| action).collect()
    }

    /// For people: where requests go.
    pub(crate) fn shown(&self) -> String {
        match self.weights() {
            Ok(weights) => weights.shown(),
            Err(_) => format!("nothing ({})", self.kinds()),
        }
    }

    /// For people and for plans: the whole list, indented. It holds no secret: AWS gives none out.
    pub(crate) fn pretty(&self) -> String {
        serde_json::to_string_pretty(&self.0).unwrap_or_default()
    }
}

/// Members of one action.
trait Forward {
    /// The entries of the long form; for the short form, the entry that it stands for.
    fn tuples(&self) -> Vec<Value>;
    /// Groups and weights.
    fn members(&self) -> Vec<(String, u32)>;
}

impl Forward for Value {
    fn tuples(&self) -> Vec<Value> {
        let long = self.get(CONFIG).and_then(|config| config.get(GROUPS)).and_then(Value::as_array);
        match (long, self.get(GROUP).and_then(Value::as_str)) {
            (Some(list), _) if !list.is_empty() => list.clone(),
            (_, Some(group)) => vec![json!({GROUP: group, WEIGHT: 1})],
            _ => Vec::new(),
        }
    }

    fn members(&self) -> Vec<(String, u32)> {
        let pair = |tuple: &Value| {
            let group = tuple.get(GROUP)?.as_str()?.to_owned();
            Some((group, weight(tuple)))
        };
        self.tuples().iter().filter_map(pair).collect()
    }
}

fn forward_names(tuples: &[Value], group: &str) -> bool {
    tuples.iter().any(|tuple| tuple.get(GROUP).and_then(Value::as_str) == Some(group))
}

/// A group without a weight has the weight 1.
fn weight(tuple: &Value) -> u32 {
    tuple.get(WEIGHT).and_then(|weight| text(weight).parse().ok()).unwrap_or(1)
}

fn kind(action: &Value) -> &str {
    action.get("Type").and_then(Value::as_str).unwrap_or("an action without a type")
}

/// The place of an action; AWS may leave it out where there is one only.
fn order(action: &Value, at: usize) -> u32 {
    let written = action.get("Order").and_then(|order| text(order).parse().ok());
    written.unwrap_or_else(|| u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1))
}

fn set(value: &mut Value, name: &str, member: Value) {
    if let Some(members) = value.as_object_mut() {
        members.insert(name.to_owned(), member);
    }
}

/// A leaf as text: XML knows nothing else.
fn text(leaf: &Value) -> String {
    match leaf {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// An action without everything that does not matter.
fn normal_action(action: &Value) -> Value {
    let Value::Object(members) = action else { return action.clone() };
    let mut out = Map::new();
    for (name, member) in members {
        match name.as_str() {
            // Where an action stands is said by its place in the normal list.
            "Order" => {}
            GROUP | CONFIG if kind(action) == "forward" => {}
            OIDC => {
                let mut member = member.clone();
                if let Some(members) = member.as_object_mut() {
                    members.shift_remove("ClientSecret");
                    members.shift_remove("UseExistingClientSecret");
                }
                out.insert(name.clone(), normal_value(&member));
            }
            _ => {
                out.insert(name.clone(), normal_value(member));
            }
        }
    }
    if kind(action) == "forward" {
        let mut config = action.get(CONFIG).and_then(Value::as_object).cloned().unwrap_or_default();
        config.shift_remove(GROUPS);
        let sticky = config.shift_remove(STICKY).map(|sticky| normal_sticky(&sticky));
        if let Some(sticky) = sticky.filter(|sticky| !sticky.is_null()) {
            config.insert(STICKY.to_owned(), sticky);
        }
        if let Value::Object(config) = normal_value(&Value::Object(config)) {
            out.extend(config);
        }
        out.insert(GROUPS.to_owned(), Value::Array(normal_tuples(action)));
    }
    out.retain(|_, member| !is_unset(member));
    Value::Object(out)
}

/// Stickiness that is off is as good as none, whatever its duration.
fn normal_sticky(sticky: &Value) -> Value {
    match sticky.get("Enabled").map(text).as_deref() {
        Some("true") => normal_value(sticky),
        _ => Value::Null,
    }
}

/// The order of groups does not matter; the weight of a group that is alone does not either, unless it is 0.
fn normal_tuples(forward: &Value) -> Vec<Value> {
    let mut tuples: Vec<(String, Value)> = forward
        .tuples()
        .iter()
        .map(|tuple| {
            let mut tuple = tuple.clone();
            let weight = weight(&tuple);
            set(&mut tuple, WEIGHT, Value::String(weight.to_string()));
            (tuple.get(GROUP).map(text).unwrap_or_default(), normal_value(&tuple))
        })
        .collect();
    tuples.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut list: Vec<Value> = tuples.into_iter().map(|(_, tuple)| tuple).collect();
    if let [only] = list.as_mut_slice()
        && only.get(WEIGHT).and_then(Value::as_str) != Some("0")
    {
        set(only, WEIGHT, Value::String("1".to_owned()));
    }
    list
}

fn normal_value(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, member)| (name.clone(), normal_value(member)));
            Value::Object(members.filter(|(_, member)| !is_unset(member)).collect())
        }
        Value::Array(entries) => Value::Array(entries.iter().map(normal_value).collect()),
        Value::Null => Value::Null,
        leaf => Value::String(text(leaf)),
    }
}

/// Not given, as far as AWS tells.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(entries) => entries.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

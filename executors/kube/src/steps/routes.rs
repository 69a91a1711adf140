//! Routes with weights in the cluster: making them, changing their weights, taking weight away before pods go.

use super::changes;
use super::copies::{Live, ROUTES, SERVICES};
use crate::apply::{Applied, Options, validate};
use crate::bluegreen;
use crate::canary::{self, STABLE, SUFFIX, TRACK};
use crate::error::cancelled;
use crate::objects::{Annotation, Object, diff, to_yaml};
use crate::session::Session;
use crate::traffic::{self, Cap, Names, Place, Provider, Route, Routing, parse};
use crate::variant::{self, Fault, RELEASE_LABEL};
use executor_api::Unit;
use executor_api::{Level, StepError, UnitLog};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How often a route that changes at the same time is read again.
const TRIES: usize = 5;

/// What is to be routed.
pub(crate) struct Plan {
    routing: Routing,
    names: Names,
    /// Services that the route needs and that this step makes.
    pub(crate) services: Vec<Value>,
    /// Service that gets no more than its share of the capacity.
    capped: Option<String>,
    namespace: String,
    api_version: String,
    rules_version: Option<String>,
}

impl Plan {
    fn new(session: &Session, routing: &Value, names: Names, namespace: &str) -> Result<Plan, StepError> {
        let routing = parse(routing).map_err(Fault::into_step)?;
        let (mut api_version, mut rules_version) = (String::new(), None);
        if let Routing::New(config) = &routing {
            let (group, kind) = match config.provider {
                Provider::Gateway => ("gateway.networking.k8s.io", "HTTPRoute"),
                Provider::Istio => ("networking.istio.io", "VirtualService"),
                Provider::Smi => ("split.smi-spec.io", "TrafficSplit"),
            };
            let served = session.resource_of(group, kind).ok_or_else(|| {
                Fault::Unroutable(format!("the cluster does not serve {kind} of {group}")).into_step()
            })?;
            api_version = served.gvk.api_version();
            let rules = session.resource_of("specs.smi-spec.io", "HTTPRouteGroup");
            rules_version = rules.map(|rules| rules.gvk.api_version());
        }
        let namespace = namespace.to_owned();
        Ok(Plan { routing, names, services: Vec::new(), capped: None, namespace, api_version, rules_version })
    }

    fn routes(&self) -> &[Route] {
        match &self.routing {
            Routing::New(config) => &config.routes,
            Routing::Inherit(routes) => routes,
        }
    }

    /// Whether a destination is this placeholder.
    fn uses(&self, placeholder: &str) -> bool {
        self.routes().iter().flat_map(|route| &route.destinations).any(|d| d.host == placeholder)
    }

    fn cap(&self, percent: Option<u32>) -> Option<Cap> {
        Some(Cap { service: self.capped.clone()?, percent: percent? })
    }

    fn objects(&self, session: &Session, percent: Option<u32>) -> Result<Vec<Object>, StepError> {
        let Routing::New(config) = &self.routing else { return Ok(Vec::new()) };
        let place = Place {
            release: &session.release,
            namespace: &self.namespace,
            api_version: &self.api_version,
            rules_version: self.rules_version.as_deref(),
        };
        let made = traffic::objects(config, &self.names, self.cap(percent).as_ref(), place)
            .map_err(Fault::into_step)?;
        super::deploy::wrapped(made, "the traffic routing of the step")
    }

    /// Weights by the real name of the Service.
    fn wanted(&self) -> Result<BTreeMap<String, u32>, StepError> {
        let all = self.routes().iter().flat_map(|route| &route.destinations);
        all.map(|d| Ok((self.names.resolve(&d.host).map_err(Fault::into_step)?, d.weight))).collect()
    }

    /// For people: what was asked for.
    pub(crate) fn shown(&self) -> String {
        let mut text = String::new();
        for route in self.routes() {
            for d in &route.destinations {
                let name = self.names.resolve(&d.host).unwrap_or_else(|_| d.host.clone());
                text.push_str(&format!(
                    "{} → {name}: weight {}\n",
                    route.name.as_deref().unwrap_or("route"),
                    d.weight
                ));
            }
        }
        text
    }
}

/// First port of a Service.
fn port(service: &Value) -> Option<u16> {
    service.pointer("/spec/ports/0/port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())
}

/// The plan of a canary: `stable` and `canary` get Services of their own, cloned from the primary one.
pub(crate) fn for_canary(
    session: &Session,
    routing: &Value,
    primary: Option<&Value>,
    namespace: &str,
) -> Result<Plan, StepError> {
    let mut names = Names::default();
    if let Some(primary) = primary {
        let base = variant::name(primary);
        names.stable = Some(format!("{base}-{STABLE}"));
        names.canary = Some(format!("{base}-{SUFFIX}"));
        names.port = port(primary);
    }
    let mut plan = Plan::new(session, routing, names, namespace)?;
    plan.capped.clone_from(&plan.names.canary);
    if let Some(primary) = primary.filter(|_| plan.uses(STABLE) || plan.uses(SUFFIX)) {
        for track in [STABLE, SUFFIX] {
            let mut service = bluegreen::clone_of(primary, &format!("{}-{track}", variant::name(primary)));
            variant::set(
                &mut service,
                &["metadata", "labels", RELEASE_LABEL],
                session.release.clone().into(),
            );
            variant::set(&mut service, &["metadata", "labels", TRACK], track.into());
            if track == STABLE {
                // The route needs it for as long as there is a route.
                variant::set(
                    &mut service,
                    &["metadata", "annotations", traffic::SKIP_PRUNING],
                    "true".into(),
                );
            }
            variant::set(&mut service, &["spec", "selector", TRACK], track.into());
            plan.services.push(service);
        }
    }
    Ok(plan)
}

/// The plan of a blue-green deployment.
pub(crate) fn for_colors(
    session: &Session,
    routing: &Value,
    primary: &Value,
    stage: &Value,
    namespace: &str,
) -> Result<Plan, StepError> {
    let names = Names {
        stable: Some(variant::name(primary).to_owned()),
        stage: Some(variant::name(stage).to_owned()),
        canary: None,
        port: port(primary),
    };
    Plan::new(session, routing, names, namespace)
}

/// The plan of a step of its own: names are those of the release's Services in the cluster.
pub(crate) async fn alone(session: &Session, routing: &Value, log: &dyn UnitLog) -> Result<Plan, StepError> {
    let mut names = Names::default();
    for live in session.labelled(&SERVICES, &[], log).await? {
        let name = Some(live.object.name().to_owned());
        match live.object.label(TRACK) {
            Some(SUFFIX) => names.canary = name,
            Some(STABLE) => names.stable = name,
            _ if live.object.says(Annotation::StageService) => names.stage = name,
            _ if live.object.says(Annotation::PrimaryService) && names.stable.is_none() => {
                names.stable = name
            }
            _ => continue,
        }
        names.port = names.port.or_else(|| port(&live.object.value));
    }
    let mut plan = Plan::new(session, routing, names, &session.namespace)?;
    plan.capped.clone_from(&plan.names.canary);
    Ok(plan)
}

/// Has the API server try what the plan would make, before anything is changed.
///
/// **Errors**: what it refuses; nothing to inherit from.
pub(crate) async fn try_out(session: &Session, plan: &Plan, log: &dyn UnitLog) -> Result<(), StepError> {
    let objects = plan.objects(session, Some(0))?;
    if objects.is_empty() {
        plan.wanted()?;
        if session.labelled(&ROUTES, &[], log).await?.is_empty() {
            let text = format!("release {} has no route whose weights could be set", session.release);
            return Err(Fault::Unroutable(text).into_step());
        }
        return Ok(());
    }
    validate(session, objects, Options::default(), log).await.map(|_| ())
}

/// Makes the route, or sets the weights of those that are there. `percent` is the share of the capacity.
///
/// **Repeat**: safe.
pub(crate) async fn apply(
    session: &mut Session,
    plan: &Plan,
    percent: Option<u32>,
    log: &dyn UnitLog,
) -> Result<Vec<Applied>, StepError> {
    let cap = plan.cap(percent);
    if let Some(cap) = &cap {
        let asked = plan.wanted()?.get(&cap.service).copied().unwrap_or(0);
        if asked > cap.percent {
            let text = format!(
                "{} carries {} % of the capacity and gets no more than that share",
                cap.service, cap.percent
            );
            session.say(log, Level::Warn, &text).await?;
        }
    }
    let objects = plan.objects(session, percent)?;
    if objects.is_empty() {
        let wanted = plan.wanted()?;
        reweight(session, |live| Ok(traffic::reweight(live, &wanted, cap.as_ref())?.0), log).await?;
        return Ok(Vec::new());
    }
    let mut set = validate(session, objects, Options::default(), log).await?;
    set.apply(session, &json!({"v": 1, "routes": true}), None, log).await
}

/// Gives the release's canary no more than `percent` of any route; for a canary that is about to lose pods.
pub(crate) async fn lower(session: &Session, percent: u32, log: &dyn UnitLog) -> Result<(), StepError> {
    for service in session.labelled(&SERVICES, &[(TRACK, SUFFIX)], log).await? {
        let cap = Cap { service: service.object.name().to_owned(), percent };
        let none = BTreeMap::new();
        reweight(session, |live| Ok(traffic::reweight(live, &none, Some(&cap))?.0), log).await?;
    }
    Ok(())
}

/// Before a canary goes: no route of the release sends anything to these Services any more.
pub(crate) async fn leave(
    session: &Session,
    services: &[String],
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if services.is_empty() {
        return Ok(());
    }
    reweight(session, |live| Ok(traffic::withdraw(live, services)), log).await
}

/// After a swap: the primary Service gets everything.
pub(crate) async fn settle(
    session: &Session,
    primary: &str,
    stage: &str,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let wanted = BTreeMap::from([(primary.to_owned(), 100), (stage.to_owned(), 0)]);
    let both = |live: &Value| -> Result<Option<Value>, Fault> {
        // A route that does not choose between the two is none of this step's.
        let (patch, missing) = traffic::reweight(live, &wanted, None)?;
        Ok(patch.filter(|_| missing.is_empty()))
    };
    reweight(session, both, log).await
}

/// Changes every route of the release for which `change` has a patch, each guarded by its version and tried again when
/// it changed at the same time. What it was before stands in the log; no step takes it back by itself.
async fn reweight(
    session: &Session,
    change: impl Fn(&Value) -> Result<Option<Value>, Fault>,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let call = |live: &Live| format!("set the weights of {}", live.name());
    let mut changed = String::new();
    for _ in 0..TRIES {
        let mut todo = Vec::new();
        for live in session.labelled(&ROUTES, &[], log).await? {
            if let Some(patch) = change(&live.object.value).map_err(Fault::into_step)? {
                todo.push((live, patch));
            }
        }
        if todo.is_empty() {
            return Ok(());
        }
        if let Some((reason, _)) = session.cx.cancel.requested() {
            return Err(cancelled(reason, "the weights of the routes are as they were"));
        }
        let calls = todo.iter().map(|(live, _)| call(live)).collect();
        session.api.announce("set weights", calls, json!({"v": 1, "routes": true}), None).await?;
        let mut again = false;
        for (live, patch) in &todo {
            match session.merge(&live.path, &call(live), patch).await {
                Ok(after) => {
                    let text = diff(Some(&live.object.value), Some(&after), &session.mask).1;
                    session.say(log, Level::Info, &text).await?;
                }
                Err(fault) if fault.is_conflict() || fault.is_not_found() => {
                    changed = live.name();
                    again = true;
                }
                Err(fault) => return Err(session.masked(fault.step(&call(live), &session.api.target))),
            }
        }
        if !again {
            return Ok(());
        }
    }
    Err(Fault::ServiceChanged {
        service: changed,
        found: "something new at every try".into(),
        expected: "its weights".into(),
    }
    .into_step())
}

/// Share of the capacity of the release's canary, from the pods that are ready now; `None` when it has none.
pub(crate) async fn capacity(session: &Session, log: &dyn UnitLog) -> Result<Option<u32>, StepError> {
    let copies = session.labelled(&super::copies::WORKLOADS, &[(TRACK, SUFFIX)], log).await?;
    let Some(copy) = copies.first() else { return Ok(None) };
    let stable = match copy.object.name().strip_suffix(&format!("-{SUFFIX}")) {
        Some(name) => {
            session.live(&copy.object.gvk(), copy.object.namespace().unwrap_or_default(), name).await?
        }
        None => None,
    };
    let (canary, stable) = (super::deploy::ready(Some(copy)), super::deploy::ready(stable.as_ref()));
    Ok(Some(canary::capacity_share(canary, stable)))
}

/// What the plan would change. `percent` is the share of the capacity.
pub(crate) async fn difference(
    session: &Session,
    plan: &Plan,
    percent: Option<u32>,
) -> Result<changes::Changes, StepError> {
    let objects = plan.objects(session, percent)?;
    let mut changes = changes::of(session, objects, Options::default()).await?;
    if let Routing::Inherit(_) = &plan.routing {
        for (host, weight) in plan.wanted()? {
            changes.text.push_str(&format!("weight of {host}: {weight}\n"));
        }
    }
    Ok(changes)
}

/// The objects of a plan, for the log.
pub(crate) fn manifests(session: &Session, plan: &Plan) -> Result<String, StepError> {
    Ok(plan.objects(session, None)?.iter().map(|object| format!("---\n{}", to_yaml(&object.value))).collect())
}

/// Shows in a unit of its own how the traffic will be routed.
pub(crate) async fn show(session: &Session, plan: &Plan) -> Result<(), StepError> {
    let unit = Unit::begin(&session.cx, "Traffic Routing").await?;
    let result = unit.say(Level::Info, &session.mask.hide(&plan.shown())).await;
    unit.end(result).await
}

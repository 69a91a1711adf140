//! `K8sDelete`: objects by name, by manifest, or everything of a release.

use super::changes::Changes;
use super::render;
use crate::KubeExecutor;
use crate::error::bad_spec;
use crate::objects::Object;
use crate::prune::{self, Strictness};
use crate::release::{History, Inventory, Item};
use crate::session::Session;
use executor_api::Unit;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, UnitLog};
use proto::task::{KubernetesAction, KubernetesSpec, Selection};
use std::collections::BTreeMap;

fn asked(spec: &KubernetesSpec) -> Result<(&Selection, bool), StepError> {
    match &spec.action {
        KubernetesAction::K8sDelete { resources, delete_namespaces } => Ok((resources, *delete_namespaces)),
        _ => Err(bad_spec("KUBE-001", format!("{} deletes nothing", spec.action.kind()))),
    }
}

/// What is to be deleted.
struct Chosen {
    items: Vec<Item>,
    /// Records of the releases; they go last, so that a deletion that ends early can be tried again.
    records: Vec<Item>,
    /// Whether the objects are named by their author, and so need not be ours.
    named: bool,
}

async fn chosen(
    session: &mut Session,
    spec: &KubernetesSpec,
    fetched: Option<&mut render::Fetched>,
    log: &dyn UnitLog,
) -> Result<Chosen, StepError> {
    let (resources, delete_namespaces) = asked(spec)?;
    match resources {
        Selection::Names(names) => {
            if names.iter().any(|name| name.trim() == "*") {
                return Err(bad_spec("KUBE-010", "`*` names no object")
                    .hint("use `type: ReleaseName` to delete everything of the release"));
            }
            let mut items = Vec::new();
            for name in names.iter().flat_map(|names| names.split(',')).filter(|name| !name.trim().is_empty())
            {
                items.push(Item { reference: session.parse_reference(name)?, uid: String::new() });
            }
            Ok(Chosen { items, records: Vec::new(), named: true })
        }
        Selection::Manifests(_) => {
            let (mut objects, mask) = match fetched {
                Some(fetched) => fetched.objects(0, None, false)?,
                None => return Err(bad_spec("KUBE-032", "no manifest was fetched")),
            };
            session.mask = mask;
            session.place(&mut objects, &|_| None);
            let items =
                objects.iter().map(|o| Item { reference: o.reference(), uid: String::new() }).collect();
            Ok(Chosen { items, records: Vec::new(), named: true })
        }
        Selection::Release => {
            let history = History::load(session).await?;
            let mut by_reference = BTreeMap::new();
            let inventory = Inventory::load(session).await?;
            let of_releases = history.releases().iter().flat_map(|release| release.items());
            for mut item in of_releases.chain(inventory.items) {
                let namespaced = session.discovery.of_reference(&item.reference).is_none_or(|r| r.namespaced);
                if item.reference.namespace.is_none() && namespaced {
                    item.reference.namespace = Some(session.namespace.clone());
                }
                if item.reference.kind == "Namespace" && item.reference.group.is_empty() && !delete_namespaces
                {
                    continue;
                }
                // The newest release knows the uid of what is there now.
                by_reference.insert(item.reference.clone(), item);
            }
            if by_reference.is_empty() {
                let text =
                    format!("nothing is known of a release {} in {}", session.release, session.namespace);
                session.say(log, Level::Info, &text).await?;
            }
            let records = history.secrets(session);
            Ok(Chosen { items: by_reference.into_values().collect(), records, named: false })
        }
    }
}

/// Objects that the author names are deleted whoever made them: their uid is read now, so that the one that is deleted
/// is the one that was looked at.
async fn identified(session: &Session, chosen: &mut Chosen) -> Result<(), StepError> {
    if !chosen.named {
        return Ok(());
    }
    for item in &mut chosen.items {
        let Some(path) = session.path_of(&item.reference) else { continue };
        let what = format!("read {}", item.reference);
        let live: Option<serde_json::Value> =
            session.api.find(&path).await.map_err(|f| f.step(&what, &session.api.target))?;
        if let Some(object) = live.and_then(|live| Object::new(live, "cluster").ok()) {
            item.uid = object.at("/metadata/uid").and_then(|uid| uid.as_str()).unwrap_or_default().to_owned();
        }
    }
    Ok(())
}

async fn fetched(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Option<render::Fetched>, StepError> {
    let (Selection::Manifests(paths), _) = asked(spec)? else { return Ok(None) };
    render::in_unit(executor, spec, paths, cx).await.map(Some)
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let mut fetched = fetched(executor, spec, cx).await?;
    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        let mut chosen = chosen(&mut session, spec, fetched.as_mut(), unit.log()).await?;
        identified(&session, &mut chosen).await?;
        prune::permitted(&session, &chosen.items).await?;
        Ok((session, chosen))
    };
    let result = work.await;
    let (session, chosen) = unit.end(result).await?;
    let unit = Unit::begin(cx, "Delete").await?;
    let work = async {
        prune::delete(&session, chosen.items, Strictness::Strict, unit.log()).await?;
        prune::delete(&session, chosen.records, Strictness::Strict, unit.log()).await
    };
    let result = work.await;
    unit.end(result).await?;
    Ok(StepOutput::default())
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let mut fetched = fetched(executor, spec, cx).await?;
    let log = cx.logs.unit("Initialize");
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let mut chosen = chosen(&mut session, spec, fetched.as_mut(), log.as_ref()).await?;
    identified(&session, &mut chosen).await?;
    let mut changes = Changes::default();
    changes.deletions(&session, &chosen.items).await?;
    Ok(changes.plan())
}

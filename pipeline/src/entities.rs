//! Entities: what `delegate apply` takes, and how a pipeline finds what it names.

use crate::fault::{Fault, Findings, Mode, Notice, Place, did_you_mean};
use crate::input_sets::read_input_set;
use crate::model::connector::read_connector;
use crate::model::env_group::read_environment_group;
use crate::model::infrastructure::read_infrastructure;
use crate::model::monitored_service::read_monitored_service;
use crate::model::overrides::{lay_over, read_override};
use crate::model::policy::{read_policy, read_policy_set};
use crate::model::read::{Field, Reader};
use crate::model::secret::read_secret;
use crate::model::service::{has_ecs_manifests, read_definition};
use crate::model::user_group::read_user_group;
use crate::model::{identity, pipeline, read_variables, scope_of};
use crate::rules;
use crate::trigger::{Trigger, read_trigger};
use crate::yaml::{Node, parse_documents};
use serde::{Deserialize, Serialize};

/// Kinds of entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "The names say it.")]
pub enum EntityKind {
    Connector,
    Secret,
    Service,
    Environment,
    Infrastructure,
    #[serde(rename = "environmentGroup")]
    EnvironmentGroup,
    Pipeline,
    Override,
    #[serde(rename = "userGroup")]
    UserGroup,
    Trigger,
    #[serde(rename = "inputSet")]
    InputSet,
    Policy,
    #[serde(rename = "policySet")]
    PolicySet,
    #[serde(rename = "monitoredService")]
    MonitoredService,
}

/// Root keys of documents and the kinds they stand for.
const ROOTS: [(&str, EntityKind); 19] = [
    ("connector", EntityKind::Connector),
    ("secret", EntityKind::Secret),
    ("service", EntityKind::Service),
    ("environment", EntityKind::Environment),
    ("environmentGroup", EntityKind::EnvironmentGroup),
    ("infrastructureDefinition", EntityKind::Infrastructure),
    ("infrastructure", EntityKind::Infrastructure),
    ("pipeline", EntityKind::Pipeline),
    ("override", EntityKind::Override),
    ("overrides", EntityKind::Override),
    ("serviceOverride", EntityKind::Override),
    ("serviceOverrides", EntityKind::Override),
    ("userGroup", EntityKind::UserGroup),
    ("trigger", EntityKind::Trigger),
    ("inputSet", EntityKind::InputSet),
    ("overlayInputSet", EntityKind::InputSet),
    ("policy", EntityKind::Policy),
    ("policySet", EntityKind::PolicySet),
    ("monitoredService", EntityKind::MonitoredService),
];

/// Root keys of override documents.
pub(crate) const OVERRIDE_ROOTS: [&str; 4] = ["override", "overrides", "serviceOverride", "serviceOverrides"];

impl EntityKind {
    /// Every kind, in the order in which they are listed for people.
    pub const ALL: [EntityKind; 14] = [
        EntityKind::Connector,
        EntityKind::Secret,
        EntityKind::Service,
        EntityKind::Environment,
        EntityKind::EnvironmentGroup,
        EntityKind::Infrastructure,
        EntityKind::Override,
        EntityKind::Pipeline,
        EntityKind::InputSet,
        EntityKind::Trigger,
        EntityKind::UserGroup,
        EntityKind::Policy,
        EntityKind::PolicySet,
        EntityKind::MonitoredService,
    ];

    /// Names of all kinds, for messages.
    pub fn names() -> String {
        EntityKind::ALL.map(EntityKind::name).join(", ")
    }

    /// The kind that a person means: its name or the root key of its documents, in any case, also in the plural.
    pub fn meant(word: &str) -> Option<Self> {
        let many = |name: &str| {
            name.strip_suffix('y').map_or_else(|| format!("{name}s"), |stem| format!("{stem}ies"))
        };
        let is = |name: &str| word.eq_ignore_ascii_case(name) || word.eq_ignore_ascii_case(&many(name));
        ROOTS.iter().find(|(root, kind)| is(kind.name()) || is(root)).map(|(_, kind)| *kind)
    }

    /// The name as the command line and the API write it.
    pub fn name(self) -> &'static str {
        match self {
            EntityKind::Connector => "connector",
            EntityKind::Secret => "secret",
            EntityKind::Service => "service",
            EntityKind::Environment => "environment",
            EntityKind::Infrastructure => "infrastructure",
            EntityKind::EnvironmentGroup => "environmentGroup",
            EntityKind::Pipeline => "pipeline",
            EntityKind::Override => "override",
            EntityKind::UserGroup => "userGroup",
            EntityKind::Trigger => "trigger",
            EntityKind::InputSet => "inputSet",
            EntityKind::Policy => "policy",
            EntityKind::PolicySet => "policySet",
            EntityKind::MonitoredService => "monitoredService",
        }
    }

    /// By [`EntityKind::name`], in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        ROOTS.iter().map(|(_, kind)| *kind).find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

/// One entity of a file, checked as far as it can be by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedEntity {
    /// Kind.
    pub kind: EntityKind,
    /// Identifier, or the name where none is written (rule R1).
    pub id: String,
    /// Name.
    pub name: String,
    /// `org/project`, `org`, or empty.
    pub scope: String,
    /// The text of its document: the whole file when it holds one document.
    pub yaml: String,
    /// Where it begins.
    pub at: Place,
    /// Applied rules and ignored keys.
    pub notices: Vec<Notice>,
}

/// Reads every entity of a file.
///
/// **Errors**: every fault of every document, ordered by place. Nothing may be applied when there is one.
pub fn parse_entities(source: &str, text: &str) -> Result<Vec<ParsedEntity>, Vec<Fault>> {
    let documents = parse_documents(source, text)?;
    let mut faults = Vec::new();
    let mut entities: Vec<ParsedEntity> = Vec::new();
    let single = documents.len() == 1;
    for (index, document) in documents.iter().enumerate() {
        let mut findings = Findings::new(Mode::Lenient);
        let Some((kind, root)) = root_of(document, &mut findings) else {
            faults.extend(findings.faults);
            continue;
        };
        let identified = read_entity(kind, document, root, &mut findings);
        faults.append(&mut findings.faults);
        let Some((id, name)) = identified else { continue };
        let mut scope = scope_of(root);
        // Their identifiers are unique in their pipeline, so that many pipelines may have a `nightly`.
        if let Some(pipeline) = pipeline_of(kind, root) {
            scope = Trigger::stored_scope(&scope, pipeline);
        }
        if entities.iter().any(|other| (other.kind, &other.id, &other.scope) == (kind, &id, &scope)) {
            let message = format!("the {} `{id}` stands twice in this file", kind.name());
            faults.push(Fault::at(&root.at, kind.name(), message));
        }
        // A document that ends where the next one begins; the first one also owns what stands before it.
        let yaml = if single { text.to_owned() } else { slice(text, &documents, index) };
        let at = document.at.clone();
        entities.push(ParsedEntity { kind, id, name, scope, yaml, at, notices: findings.notices });
    }
    if documents.is_empty() {
        faults.push(Fault::at(&Place::start(source), "", "the file holds no document"));
    }
    faults.sort_by_key(|fault| (fault.line, fault.column));
    if faults.is_empty() { Ok(entities) } else { Err(faults) }
}

/// The lines of one document of a file with several.
fn slice(text: &str, documents: &[Node], index: usize) -> String {
    let first = documents.get(index).map_or(1, |node| node.at.line) as usize;
    let next = documents.get(index + 1).map(|node| node.at.line as usize);
    let lines: Vec<&str> = text.lines().collect();
    let end = next.map_or(lines.len(), |next| next.saturating_sub(1)).min(lines.len());
    let body = lines.get(first.saturating_sub(1)..end).unwrap_or_default();
    // The separator line, and comments that lead the next document, are not part of this one.
    let until = if next.is_some() {
        body.iter().rposition(|line| line.starts_with("---")).unwrap_or(body.len())
    } else {
        body.len()
    };
    let mut out = body.get(..until).unwrap_or_default().join("\n");
    out.push('\n');
    out
}

fn root_of<'a>(document: &'a Node, findings: &mut Findings) -> Option<(EntityKind, &'a Node)> {
    let Some(map) = document.as_map() else {
        findings.fault(
            &document.at,
            "",
            format!("expected a map with one root key, found {}", document.kind()),
        );
        return None;
    };
    let hit = map.entries.iter().find_map(|entry| {
        ROOTS.iter().find(|(name, _)| *name == entry.key).map(|(_, kind)| (*kind, &entry.value))
    });
    if hit.is_none() {
        let names: Vec<&str> = ROOTS.iter().map(|(name, _)| *name).collect();
        let found: Vec<&str> = map.entries.iter().map(|entry| entry.key.as_str()).collect();
        let near = found.iter().find_map(|key| did_you_mean(key, names.iter().copied()));
        let message =
            format!("no known root key among `{}`; known are {}", found.join("`, `"), names.join(", "));
        findings.push(Fault::at(&document.at, "", message).suggest(near));
    }
    hit
}

/// The pipeline that an entity belongs to, for the kinds that belong to one.
fn pipeline_of(kind: EntityKind, root: &Node) -> Option<&str> {
    match kind {
        EntityKind::Trigger => root.get("pipelineIdentifier").and_then(Node::as_str),
        EntityKind::InputSet => crate::input_sets::pipeline_of(root),
        _ => None,
    }
}

fn read_entity(
    kind: EntityKind,
    document: &Node,
    root: &Node,
    findings: &mut Findings,
) -> Option<(String, String)> {
    match kind {
        EntityKind::Connector => read_connector(root, findings).map(|c| (c.identifier, c.name)),
        EntityKind::Secret => read_secret(root, findings).map(|s| (s.identifier, s.name)),
        EntityKind::Policy => read_policy(root, findings).map(|p| (p.identifier, p.name)),
        EntityKind::PolicySet => read_policy_set(root, findings).map(|s| (s.identifier, s.name)),
        EntityKind::MonitoredService => {
            read_monitored_service(root, findings).map(|s| (s.identifier, s.name))
        }
        EntityKind::Pipeline => {
            pipeline::read_pipeline(document, findings).map(|p| (p.identifier, p.name.text()))
        }
        EntityKind::Service => {
            let service = read_service(root, findings)?;
            if let Some((node, path)) = &service.definition {
                read_definition(node, path, findings);
            }
            Some((service.identifier, service.name.text()))
        }
        EntityKind::Trigger => read_trigger(root, findings).map(|trigger| (trigger.identifier, trigger.name)),
        EntityKind::InputSet => read_input_set(document, root, findings),
        EntityKind::Environment => read_environment(root, findings).map(|e| (e.identifier, e.name.text())),
        EntityKind::EnvironmentGroup => {
            read_environment_group(root, findings).map(|group| (group.identifier, group.name))
        }
        EntityKind::Infrastructure => read_infrastructure_entity(root, findings),
        EntityKind::Override => {
            let read = read_override(root, "overrides", findings)?;
            check_lists(&read.content, "overrides", findings);
            Some((read.identifier, read.name))
        }
        EntityKind::UserGroup => read_user_group(root, findings).map(|g| (g.identifier, g.name)),
    }
}

/// A service entity around its definition.
pub(crate) struct ServiceEntity {
    pub(crate) identifier: String,
    pub(crate) name: Field,
    pub(crate) description: String,
    pub(crate) tags: serde_json::Value,
    pub(crate) definition: Option<(Node, String)>,
}

pub(crate) fn read_service(root: &Node, findings: &mut Findings) -> Option<ServiceEntity> {
    let mut reader = Reader::new(root, "service", findings);
    reader.known(&["orgIdentifier", "projectIdentifier", "gitOpsEnabled"]);
    let identity = identity(&mut reader, "service", findings);
    let description = reader.text("description", findings).unwrap_or_default();
    let tags = reader.any("tags").map_or(serde_json::Value::Null, |tags| tags.value);
    let path = reader.sub("serviceDefinition");
    let definition = reader.node("serviceDefinition").map(|node| (node.clone(), path));
    reader.finish(findings);
    let (identifier, name) = identity?;
    Some(ServiceEntity { identifier, name, description, tags, definition })
}

/// An environment.
pub(crate) struct EnvironmentEntity {
    pub(crate) identifier: String,
    pub(crate) name: Field,
    pub(crate) description: String,
    pub(crate) kind: String,
    pub(crate) tags: serde_json::Value,
    pub(crate) variables: Vec<crate::model::Variable>,
}

pub(crate) fn read_environment(root: &Node, findings: &mut Findings) -> Option<EnvironmentEntity> {
    let mut reader = Reader::new(root, "environment", findings);
    reader.known(&["orgIdentifier", "projectIdentifier"]);
    let identity = identity(&mut reader, "environment", findings);
    let description = reader.text("description", findings).unwrap_or_default();
    let tags = reader.any("tags").map_or(serde_json::Value::Null, |tags| tags.value);
    let kinds = [("Production", "Production"), ("PreProduction", "PreProduction")];
    let kind = match reader.field("type", findings) {
        Some(field) => crate::model::read::one_of(&field, "environment type", &kinds, findings)?,
        None => "PreProduction",
    };
    let variables = read_variables(&mut reader, findings);
    if let Some(node) = reader.node("overrides") {
        let path = reader.sub("overrides");
        check_lists(node, &path, findings);
    }
    reader.finish(findings);
    let (identifier, name) = identity?;
    Some(EnvironmentEntity { identifier, name, description, kind: kind.to_owned(), tags, variables })
}

/// Reads lists that override those of a service, for their faults alone.
fn check_lists(content: &Node, path: &str, findings: &mut Findings) {
    let mut definition = Node::empty_map(&content.at);
    if let crate::yaml::Value::Map(map) = &mut definition.value {
        // Which manifests there are depends on the service; variables and files are the same for all.
        let kind = if has_ecs_manifests(content) { "ECS" } else { "Kubernetes" };
        map.set("type", Node::text(kind, &content.at));
    }
    lay_over(&mut definition, content);
    // What an override may hold depends on the service; only mistakes in the lists themselves are faults here.
    read_definition(&definition, path, findings);
}

/// The seed's infrastructure has neither identifier nor name: it then takes those of its host.
fn read_infrastructure_entity(root: &Node, findings: &mut Findings) -> Option<(String, String)> {
    let path = "infrastructureDefinition";
    read_infrastructure(root, path, None, findings);
    let text = |key: &str| root.get(key).and_then(Node::as_str).map(str::to_owned);
    if text("identifier").is_none() && text("name").is_none() {
        let host = root.at_path(&["spec", "hostname"]).and_then(Node::as_str);
        let Some(host) = host else {
            findings.fault(&root.at, path, "the infrastructure has neither `identifier` nor `name`");
            return None;
        };
        let assumed = format!("the infrastructure is called by its host `{host}`");
        findings.notice("R1.identifier-from-host", &root.at, path, assumed);
        return Some((host.to_owned(), host.to_owned()));
    }
    let mut reader = Reader::new(root, path, findings);
    let (identifier, name) = identity(&mut reader, "infrastructure", findings)?;
    Some((identifier, name.text()))
}

// --- the catalogue ---

/// A stored entity as the planner sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogEntity {
    /// Kind.
    pub kind: EntityKind,
    /// Identifier.
    pub id: String,
    /// Name.
    pub name: String,
    /// `org/project`, `org`, or empty.
    pub scope: String,
    /// Its document.
    pub yaml: String,
}

/// What is stored, as one consistent picture. The manager loads it before it plans.
pub trait Catalog {
    /// Every entity of a kind.
    fn entities(&self, kind: EntityKind) -> Vec<&CatalogEntity>;
    /// Whether a value is stored for a secret id.
    fn has_secret_value(&self, id: &str) -> bool;
}

/// A catalogue in memory.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Entities.
    pub entities: Vec<CatalogEntity>,
    /// Ids of secrets with a value.
    pub secrets: Vec<String>,
}

impl Catalog for Snapshot {
    fn entities(&self, kind: EntityKind) -> Vec<&CatalogEntity> {
        self.entities.iter().filter(|entity| entity.kind == kind).collect()
    }

    fn has_secret_value(&self, id: &str) -> bool {
        self.secrets.iter().any(|secret| secret == id)
    }
}

impl From<ParsedEntity> for CatalogEntity {
    fn from(entity: ParsedEntity) -> Self {
        let ParsedEntity { kind, id, name, scope, yaml, .. } = entity;
        CatalogEntity { kind, id, name, scope, yaml }
    }
}

/// Why a reference leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// Nothing fits; the nearest ids.
    NotFound {
        /// Ids that a typing error could have meant.
        near: Vec<String>,
    },
    /// More than one fits.
    Ambiguous {
        /// All of them.
        candidates: Vec<String>,
    },
}

impl LookupError {
    /// Message and suggestion for a reference.
    pub fn describe(&self, kind: EntityKind, reference: &str) -> (String, Option<String>) {
        match self {
            LookupError::NotFound { near } => {
                let suggestion =
                    (!near.is_empty()).then(|| format!("did you mean `{}`?", near.join("` or `")));
                (format!("the {} `{reference}` does not exist", kind.name()), suggestion)
            }
            LookupError::Ambiguous { candidates } => (
                format!("`{reference}` may mean several {}s: {}", kind.name(), candidates.join(", ")),
                Some("write the exact identifier".to_owned()),
            ),
        }
    }
}

/// The identifier that a reference names, and the scopes in which it is looked up from `scope`, the widest first.
pub fn seen_from<'r>(reference: &'r str, scope: &'r str) -> (&'r str, Vec<&'r str>) {
    let org = scope.split('/').next().unwrap_or_default();
    match reference.split_once('.') {
        Some(("account", rest)) => (rest, vec![""]),
        Some(("org", rest)) => (rest, vec!["", org]),
        _ => (reference, vec!["", scope]),
    }
}

/// Finds an entity by rule R1: exact id, then canonical id, then unique exact name.
///
/// **Shape**: `account.X` and `org.X` name the scope; a bare `X` is looked up in the scope of the pipeline. Entities
/// that declare no scope are visible from everywhere; those of another project never are.
pub fn find<'a>(
    catalog: &'a dyn Catalog,
    kind: EntityKind,
    reference: &str,
    scope: &str,
) -> Result<&'a CatalogEntity, LookupError> {
    let (wanted, visible) = seen_from(reference, scope);
    let all = catalog.entities(kind);
    let seen: Vec<&CatalogEntity> =
        all.iter().copied().filter(|entity| visible.contains(&entity.scope.as_str())).collect();
    // The own scope hides an equal id of a wider one.
    let one = |hits: Vec<&'a CatalogEntity>| -> Option<Result<&'a CatalogEntity, LookupError>> {
        let own: Vec<&CatalogEntity> =
            hits.iter().copied().filter(|entity| Some(&entity.scope.as_str()) == visible.last()).collect();
        match (own.as_slice(), hits.as_slice()) {
            ([one], _) | ([], [one]) => Some(Ok(one)),
            ([], []) => None,
            _ => {
                let candidates = hits.iter().map(|entity| entity.id.clone()).collect();
                Some(Err(LookupError::Ambiguous { candidates }))
            }
        }
    };
    let exact = seen.iter().copied().filter(|entity| entity.id == wanted).collect();
    let plain = rules::canonical(wanted);
    let canonical = seen.iter().copied().filter(|entity| rules::canonical(&entity.id) == plain).collect();
    let named = seen.iter().copied().filter(|entity| entity.name == wanted).collect();
    for hits in [exact, canonical, named] {
        if let Some(result) = one(hits) {
            return result;
        }
    }
    let near = expr::nearest(wanted, seen.iter().map(|entity| entity.id.as_str()));
    Err(LookupError::NotFound { near: near.into_iter().map(str::to_owned).collect() })
}

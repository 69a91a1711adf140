//! Task definitions: what a stage asks for, and the revision that it comes to (facts A2).
//!
//! ```text
//! Source (documents, ARN) ─► base ─over─► images, digest ─► Wanted ─┬─ newest revision is alike ─► use it
//!                                                                    └─ settle ─► RegisterTaskDefinition
//! ```

pub(crate) mod fargate;
pub(crate) mod images;
mod normal;
mod overlay;
mod source;

pub(crate) use images::repository;
pub(crate) use normal::normal;
pub(crate) use overlay::{Cloned, cloned};
pub(crate) use source::Source;

use crate::changes::{Change, between};
use crate::documents::arn::{Revision, short};
use crate::documents::reveal;
use crate::error::bad_spec;
use crate::memory::Memory;
use crate::session::{Session, ecs};
use aws::document::text;
use aws::{Fault, Repeat};
use executor_api::{Level, StepError, UnitLog};
use images::Pinned;
use proto::task::Artifact;
use proto::text::Text;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

/// A revision that ECS has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Described {
    pub(crate) arn: String,
    /// Whether services may use it.
    pub(crate) active: bool,
    /// What would register it again.
    pub(crate) document: Value,
    /// Members that this version does not know.
    pub(crate) unknown: Vec<String>,
}

/// What a definition comes to, before anything is registered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// Input of RegisterTaskDefinition; strings may hold placeholders of secrets.
    pub(crate) document: Value,
    /// The revision that is alike already.
    pub(crate) existing: Option<String>,
    /// Against the newest revision of the family.
    pub(crate) changes: Vec<Change>,
    /// That revision, for messages.
    pub(crate) against: Option<String>,
    pub(crate) pinned: Vec<Pinned>,
    pub(crate) warnings: Vec<String>,
    /// The stage names a revision and lays nothing over it.
    pub(crate) named: bool,
}

/// The revision that a service is to run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settled {
    pub(crate) arn: String,
    /// Its document, as [`Wanted::document`].
    pub(crate) document: Value,
    /// Whether this call registered it.
    pub(crate) registered: bool,
    /// Container and image.
    pub(crate) images: Vec<(String, String)>,
}

/// Looks up a revision; `None` when ECS does not know it.
///
/// **Errors**: those of the account. **Cancel**, **Repeat**: safe.
pub(crate) async fn describe(session: &Session, name: &str) -> Result<Option<Described>, Fault> {
    let input = json!({"taskDefinition": name, "include": ["TAGS"]});
    let answer = match session.read(ecs("DescribeTaskDefinition"), input).await {
        Ok(answer) => answer,
        // "Unable to describe task definition": ECS has no code of its own for it.
        Err(fault) if fault.is("ClientException") => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let Some(arn) = text(&answer, &["taskDefinition", "taskDefinitionArn"]) else { return Ok(None) };
    let status = text(&answer, &["taskDefinition", "status"]).unwrap_or("ACTIVE");
    let Cloned { document, unknown } = cloned(&answer);
    Ok(Some(Described { arn: arn.to_owned(), active: status == "ACTIVE", document, unknown }))
}

/// The same for one that must be there.
///
/// **Errors**: `ECS-014` for what is no name of one; `ECS-018`: there is none.
pub(crate) async fn described(session: &Session, name: &str) -> Result<Described, StepError> {
    let revision = Revision::parse(name, session.aws.region())?;
    let found = describe(session, &revision.text).await;
    let found =
        found.map_err(|fault| session.fault(fault, &format!("look at task definition {revision}")))?;
    match found {
        Some(found) => Ok(found),
        None => {
            let mut error = bad_spec(
                "ECS-018",
                format!("task definition {revision} does not exist in {}", session.target()),
            )
            .target(session.target().to_owned())
            .hint("correct its name; `aws ecs list-task-definitions` names what there is");
            if let (Ok(arn), Ok(caller)) =
                (crate::documents::arn::Arn::parse(&revision.text), session.aws.caller().await)
                && arn.account != caller.account
            {
                error.what = format!(
                    "task definition {revision} belongs to account {}; the connector works in {}",
                    arn.account, caller.account
                );
            }
            Err(error)
        }
    }
}

/// What `source` comes to with these images (container, else the only one) and the digest of the stage's artifact.
///
/// **Errors**: `ECS-014` … `ECS-018` for what is wrong with it; `ECS-003`; those of the account. **Cancel**, **Repeat**: safe.
pub(crate) async fn wanted(
    session: &Session,
    source: &Source,
    images: &[(Option<String>, String)],
    artifact: Option<&Artifact>,
) -> Result<Wanted, StepError> {
    let base = match &source.arn {
        Some(name) => Some(described(session, name).await?),
        None => None,
    };
    let mut warnings = Vec::new();
    let mut document = match &base {
        Some(base) => {
            if !base.unknown.is_empty() {
                warnings.push(format!(
                    "{} holds members that are newer than this version: {}; they are carried over as they stand",
                    short(&base.arn),
                    base.unknown.join(", ")
                ));
            }
            base.document.clone()
        }
        None => json!({}),
    };
    for part in &source.documents {
        document = overlay::over(&document, part);
    }
    for (container, image) in images {
        images::replace(&mut document, container.as_deref(), image)?;
    }
    let named = base.is_some() && source.documents.is_empty() && images.is_empty();
    let pinned = if named { Vec::new() } else { images::pin(&mut document, artifact) };
    overlay::complete(&document, &source.place)?;
    if let Some(artifact) = artifact.filter(|artifact| repository(artifact).is_some())
        && !images::runs(&document, artifact)
    {
        warnings.push(format!(
            "ecs.task.artifact: no container of {} runs the artifact of this stage (tag {})",
            source.place, artifact.tag
        ));
    }
    if let Some(base) = base.as_ref().filter(|base| named && base.active) {
        let existing = Some(base.arn.clone());
        let against = existing.clone();
        return Ok(Wanted { document, existing, changes: Vec::new(), against, pinned, warnings, named });
    }
    if named {
        let arn = base.as_ref().map_or("", |base| base.arn.as_str());
        warnings.push(format!(
            "ecs.task.inactive: {} is INACTIVE, which no service can use; the same definition is registered again",
            short(arn)
        ));
    }
    compare(session, document, base, pinned, warnings, named).await
}

/// Looks whether the family has a revision that is alike.
async fn compare(
    session: &Session,
    document: Value,
    base: Option<Described>,
    pinned: Vec<Pinned>,
    warnings: Vec<String>,
    named: bool,
) -> Result<Wanted, StepError> {
    let family = text(&document, &["family"]).unwrap_or_default();
    let newest = describe(session, family).await;
    let newest =
        newest.map_err(|fault| session.fault(fault, &format!("look at the newest revision of {family}")))?;
    let clear = normal(&reveal(&document, session.cx.secrets.as_ref())?);
    let alike = |found: &&Described| found.active && normal(&found.document) == clear;
    let existing =
        newest.as_ref().filter(alike).or(base.as_ref().filter(alike)).map(|found| found.arn.clone());
    let open = |text: &str| {
        let clear = session.cx.secrets.reveal(&Text(text.to_owned())).ok()?;
        Some(clear.expose_secret().to_owned())
    };
    let old = newest.as_ref().or(base.as_ref());
    let changes = match (&existing, old) {
        (None, Some(old)) => between(&normal(&old.document), &normal(&document), &open),
        _ => Vec::new(),
    };
    let against = old.map(|old| old.arn.clone());
    Ok(Wanted { document, existing, changes, against, pinned, warnings, named })
}

impl Wanted {
    /// Family, for messages.
    pub(crate) fn family(&self) -> &str {
        text(&self.document, &["family"]).unwrap_or_default()
    }

    /// What is about to happen, for the log and for a plan. The same state gives the same lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Pinned { container, from, to } in &self.pinned {
            lines.push(format!("container {container}: {from} is pinned to {to}"));
        }
        match (&self.existing, &self.against) {
            (Some(arn), _) if self.named => {
                lines.push(format!("task definition {} is used as it is registered", short(arn)))
            }
            (Some(arn), _) => {
                lines.push(format!("task definition {} is alike: no new revision is registered", short(arn)));
            }
            (None, Some(arn)) => {
                lines.push(format!(
                    "a new revision of {} is registered; against {}:",
                    self.family(),
                    short(arn)
                ));
                lines.extend(self.changes.iter().map(|change| format!("  {change}")));
            }
            (None, None) => {
                lines.push(format!("the first revision of {} is registered:", self.family()));
                let images = images::of(&self.document);
                lines.extend(
                    images.iter().map(|(container, image)| format!("  container {container}: {image}")),
                );
            }
        }
        lines
    }

    /// Refuses what Fargate would not run, when the definition or the service asks for Fargate.
    ///
    /// **Errors**: `ECS-017` names everything at once.
    pub(crate) fn fits_fargate(&self, service_on_fargate: bool, place: &str) -> Result<(), StepError> {
        let mut problems = Vec::new();
        if service_on_fargate && !fargate::wanted(&self.document) {
            problems
                .push("requiresCompatibilities does not name FARGATE, on which the service runs".to_owned());
        }
        if service_on_fargate || fargate::wanted(&self.document) {
            problems.extend(fargate::problems(&self.document));
        }
        if problems.is_empty() {
            return Ok(());
        }
        let what = format!(
            "task definition {} of {place} cannot run on Fargate: {}",
            self.family(),
            problems.join("; ")
        );
        Err(bad_spec("ECS-017", what).hint("correct the task definition; nothing was registered"))
    }
}

/// The revision to run: the one that is alike, else a new one. `memory` goes into the checkpoint that announces it.
///
/// **Errors**: those of the account; `ECS-002`, `ECS-003`. **Repeat**: a revision that an earlier life registered is found
/// by its normal form.
pub(crate) async fn settle<M: Memory>(
    session: &Session,
    wanted: &Wanted,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<Settled, StepError> {
    let images = images::of(&wanted.document);
    let settled = |arn: String, registered: bool| Settled {
        arn,
        document: wanted.document.clone(),
        registered,
        images: images.clone(),
    };
    if let Some(arn) = &wanted.existing {
        return Ok(settled(arn.clone(), false));
    }
    let family = wanted.family();
    let call = format!("RegisterTaskDefinition {family}");
    let input = reveal(&wanted.document, session.cx.secrets.as_ref())?;
    session.announce(format!("register a revision of {family}"), &[&call], memory).await?;
    let answer =
        session.change(&call, ecs("RegisterTaskDefinition"), input.clone(), Repeat::OnlyIfNotReached).await;
    let arn = match answer {
        Ok(answer) => text(&answer, &["taskDefinition", "taskDefinitionArn"]).unwrap_or_default().to_owned(),
        // The answer was lost on the way: what was registered can be found.
        Err(fault) if fault.is_unanswered() => {
            let newest = describe(session, family).await.ok().flatten();
            match newest.filter(|newest| newest.active && normal(&newest.document) == normal(&input)) {
                Some(newest) => newest.arn,
                None => return Err(session.fault(fault, &call)),
            }
        }
        Err(fault) => return Err(session.fault(fault, &call)),
    };
    session.say(log, Level::Info, &format!("registered {arn}")).await?;
    Ok(settled(arn, true))
}

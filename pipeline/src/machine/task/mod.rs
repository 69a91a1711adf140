//! Tasks: the fields of a step are resolved once, when it starts, and frozen into the document for the agent.

mod ahead;
mod artifact;
mod build;
mod connector;
mod earlier;
mod earlier_ecs;
mod ecs;
mod ecs_documents;
mod kubernetes;
mod policy;
mod steps;

pub use ahead::{Need, SshNeed};
pub use artifact::stage_records;
pub(crate) use artifact::{retoken, stage_key};
pub(crate) use build::{Builder, field_value, render};
pub(super) use earlier_ecs::undo_items;

use super::approval::{self, Approval};
use super::state::{Phase, Status};
use super::timers::{ARTIFACT_MS, DEFAULT_STEP_MS, name};
use super::{Action, Machine, ManagerWork, TaskRequest, input, node_of};
use crate::model::step::Spec;
use crate::plan::NodeKind;
use proto::failure::Failure;

/// What starting a step comes to.
enum Start {
    /// A task for an agent.
    Task(Box<TaskRequest>, Vec<String>),
    /// The manager itself waits, milliseconds.
    Wait(u64),
    /// The manager itself waits until others arrive.
    Barrier,
    /// The manager itself does it.
    Perform(Box<ManagerWork>),
    /// People are asked; what a person should read.
    Ask(Box<Approval>, Vec<String>),
    /// Nothing is to be done, and why.
    Skip(String),
}

impl Machine<'_> {
    /// Starts the next attempt of a step.
    pub(super) fn start_attempt(&mut self, id: &str) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        let attempt = run.attempt + 1;
        self.update(id, |run| {
            run.attempt = attempt;
            run.agent = None;
            run.failure = None;
            run.unanswered = false;
            run.outputs.clear();
            run.units.clear();
        });
        if self.asks(id, node) {
            return self.wait_for_inputs(id, attempt, node.timeout_ms);
        }
        self.launch(id);
    }

    /// Does what an attempt is about, once everything that the step asks for is known.
    pub(super) fn launch(&mut self, id: &str) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        let attempt = run.attempt;
        let timeout_ms = node.timeout_ms.unwrap_or(match node.kind {
            NodeKind::Artifact => ARTIFACT_MS,
            _ => DEFAULT_STEP_MS,
        });
        match self.prepare(id, attempt, timeout_ms) {
            Ok(Start::Task(task, notices)) => {
                self.update(id, |run| {
                    run.phase = Phase::Task;
                    run.notices.extend(notices);
                });
                self.actions.push(Action::Enqueue(task));
            }
            Ok(Start::Wait(ms)) => {
                self.update(id, |run| run.phase = Phase::Wait);
                let at = self.at.saturating_add(self.rehearsed(ms));
                self.actions.push(Action::SetTimer { timer: name("wait", attempt, id), at });
            }
            Ok(Start::Barrier) => self.update(id, |run| run.phase = Phase::Barrier),
            Ok(Start::Perform(work)) => {
                self.update(id, |run| {
                    run.phase = Phase::Perform;
                    run.work = Some(work.clone());
                });
                self.actions.push(Action::Perform { node: id.to_owned(), attempt, work });
            }
            Ok(Start::Ask(approval, notices)) => {
                self.update(id, |run| run.notices.extend(notices));
                self.wait_for_approval(id, attempt, *approval);
            }
            Ok(Start::Skip(why)) => {
                self.update(id, |run| run.notices.push(why));
                return self.end(id, Status::Skipped);
            }
            Err(failure) => return self.fail(id, *failure, Status::Failed),
        }
        let at = self.at.saturating_add(timeout_ms);
        self.actions.push(Action::SetTimer { timer: name("timeout", attempt, id), at });
    }

    fn prepare(&self, id: &str, attempt: u32, timeout_ms: u64) -> Result<Start, Box<Failure>> {
        let mut builder = Builder::new(&self.plan, self.state, id, self.at);
        let Some(node) = builder.node() else { return Err(build::bug("the step has no node")) };
        let filled = match &node.kind {
            NodeKind::Step { spec, .. } if !node.asks.is_empty() => {
                Some(input::filled(self.state, id, node, spec)?)
            }
            _ => None,
        };
        let spec = match &node.kind {
            NodeKind::Artifact => artifact::lookup(&mut builder)?,
            NodeKind::Step { spec, .. } => match &**filled.as_ref().unwrap_or(spec) {
                Spec::Policy { sets, payload } => {
                    let work = policy::work(&builder, sets, payload, self.at)?;
                    return Ok(Start::Perform(Box::new(work)));
                }
                Spec::Approval(spec) => {
                    let deadline = self.at.saturating_add(timeout_ms);
                    let (asked, notices) = approval::ask(&builder, spec, self.at, deadline)?;
                    return Ok(Start::Ask(Box::new(asked), notices));
                }
                Spec::Wait { duration } => return Ok(Start::Wait(builder.duration(duration)?)),
                Spec::Barrier { .. } => return Ok(Start::Barrier),
                Spec::Verify(verify) if verify.provider.is_none() => {
                    return Ok(Start::Skip("no health source is configured".to_owned()));
                }
                other => match earlier::nothing_to_do(&builder, other) {
                    Some(why) => return Ok(Start::Skip(why)),
                    None => steps::build(&mut builder, other, timeout_ms)?,
                },
            },
            _ => return Err(build::bug("only steps have tasks")),
        };
        let (request, notices) = builder.request(spec, attempt, timeout_ms)?;
        Ok(Start::Task(Box::new(request), notices))
    }
}

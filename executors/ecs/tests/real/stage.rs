//! One run of a stage: its steps one after another, each with what the earlier ones left behind, as the manager hands it on.

use crate::peer::aws::Place;
use crate::peer::{self, executor, secrets, spec, task};
use executor_api::testing::World;
use executor_api::{CancelReason, CancelStage, Executor as _, Plan, StepError, StepOutput};
use proto::task::{EcsAction, EcsDefinitions, EcsSpec, EcsUndo};
use serde_json::Value;
use std::collections::BTreeMap;

pub(crate) struct Stage<'a> {
    pub(crate) place: &'a Place<'static>,
    pub(crate) definitions: EcsDefinitions,
    pub(crate) execution: String,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) done: Vec<EcsUndo>,
    /// The log of the last step.
    pub(crate) log: String,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(place: &'a Place<'static>, definitions: EcsDefinitions, execution: &str) -> Stage<'a> {
        Stage {
            place,
            definitions,
            execution: format!("{execution}-{}", place.name),
            variables: BTreeMap::new(),
            done: Vec::new(),
            log: String::new(),
        }
    }

    pub(crate) fn spec(&self, action: EcsAction) -> EcsSpec {
        let mut spec = spec(self.place, self.definitions.clone(), action);
        spec.earlier.undo.clone_from(&self.done);
        spec.variables.clone_from(&self.variables);
        spec
    }

    pub(crate) fn world(&self, step: &str, spec: &EcsSpec) -> World {
        World::new(format!("{}-{step}", self.execution), task(spec, &self.execution, step), secrets())
    }

    /// What a step left behind, for those that follow.
    pub(crate) fn note(&mut self, step: &str, spec: &EcsSpec, output: Option<&StepOutput>, world: &World) {
        let data = peer::undo(output, world);
        self.log = world.logs.everything();
        let entry =
            EcsUndo { step: step.into(), kind: spec.action.kind().into(), succeeded: output.is_some(), data };
        self.done.push(entry);
    }

    async fn run(&mut self, step: &str, action: EcsAction) -> Result<StepOutput, StepError> {
        let spec = self.spec(action);
        let world = self.world(step, &spec);
        let (_handle, cx) = world.context();
        executor().check(&spec, &cx).unwrap();
        let result = peer::probed(std::sync::Arc::new(world.marks.clone())).run(&spec, &cx).await;
        assert_eq!(world.marks.unannounced(), Vec::<String>::new(), "{step}");
        self.note(step, &spec, result.as_ref().ok(), &world);
        assert!(!self.log.contains(peer::SECRET), "{step}");
        result
    }

    pub(crate) async fn step(&mut self, step: &str, action: EcsAction) -> StepOutput {
        match self.run(step, action).await {
            Ok(output) => output,
            Err(error) => panic!("{step}: {} {error}\n{}", error.code, self.log),
        }
    }

    pub(crate) async fn fails(&mut self, step: &str, action: EcsAction) -> StepError {
        match self.run(step, action).await {
            Ok(output) => panic!("{step} succeeded: {output:?}\n{}", self.log),
            Err(error) => error,
        }
    }

    pub(crate) async fn plan(&self, step: &str, action: EcsAction) -> String {
        let spec = self.spec(action);
        let world = self.world(&format!("plan-{step}"), &spec);
        match executor().plan(&spec, &world.context().1).await {
            Ok(Plan::Diff { text, .. }) => text,
            other => panic!("{step}: {other:?}"),
        }
    }

    /// Runs a step and asks for its end as soon as `when` holds.
    pub(crate) async fn ended(
        &mut self,
        step: &str,
        action: EcsAction,
        when: impl Fn() -> bool + Send + 'static,
    ) -> StepError {
        let spec = self.spec(action);
        let world = self.world(step, &spec);
        let (handle, cx) = world.context();
        let watch = async {
            executor_api::testing::until(step, std::time::Duration::from_secs(120), async || {
                when().then_some(())
            })
            .await;
            handle.cancel(CancelReason::User, CancelStage::Ask);
            std::future::pending::<()>().await;
        };
        let executor = executor();
        let result = tokio::select! {
            result = executor.run(&spec, &cx) => result,
            () = watch => unreachable!("it never ends"),
        };
        self.note(step, &spec, result.as_ref().ok(), &world);
        match result {
            Ok(output) => panic!("{step} succeeded: {output:?}\n{}", self.log),
            Err(error) => error,
        }
    }

    /// Undoes every step, the last one first, as rule R25 does.
    pub(crate) async fn undo_all(&mut self) {
        let done = std::mem::take(&mut self.done);
        for entry in done.into_iter().rev() {
            self.undo(&entry)
                .await
                .unwrap_or_else(|e| panic!("undo {}: {} {e}\n{}", entry.step, e.code, self.log));
        }
    }

    pub(crate) async fn undo(&mut self, entry: &EcsUndo) -> Result<StepOutput, StepError> {
        let action = EcsAction::EcsUndo { step: entry.step.clone(), kind: entry.kind.clone() };
        let spec = self.spec(action);
        let name = format!("undo_{}", entry.step);
        let mut task = task(&spec, &self.execution, &name);
        task.undo = Some(entry.data.clone());
        let world = World::new(format!("{}-{name}", self.execution), task, secrets());
        let executor = peer::probed(std::sync::Arc::new(world.marks.clone()));
        let result = executor.run(&spec, &world.context().1).await;
        assert_eq!(world.marks.unannounced(), Vec::<String>::new(), "{name}");
        self.log = world.logs.everything();
        result
    }
}

/// An output of a step.
pub(crate) fn out(output: &StepOutput, name: &str) -> Value {
    output.outputs.get(name).unwrap_or_else(|| panic!("no output {name} in {output:?}")).value.clone()
}

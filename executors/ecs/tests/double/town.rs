//! A double, a service in it, and one run of a stage: its steps one after another, each with what the earlier ones left behind.

#[path = "../../../../tests/src/peers/ecs_double/mod.rs"]
pub(crate) mod ecs_double;

pub(crate) use self::ecs_double::EcsDouble;
use executor_api::testing::{World, until};
use executor_api::{CancelReason, CancelStage, Checkpoints as _, Executor as _, Plan, StepError, StepOutput};
use executor_ecs::{EcsExecutor, Settings};
use proto::task::{
    AwsAccount, AwsCredential, ContinueUntil, EcsAction, EcsDefinitions, EcsDocument, EcsSpec, EcsUndo,
    ExecutionRef, NativeDeploy, Step, StepSpec, StepTask, TaskDefinition,
};
use proto::text::{SecretRef, placeholder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The secret key of the account. Nobody may see it.
const SECRET: &str = "pl4nted/secret+access-key";
pub(crate) const GATE: &str = "PRE_PRODUCTION_TRAFFIC_SHIFT";

pub(crate) struct Town {
    pub(crate) double: EcsDouble,
    /// What the next steps are told of the earlier ones.
    pub(crate) done: Vec<EcsUndo>,
    /// The log of the last step.
    pub(crate) log: String,
    pub(crate) execution: String,
}

/// A step of a rolling deployment that is shifted by ECS, with these gates of half an hour.
pub(crate) fn deploy(gates: &[&str]) -> EcsAction {
    let gates: Vec<String> = gates.iter().map(|gate| (*gate).to_owned()).collect();
    let minutes = (!gates.is_empty()).then_some(30);
    EcsAction::EcsRollingDeploy {
        same_as_already_running_instances: false,
        force_new_deployment: false,
        skip_steady_state_check: false,
        native: NativeDeploy { required: true, gates, gate_timeout_minutes: minutes },
    }
}

pub(crate) fn go_on(until: ContinueUntil) -> EcsAction {
    EcsAction::EcsContinueDeployment { until }
}

pub(crate) fn rollback() -> EcsAction {
    EcsAction::EcsRollingRollback { skip_steady_state_check: false }
}

pub(crate) fn blue_green() -> Value {
    json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 5})
}

pub(crate) fn linear(step: u32) -> Value {
    json!({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": step, "stepBakeTimeInMinutes": 1}})
}

/// An executor as a freshly started agent has it; it looks often, because the double's time passes with its looks.
pub(crate) fn executor(world: &World) -> EcsExecutor {
    let aws = aws::Settings { patience: Duration::from_secs(10), ..aws::Settings::default() };
    let look = Duration::from_millis(20);
    let settings =
        Settings { poll: look, slow_poll: look, settle: Duration::from_secs(3), ..Settings::default() };
    EcsExecutor::new(aws::Client::new(aws).unwrap(), settings).with_probe(Arc::new(world.marks.clone()))
}

/// The definitions of service `name` with two tasks of an image.
pub(crate) fn definitions(name: &str, image: &str, configuration: &Value) -> EcsDefinitions {
    let task = json!({"family": name, "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
        "containerDefinitions": [{"name": "app", "image": image, "portMappings": [{"containerPort": 80}]}]});
    let group =
        |colour: &str| format!("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/{colour}/1");
    let service = json!({"serviceName": name, "desiredCount": 2, "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        "loadBalancers": [{"targetGroupArn": group("blue"), "containerName": "app", "containerPort": 80, "advancedConfiguration": {
            "alternateTargetGroupArn": group("green"), "productionListenerRule": "arn:rule", "testListenerRule": "arn:test",
            "roleArn": "arn:aws:iam::123456789012:role/infrastructure"}}],
        "deploymentConfiguration": configuration});
    let document = |place: &str, value| EcsDocument::Value { place: place.into(), value };
    EcsDefinitions {
        task: Some(TaskDefinition { arn: None, document: Some(document("taskDefinition", task)) }),
        service: Some(document("serviceDefinition", service)),
        ..EcsDefinitions::default()
    }
}

impl Town {
    /// An empty cluster.
    pub(crate) fn new() -> Town {
        Town { double: EcsDouble::start(), done: Vec::new(), log: String::new(), execution: "first".into() }
    }

    /// A cluster whose service `web` runs `app:1`.
    pub(crate) async fn with_web(configuration: &Value) -> Town {
        let mut town = Town::new();
        town.double.pace(Duration::from_secs(30));
        town.step("first", deploy(&[]), "app:1", configuration).await;
        town.next_run("second");
        town.double.pace(Duration::from_secs(5));
        town
    }

    /// Another execution.
    pub(crate) fn next_run(&mut self, execution: &str) {
        self.done.clear();
        self.execution = execution.into();
    }

    pub(crate) fn spec(&self, action: EcsAction, definitions: EcsDefinitions) -> EcsSpec {
        let mut spec = EcsSpec {
            account: AwsAccount {
                connector: "aws".into(),
                region: "us-east-1".into(),
                credential: AwsCredential::ManualConfig {
                    access_key: "AKIADOUBLE".into(),
                    secret_key: placeholder(&SecretRef("aws_secret_key".into()), 77).into(),
                    session_token: None,
                },
                assume_role: None,
                endpoints: BTreeMap::from([(String::new(), self.double.endpoint())]),
            },
            cluster: "double".into(),
            definitions,
            current_task_definition: None,
            earlier: Default::default(),
            variables: BTreeMap::new(),
            namespace: None,
            strict: false,
            context: Value::Null,
            action,
        };
        spec.earlier.undo.clone_from(&self.done);
        spec
    }

    pub(crate) fn world(&self, step: &str, spec: &EcsSpec) -> World {
        let mut task = StepTask {
            execution: ExecutionRef {
                execution_id: self.execution.clone(),
                pipeline: "p".into(),
                sequence_id: 1,
                stage: "s".into(),
                node: format!("pipeline.stages.s.{step}"),
                attempt: 1,
                rolls_back: None,
            },
            secret_token: 77,
            ..StepTask::of(Step {
                identifier: step.into(),
                name: step.into(),
                spec: StepSpec::Ecs(Box::new(spec.clone())),
            })
        };
        if let EcsAction::EcsUndo { step, .. } = &spec.action {
            task.undo = self.done.iter().find(|done| done.step == *step).map(|done| done.data.clone());
        }
        let secrets = vec![("aws_secret_key".to_owned(), SECRET.to_owned())];
        World::new(format!("{}-{step}", self.execution), task, secrets)
    }

    /// What a step left behind, for those that follow.
    pub(crate) fn note(&mut self, step: &str, spec: &EcsSpec, output: Option<&StepOutput>, world: &World) {
        let of_checkpoints =
            || world.marks.history().into_iter().rev().find_map(|checkpoint| checkpoint.undo);
        let data = output.and_then(|output| output.undo.clone()).or_else(of_checkpoints).unwrap_or_default();
        self.log = world.logs.everything();
        assert!(!self.log.contains(SECRET), "{step}");
        assert_eq!(world.marks.unannounced(), Vec::<String>::new(), "{step}");
        self.done.push(EcsUndo {
            step: step.into(),
            kind: spec.action.kind().into(),
            succeeded: output.is_some(),
            data,
        });
    }

    async fn run(&mut self, step: &str, spec: &EcsSpec) -> Result<StepOutput, StepError> {
        let world = self.world(step, spec);
        let (_handle, cx) = world.context();
        let executor = executor(&world);
        let checked = executor.check(spec, &cx);
        assert!(checked.is_ok(), "{checked:?}");
        let result = executor.run(spec, &cx).await;
        self.note(step, spec, result.as_ref().ok(), &world);
        result
    }

    /// Deploys an image to `web`, or does what else the action says.
    pub(crate) async fn step(
        &mut self,
        step: &str,
        action: EcsAction,
        image: &str,
        configuration: &Value,
    ) -> StepOutput {
        let spec = self.spec(action, definitions("web", image, configuration));
        match self.run(step, &spec).await {
            Ok(output) => output,
            Err(error) => panic!("{step}: {} {error}\n{}", error.code, self.log),
        }
    }

    pub(crate) async fn fails(
        &mut self,
        step: &str,
        action: EcsAction,
        image: &str,
        configuration: &Value,
    ) -> StepError {
        let spec = self.spec(action, definitions("web", image, configuration));
        match self.run(step, &spec).await {
            Ok(output) => panic!("{step} succeeded: {output:?}\n{}", self.log),
            Err(error) => error,
        }
    }

    /// A step that needs no definitions.
    pub(crate) async fn then(&mut self, step: &str, action: EcsAction) -> StepOutput {
        let spec = self.spec(action, EcsDefinitions::default());
        match self.run(step, &spec).await {
            Ok(output) => output,
            Err(error) => panic!("{step}: {} {error}\n{}", error.code, self.log),
        }
    }

    pub(crate) async fn then_fails(&mut self, step: &str, action: EcsAction) -> StepError {
        let spec = self.spec(action, EcsDefinitions::default());
        match self.run(step, &spec).await {
            Ok(output) => panic!("{step} succeeded: {output:?}\n{}", self.log),
            Err(error) => error,
        }
    }

    pub(crate) async fn plan(&self, action: EcsAction, image: &str, configuration: &Value) -> String {
        let spec = self.spec(action, definitions("web", image, configuration));
        let world = self.world("plan", &spec);
        match executor(&world).plan(&spec, &world.context().1).await {
            Ok(Plan::Diff { text, .. }) => text,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a deployment and, as soon as `when` holds of its service deployment, does something; the step must fail.
    pub(crate) async fn disturbed(
        &mut self,
        image: &str,
        configuration: &Value,
        action: EcsAction,
        when: impl Fn(&Value) -> bool,
        what: impl FnOnce(&EcsDouble, &executor_api::CancelHandle),
    ) -> StepError {
        self.double.pace(Duration::from_secs(1));
        let before = self.double.deployment("web")["serviceDeploymentArn"].clone();
        let spec = self.spec(action, definitions("web", image, configuration));
        let world = self.world("deploy", &spec);
        let (handle, cx) = world.context();
        let executor = executor(&world);
        let result = {
            let disturb = async {
                until("the moment", Duration::from_secs(120), async || {
                    let now = self.double.deployment("web");
                    (now["serviceDeploymentArn"] != before && when(&now)).then_some(())
                })
                .await;
                what(&self.double, &handle);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                result = executor.run(&spec, &cx) => result,
                () = disturb => unreachable!("it never ends"),
            }
        };
        self.note("deploy", &spec, result.as_ref().ok(), &world);
        match result {
            Ok(output) => panic!("it succeeded: {output:?}\n{}", self.log),
            Err(error) => error,
        }
    }

    /// The revision that the service has and whose tasks run, `web:2`.
    pub(crate) fn runs(&self) -> String {
        let service = self.double.service("web");
        service["taskDefinition"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    }

    pub(crate) fn weight(&self) -> f64 {
        self.double.deployment("web")["targetServiceRevision"]["requestedProductionTrafficWeight"]
            .as_f64()
            .unwrap()
    }
}

pub(crate) fn cancel(_: &EcsDouble, handle: &executor_api::CancelHandle) {
    handle.cancel(CancelReason::User, CancelStage::Ask);
}

/// An output of a step.
pub(crate) fn out(output: &StepOutput, name: &str) -> Value {
    output.outputs.get(name).unwrap_or_else(|| panic!("no output {name} in {output:?}")).value.clone()
}

//! What each step asks AWS for: the one table from which the least IAM policies in `deploy/aws/` are made, and against
//! which every call is held in debug builds.

use aws::{Operation, Service};
use proto::task::ECS_KINDS;
use serde_json::{Value, json};

/// One permission of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Right {
    service: Service,
    operation: &'static str,
}

const fn ecs(operation: &'static str) -> Right {
    Right { service: Service::Ecs, operation }
}
const fn elb(operation: &'static str) -> Right {
    Right { service: Service::LoadBalancing, operation }
}
const fn scaling(operation: &'static str) -> Right {
    Right { service: Service::AutoScaling, operation }
}
const fn logs(operation: &'static str) -> Right {
    Right { service: Service::Logs, operation }
}
const fn ecr(operation: &'static str) -> Right {
    Right { service: Service::Ecr, operation }
}
const fn sts(operation: &'static str) -> Right {
    Right { service: Service::Sts, operation }
}

/// Every step looks at its cluster, and says who it is when something is denied.
const EVERY: &[Right] = &[ecs("DescribeClusters"), sts("GetCallerIdentity")];

/// What is asked beforehand when it may be, and goes without saying when it may not.
const ASKED: &[Right] = &[
    Right { service: Service::Iam, operation: "SimulatePrincipalPolicy" },
    Right { service: Service::ServiceQuotas, operation: "GetServiceQuota" },
    ecr("DescribePullThroughCacheRules"),
    ecr("GetDownloadUrlForLayer"),
];

/// Waiting for a rollout, with evidence.
const WAIT: &[Right] = &[
    ecs("DescribeServices"),
    ecs("DescribeServiceDeployments"),
    ecs("ListServiceDeployments"),
    ecs("ListTasks"),
    ecs("DescribeTasks"),
    ecs("DescribeTaskDefinition"),
    elb("DescribeTargetHealth"),
    logs("GetLogEvents"),
];

/// Registering a revision or using one that is there.
const DEFINE: &[Right] = &[
    ecs("DescribeTaskDefinition"),
    ecs("RegisterTaskDefinition"),
    ecs("TagResource"),
    ecr("DescribeImages"),
    ecr("BatchGetImage"),
];

/// Making, changing and deleting a service.
const SERVE: &[Right] = &[
    ecs("DescribeServices"),
    ecs("DescribeServiceRevisions"),
    ecs("CreateService"),
    ecs("UpdateService"),
    ecs("DeleteService"),
    ecs("TagResource"),
    ecs("UntagResource"),
    ecs("DescribeContainerInstances"),
    ecs("ListContainerInstances"),
];

/// Looking at services and their autoscaling.
const LOOK: &[Right] = &[
    ecs("DescribeServices"),
    ecs("DescribeServiceRevisions"),
    scaling("DescribeScalableTargets"),
    scaling("DescribeScalingPolicies"),
    scaling("DescribeScheduledActions"),
    scaling("ListTagsForResource"),
];

/// Reading, suspending and restoring autoscaling.
const SCALING: &[Right] = &[
    scaling("DescribeScalableTargets"),
    scaling("DescribeScalingPolicies"),
    scaling("DescribeScheduledActions"),
    scaling("RegisterScalableTarget"),
    scaling("DeregisterScalableTarget"),
    scaling("PutScalingPolicy"),
    scaling("DeleteScalingPolicy"),
    scaling("PutScheduledAction"),
    scaling("DeleteScheduledAction"),
    scaling("ListTagsForResource"),
    scaling("TagResource"),
];

/// Looking at load balancers.
const ROUTES: &[Right] = &[
    elb("DescribeLoadBalancers"),
    elb("DescribeListeners"),
    elb("DescribeRules"),
    elb("DescribeTargetGroups"),
    elb("DescribeTargetGroupAttributes"),
    elb("DescribeTargetHealth"),
];

/// Changing where requests go.
const SHIFT: &[Right] = &[elb("ModifyListener"), elb("ModifyRule")];

/// Opening a gate of a native deployment, and telling its revisions apart.
const CONTINUE: &[Right] = &[ecs("ContinueServiceDeployment"), ecs("DescribeServiceRevisions")];
/// Having ECS roll a native deployment back.
const BACK: &[Right] = &[ecs("StopServiceDeployment")];

/// One-off tasks.
const TASKS: &[Right] =
    &[ecs("RunTask"), ecs("StopTask"), ecs("ListTasks"), ecs("DescribeTasks"), logs("GetLogEvents")];

/// Looking for services by name.
const FIND: &[Right] = &[ecs("ListServices")];

fn groups(kind: &str) -> &'static [&'static [Right]] {
    match kind {
        "EcsRollingDeploy" => &[EVERY, DEFINE, SERVE, SCALING, WAIT],
        "EcsContinueDeployment" => &[EVERY, SCALING, WAIT, CONTINUE],
        "EcsRollingRollback" => &[EVERY, DEFINE, SERVE, SCALING, WAIT, CONTINUE, BACK],
        "EcsCanaryDeploy" => &[EVERY, DEFINE, SERVE, SCALING, WAIT],
        "EcsCanaryDelete" => &[EVERY, SERVE, SCALING, WAIT],
        "EcsScale" => &[EVERY, SERVE, SCALING, WAIT],
        "EcsServiceSetup" | "EcsUpgradeContainer" | "EcsBasicRollback" => {
            &[EVERY, DEFINE, SERVE, SCALING, WAIT, FIND]
        }
        "EcsBlueGreenCreateService" | "EcsBlueGreenSwapTargetGroups" | "EcsBlueGreenRollback" => {
            &[EVERY, DEFINE, SERVE, SCALING, WAIT, ROUTES, SHIFT]
        }
        "EcsBlueGreenTrafficShift" | "StandAloneTrafficShiftRollback" => &[EVERY, SERVE, WAIT, ROUTES, SHIFT],
        "EcsPrepareRollback" => &[EVERY, LOOK, FIND, ROUTES],
        "EcsRunTask" => &[EVERY, DEFINE, SERVE, SCALING, WAIT, ROUTES, SHIFT, TASKS, FIND],
        _ => &[EVERY, DEFINE, SERVE, SCALING, WAIT, ROUTES, SHIFT, CONTINUE, BACK, FIND],
    }
}

/// The permissions of a kind of step, each once, in order.
pub(crate) fn of(kind: &str) -> Vec<Right> {
    let mut all: Vec<Right> = groups(kind).iter().flat_map(|group| group.iter().copied()).collect();
    all.sort();
    all.dedup();
    all
}

/// Whether a step of this kind may send `operation`.
pub(crate) fn allows(kind: &str, operation: Operation) -> bool {
    groups(kind)
        .iter()
        .chain(&[ASKED])
        .any(|group| group.contains(&Right { service: operation.service, operation: operation.name }))
}

impl Right {
    /// `ecs:DescribeServices`.
    pub(crate) fn action(self) -> String {
        format!("{}:{}", self.service.iam_prefix(), self.operation)
    }
}

/// Whether IAM can bind the action to single resources of ECS. The others are granted on `*`.
fn bound(right: Right) -> bool {
    right.service == Service::Ecs
        && !matches!(
            right.operation,
            "RegisterTaskDefinition" | "DescribeTaskDefinition" | "ListServices" | "ListServiceDeployments"
        )
}

/// The least policy of a kind of step. `REGION`, `ACCOUNT`, `CLUSTER` and `ROLE` are to be filled in.
///
/// Roles of task definitions must be passed to ECS by whoever registers a revision or runs it (`iam:PassRole`).
pub fn policy(kind: &str) -> Value {
    let rights = of(kind);
    let named = |wanted: bool| -> Vec<String> {
        rights.iter().copied().filter(|right| bound(*right) == wanted).map(Right::action).collect()
    };
    let passes = rights.iter().any(|right| matches!(right.operation, "RegisterTaskDefinition" | "RunTask"));
    let mut statements = vec![
        json!({"Sid": "Cluster", "Effect": "Allow", "Action": named(true),
            "Resource": ["arn:aws:ecs:REGION:ACCOUNT:cluster/CLUSTER", "arn:aws:ecs:REGION:ACCOUNT:service/CLUSTER/*",
                "arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/*", "arn:aws:ecs:REGION:ACCOUNT:task-definition/*",
                "arn:aws:ecs:REGION:ACCOUNT:service-deployment/CLUSTER/*",
                "arn:aws:ecs:REGION:ACCOUNT:service-revision/CLUSTER/*",
                "arn:aws:ecs:REGION:ACCOUNT:container-instance/CLUSTER/*"]}),
        json!({"Sid": "Everywhere", "Effect": "Allow", "Action": named(false), "Resource": "*"}),
    ];
    if passes {
        // Roles of tasks; and the role with which ECS itself changes listener rules, where a service has one.
        let to = match rights.iter().any(|right| right.operation == "CreateService") {
            true => json!(["ecs-tasks.amazonaws.com", "ecs.amazonaws.com"]),
            false => json!("ecs-tasks.amazonaws.com"),
        };
        statements.push(json!({"Sid": "Roles", "Effect": "Allow", "Action": "iam:PassRole",
            "Resource": "arn:aws:iam::ACCOUNT:role/ROLE",
            "Condition": {"StringEquals": {"iam:PassedToService": to}}}));
    }
    let asked: Vec<String> = ASKED.iter().map(|right| right.action()).collect();
    statements.push(json!({"Sid": "Beforehand", "Effect": "Allow", "Action": asked, "Resource": "*"}));
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// Kinds of steps that have a policy: those that a pipeline names.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    ECS_KINDS.into_iter()
}

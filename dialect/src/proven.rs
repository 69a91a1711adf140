//! What may be offered to a manager of Harness'.

/// Task types that an agent may offer: each runs end to end in `tests/e2e/harness_*.rs`, and its answers are read by the real
/// Kryo. A type that only differs in what a manager asks of an agent stands here once its package has been run.
pub const PROVEN: &[&str] = &[
    "HTTP_TASK_NG",
    "SHELL_SCRIPT_TASK_NG",
    "COMMAND_TASK_NG",
    "COMMAND_TASK_NG_WITH_OUTPUT_VARIABLE_SECRETS",
    "COMMAND_TASK_NG_WITH_GIT_CONFIGS",
    "K8S_COMMAND_TASK_NG",
    "ECS_COMMAND_TASK_NG",
    "VALIDATE_KUBERNETES_CONFIG",
    "NG_GIT_COMMAND",
    "NG_AWS_TASK",
];

/// What the proof is, for a person who switches it on.
pub const PROOF: &str = "the proof is Kryo 4.0.3 with class shapes of December 2023, not a live manager";

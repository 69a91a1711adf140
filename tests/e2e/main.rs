//! End-to-end scenarios against real peers; one binary, so that the stack is linked once.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "This crate is test code; a panic is its way to fail."
)]

mod approvals;
mod aws_peer;
mod bad_input;
mod command_line;
mod connectors;
mod ecs_blue_green;
mod ecs_canary;
mod ecs_killed;
mod ecs_native;
mod ecs_seed;
mod ecs_world;
mod harness_command;
mod harness_ecs;
mod harness_ecs_trouble;
mod harness_http;
mod harness_k8s;
mod harness_manager;
mod harness_shell;
mod host_keys;
mod journey;
mod k8s_git_ssh;
mod k8s_login;
mod k8s_seed;
mod k8s_verify;
mod k8s_world;
mod secrets;
mod shell_on_host;
mod shell_script;
mod signals;
mod ssh_fleet;
mod tls;
mod triggers;
mod vm_peer;
mod vm_seed;
mod vm_world;

//! Real systems, each started by the test that needs it and ended by its own process id.

pub mod aws;
pub mod ecs_double;
pub mod https;
pub mod kryo;
pub mod kryo_process;
pub mod kube;
pub mod owned;
pub mod pod_metrics;
pub mod prometheus;
pub mod registry;
pub mod sshd;
pub mod vm;
pub mod web;

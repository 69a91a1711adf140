//! End-to-end scenarios against real peers; one binary, so that the stack is linked once.

mod secrets;
mod ssh_fleet;
mod vm_peer;
mod vm_seed;
mod vm_world;

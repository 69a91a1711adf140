//! ECS waits on the AWS peer: how soon a stable service is noticed, against the command line's waiter; what fifty waits at
//! once ask for, against fifty waiters; memory.
//!
//! The measurements are those of `executors/ecs/tests/speed.rs`: each runs in a process of its own, which holds the executor
//! and little else, prints its figures, and fails when what must hold on any machine does not.

use crate::figures::{judged, of_test, plain};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Tests of `speed.rs`.
const MEASUREMENTS: [&str; 2] = ["a_stable_service_is_noticed_at_once", "many_waits_ask_together"];

pub(crate) fn measure() -> Result<()> {
    let mut found = BTreeMap::new();
    for name in MEASUREMENTS {
        found.extend(of_test("executor-ecs", "speed", name, "ECS_SPEED_FULL")?);
    }
    let of = |name: &str| found.get(name).copied().with_context(|| format!("no figure {name}"));
    judged("stable -> noticed, median of 15", of("noticed-median-s")?, "s", 2.5, false);
    judged("stable -> noticed, longest", of("noticed-max-s")?, "s", 5.0, false);
    plain("  aws ecs wait services-stable, median of 9", of("waiter-median-s")?, "s");
    plain("  aws ecs wait services-stable, longest", of("waiter-max-s")?, "s");
    plain("looks of 50 waits at once", of("many-looks")?, "");
    plain("  of 50 waiters", of("many-waiter-looks")?, "");
    judged("looks / those of 50 waiters", of("many-looks-ratio")?, "x", 1.0 / 3.0, false);
    plain("50 services scaled and waited for", of("many-seconds")?, "s");
    plain("  by 50 waiters", of("many-waiter-seconds")?, "s");
    judged("highest RSS of the process that does it", of("many-rss-mib")?, "MiB", 60.0, false);
    Ok(())
}

//! Kubernetes steps on the real control plane: a thousand objects against `kubectl` and a bare loop, how soon readiness is
//! noticed, a rolling update of 500 pods, memory.
//!
//! The measurements are those of `executors/kube/tests/speed.rs`: each runs in a process of its own, which holds the
//! executor and little else, prints its figures, and fails when what must hold on any machine does not.

use crate::figures::{judged, of_test, plain};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Tests of `speed.rs`.
const MEASUREMENTS: [&str; 3] = [
    "a_thousand_objects_take_two_requests_each_and_little_more_time_than_a_bare_loop",
    "readiness_is_noticed_at_once",
    "a_rolling_update_of_many_pods_takes_as_many_requests_as_one_of_few",
];

pub(crate) fn measure() -> Result<()> {
    let mut found = BTreeMap::new();
    for name in MEASUREMENTS {
        found.extend(of_test("executor-kube", "speed", name, "KUBE_SPEED_FULL")?);
    }
    let of = |name: &str| found.get(name).copied().with_context(|| format!("no figure {name}"));
    plain("apply of 1,000 objects, validated", of("apply-seconds")?, "s");
    judged("  wall / kubectl apply --server-side", of("kubectl-ratio")?, "x", 1.0 / 8.0, false);
    judged("  requests / kubectl dry run and apply", of("kubectl-requests-ratio")?, "x", 1.0, false);
    judged("  wall / bare loop of one PATCH per object", of("bare-ratio")?, "x", 2.5, false);
    judged("  highest RSS", of("apply-rss-mib")?, "MiB", 60.0, false);
    plain("ready -> noticed, median of 200", of("noticed-median-ms")?, "ms");
    judged("ready -> noticed, p99", of("noticed-p99-ms")?, "ms", 250.0, false);
    let few = of("update-requests-few")?;
    plain("requests of a rolling update of 50 pods", few, "");
    // Independent of the number of pods but for a few pages and watches: the changes are those of one object.
    judged("requests of a rolling update of 500 pods", of("update-requests-many")?, "", few + 6.0, false);
    judged("  highest RSS", of("update-rss-mib")?, "MiB", 60.0, false);
    Ok(())
}

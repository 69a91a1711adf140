//! Agents that die at every place where it matters.

use crate::peer::{probed, secrets, task};
use executor_api::testing::{CrashAt, World};
use executor_api::{Executor as _, StepOutput};
use proto::task::EcsSpec;
use std::sync::Arc;

/// A world for a step.
pub(crate) fn world(spec: &EcsSpec, execution: &str, identifier: &str) -> World {
    World::new(format!("{execution}-{identifier}"), task(spec, execution, identifier), secrets())
}

/// Runs the step once for every place at which the agent can die, and each time once more as the next agent does, which must
/// succeed and announce every change. `look` is shown what came of it, and makes things as they were before.
pub(crate) async fn everywhere(
    spec: &EcsSpec,
    execution: &str,
    identifier: &str,
    mut look: impl AsyncFnMut(StepOutput, &World),
) {
    let places: [fn(usize) -> CrashAt; 3] =
        [CrashAt::AfterCheckpoint, CrashAt::BeforeCall, CrashAt::AfterCall];
    for place in places {
        for number in 1.. {
            let world = world(spec, execution, identifier);
            world.marks.crash_at(place(number));
            let probe = || Arc::new(world.marks.clone());
            let first = probed(probe());
            let (_, context) = world.context();
            let died = tokio::select! {
                result = first.run(spec, &context) => {
                    result.unwrap_or_else(|e| panic!("{}: {e}\n{}", e.code, world.logs.everything()));
                    false
                }
                () = world.marks.crashed() => true,
            };
            drop((first, context));
            world.restart();
            let again = probed(probe()).run(spec, &world.context().1).await;
            let output = again.unwrap_or_else(|e| {
                panic!("{:?}: {}: {e}\n{}", place(number), e.code, world.logs.everything())
            });
            assert_eq!(world.marks.unannounced(), Vec::<String>::new(), "{:?}", place(number));
            look(output, &world).await;
            if !died {
                break;
            }
        }
    }
}

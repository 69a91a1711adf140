//! The emulator with real containers, held to the scenario of rolling deployments that the double is held to.

use crate::peer::aws::{Place, until};
use crate::peer::{image, place};
use crate::scenario::{Side, play};
use serde_json::Value;

impl Side for Place<'_> {
    fn name(&self) -> &'static str {
        "peer"
    }

    fn place(&self) -> Vec<(&'static str, String)> {
        let subnet = self.subnets.first().cloned().unwrap_or_default();
        let (web, crash) = (image(self, "1", "web"), image(self, "2", "crash"));
        vec![("cluster", self.name.clone()), ("subnet", subnet), ("web", web), ("crash", crash)]
    }

    fn call(&self, operation: &str, input: &Value) -> Result<Value, String> {
        self.ecs.ask("ecs", operation, input.clone()).map_err(|refusal| refusal.code)
    }

    fn until(&self, what: &str, look: &mut dyn FnMut() -> Result<(), String>) {
        until(what, look);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_plays_the_rolling_scenario_of_the_double() {
    let at = place("scenario").await;
    tokio::task::spawn_blocking(move || play(&at)).await.unwrap();
}

//! The double's rolling part, held to the scenario that the emulator with real containers is held to.

use crate::scenario::{Side, play};
use crate::town::EcsDouble;
use serde_json::Value;
use std::time::Duration;

impl Side for EcsDouble {
    fn name(&self) -> &'static str {
        "double"
    }

    fn place(&self) -> Vec<(&'static str, String)> {
        let pairs = [("cluster", "double"), ("subnet", "subnet-1"), ("web", "app:1"), ("crash", "app:exit")];
        pairs.map(|(name, value)| (name, value.to_owned())).to_vec()
    }

    fn call(&self, operation: &str, input: &Value) -> Result<Value, String> {
        EcsDouble::call(self, operation, input)
            .map_err(|error| error.split(':').next().unwrap_or_default().to_owned())
    }

    fn until(&self, what: &str, look: &mut dyn FnMut() -> Result<(), String>) {
        let mut last = String::new();
        // A second passes with each look.
        for _ in 0..600 {
            match look() {
                Ok(()) => return,
                Err(fault) => last = fault,
            }
        }
        panic!("{what}: {last}");
    }
}

#[test]
fn double_plays_the_rolling_scenario() {
    let double = EcsDouble::start();
    double.pace(Duration::from_secs(1));
    play(&double);
}

//! How the pollers ask AWS: with the account of a step that waits.

use super::poller::{Reader, Subscription, Trouble};
use crate::session::{Session, ecs};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;

struct Cluster {
    aws: aws::Session,
    cluster: String,
}

impl Reader for Cluster {
    fn read(&self, names: Vec<String>) -> BoxFuture<'static, Result<Vec<Value>, Trouble>> {
        let aws = self.aws.clone();
        let input = json!({"cluster": self.cluster, "services": names});
        Box::pin(async move {
            match aws.read(ecs("DescribeServices"), input).await {
                Ok(mut answer) => match answer.get_mut("services").map(Value::take) {
                    Some(Value::Array(services)) => Ok(services),
                    _ => Ok(Vec::new()),
                },
                Err(aws::Fault::Cancelled(_)) => Err(Trouble::Ended),
                Err(fault) if fault.is_throttled() => Err(Trouble::Throttled),
                Err(fault) if fault.may_pass() => Err(Trouble::Passing(fault.to_string())),
                Err(_) => Err(Trouble::Refused),
            }
        })
    }
}

impl Session {
    /// What steps that share their looks have in common: account and cluster.
    pub(crate) fn poll_key(&self) -> (String, String) {
        (self.aws.key().to_owned(), self.cluster_arn.clone())
    }

    /// How many services of this account and cluster are waited for.
    pub(super) fn waits(&self) -> usize {
        self.pollers.waits(&self.poll_key())
    }

    /// Takes a seat in the loop that looks at the services of this account and cluster.
    pub(super) fn watch(&self, service: &str) -> Subscription {
        let key = self.poll_key();
        let reader = Arc::new(Cluster { aws: self.aws.clone(), cluster: self.cluster.clone() });
        self.pollers.watch(key, service, reader)
    }
}

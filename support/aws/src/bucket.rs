//! Token buckets: how fast the agent asks, whoever asks inside it. Shared by all steps that run at the same time.

use crate::operation::{Operation, Service};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A group of actions that AWS counts together, with its burst and its calls per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    burst: f64,
    rate: f64,
}

/// How much slower than its figure a bucket gets at most.
const SLOWEST: f64 = 1.0 / 16.0;
/// How long no throttling has to be seen before a slowed bucket doubles its rate again.
const CALM: Duration = Duration::from_secs(20);

/// The group of an action. ECS: the table "Request token bucket sizes" of its API reference; Elastic Load Balancing: 40 and
/// 10 a second for `Describe*` (its user guide). The others publish no figures; these keep well below what is reported
/// to be refused, and an answer that throttles corrects them.
pub(crate) fn group(operation: Operation) -> Group {
    let name = operation.name;
    let is = |names: &[&str]| names.contains(&name);
    let (name, burst, rate) = match operation.service {
        Service::Ecs if is(&["RegisterTaskDefinition", "DeregisterTaskDefinition"]) => {
            ("ecs task definition changes", 20.0, 1.0)
        }
        Service::Ecs if is(&["CreateService", "UpdateService", "DeleteService"]) => {
            ("ecs service changes", 50.0, 5.0)
        }
        Service::Ecs if is(&["RunTask", "StartTask", "StopTask"]) => ("ecs task changes", 100.0, 40.0),
        Service::Ecs if is(&["TagResource", "UntagResource"]) => ("ecs tag changes", 20.0, 10.0),
        Service::Ecs if is(&["DescribeServices", "ListServices"]) => ("ecs service reads", 100.0, 20.0),
        Service::Ecs
            if is(&[
                "DescribeTasks",
                "ListTasks",
                "DescribeContainerInstances",
                "ListContainerInstances",
            ]) =>
        {
            ("ecs task reads", 100.0, 20.0)
        }
        Service::Ecs if is(&["DescribeServiceDeployments", "ListServiceDeployments"]) => {
            ("ecs deployment reads", 50.0, 20.0)
        }
        Service::Ecs if is(&["DescribeServiceRevisions"]) => ("ecs revision reads", 50.0, 20.0),
        Service::Ecs if is(&["DescribeClusters", "ListClusters"]) => ("ecs cluster reads", 50.0, 20.0),
        Service::Ecs if reads(name) => ("ecs other reads", 50.0, 20.0),
        Service::Ecs => ("ecs other changes", 10.0, 1.0),
        Service::LoadBalancing if reads(name) => ("elb reads", 40.0, 10.0),
        Service::LoadBalancing => ("elb changes", 20.0, 5.0),
        Service::AutoScaling if reads(name) => ("application auto scaling reads", 20.0, 5.0),
        Service::AutoScaling => ("application auto scaling changes", 10.0, 2.0),
        Service::CloudWatch => ("cloudwatch", 50.0, 25.0),
        Service::Logs => ("logs", 20.0, 5.0),
        Service::Ecr => ("ecr", 20.0, 10.0),
        Service::Sts => ("sts", 50.0, 50.0),
        Service::SecretsManager => ("secrets manager", 50.0, 25.0),
        Service::Iam => ("iam", 5.0, 2.0),
        Service::ServiceQuotas => ("service quotas", 5.0, 2.0),
    };
    Group { name, burst, rate }
}

fn reads(name: &str) -> bool {
    ["Describe", "List", "Get"].iter().any(|prefix| name.starts_with(prefix))
}

/// One bucket. Pure: time comes in.
#[derive(Clone, Debug)]
struct Bucket {
    group: Group,
    /// May be below zero: then that many calls wait for their turn already, and turns come in the order of asking.
    tokens: f64,
    filled: Instant,
    /// What the rate is multiplied with: 1 unless AWS has throttled.
    share: f64,
    throttled: Instant,
}

impl Bucket {
    fn new(group: Group, now: Instant) -> Bucket {
        Bucket { group, tokens: group.burst, filled: now, share: 1.0, throttled: now }
    }

    fn fill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * self.group.rate * self.share;
        self.tokens = (self.tokens + gained).min(self.group.burst);
        self.filled = self.filled.max(now);
        if self.share < 1.0 && now.saturating_duration_since(self.throttled) >= CALM {
            self.share = (self.share * 2.0).min(1.0);
            self.throttled = now;
        }
    }

    /// Takes a token and says how long to wait until it is there.
    fn take(&mut self, now: Instant) -> Duration {
        self.fill(now);
        self.tokens -= 1.0;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(-self.tokens / (self.group.rate * self.share))
    }

    /// Gives a token back that was not used.
    fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.group.burst);
    }

    /// AWS asked to slow down: the account's own bucket is empty, so ours is, and it fills half as fast for a while.
    fn slow_down(&mut self, now: Instant) {
        self.fill(now);
        self.tokens = self.tokens.min(0.0);
        // Answers to calls that were under way together are one piece of news.
        if self.share == 1.0 || now.saturating_duration_since(self.throttled) >= Duration::from_secs(1) {
            self.share = (self.share / 2.0).max(SLOWEST);
            self.throttled = now;
        }
    }
}

/// Every bucket of an agent, by account, region and group.
#[derive(Debug, Default)]
pub(crate) struct Buckets(Mutex<HashMap<(String, String, &'static str), Bucket>>);

/// Buckets that nobody has used for so long are full anyway.
const MAX_BUCKETS: usize = 1024;

impl Buckets {
    fn with<T>(
        &self,
        account: &str,
        region: &str,
        group: Group,
        now: Instant,
        act: impl FnOnce(&mut Bucket) -> T,
    ) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_BUCKETS {
            all.retain(|_, bucket| {
                bucket.fill(now);
                bucket.tokens < bucket.group.burst || bucket.share < 1.0
            });
        }
        let key = (account.to_owned(), region.to_owned(), group.name);
        act(all.entry(key).or_insert_with(|| Bucket::new(group, now)))
    }

    /// Takes a token and says how long to wait until it may be used.
    pub(crate) fn take(&self, account: &str, region: &str, group: Group, now: Instant) -> Duration {
        self.with(account, region, group, now, |bucket| bucket.take(now))
    }

    /// The call was not sent.
    pub(crate) fn give_back(&self, account: &str, region: &str, group: Group, now: Instant) {
        self.with(account, region, group, now, Bucket::give_back);
    }

    /// The answer throttled.
    pub(crate) fn slow_down(&self, account: &str, region: &str, group: Group, now: Instant) {
        self.with(account, region, group, now, |bucket| bucket.slow_down(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REGISTER: Operation = Service::Ecs.op("RegisterTaskDefinition");

    #[test]
    fn a_burst_goes_at_once_and_the_rest_in_turn() {
        let (buckets, now, group) = (Buckets::default(), Instant::now(), group(REGISTER));
        let take = |now| buckets.take("1", "us-east-1", group, now);
        assert!((0..20).all(|_| take(now).is_zero()));
        assert_eq!(take(now), Duration::from_secs(1));
        assert_eq!(take(now), Duration::from_secs(2));
        // Another account or region has its own.
        assert!(buckets.take("2", "us-east-1", group, now).is_zero());
        assert!(buckets.take("1", "us-east-2", group, now).is_zero());
        // Two calls wait already, so the next but three seconds later goes at once.
        assert!(take(now + Duration::from_secs(3)).is_zero());
        buckets.give_back("1", "us-east-1", group, now);
        assert!(take(now + Duration::from_secs(3)).is_zero());
    }

    #[test]
    fn throttling_halves_the_rate_and_calm_brings_it_back() {
        let (buckets, now, group) = (Buckets::default(), Instant::now(), group(REGISTER));
        let slow = |now| buckets.slow_down("1", "r", group, now);
        let take = |now| buckets.take("1", "r", group, now);
        slow(now);
        // Ten answers to calls that left together count once.
        (0..10).for_each(|_| slow(now));
        assert_eq!(take(now), Duration::from_secs(2));
        let later = now + Duration::from_secs(2);
        slow(later);
        assert_eq!(take(later), Duration::from_secs(4));
        // After 20 s of calm half, after 40 s all of it again.
        take(later + CALM);
        let back = later + CALM * 2;
        take(back);
        buckets.with("1", "r", group, back, |bucket| assert!((bucket.share - 1.0).abs() < f64::EPSILON));
    }

    #[test]
    fn a_bucket_never_stands_still() {
        let (buckets, mut now, group) = (Buckets::default(), Instant::now(), group(REGISTER));
        for _ in 0..100 {
            buckets.slow_down("1", "r", group, now);
            now += Duration::from_secs(1);
        }
        assert!(buckets.take("1", "r", group, now) <= Duration::from_secs(32));
    }

    proptest! {
        /// However calls come, no more are let through in any span than burst and rate allow.
        #[test]
        fn never_more_than_burst_and_rate(gaps in proptest::collection::vec(0u64..3000, 1..200)) {
            let (buckets, start, group) = (Buckets::default(), Instant::now(), group(REGISTER));
            let mut now = start;
            let mut sent: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                let wait = buckets.take("1", "r", group, now);
                sent.push(now + wait - start);
            }
            for (at, from) in sent.iter().enumerate() {
                for (further, to) in sent.iter().enumerate().skip(at) {
                    let allowed = 20.0 + (to.as_secs_f64() - from.as_secs_f64()) + 1e-6;
                    prop_assert!(((further - at) as f64) < allowed + 1.0, "{from:?} to {to:?}");
                }
            }
        }
    }
}

//! Looks at service deployments, those of all steps of an agent together: at most twenty a call (facts A1).

use super::view::View;
use crate::session::{Session, ecs};
use crate::steady::{Part, Rounds};
use aws::Fault;
use aws::document::{list, text};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// Most service deployments, and most service revisions, that one call describes.
pub(super) const PER_CALL: usize = 20;
/// Steps whose looks fall together wait so long for each other.
const OPEN: Duration = Duration::from_millis(100);
/// How long a deployment counts as new.
const YOUNG: Duration = Duration::from_secs(60);

/// What the steps of an agent that follow service deployments share. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Looks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// All looks are taken at whole multiples of the pace from here, so that they fall together.
    begun: OnceLock<Instant>,
    followers: AtomicUsize,
    rounds: Rounds,
}

/// A step that follows; counted as long as it lives.
pub(super) struct Seat(Looks);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Looks {
    pub(super) fn sit(&self) -> Seat {
        self.0.followers.fetch_add(1, Ordering::Relaxed);
        Seat(self.clone())
    }

    /// When the next look is due for a step that follows since `since`.
    pub(super) fn due(&self, now: Instant, since: Instant, young: Duration, old: Duration) -> Instant {
        let pace = if now.saturating_duration_since(since) < YOUNG { young } else { old };
        let begun = *self.0.begun.get_or_init(|| now);
        let (pace, passed) = (pace.as_nanos().max(1), now.saturating_duration_since(begun).as_nanos());
        let left = pace - passed % pace;
        now + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

/// One look; `None`: ECS does not know the service deployment.
///
/// **Errors**: those of the account. **Cancel**, **Repeat**: safe.
pub(crate) async fn look(session: &Session, arn: &str) -> Result<Option<View>, Fault> {
    if session.looks.0.followers.load(Ordering::Relaxed) > 1
        && let Some(found) = together(session, arn).await
    {
        return Ok(found.as_ref().map(View::read));
    }
    let found = described(session, &[arn.to_owned()]).await?;
    Ok(found.first().map(View::read))
}

async fn described(session: &Session, arns: &[String]) -> Result<Vec<Value>, Fault> {
    let mut found = Vec::with_capacity(arns.len());
    for arns in arns.chunks(PER_CALL) {
        let input = json!({"serviceDeploymentArns": arns});
        let mut answer = session.read(ecs("DescribeServiceDeployments"), input).await?;
        if let Some(Value::Array(listed)) = answer.get_mut("serviceDeployments").map(Value::take) {
            found.extend(listed);
        }
    }
    Ok(found)
}

/// `None`: it could not be had together; whoever asks alone learns why.
async fn together(session: &Session, arn: &str) -> Option<Option<Value>> {
    let (rounds, key) = (&session.looks.0.rounds, session.poll_key());
    let found = match rounds.join(&key, arn) {
        Part::Ask(sender) => {
            session.cx.clock.sleep(OPEN).await;
            let arns = rounds.close(&key);
            let found = described(session, &arns).await.ok().map(|found| {
                let arn = |one: &Value| text(one, &["serviceDeploymentArn"]).unwrap_or_default().to_owned();
                let all: HashMap<String, Vec<Value>> =
                    found.into_iter().map(|one| (arn(&one), vec![one])).collect();
                Arc::new(all)
            });
            sender.send_replace(Some(found.clone()));
            found
        }
        Part::Wait(mut found) => {
            let told = found.wait_for(Option::is_some).await.ok()?;
            told.clone().flatten()
        }
    };
    found.map(|found| found.get(arn).and_then(|found| found.first()).cloned())
}

/// Task definitions of service revisions, by the revision's ARN; those that ECS does not know are left out.
///
/// **Errors**: those of the account. **Cancel**, **Repeat**: safe.
pub(super) async fn task_definitions(
    session: &Session,
    revisions: &[String],
) -> Result<HashMap<String, String>, Fault> {
    let mut found = HashMap::new();
    for arns in revisions.chunks(PER_CALL) {
        let input = json!({"serviceRevisionArns": arns});
        let answer = session.read(ecs("DescribeServiceRevisions"), input).await?;
        for revision in list(&answer, &["serviceRevisions"]) {
            let part = |name: &str| text(revision, &[name]).unwrap_or_default().to_owned();
            found.insert(part("serviceRevisionArn"), part("taskDefinition"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looks_of_steps_that_began_apart_fall_together() {
        let looks = Looks::default();
        let begun = Instant::now();
        let (young, old) = (Duration::from_secs(2), Duration::from_secs(5));
        assert_eq!(looks.due(begun, begun, young, old), begun + young);
        let later = begun + Duration::from_millis(2700);
        assert_eq!(looks.due(later, later, young, old), begun + Duration::from_secs(4));
        let much = begun + Duration::from_secs(61);
        assert_eq!(looks.due(much, begun, young, old), begun + Duration::from_secs(65));
        assert_eq!(looks.due(much, much, young, old), begun + Duration::from_secs(62));
        let seats = [looks.sit(), looks.sit()];
        assert_eq!(looks.0.followers.load(Ordering::Relaxed), 2);
        drop(seats);
        assert_eq!(looks.0.followers.load(Ordering::Relaxed), 0);
    }
}

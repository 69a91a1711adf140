//! CloudWatch's metrics: what is asked for, of which target group or service, in which periods. **Source**: facts C3.5,
//! settled facts §3.2.
//!
//! ```text
//! query ─read─► statistic, name ─metric─► namespace, dimensions ─places─► load balancer, service ─► GetMetricData
//! ```

mod answer;
mod logs;
mod metric;
mod query;
mod window;

pub(crate) use logs::Logs;
pub(crate) use metric::Wanted;
pub(crate) use query::Statistic;
pub(crate) use window::{Periods, period, periods};

use crate::error::Error;
use crate::judge::Point;
use answer::{Asked, Found};
use aws::{Fault, Operation, Service, Session, document};
use executor_api::StepContext;
use metric::{Metric, Of, Places};
use proto::task::{AwsAccount, CloudWatchScope};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const GET_METRIC_DATA: Operation = Service::CloudWatch.op("GetMetricData");
const DESCRIBE_SERVICES: Operation = Service::Ecs.op("DescribeServices");
const DESCRIBE_TARGET_GROUPS: Operation = Service::LoadBalancing.op("DescribeTargetGroups");

/// Ids of the queries; CloudWatch wants them to begin with a small letter.
const JUDGED: &str = "judged";
const CONTROL: &str = "control";

/// One metric of an account, and the one it is compared with at the same time.
pub(crate) struct Metrics {
    session: Session,
    wanted: Wanted,
    judged: Metric,
    control: Option<Metric>,
    period: Duration,
    target: String,
}

/// Samples of the same periods.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) judged: Vec<Point>,
    /// Of the control, if there is one beside.
    pub(crate) control: Option<Vec<Point>>,
}

impl Metrics {
    /// Finds out what the metric is of. Asks ECS and the load balancer for what the scope does not say.
    ///
    /// **Errors**: `VER-012`: it is not unique, or there is none.
    pub(crate) async fn open(
        client: &aws::Client,
        (account, scope): (&AwsAccount, &CloudWatchScope),
        wanted: &Wanted,
        period: Duration,
        cx: &StepContext,
    ) -> Result<Metrics, Error> {
        let session = client.session(account, cx).await.map_err(|error| Error::Aws(Box::new(error)))?;
        let target = format!("CloudWatch of {}", session.target());
        let places = places(&session, scope, wanted, &target).await?;
        let at = |places: &Places| {
            wanted.at(places).ok_or_else(|| Error::Place {
                target: target.clone(),
                problem: format!("it is not known what metric `{}` is of", wanted.name),
            })
        };
        let control = wanted
            .baseline(scope)
            .map(|arn| at(&Places { target_group: Some(arn.to_owned()), ..places.clone() }));
        let (judged, control) = (at(&places)?, control.transpose()?);
        Ok(Metrics { session, wanted: wanted.clone(), judged, control, period, target })
    }

    /// For messages.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Whether there is a control at the same times.
    pub(crate) fn has_control(&self) -> bool {
        self.control.is_some()
    }

    /// Lines that say what is asked for.
    pub(crate) fn shown(&self) -> Vec<String> {
        let statistic = self.wanted.statistic;
        let mut lines = vec![format!("asks for {statistic} of {}", self.judged.shown())];
        lines.extend(self.control.iter().map(|control| format!("compares with {}", control.shown())));
        lines
    }

    /// Lines of the session for the log: aliases, endpoints, waits.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.session.notes()
    }

    /// The samples of the periods from `from` to before `until`.
    ///
    /// **Cancel**: safe; a query changes nothing.
    pub(crate) async fn samples(&self, from: i64, until: i64) -> Result<Samples, Error> {
        let mut metrics = vec![(JUDGED, &self.judged)];
        metrics.extend(self.control.iter().map(|control| (CONTROL, control)));
        if from >= until {
            return Ok(Samples { judged: Vec::new(), control: self.control.as_ref().map(|_| Vec::new()) });
        }
        let found = self.ask(metrics, self.wanted.statistic, from, until).await?;
        Ok(Samples {
            judged: found.points(JUDGED, from, until),
            control: self.control.as_ref().map(|_| found.points(CONTROL, from, until)),
        })
    }

    /// The samples of the judged metric alone.
    pub(crate) async fn judged(&self, from: i64, until: i64) -> Result<Vec<Point>, Error> {
        if from >= until {
            return Ok(Vec::new());
        }
        let found = self.ask(vec![(JUDGED, &self.judged)], self.wanted.statistic, from, until).await?;
        Ok(found.points(JUDGED, from, until))
    }

    /// How many requests there were at all. `None`: the metric is not one of answers to requests.
    pub(crate) async fn requests(&self, from: i64, until: i64) -> Result<Option<f64>, Error> {
        if !self.wanted.absent_is_zero() || from >= until {
            return Ok(None);
        }
        let requests = Metric { name: "RequestCount".to_owned(), ..self.judged.clone() };
        let found = self.ask(vec![(JUDGED, &requests)], Statistic::Sum, from, until).await?;
        Ok(Some(crate::judge::total(&found.points(JUDGED, from, until))))
    }

    async fn ask(
        &self,
        metrics: Vec<(&'static str, &Metric)>,
        statistic: Statistic,
        from: i64,
        until: i64,
    ) -> Result<Found, Error> {
        let asked = Asked { statistic, metrics, period_s: self.period.as_secs() };
        let results =
            self.session.pages(GET_METRIC_DATA, asked.input(from, until), "MetricDataResults").await;
        let results = results.map_err(|fault| self.failed(fault))?;
        let mut found = Found::default();
        let taken = found.take(&json!({"MetricDataResults": results}));
        taken.map_err(|problem| self.failed(Fault::Strange(problem)))?;
        match found.incomplete() {
            None => Ok(found),
            Some((id, status)) => {
                let of_control = if id == CONTROL { self.control.as_ref() } else { None };
                Err(Error::Incomplete {
                    target: self.target.clone(),
                    metric: of_control.unwrap_or(&self.judged).shown(),
                    status: status.to_owned(),
                    messages: found.messages.clone(),
                })
            }
        }
    }

    fn failed(&self, fault: Fault) -> Error {
        let what = format!("ask for {}", self.judged.shown());
        Error::Aws(Box::new(fault.step(&what, &self.session)))
    }
}

/// What of the deployment the metric needs, looked up where the scope does not say it.
async fn places(
    session: &Session,
    scope: &CloudWatchScope,
    wanted: &Wanted,
    target: &str,
) -> Result<Places, Error> {
    let mut places = Places {
        cluster: scope.cluster.clone(),
        service: scope.service.clone(),
        target_group: scope.target_group_arn.clone(),
        load_balancer: scope.load_balancer_arn.clone(),
    };
    let of_balancer = matches!(wanted.of, Of::TargetGroup | Of::LoadBalancer);
    let needs_group = wanted.of == Of::TargetGroup || places.load_balancer.is_none();
    if of_balancer && needs_group && places.target_group.is_none() {
        let (cluster, service) = (scope.cluster.as_deref(), scope.service.as_deref());
        let input = json!({"cluster": cluster, "services": [service]});
        let what = format!("look for the target group of service {}", service.unwrap_or_default());
        let answer = session.read(DESCRIBE_SERVICES, input).await;
        let answer = answer.map_err(|fault| Error::Aws(Box::new(fault.step(&what, session))))?;
        let groups = target_groups(&answer);
        let place = format!("service `{}`", service.unwrap_or_default());
        places.target_group = Some(only(groups, &place, "target group", target)?);
    }
    if let (true, None, Some(group)) = (of_balancer, &places.load_balancer, &places.target_group) {
        let what = format!("look for the load balancer of {group}");
        let input = json!({"TargetGroupArns": [group]});
        let answer = session.read(DESCRIBE_TARGET_GROUPS, input).await;
        let answer = answer.map_err(|fault| Error::Aws(Box::new(fault.step(&what, session))))?;
        let balancers = load_balancers(&answer);
        let place = format!("target group `{group}`");
        places.load_balancer = Some(only(balancers, &place, "load balancer", target)?);
    }
    Ok(places)
}

fn target_groups(answer: &Value) -> BTreeSet<String> {
    let services = document::list(answer, &["services"]).iter();
    let entries = services.flat_map(|service| document::list(service, &["loadBalancers"]));
    entries.filter_map(|entry| document::text(entry, &["targetGroupArn"])).map(str::to_owned).collect()
}

fn load_balancers(answer: &Value) -> BTreeSet<String> {
    let groups = document::list(answer, &["TargetGroups"]).iter();
    let arns = groups.flat_map(|group| document::list(group, &["LoadBalancerArns"]));
    arns.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The one entry of a set.
fn only(found: BTreeSet<String>, place: &str, what: &str, target: &str) -> Result<String, Error> {
    let count = found.len();
    match (found.iter().next(), count) {
        (Some(one), 1) => Ok(one.clone()),
        (None, _) => {
            Err(Error::Place { target: target.to_owned(), problem: format!("{place} has no {what}") })
        }
        (Some(_), _) => {
            let all = found.into_iter().collect::<Vec<_>>().join(", ");
            let problem = format!("{place} has {count} {what}s, and the step does not say which one: {all}");
            Err(Error::Place { target: target.to_owned(), problem })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_balancers_are_read_and_must_be_one() {
        let services =
            json!({"services": [{"loadBalancers": [{"targetGroupArn": "a"}, {"targetGroupArn": "a"}]}]});
        assert_eq!(only(target_groups(&services), "service `s`", "target group", "t").unwrap(), "a");
        let missing = json!({"services": [], "failures": [{"reason": "MISSING"}]});
        let error = only(target_groups(&missing), "service `s`", "target group", "t").unwrap_err();
        assert_eq!(error.to_string(), "service `s` has no target group");
        let groups = json!({"TargetGroups": [{"LoadBalancerArns": ["x", "y"]}]});
        let error = only(load_balancers(&groups), "target group `a`", "load balancer", "t").unwrap_err();
        assert!(error.to_string().ends_with("does not say which one: x, y"), "{error}");
    }
}

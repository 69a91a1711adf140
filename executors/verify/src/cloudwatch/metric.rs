//! From the name of a metric and the stage's deployment to a namespace with dimensions. **Source**: facts C3.5, pipeline
//! facts 4.3; AWS' lists of metrics of ApplicationELB, ECS and Container Insights.

use super::query::{Query, Statistic};
use executor_api::SpecFault;
use proto::task::CloudWatchScope;
use std::collections::BTreeMap;

const APPLICATION_LB: &str = "AWS/ApplicationELB";
const NETWORK_LB: &str = "AWS/NetworkELB";
const ECS: &str = "AWS/ECS";
const INSIGHTS: &str = "ECS/ContainerInsights";

/// Metrics that a load balancer has for each target group.
const OF_TARGET_GROUPS: [&str; 9] = [
    "TargetResponseTime",
    "RequestCount",
    "RequestCountPerTarget",
    "HealthyHostCount",
    "UnHealthyHostCount",
    "TargetConnectionErrorCount",
    "TargetTLSNegotiationErrorCount",
    "AnomalousHostCount",
    "MitigatedHostCount",
];

/// Metrics that a load balancer has only for itself.
const OF_LOAD_BALANCERS: [&str; 7] = [
    "ActiveConnectionCount",
    "NewConnectionCount",
    "RejectedConnectionCount",
    "ProcessedBytes",
    "ClientTLSNegotiationErrorCount",
    "ConsumedLCUs",
    "RuleEvaluations",
];

/// Metrics of ECS that belong to a cluster as a whole.
const OF_CLUSTERS: [&str; 3] = ["CPUReservation", "MemoryReservation", "GPUReservation"];

/// Metrics of Container Insights that a service has.
const OF_INSIGHTS: [&str; 13] = [
    "CpuUtilized",
    "CpuReserved",
    "MemoryUtilized",
    "MemoryReserved",
    "RunningTaskCount",
    "PendingTaskCount",
    "DesiredTaskCount",
    "DeploymentCount",
    "TaskSetCount",
    "NetworkRxBytes",
    "NetworkTxBytes",
    "StorageReadBytes",
    "StorageWriteBytes",
];

/// What a metric belongs to, and so which dimensions it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// `TargetGroup` and `LoadBalancer`.
    TargetGroup,
    /// `LoadBalancer`.
    LoadBalancer,
    /// `ClusterName` and `ServiceName`.
    Service,
    /// `ClusterName`.
    Cluster,
    /// None, or those that are written.
    Written,
}

/// One metric as CloudWatch takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) dimensions: BTreeMap<String, String>,
}

impl Metric {
    /// For messages: `AWS/ECS CPUUtilization {ClusterName=c, ServiceName=s}`.
    pub(crate) fn shown(&self) -> String {
        let dimensions: Vec<String> =
            self.dimensions.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {} {{{}}}", self.namespace, self.name, dimensions.join(", "))
    }
}

/// What a step asks for, before names are looked up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) statistic: Statistic,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) of: Of,
    written: BTreeMap<String, String>,
}

/// Names of the stage's deployment, as ARNs and plain names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) cluster: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) target_group: Option<String>,
    pub(crate) load_balancer: Option<String>,
}

impl Wanted {
    /// Reads the query (its variables in place) and what the step says beside it, which goes before what the query says.
    ///
    /// **Errors**: every fault, by field.
    pub(crate) fn read(query: &str, scope: &CloudWatchScope) -> Result<Wanted, Vec<SpecFault>> {
        let mut faults = Vec::new();
        let mut fault =
            |field: &str, problem: String| faults.push(SpecFault { field: field.into(), problem });
        let statistic = match scope.statistic.as_deref().map(Statistic::read) {
            Some(Ok(statistic)) => Some(statistic),
            Some(Err(problem)) => {
                fault("statistic", problem);
                None
            }
            None => None,
        };
        let query = match Query::read(query) {
            Ok(query) => query,
            Err(problem) => {
                fault("query", problem);
                return Err(faults);
            }
        };
        let Some(statistic) = statistic.or(query.statistic) else {
            if scope.statistic.is_none() {
                let problem = format!(
                    "`{0}` names no statistic; expected for example `avg({0})`, or the key `statistic`",
                    query.metric
                );
                fault("query", problem);
            }
            return Err(faults);
        };
        let written = if scope.dimensions.is_empty() { query.dimensions } else { scope.dimensions.clone() };
        let written: BTreeMap<String, String> =
            written.into_iter().map(|(name, value)| (name.clone(), short(&name, &value))).collect();
        let namespace = scope.namespace.clone().or(query.namespace);
        let name = query.metric;
        let Some((namespace, of)) = place(namespace, &name) else {
            let problem = format!(
                "the namespace of metric `{name}` is not known; write it: `avg(Namespace:{name}{{Name=value}})`, or the \
                 keys `namespace` and `dimensions`"
            );
            fault("query", problem);
            return Err(faults);
        };
        let of = if written.is_empty() { of } else { Of::Written };
        let missing = |field: &Option<String>| field.as_deref().is_none_or(|text| text.trim().is_empty());
        let no_service = missing(&scope.cluster) || missing(&scope.service);
        let nothing_known = match of {
            Of::TargetGroup => missing(&scope.target_group_arn) && no_service,
            Of::LoadBalancer => {
                missing(&scope.load_balancer_arn) && missing(&scope.target_group_arn) && no_service
            }
            Of::Service => no_service,
            Of::Cluster => missing(&scope.cluster),
            Of::Written => false,
        };
        if nothing_known {
            let problem = format!(
                "the stage does not say which {} `{name}` is of; write `dimensions`, or verify in a stage that deploys an \
                 ECS service",
                match of {
                    Of::TargetGroup => "target group",
                    Of::LoadBalancer => "load balancer",
                    Of::Cluster => "cluster",
                    Of::Service | Of::Written => "service",
                }
            );
            fault("query", problem);
        }
        if faults.is_empty() { Ok(Wanted { statistic, namespace, name, of, written }) } else { Err(faults) }
    }

    /// The metric of these places. `None`: one of those that it needs is missing.
    pub(crate) fn at(&self, places: &Places) -> Option<Metric> {
        let target_group = || Some(("TargetGroup", short("TargetGroup", places.target_group.as_deref()?)));
        let load_balancer =
            || Some(("LoadBalancer", short("LoadBalancer", places.load_balancer.as_deref()?)));
        let cluster = || Some(("ClusterName", last(places.cluster.as_deref()?).to_owned()));
        let service = || Some(("ServiceName", last(places.service.as_deref()?).to_owned()));
        let derived = match self.of {
            Of::TargetGroup => vec![target_group()?, load_balancer()?],
            Of::LoadBalancer => vec![load_balancer()?],
            Of::Service => vec![cluster()?, service()?],
            Of::Cluster => vec![cluster()?],
            Of::Written => vec![],
        };
        let derived = derived.into_iter().map(|(name, value)| (name.to_owned(), value));
        let dimensions = derived.chain(self.written.clone()).collect();
        Some(Metric { namespace: self.namespace.clone(), name: self.name.clone(), dimensions })
    }

    /// The target group whose samples of the same times are compared with.
    pub(crate) fn baseline<'a>(&self, scope: &'a CloudWatchScope) -> Option<&'a str> {
        let other = scope.baseline_target_group_arn.as_deref().filter(|arn| !arn.trim().is_empty())?;
        (self.of == Of::TargetGroup && scope.target_group_arn.as_deref() != Some(other)).then_some(other)
    }

    /// Whether a period without any such event has no sample at all.
    pub(crate) fn absent_is_zero(&self) -> bool {
        self.name.starts_with("HTTPCode_") && self.name.ends_with("_Count")
    }

    /// Whether AWS itself writes the metric, once a minute.
    pub(crate) fn is_of_aws(&self) -> bool {
        self.namespace.starts_with("AWS/") || self.namespace == INSIGHTS
    }
}

/// Namespace and kind of a metric.
fn place(namespace: Option<String>, name: &str) -> Option<(String, Of)> {
    let known = if OF_TARGET_GROUPS.contains(&name) || name.starts_with("HTTPCode_Target_") {
        Some((APPLICATION_LB, Of::TargetGroup))
    } else if OF_LOAD_BALANCERS.contains(&name) || name.starts_with("HTTPCode_") {
        Some((APPLICATION_LB, Of::LoadBalancer))
    } else if matches!(name, "CPUUtilization" | "MemoryUtilization") {
        Some((ECS, Of::Service))
    } else if OF_CLUSTERS.contains(&name) {
        Some((ECS, Of::Cluster))
    } else if OF_INSIGHTS.contains(&name) {
        Some((INSIGHTS, Of::Service))
    } else {
        None
    };
    let Some(namespace) = namespace else { return known.map(|(namespace, of)| (namespace.to_owned(), of)) };
    let of = match known {
        Some((of_name, of)) if of_name == namespace => of,
        // Network load balancers have the same two dimensions, with metrics of other names.
        _ => match namespace.as_str() {
            APPLICATION_LB | NETWORK_LB => Of::TargetGroup,
            ECS | INSIGHTS => Of::Service,
            _ => Of::Written,
        },
    };
    Some((namespace, of))
}

/// What stands behind the last `/` of a name or an ARN.
fn last(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}

/// The form in which a dimension names a target group or a load balancer: the end of its ARN.
fn short(dimension: &str, value: &str) -> String {
    let resource = value.splitn(6, ':').nth(5).filter(|_| value.starts_with("arn:")).unwrap_or(value);
    match dimension {
        "TargetGroup" => resource.to_owned(),
        "LoadBalancer" => resource.strip_prefix("loadbalancer/").unwrap_or(resource).to_owned(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/web-green/0123";
    const BALANCER: &str = "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/app/web/4567";

    fn scope() -> CloudWatchScope {
        CloudWatchScope {
            cluster: Some("production-cluster".into()),
            service: Some("myapp-service".into()),
            target_group_arn: Some(GROUP.into()),
            ..CloudWatchScope::default()
        }
    }

    fn places() -> Places {
        Places {
            cluster: Some("arn:aws:ecs:us-east-1:1:cluster/production-cluster".into()),
            service: Some("myapp-service".into()),
            target_group: Some(GROUP.into()),
            load_balancer: Some(BALANCER.into()),
        }
    }

    fn shown(query: &str, scope: &CloudWatchScope) -> String {
        Wanted::read(query, scope).unwrap().at(&places()).unwrap().shown()
    }

    #[test]
    fn names_give_namespace_and_dimensions() {
        let both = "{LoadBalancer=app/web/4567, TargetGroup=targetgroup/web-green/0123}";
        let service = "{ClusterName=production-cluster, ServiceName=myapp-service}";
        for (metric, wanted) in [
            ("TargetResponseTime", format!("AWS/ApplicationELB TargetResponseTime {both}")),
            ("HTTPCode_Target_5XX_Count", format!("AWS/ApplicationELB HTTPCode_Target_5XX_Count {both}")),
            ("RequestCount", format!("AWS/ApplicationELB RequestCount {both}")),
            (
                "HTTPCode_ELB_5XX_Count",
                "AWS/ApplicationELB HTTPCode_ELB_5XX_Count {LoadBalancer=app/web/4567}".into(),
            ),
            ("CPUUtilization", format!("AWS/ECS CPUUtilization {service}")),
            ("MemoryUtilization", format!("AWS/ECS MemoryUtilization {service}")),
            ("CPUReservation", "AWS/ECS CPUReservation {ClusterName=production-cluster}".into()),
            ("RunningTaskCount", format!("ECS/ContainerInsights RunningTaskCount {service}")),
            (
                "AWS/NetworkELB:TCP_Target_Reset_Count",
                format!("AWS/NetworkELB TCP_Target_Reset_Count {both}"),
            ),
            ("Shop:Orders", "Shop Orders {}".into()),
            ("Shop:CPUUtilization{Host=a}", "Shop CPUUtilization {Host=a}".into()),
            (
                "TargetResponseTime{TargetGroup=arn:aws:elasticloadbalancing:eu:1:targetgroup/x/9}",
                "AWS/ApplicationELB TargetResponseTime {TargetGroup=targetgroup/x/9}".into(),
            ),
        ] {
            assert_eq!(shown(&format!("avg({metric})"), &scope()), wanted);
        }
    }

    #[test]
    fn keys_of_the_step_go_before_the_query() {
        let mut scope = scope();
        scope.namespace = Some("Shop".into());
        scope.dimensions = [("Stage".to_owned(), "prod".to_owned())].into();
        scope.statistic = Some("p95".into());
        let wanted = Wanted::read("avg(AWS/ECS:CPUUtilization{ServiceName=s})", &scope).unwrap();
        assert_eq!(wanted.statistic, Statistic::Percentile(95.0));
        assert_eq!(wanted.at(&Places::default()).unwrap().shown(), "Shop CPUUtilization {Stage=prod}");
        assert_eq!(Wanted::read("CPUUtilization", &scope).unwrap().statistic, Statistic::Percentile(95.0));
    }

    #[test]
    fn what_is_not_known_is_a_fault() {
        let faults = |query: &str, scope: &CloudWatchScope| {
            let faults = Wanted::read(query, scope).unwrap_err();
            faults.into_iter().map(|fault| format!("{}: {}", fault.field, fault.problem)).collect::<Vec<_>>()
        };
        let unknown = faults("avg(Orders)", &scope());
        assert!(
            unknown[0].starts_with("query: the namespace of metric `Orders` is not known"),
            "{unknown:?}"
        );
        let bare = faults("CPUUtilization", &scope());
        assert!(bare[0].contains("names no statistic"), "{bare:?}");
        let mut wrong = scope();
        wrong.statistic = Some("median".into());
        let both = faults("avg(", &wrong);
        assert!(both.len() == 2 && both[0].starts_with("statistic: "), "{both:?}");
        let nowhere = CloudWatchScope::default();
        for (query, what) in [
            ("avg(TargetResponseTime)", "target group"),
            ("sum(HTTPCode_ELB_5XX_Count)", "load balancer"),
            ("avg(CPUUtilization)", "service"),
            ("avg(CPUReservation)", "cluster"),
        ] {
            assert!(faults(query, &nowhere)[0].contains(what), "{query}");
        }
        assert!(Wanted::read("avg(Shop:Orders)", &nowhere).is_ok());
    }
}

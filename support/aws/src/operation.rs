//! The services that are called, and what differs between them.

/// An AWS service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Elastic Container Service.
    Ecs,
    /// Elastic Load Balancing, version 2.
    LoadBalancing,
    /// Application Auto Scaling.
    AutoScaling,
    /// CloudWatch metrics and alarms.
    CloudWatch,
    /// CloudWatch Logs.
    Logs,
    /// Elastic Container Registry.
    Ecr,
    /// Security Token Service.
    Sts,
    /// Secrets Manager.
    SecretsManager,
    /// Identity and Access Management; one for all regions of a partition.
    Iam,
    /// Service Quotas.
    ServiceQuotas,
}

/// One action of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    /// Whose.
    pub service: Service,
    /// As AWS writes it: `DescribeServices`.
    pub name: &'static str,
}

/// How a service is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// AWS JSON 1.1: `X-Amz-Target: TARGET.Action`, one object each way.
    Json { target: &'static str },
    /// AWS Query: a form with dotted names, answers in XML.
    Query { version: &'static str },
}

/// What differs. The SDK's name in variables is the service id of AWS' models in upper case (botocore's
/// `service-2.json`, `metadata.serviceId`).
struct Facts {
    host: &'static str,
    signing: &'static str,
    variable: &'static str,
    iam: &'static str,
    wire: Wire,
}

impl Service {
    /// Every service.
    pub const ALL: [Service; 10] = [
        Service::Ecs,
        Service::LoadBalancing,
        Service::AutoScaling,
        Service::CloudWatch,
        Service::Logs,
        Service::Ecr,
        Service::Sts,
        Service::SecretsManager,
        Service::Iam,
        Service::ServiceQuotas,
    ];

    /// An action of this service.
    pub const fn op(self, name: &'static str) -> Operation {
        Operation { service: self, name }
    }

    const fn facts(self) -> Facts {
        let (host, signing, variable, iam, wire) = match self {
            Service::Ecs => {
                let wire = Wire::Json { target: "AmazonEC2ContainerServiceV20141113" };
                ("ecs", "ecs", "ECS", "ecs", wire)
            }
            Service::LoadBalancing => {
                let name = "elasticloadbalancing";
                (name, name, "ELASTIC_LOAD_BALANCING_V2", name, Wire::Query { version: "2015-12-01" })
            }
            Service::AutoScaling => {
                let name = "application-autoscaling";
                let wire = Wire::Json { target: "AnyScaleFrontendService" };
                (name, name, "APPLICATION_AUTO_SCALING", name, wire)
            }
            Service::CloudWatch => {
                let wire = Wire::Query { version: "2010-08-01" };
                ("monitoring", "monitoring", "CLOUDWATCH", "cloudwatch", wire)
            }
            Service::Logs => {
                ("logs", "logs", "CLOUDWATCH_LOGS", "logs", Wire::Json { target: "Logs_20140328" })
            }
            Service::Ecr => {
                let wire = Wire::Json { target: "AmazonEC2ContainerRegistry_V20150921" };
                ("api.ecr", "ecr", "ECR", "ecr", wire)
            }
            Service::Sts => ("sts", "sts", "STS", "sts", Wire::Query { version: "2011-06-15" }),
            Service::SecretsManager => {
                let wire = Wire::Json { target: "secretsmanager" };
                ("secretsmanager", "secretsmanager", "SECRETS_MANAGER", "secretsmanager", wire)
            }
            Service::Iam => ("iam", "iam", "IAM", "iam", Wire::Query { version: "2010-05-08" }),
            Service::ServiceQuotas => {
                let wire = Wire::Json { target: "ServiceQuotasV20190624" };
                ("servicequotas", "servicequotas", "SERVICE_QUOTAS", "servicequotas", wire)
            }
        };
        Facts { host, signing, variable, iam, wire }
    }

    /// What its actions begin with in policies: `ecs` in `ecs:UpdateService`.
    pub const fn iam_prefix(self) -> &'static str {
        self.facts().iam
    }

    /// First part of its host name.
    pub(crate) const fn host(self) -> &'static str {
        self.facts().host
    }

    /// Its name in signatures.
    pub(crate) const fn signing_name(self) -> &'static str {
        self.facts().signing
    }

    /// Its name in `AWS_ENDPOINT_URL_…`.
    pub(crate) const fn variable(self) -> &'static str {
        self.facts().variable
    }

    pub(crate) const fn wire(self) -> Wire {
        self.facts().wire
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Service::Ecs => "ECS",
            Service::LoadBalancing => "Elastic Load Balancing",
            Service::AutoScaling => "Application Auto Scaling",
            Service::CloudWatch => "CloudWatch",
            Service::Logs => "CloudWatch Logs",
            Service::Ecr => "ECR",
            Service::Sts => "STS",
            Service::SecretsManager => "Secrets Manager",
            Service::Iam => "IAM",
            Service::ServiceQuotas => "Service Quotas",
        }
    }
}

impl Operation {
    /// As policies write it: `ecs:UpdateService`.
    pub fn iam_action(self) -> String {
        format!("{}:{}", self.service.iam_prefix(), self.name)
    }
}

//! Images of a private registry of ECR that are not there, or not for the platform of the task: they would only show up as
//! tasks that cannot start.

use super::{Wanted, not_looked};
use crate::error::bad_spec;
use crate::session::Session;
use crate::task_definition::images::{EcrImage, in_ecr, of};
use aws::document::{list, text};
use aws::ecr::Platform;
use aws::{Fault, Service};
use executor_api::{Class, Level, StepError, UnitLog};
use serde_json::{Value, json};

/// Where the tasks run, when that is known: Fargate runs x86 unless the definition says otherwise; instances are what they are.
fn platform(definition: &Value, launch_type: Option<&str>) -> Option<Platform> {
    let part = |name: &str| text(definition, &["runtimePlatform", name]);
    let fargate = launch_type == Some("FARGATE")
        || list(definition, &["requiresCompatibilities"]).iter().any(|kind| kind == "FARGATE");
    match (part("operatingSystemFamily"), part("cpuArchitecture")) {
        (None, None) if !fargate => None,
        (os, architecture) => {
            Platform::read(&format!("{}/{}", os.unwrap_or("LINUX"), architecture.unwrap_or("X86_64")))
        }
    }
}

/// The outer error ends the step; the inner one is a finding.
pub(super) async fn check(
    session: &Session,
    wanted: &Wanted<'_>,
    log: &dyn UnitLog,
) -> Result<Result<(), StepError>, StepError> {
    let platform = platform(wanted.definition, wanted.launch_type);
    let mut problems: Vec<String> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (container, image) in of(wanted.definition) {
        let Some(found) = here(session, &image) else { continue };
        if seen.contains(&image) {
            continue;
        }
        match look(session, &found, platform.as_ref()).await {
            Ok(None) => {}
            Ok(Some(problem)) => problems.push(format!("container {container}: {image} {problem}")),
            Err(Trouble::Fault(fault)) => {
                not_looked(session, log, &format!("the image {image}"), &fault).await?
            }
            Err(Trouble::Step(error)) if matches!(error.class, Class::Cancelled { .. }) => return Err(error),
            Err(Trouble::Step(error)) => {
                let text = format!("the platform of {image} cannot be looked at beforehand: {}", error.what);
                session.say(log, Level::Info, &text).await?;
            }
        }
        seen.push(image);
    }
    if problems.is_empty() {
        return Ok(Ok(()));
    }
    let text = format!("service {}: {}", wanted.service, problems.join("; "));
    Ok(Err(bad_spec("ECS-093", text)
        .hint("push the image, correct its name, or change `runtimePlatform` of the task definition")))
}

/// The image in ECR, when it is one of the region that the session asks; images without their own may be anywhere.
pub(crate) fn here(session: &Session, image: &str) -> Option<EcrImage> {
    in_ecr(image).filter(|found| found.region == session.aws.region())
}

/// What ECR says of an image: the answer of DescribeImages.
pub(crate) async fn described(session: &Session, image: &EcrImage) -> Result<Value, Fault> {
    let input =
        json!({"registryId": image.registry, "repositoryName": image.repository, "imageIds": [image.id]});
    session.read(Service::Ecr.op("DescribeImages"), input).await
}

/// Whether ECR says that it has no such image, or no such repository.
pub(crate) fn is_absent(fault: &Fault) -> bool {
    fault.is(NO_IMAGE) || fault.is("RepositoryNotFoundException")
}

const NO_IMAGE: &str = "ImageNotFoundException";

enum Trouble {
    Fault(Fault),
    Step(StepError),
}

/// What is wrong with an image; `None`: nothing that is known.
async fn look(
    session: &Session,
    image: &EcrImage,
    platform: Option<&Platform>,
) -> Result<Option<String>, Trouble> {
    let answer = match described(session, image).await {
        Ok(answer) => answer,
        Err(fault) if is_absent(&fault) => {
            if is_cached(session, image).await.map_err(Trouble::Fault)? {
                return Ok(None);
            }
            let what = if fault.is(NO_IMAGE) { "image" } else { "repository" };
            return Ok(Some(format!("does not exist (ECR has no such {what})")));
        }
        Err(fault) => return Err(Trouble::Fault(fault)),
    };
    let detail = list(&answer, &["imageDetails"]).first();
    let digest = detail.and_then(|detail| text(detail, &["imageDigest"]));
    let (Some(wanted), Some(digest)) = (platform, digest) else { return Ok(None) };
    let registry = Some(image.registry.as_str());
    let found = aws::ecr::platforms(&session.aws, registry, &image.repository, digest).await;
    let Some(found) = found.map_err(Trouble::Step)? else { return Ok(None) };
    if found.iter().any(|platform| platform.serves(wanted)) {
        return Ok(None);
    }
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    Ok(Some(format!("is not for {wanted}, on which the tasks run; it is for {}", found.join(", "))))
}

/// Whether the registry gets the image from another one when it is pulled for the first time. Until then it is not there.
async fn is_cached(session: &Session, image: &EcrImage) -> Result<bool, Fault> {
    let input = json!({"registryId": image.registry});
    let operation = Service::Ecr.op("DescribePullThroughCacheRules");
    let rules = session.pages(operation, input, "pullThroughCacheRules").await?;
    let prefixes = rules.iter().filter_map(|rule| text(rule, &["ecrRepositoryPrefix"]));
    // `ROOT` is the rule for every repository.
    let below = |prefix: &str| {
        prefix == "ROOT"
            || image
                .repository
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    Ok(prefixes.into_iter().any(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_is_that_of_the_definition_or_of_fargate() {
        let shown = |definition: Value, launch: Option<&str>| {
            platform(&definition, launch).map(|platform| platform.to_string())
        };
        assert_eq!(shown(json!({}), None), None);
        assert_eq!(shown(json!({}), Some("EC2")), None);
        assert_eq!(shown(json!({}), Some("FARGATE")).as_deref(), Some("linux/amd64"));
        let named = json!({"requiresCompatibilities": ["EC2", "FARGATE"]});
        assert_eq!(shown(named, None).as_deref(), Some("linux/amd64"));
        let arm = json!({"runtimePlatform": {"cpuArchitecture": "ARM64"}});
        assert_eq!(shown(arm, Some("EC2")).as_deref(), Some("linux/arm64"));
        let windows = json!({"runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}});
        assert_eq!(shown(windows, None).as_deref(), Some("windows/amd64"));
    }
}

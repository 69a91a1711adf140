//! Images of containers: replaced by name, pinned to the digest that the stage's artifact was resolved to.

use crate::error::bad_spec;
use executor_api::StepError;
use proto::task::{Artifact, ArtifactSource};
use serde_json::{Value, json};

/// An image that got a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pinned {
    pub(crate) container: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// The parts of an image's name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Image<'a> {
    /// Registry; none for Docker Hub.
    host: Option<&'a str>,
    path: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Image<'a> {
    fn read(text: &'a str) -> Image<'a> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (host, path) = split_host(name);
        Image { host, path, tag, digest }
    }
}

/// A first part with a dot or a port, or `localhost`, is a registry.
fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), path),
        _ => (None, name),
    }
}

fn hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com")
}

/// Registry and path of an image artifact, as a container definition names it; `None` for other artifacts, and for ECR
/// when neither path nor registry id says whose registry it is.
pub(crate) fn repository(artifact: &Artifact) -> Option<String> {
    match &artifact.source {
        ArtifactSource::ArtifactoryRegistry(_) => None,
        ArtifactSource::DockerRegistry { connector, image_path } => {
            let path = image_path.trim_matches('/');
            if split_host(path).0.is_some() {
                return Some(path.to_owned());
            }
            let url = connector.url.trim();
            let host =
                url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            Some(if host.is_empty() || hub(host) { path.to_owned() } else { format!("{host}/{path}") })
        }
        ArtifactSource::Ecr { image_path, registry_id, account, .. } => {
            let path = image_path.trim_matches('/');
            if split_host(path).0.is_some() {
                return Some(path.to_owned());
            }
            let id = registry_id.as_deref()?;
            let suffix = if account.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            Some(format!("{id}.dkr.ecr.{}.{suffix}/{path}", account.region))
        }
    }
}

/// Path of an image artifact without its registry.
fn path_of(artifact: &Artifact) -> Option<&str> {
    match &artifact.source {
        ArtifactSource::ArtifactoryRegistry(_) => None,
        ArtifactSource::DockerRegistry { image_path, .. } | ArtifactSource::Ecr { image_path, .. } => {
            Some(split_host(image_path.trim_matches('/')).1)
        }
    }
}

/// Whether `image` names the artifact: its repository and its tag.
fn is_artifact(image: &Image<'_>, artifact: &Artifact) -> bool {
    let Some(path) = path_of(artifact) else { return false };
    let plain = |path: &str| path.strip_prefix("library/").unwrap_or(path).to_owned();
    let repository = repository(artifact);
    let host = repository.as_deref().and_then(|repository| split_host(repository).0);
    let hosts = match (image.host, host) {
        (Some(a), Some(b)) => a == b,
        (Some(a), None) => hub(a) || matches!(&artifact.source, ArtifactSource::Ecr { .. }),
        (None, Some(b)) => hub(b),
        (None, None) => matches!(&artifact.source, ArtifactSource::DockerRegistry { .. }),
    };
    // An ECR registry that nobody named may be that of any account; the path and the tag must do then.
    let ecr = match (&artifact.source, host) {
        (ArtifactSource::Ecr { .. }, None) => image.host.is_some_and(is_ecr),
        _ => true,
    };
    hosts && ecr && plain(image.path) == plain(path) && image.tag.unwrap_or("latest") == artifact.tag
}

/// Whether a registry is an account's ECR, or its public one.
pub(crate) fn is_ecr(host: &str) -> bool {
    host == "public.ecr.aws" || (host.contains(".dkr.ecr") && host.contains(".amazonaws.com"))
}

/// Whether an image comes from a private ECR registry.
pub(super) fn from_private_ecr(image: &str) -> bool {
    Image::read(image).host.is_some_and(|host| is_ecr(host) && host != "public.ecr.aws")
}

/// An image in a private registry of ECR.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EcrImage {
    /// Number of the account.
    pub(crate) registry: String,
    pub(crate) region: String,
    pub(crate) repository: String,
    /// As DescribeImages takes it.
    pub(crate) id: Value,
}

/// Where an image lies in ECR; `None` for images of other registries.
pub(crate) fn in_ecr(text: &str) -> Option<EcrImage> {
    let image = Image::read(text);
    let host = image.host.filter(|host| is_ecr(host))?;
    let mut parts = host.split('.');
    let registry = parts.next()?.to_owned();
    let region = parts.nth(2)?.to_owned();
    let id = match image.digest {
        Some(digest) => json!({"imageDigest": digest}),
        None => json!({"imageTag": image.tag.unwrap_or("latest")}),
    };
    Some(EcrImage { registry, region, repository: image.path.to_owned(), id })
}

fn containers_mut(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    document.get_mut("containerDefinitions").and_then(Value::as_array_mut).into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Container and image of every container.
pub(crate) fn of(document: &Value) -> Vec<(String, String)> {
    let containers = document.get("containerDefinitions").and_then(Value::as_array);
    let pair = |container: &Value| (text(container, "name").to_owned(), text(container, "image").to_owned());
    containers.into_iter().flatten().map(pair).collect()
}

/// Gives the container `name` another image; the only one there is, when none is named.
///
/// **Errors**: `ECS-016` names the containers there are.
pub(crate) fn replace(document: &mut Value, name: Option<&str>, image: &str) -> Result<(), StepError> {
    let names: Vec<String> = of(document).into_iter().map(|(name, _)| name).collect();
    let listed = names.join(", ");
    let at = match name {
        Some(name) => names.iter().position(|other| other == name).ok_or_else(|| {
            bad_spec("ECS-016", format!("the task definition has no container `{name}`; it has {listed}"))
        })?,
        None if names.len() == 1 => 0,
        None => {
            let what = format!(
                "the image is for one container, and the task definition has {}: {listed}",
                names.len()
            );
            return Err(bad_spec("ECS-016", what).hint("name the container"));
        }
    };
    if let Some(container) = containers_mut(document).nth(at).and_then(Value::as_object_mut) {
        container.insert("image".to_owned(), Value::from(image));
    }
    Ok(())
}

/// Puts the artifact's digest in place of its tag wherever a container runs it, so that a tag that somebody moves changes
/// nothing between two tasks of one revision (facts A2.3).
pub(crate) fn pin(document: &mut Value, artifact: Option<&Artifact>) -> Vec<Pinned> {
    let Some((artifact, digest)) =
        artifact.and_then(|artifact| Some((artifact, artifact.digest.as_deref()?)))
    else {
        return Vec::new();
    };
    let mut pinned = Vec::new();
    for container in containers_mut(document) {
        let from = text(container, "image").to_owned();
        let image = Image::read(&from);
        if image.digest.is_some() || !is_artifact(&image, artifact) {
            continue;
        }
        let repository = match image.host {
            Some(host) => format!("{host}/{}", image.path),
            None => image.path.to_owned(),
        };
        let to = format!("{repository}@{digest}");
        let name = text(container, "name").to_owned();
        if let Some(container) = container.as_object_mut() {
            container.insert("image".to_owned(), Value::from(to.clone()));
        }
        pinned.push(Pinned { container: name, from, to });
    }
    pinned
}

/// Whether any container runs the artifact, by tag or by digest.
pub(crate) fn runs(document: &Value, artifact: &Artifact) -> bool {
    of(document).iter().any(|(_, text)| {
        let image = Image::read(text);
        match (image.digest, &artifact.digest) {
            (Some(digest), Some(wanted)) => digest == wanted,
            _ => is_artifact(&image, artifact),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::task::{AwsAccount, AwsCredential, HttpAuth, HttpConnector};
    use std::collections::BTreeMap;

    const DIGEST: &str = "sha256:0123456789012345678901234567890123456789012345678901234567890123";

    fn ecr(path: &str, registry: Option<&str>) -> Artifact {
        let account = AwsAccount {
            connector: "aws".into(),
            region: "us-east-1".into(),
            credential: AwsCredential::InheritFromDelegate,
            assume_role: None,
            endpoints: BTreeMap::new(),
        };
        let source = ArtifactSource::Ecr {
            account,
            image_path: path.into(),
            registry_id: registry.map(str::to_owned),
            platform: None,
        };
        Artifact { source, tag: "7".into(), digest: Some(DIGEST.into()) }
    }

    fn docker(url: &str, path: &str) -> Artifact {
        let connector = HttpConnector {
            identifier: "hub".into(),
            url: url.into(),
            auth: HttpAuth::Anonymous,
            headers: vec![],
        };
        let source = ArtifactSource::DockerRegistry { connector, image_path: path.into() };
        Artifact { source, tag: "7".into(), digest: Some(DIGEST.into()) }
    }

    fn document(images: &[&str]) -> Value {
        let container = |(index, image): (usize, &&str)| json!({"name": format!("c{index}"), "image": image});
        json!({"containerDefinitions": images.iter().enumerate().map(container).collect::<Vec<_>>()})
    }

    fn pinned(artifact: &Artifact, image: &str) -> Option<String> {
        let mut document = document(&[image]);
        pin(&mut document, Some(artifact)).pop().map(|pinned| pinned.to)
    }

    #[test]
    fn the_artifact_is_found_by_repository_and_tag_only() {
        let host = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
        let full = ecr(&format!("{host}/team/app"), None);
        let wanted = Some(format!("{host}/team/app@{DIGEST}"));
        assert_eq!(pinned(&full, &format!("{host}/team/app:7")), wanted);
        assert_eq!(pinned(&ecr("team/app", Some("123456789012")), &format!("{host}/team/app:7")), wanted);
        assert_eq!(pinned(&ecr("team/app", None), &format!("{host}/team/app:7")), wanted);
        for other in ["team/app:7", "quay.io/team/app:7", "public.ecr.aws/team/other:7"] {
            assert_eq!(pinned(&ecr("team/app", None), other), None, "{other}");
        }
        for other in ["team/app:8", "other/app:7", &format!("team/app@{DIGEST}"), "team/app"] {
            assert_eq!(pinned(&full, &format!("{host}/{other}")), None, "{other}");
        }
        assert_eq!(pinned(&full, "210987654321.dkr.ecr.us-east-1.amazonaws.com/team/app:7"), None);

        let hub = docker("https://index.docker.io/v2/", "library/nginx");
        assert_eq!(pinned(&hub, "nginx:7"), Some(format!("nginx@{DIGEST}")));
        assert_eq!(
            pinned(&hub, "docker.io/library/nginx:7"),
            Some(format!("docker.io/library/nginx@{DIGEST}"))
        );
        let own = docker("http://localhost:5056", "app");
        assert_eq!(pinned(&own, "localhost:5056/app:7"), Some(format!("localhost:5056/app@{DIGEST}")));
        assert_eq!(pinned(&own, "app:7"), None);
        assert_eq!(repository(&own).as_deref(), Some("localhost:5056/app"));
    }

    #[test]
    fn an_image_is_replaced_by_name() {
        let mut two = document(&["a:1", "b:1"]);
        replace(&mut two, Some("c1"), "b:2").unwrap();
        assert_eq!(of(&two), [("c0".into(), "a:1".into()), ("c1".into(), "b:2".into())]);
        let error = replace(&mut two, None, "x").unwrap_err();
        assert!(error.code == "ECS-016" && error.what.contains("c0, c1"), "{}", error.what);
        assert!(replace(&mut two, Some("web"), "x").unwrap_err().what.contains("no container `web`"));
        let mut one = document(&["a:1"]);
        replace(&mut one, None, "a:2").unwrap();
        assert_eq!(of(&one)[0].1, "a:2");
    }

    #[test]
    fn images_in_ecr_are_told_by_their_registry() {
        let found = in_ecr("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:7").unwrap();
        assert_eq!((found.registry.as_str(), found.region.as_str()), ("123456789012", "eu-west-1"));
        assert_eq!((found.repository.as_str(), found.id), ("team/app", json!({"imageTag": "7"})));
        assert_eq!(in_ecr("quay.io/team/app:7"), None);
        assert_eq!(in_ecr("public.ecr.aws/team/app:7"), None);
    }

    #[test]
    fn a_definition_runs_the_artifact_by_tag_or_digest() {
        let artifact = docker("http://r.example", "app");
        assert!(runs(&document(&["r.example/app:7"]), &artifact));
        assert!(runs(&document(&[&format!("r.example/app@{DIGEST}")]), &artifact));
        assert!(!runs(&document(&["r.example/app:6"]), &artifact));
    }
}

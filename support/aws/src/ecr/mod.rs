//! Images in ECR: a tag becomes a digest, with what the registry knows of its platform and its scan.
//!
//! ```text
//! imagePath ─place─► registry, region, repository ─DescribeImages─► digest, scan ─BatchGetImage─► platforms
//! ```
//! **Source**: facts C4.

mod manifest;
mod place;

pub use manifest::Platform;

use crate::transport::Request;
use crate::{Client, Fault, Operation, Service, Session, document};
use bytes::Bytes;
use executor_api::{Class, StepContext, StepError};
use http::{HeaderMap, Method};
use manifest::{MEDIA_TYPES, Manifest, of_config};
use place::{Place, host_of};
use proto::task::AwsAccount;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use url::Url;

const DESCRIBE_IMAGES: Operation = Service::Ecr.op("DescribeImages");
const DESCRIBE_FINDINGS: Operation = Service::Ecr.op("DescribeImageScanFindings");
const GET_IMAGES: Operation = Service::Ecr.op("BatchGetImage");
const GET_LAYER_URL: Operation = Service::Ecr.op("GetDownloadUrlForLayer");

/// Pages of images that are looked at for the newest tags.
const TAG_PAGES: usize = 5;
/// Tags that an error names.
const SHOWN_TAGS: usize = 10;
/// Severities of findings, worst first (ECR's `FindingSeverity`).
const SEVERITIES: [&str; 6] = ["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED"];

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// `[host/]repository`.
    pub image_path: &'a str,
    /// Account of the registry, when no host says it and it is not the caller's.
    pub registry_id: Option<&'a str>,
    /// A tag, or a digest `sha256:…`.
    pub tag: &'a str,
    /// The platform that the image must have.
    pub platform: Option<&'a str>,
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Host of the registry.
    pub host: String,
    /// Account of the registry.
    pub registry_id: String,
    /// Path of the repository.
    pub repository: String,
    /// As it was asked for.
    pub tag: String,
    /// `sha256:…`.
    pub digest: String,
    /// When it was pushed, epoch milliseconds.
    pub pushed_at: Option<i64>,
    /// Its platforms, when one was asked for and they could be read.
    pub platforms: Option<Vec<Platform>>,
    /// What its scan found.
    pub scan: Scan,
}

/// The scan of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// `COMPLETE`, `IN_PROGRESS`, `FAILED`, `ACTIVE` … as ECR says it; `NOT_SCANNED` without one, `UNKNOWN` when that could
    /// not be asked.
    pub status: String,
    /// Findings by severity; every severity is there once the image was scanned.
    pub findings: BTreeMap<String, u64>,
    /// When it was scanned, epoch milliseconds.
    pub completed_at: Option<i64>,
}

impl Image {
    /// `host/repository@sha256:…`: always the same image, whatever becomes of the tag.
    pub fn pinned(&self) -> String {
        format!("{}/{}@{}", self.host, self.repository, self.digest)
    }
}

/// Looks a tag up. The second part is lines for the log.
///
/// **Errors**: `AWS-020` a path that is none; `AWS-021` no such repository; `AWS-022` no such tag, with the newest ones;
/// `AWS-023` not for that platform. **Cancel**: safe; changes nothing. **Repeat**: safe.
pub async fn resolve(
    client: &Client,
    account: &AwsAccount,
    wanted: &Wanted<'_>,
    cx: &StepContext,
) -> Result<(Image, Vec<String>), StepError> {
    let bad = |problem: String| StepError::new(Class::BadSpec, "AWS-020", problem);
    let place = Place::read(wanted.image_path).map_err(bad)?;
    let tag = wanted.tag.trim();
    if tag.is_empty() {
        return Err(bad(format!("tag is empty; expected a tag of `{}`", place.repository)));
    }
    let platform = match wanted.platform.map(|text| (text, Platform::read(text))) {
        None => None,
        Some((_, Some(platform))) => Some(platform),
        Some((text, None)) => {
            return Err(bad(format!("platform is `{text}`; expected for example `linux/amd64`")));
        }
    };
    let mut account = account.clone();
    let written = wanted.registry_id.map(str::trim).filter(|id| !id.is_empty());
    let registry = match (&place.host, written) {
        (Some(host), Some(id)) if host.account != id => {
            let text = format!("registryId is {id}, and the host in imagePath is that of {}", host.account);
            return Err(bad(text));
        }
        (Some(host), _) => {
            account.region.clone_from(&host.region);
            Some(host.account.clone())
        }
        (None, id) => id.map(str::to_owned),
    };
    let session = client.session(&account, cx).await?;
    let repository = Repository { session, registry, name: place.repository.clone() };
    let (detail, mut lines) = (repository.image(tag).await?, Vec::new());
    let text = |name: &str| document::text(&detail, &[name]).map(str::to_owned);
    let (Some(digest), Some(registry_id)) =
        (text("imageDigest"), text("registryId").or_else(|| repository.registry.clone()))
    else {
        return Err(repository.strange("DescribeImages names no digest"));
    };
    let platforms = match &platform {
        None => None,
        Some(wanted) => {
            let found = repository.platforms(&digest).await?;
            match &found {
                Some(found) if !found.iter().any(|platform| platform.serves(wanted)) => {
                    return Err(repository.other_platform(tag, wanted, found));
                }
                Some(_) => {}
                None => lines.push(format!(
                    "the platform of {}:{tag} could not be read; it is taken to be {wanted}",
                    repository.name
                )),
            }
            found
        }
    };
    let (scan, note) = repository.scan(&detail, &digest).await;
    lines.extend(note);
    lines.splice(0..0, repository.session.notes());
    let host = place.host.map_or_else(|| host_of(&registry_id, &account.region), |host| host.name);
    let pushed_at = document::time(&detail, &["imagePushedAt"]);
    let (repository, tag) = (place.repository, tag.to_owned());
    let image = Image { host, registry_id, repository, tag, digest, pushed_at, platforms, scan };
    Ok((image, lines))
}

/// The platforms of an image. `None`: its manifest does not say.
///
/// **Errors**: as [`resolve`]. **Repeat**: safe.
pub async fn platforms(
    session: &Session,
    registry_id: Option<&str>,
    repository: &str,
    digest: &str,
) -> Result<Option<Vec<Platform>>, StepError> {
    let registry = registry_id.map(str::to_owned);
    Repository { session: session.clone(), registry, name: repository.to_owned() }.platforms(digest).await
}

/// A repository that is asked.
struct Repository {
    session: Session,
    registry: Option<String>,
    name: String,
}

impl Repository {
    fn input(&self, more: Value) -> Value {
        let mut input = Map::new();
        input.insert("repositoryName".into(), json!(self.name));
        if let Some(registry) = &self.registry {
            input.insert("registryId".into(), json!(registry));
        }
        if let Value::Object(more) = more {
            input.extend(more);
        }
        Value::Object(input)
    }

    fn place(&self) -> String {
        let registry = self.registry.as_deref().unwrap_or("of the caller");
        format!("repository `{}` (registry {registry}, {})", self.name, self.session.region())
    }

    /// What DescribeImages says of a tag.
    async fn image(&self, tag: &str) -> Result<Value, StepError> {
        let id = if tag.starts_with("sha256:") { "imageDigest" } else { "imageTag" };
        let input = self.input(json!({"imageIds": [{id: tag}]}));
        let missing = match self.session.read(DESCRIBE_IMAGES, input).await {
            Ok(mut answer) => {
                let details = answer.get_mut("imageDetails").and_then(Value::as_array_mut);
                match details.filter(|details| !details.is_empty()) {
                    Some(details) => return Ok(details.swap_remove(0)),
                    None => true,
                }
            }
            Err(fault) if fault.is("ImageNotFoundException") => true,
            Err(fault) if fault.is("RepositoryNotFoundException") => {
                let text = format!("there is no {}", self.place());
                return Err(StepError::new(Class::BadSpec, "AWS-021", text)
                    .target(self.session.target())
                    .hint(
                        "check imagePath, the region, and `registryId` when it is another account's registry",
                    ));
            }
            Err(fault) => return Err(self.failed(fault, &format!("look up {}:{tag}", self.name))),
        };
        debug_assert!(missing, "everything else has returned");
        let text = format!("{} has no image `{tag}`; {}", self.place(), self.newest().await);
        Err(StepError::new(Class::BadSpec, "AWS-022", text)
            .target(self.session.target())
            .hint("push the image under this tag, or correct `tag` of the artifact"))
    }

    /// The newest tags, in words.
    async fn newest(&self) -> String {
        let mut images: Vec<Value> = Vec::new();
        let mut token: Option<String> = None;
        for page in 0..TAG_PAGES {
            let filter = json!({"tagStatus": "TAGGED"});
            let input = match &token {
                None => json!({"filter": filter, "maxResults": 1000}),
                Some(token) => json!({"filter": filter, "maxResults": 1000, "nextToken": token}),
            };
            let mut answer = match self.session.read(DESCRIBE_IMAGES, self.input(input)).await {
                Ok(answer) => answer,
                Err(fault) if page == 0 => return format!("its tags could not be listed ({fault})"),
                Err(_) => break,
            };
            if let Some(Value::Array(found)) = answer.get_mut("imageDetails") {
                images.append(found);
            }
            token =
                document::text(&answer, &["nextToken"]).filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        images.sort_by_key(|image| std::cmp::Reverse(document::time(image, &["imagePushedAt"])));
        let tags = images.iter().flat_map(|image| document::list(image, &["imageTags"]));
        let tags: Vec<&str> = tags.filter_map(Value::as_str).take(SHOWN_TAGS).collect();
        if tags.is_empty() {
            return "it has no tags at all".to_owned();
        }
        let among =
            if token.is_some() { format!(" among the first {} images", images.len()) } else { String::new() };
        format!("its newest tags{among} are {}", tags.join(", "))
    }

    /// The platforms that the manifest names; of a single image, its config.
    async fn platforms(&self, digest: &str) -> Result<Option<Vec<Platform>>, StepError> {
        let input =
            self.input(json!({"imageIds": [{"imageDigest": digest}], "acceptedMediaTypes": MEDIA_TYPES}));
        let what = format!("read the manifest of {}@{digest}", self.name);
        let answer = self.session.read(GET_IMAGES, input).await.map_err(|fault| self.failed(fault, &what))?;
        let image = document::list(&answer, &["images"]).first();
        let manifest = image.and_then(|image| document::text(image, &["imageManifest"]));
        match manifest.and_then(Manifest::read) {
            None => Ok(None),
            Some(Manifest::Index(platforms)) => Ok(Some(platforms)),
            Some(Manifest::Image { config }) => Ok(self.config(&config).await.map(|found| vec![found])),
        }
    }

    /// The platform that a config names. A config that cannot be had says nothing: the image may be pulled all the same.
    async fn config(&self, digest: &str) -> Option<Platform> {
        let input = self.input(json!({"layerDigest": digest}));
        let answer = self.session.read(GET_LAYER_URL, input).await.ok()?;
        let url = Url::parse(document::text(&answer, &["downloadUrl"])?).ok()?;
        of_config(&self.session.fetch(url).await.ok()?)
    }

    /// What the scan found, and a line for the log when that could not be asked.
    async fn scan(&self, detail: &Value, digest: &str) -> (Scan, Option<String>) {
        let said = scan_of(detail, "imageScanFindingsSummary", "findingSeverityCounts");
        let said = match said {
            Some(scan) if !scan.findings.is_empty() => return (scan, None),
            other => other,
        };
        let input = self.input(json!({"imageId": {"imageDigest": digest}, "maxResults": 1}));
        match self.session.read(DESCRIBE_FINDINGS, input).await {
            Ok(answer) => {
                let scan = scan_of(&answer, "imageScanFindings", "findingSeverityCounts");
                (scan.unwrap_or_else(|| Scan { status: "NOT_SCANNED".into(), ..Scan::default() }), None)
            }
            Err(fault) if fault.is("ScanNotFoundException") => {
                (Scan { status: "NOT_SCANNED".into(), ..Scan::default() }, None)
            }
            Err(_) if said.is_some() => (said.unwrap_or_default(), None),
            Err(fault) => {
                let line = format!("the scan of {} could not be asked for: {fault}", self.name);
                (Scan { status: "UNKNOWN".into(), ..Scan::default() }, Some(line))
            }
        }
    }

    fn other_platform(&self, tag: &str, wanted: &Platform, found: &[Platform]) -> StepError {
        let found = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let found = if found.is_empty() { "none".to_owned() } else { found };
        let text = format!("{}:{tag} is not for {wanted}; it is for {found}", self.name);
        StepError::new(Class::BadSpec, "AWS-023", text)
            .target(self.session.target())
            .hint("build the image for that platform too, or change `runtimePlatform` of the task definition")
    }

    fn failed(&self, fault: Fault, what: &str) -> StepError {
        fault.step(what, &self.session)
    }

    fn strange(&self, problem: &str) -> StepError {
        self.failed(Fault::Strange(problem.to_owned()), &format!("look up {}", self.name))
    }
}

/// The scan as `imageScanStatus` and a summary say it. `None`: there is no status.
fn scan_of(document: &Value, summary: &str, counts: &str) -> Option<Scan> {
    let status = document::text(document, &["imageScanStatus", "status"])?.to_owned();
    let counts = document::at(document, &[summary, counts]).and_then(Value::as_object);
    let mut findings = BTreeMap::new();
    // A severity without findings is left out by ECR; for a policy it is zero, once there was a scan.
    if counts.is_some() || matches!(status.as_str(), "COMPLETE" | "ACTIVE") {
        findings.extend(SEVERITIES.map(|severity| (severity.to_owned(), 0)));
    }
    for (severity, count) in counts.into_iter().flatten() {
        findings.insert(severity.clone(), count.as_u64().unwrap_or_default());
    }
    let completed_at = document::time(document, &[summary, "imageScanCompletedAt"]);
    Some(Scan { status, findings, completed_at })
}

impl Session {
    /// A document at a URL that is signed already. Bounded like every call.
    async fn fetch(&self, url: Url) -> Result<Bytes, Fault> {
        let request = Request { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() };
        let cx = &self.inner.cx;
        let notice = |line: String| self.note(line);
        let exchange = self.inner.client.0.transport.exchange(request, &cx.aliases, &notice);
        let limit = self.inner.client.0.settings.request_timeout;
        let answer = tokio::select! {
            biased;
            (reason, _) = cx.cancel.wait() => return Err(Fault::Cancelled(reason)),
            answer = exchange => answer?,
            () = cx.clock.sleep(limit) => return Err(Fault::Timeout(limit)),
        };
        match answer.status.is_success() {
            true => Ok(answer.body),
            false => Err(Fault::Strange(format!("HTTP {}", answer.status.as_u16()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_name_every_severity() {
        let scanned = json!({
            "imageScanStatus": {"status": "COMPLETE"},
            "imageScanFindingsSummary": {"findingSeverityCounts": {"HIGH": 3}, "imageScanCompletedAt": 1_700_000_000.0},
        });
        let scan = scan_of(&scanned, "imageScanFindingsSummary", "findingSeverityCounts").unwrap();
        assert_eq!((scan.findings["HIGH"], scan.findings["CRITICAL"], scan.findings.len()), (3, 0, 6));
        assert_eq!(scan.completed_at, Some(1_700_000_000_000));
        let clean = json!({"imageScanStatus": {"status": "COMPLETE"}});
        let scan = scan_of(&clean, "imageScanFindingsSummary", "findingSeverityCounts").unwrap();
        assert_eq!(scan.findings["CRITICAL"], 0);
        let running = json!({"imageScanStatus": {"status": "IN_PROGRESS"}});
        let scan = scan_of(&running, "imageScanFindingsSummary", "findingSeverityCounts").unwrap();
        assert!(scan.findings.is_empty());
        assert_eq!(scan_of(&json!({}), "a", "b"), None);
    }
}

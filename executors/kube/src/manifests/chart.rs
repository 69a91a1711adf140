//! Helm charts, rendered by `helm template`; hooks are objects like any other, as in Harness.
//!
//! A chart lies in Git, in an HTTP repository or in an OCI registry. Credentials go to `helm` in files of the task's
//! private folder, never as arguments.

use super::fetch::{Fetch, File, Files, clean};
use super::{Chart, Loaded, error, program, template};
use executor_api::{Level, StepError};
use process::Program;
use proto::task::{
    ChartRepository, CommandFlag, HttpAuth, HttpConnector, KubernetesAction, KubernetesSpec, Manifest,
    ManifestKind,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Flags of `helm template` that only say what is rendered. Others would talk to a cluster, run programs or send the
/// output elsewhere.
const FLAGS: [&str; 14] = [
    "--include-crds",
    "--skip-crds",
    "--no-hooks",
    "--skip-tests",
    "--set",
    "--set-string",
    "--set-json",
    "--set-literal",
    "--api-versions",
    "-a",
    "--kube-version",
    "--is-upgrade",
    "--dependency-update",
    "--disable-openapi-validation",
];

pub(super) async fn load(
    fetch: &Fetch<'_>,
    spec: &KubernetesSpec,
    manifest: &Manifest,
    files: &[String],
    work: &Path,
) -> Result<Loaded, StepError> {
    let ManifestKind::HelmChart { repository, chart_name, chart_version, sub_chart_path, values_paths } =
        &manifest.kind
    else {
        return Ok(Loaded::default());
    };
    let version = chart_version.as_deref().filter(|version| !version.trim().is_empty());
    let (folder, primary, url) = match repository {
        Some(repository) => {
            let (folder, url) = pull(fetch, repository, chart_name, version, work).await?;
            (folder, Files::default(), url)
        }
        None => {
            let primary = fetch.primary(manifest, values_paths).await?;
            let tree = work.join("tree");
            for file in &primary.all {
                program::put(&tree, &file.path, &file.text).await?;
            }
            (tree.join(in_store(&primary, chart_name)?), primary, String::new())
        }
    };
    let folder = match sub_chart_path {
        Some(sub) => folder.join(clean(sub)),
        None => folder,
    };
    let mut chart = about(&folder).await?;
    chart.repository = url;
    chart.sub_chart_path.clone_from(sub_chart_path);
    fetch.line(&format!("Chart {} {}", chart.name, chart.version)).await?;
    let values = match repository {
        Some(_) => {
            let beside = in_chart(fetch, &folder, values_paths, manifest.optional_values).await?;
            let mut all = beside;
            all.extend(fetch.values(&primary, &[], false, &spec.overrides).await?);
            all
        }
        None => fetch.values(&primary, values_paths, manifest.optional_values, &spec.overrides).await?,
    };
    let mut helm = program::helm(work)
        .arg("template")
        .arg(template::release_name(&spec.release_name))
        .arg(folder.display().to_string())
        .arg("--namespace")
        .arg(&spec.namespace);
    for path in template::value_files(&values, work).await? {
        helm = helm.arg("--values").arg(path);
    }
    for flag in flags(&spec.command_flags)? {
        helm = helm.arg(flag);
    }
    if matches!(spec.action, KubernetesAction::K8sApply { .. }) {
        for file in files {
            helm = helm.arg("--show-only").arg(file);
        }
    } else if !files.is_empty() {
        return Err(error::spec("files of a chart can be chosen in K8sApply only"));
    }
    let rendered =
        program::output(&helm, "helm template", "rendering a Helm chart", program::NO_HELM, fetch.cx).await?;
    let documents = template::split(&rendered, |_| None)?;
    Ok(Loaded { documents, commit: primary.commit, chart: Some(chart), ..Loaded::default() })
}

/// The chart's folder in its store: as named, else the store's only path.
fn in_store(primary: &Files, chart: &str) -> Result<String, StepError> {
    let named = clean(chart);
    let roots = primary.roots.iter().flat_map(|root| [clean(&format!("{root}/{named}")), root.clone()]);
    let has = |folder: &String| primary.get(&format!("{folder}/Chart.yaml")).is_some();
    std::iter::once(named.clone()).chain(roots).find(has).ok_or_else(|| {
        let known: Vec<String> = primary
            .all
            .iter()
            .filter_map(|file| match file.path.as_str() {
                "Chart.yaml" => Some(String::new()),
                path => path.strip_suffix("/Chart.yaml").map(str::to_owned),
            })
            .collect();
        match known.is_empty() {
            true => error::nothing("no folder of the manifest holds a Chart.yaml"),
            false => error::not_there("chartName", &[chart.to_owned()], &known),
        }
    })
}

/// What `Chart.yaml` says.
async fn about(folder: &Path) -> Result<Chart, StepError> {
    let path = folder.join("Chart.yaml");
    let text = match tokio::fs::read_to_string(&path).await {
        Ok(text) => text,
        Err(_) => return Err(error::nothing("the chart, or the sub-chart that is named, has no Chart.yaml")),
    };
    let about: Value = serde_saphyr::from_str(&text)
        .map_err(|failed| error::unreadable("Chart.yaml", 1, &format!("is not valid YAML: {failed}")))?;
    let field = |name: &str| about.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Chart { name: field("name"), version: field("version"), ..Chart::default() })
}

/// Values files inside a chart that came from a repository.
async fn in_chart(
    fetch: &Fetch<'_>,
    folder: &Path,
    paths: &[String],
    optional: bool,
) -> Result<Vec<File>, StepError> {
    let mut files = Vec::new();
    for path in paths {
        let clean = clean(path);
        let inside: PathBuf = clean.split('/').filter(|part| *part != "..").collect();
        match tokio::fs::read_to_string(folder.join(inside)).await {
            Ok(text) => files.push(File { path: clean, text }),
            Err(_) if optional => {
                fetch.line(&format!("The chart has no values file {path}; it is optional")).await?;
            }
            Err(_) => return Err(error::chart(format!("the chart has no values file `{path}`"))),
        }
    }
    Ok(files)
}

/// Brings a chart from its repository; gives its folder and the repository's URL.
async fn pull(
    fetch: &Fetch<'_>,
    repository: &ChartRepository,
    name: &str,
    version: Option<&str>,
    work: &Path,
) -> Result<(PathBuf, String), StepError> {
    let name = clean(name);
    let (connector, oci) = match repository {
        ChartRepository::Http(connector) => (connector, false),
        ChartRepository::Oci(connector) => (connector, true),
    };
    told_of_aliases(fetch, connector).await?;
    let login = login(fetch, connector)?;
    let to = work.join("chart");
    let mut helm = program::helm(work).arg("pull");
    let url = connector.url.trim().trim_end_matches('/').to_owned();
    if oci {
        let place = url.split_once("://").map_or(url.as_str(), |(_, place)| place).to_owned();
        if let Some((user, password)) = &login {
            let host = place.split('/').next().unwrap_or(&place).to_owned();
            let auths = json!({"auths": {host: {"username": user.expose_secret(), "password": password.expose_secret()}}});
            let config = program::put(work, "registry.json", &auths.to_string()).await?;
            helm = helm.arg("--registry-config").arg(config.display().to_string());
        }
        if url.starts_with("http://") {
            helm = helm.arg("--plain-http");
        }
        helm = helm.arg(format!("oci://{place}/{name}"));
    } else {
        let mut entry = json!({"name": "charts", "url": url});
        if let Some((user, password)) = &login {
            entry = json!({
                "name": "charts", "url": url,
                "username": user.expose_secret(), "password": password.expose_secret(),
            });
        }
        let list = json!({"apiVersion": "v1", "repositories": [entry]});
        let config = program::put(work, "repositories.yaml", &list.to_string()).await?;
        let with = |program: Program| {
            program
                .arg("--repository-config")
                .arg(config.display().to_string())
                .arg("--repository-cache")
                .arg(work.join("repository").display().to_string())
        };
        // Without the flag a repository that cannot be read is no failure to helm.
        let update = with(program::helm(work).arg("repo").arg("update").arg("--fail-on-repo-update-fail"));
        let wanted = "reading the index of a chart repository";
        let updated = program::output(&update, program::UPDATE, wanted, program::NO_HELM, fetch.cx).await;
        updated.map_err(|failed| match failed.code {
            "KUBE-061" => error::chart(format!("the repository {url} cannot be read: {}", failed.what)),
            _ => failed,
        })?;
        helm = with(helm).arg(format!("charts/{name}"));
    }
    if let Some(version) = version {
        helm = helm.arg("--version").arg(version.trim());
    }
    helm = helm.arg("--untar").arg("--untardir").arg(to.display().to_string());
    fetch.line(&format!("Fetching the chart {name} from {} …", connector.identifier)).await?;
    let pulled = program::output(&helm, "helm pull", "fetching a chart", program::NO_HELM, fetch.cx).await;
    pulled.map_err(|mut failed| {
        if failed.code == "KUBE-061" {
            failed = error::chart(format!(
                "the chart `{name}` {} cannot be had from {url}: {}",
                version.unwrap_or("(newest)"),
                failed.what
            ));
        }
        failed
    })?;
    let folder = name.rsplit('/').next().unwrap_or(&name).to_owned();
    Ok((to.join(folder), url))
}

/// `helm` connects by itself and knows nothing of this agent's aliases.
async fn told_of_aliases(fetch: &Fetch<'_>, connector: &HttpConnector) -> Result<(), StepError> {
    let place = connector.url.split_once("://").map_or(connector.url.as_str(), |(_, place)| place);
    let authority = place.split('/').next().unwrap_or(place);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().unwrap_or(443)),
        None => (authority, 443),
    };
    if fetch.cx.aliases.lookup(host, port).is_some() {
        let text = format!("The host alias of {host} is not used: helm connects by itself");
        fetch.log.line(Level::Warn, &text).await.map_err(|_| error::log_closed())?;
    }
    Ok(())
}

fn login(
    fetch: &Fetch<'_>,
    connector: &HttpConnector,
) -> Result<Option<(SecretString, SecretString)>, StepError> {
    let secrets = fetch.cx.secrets.as_ref();
    let failed = |source| error::secret(&format!("connector `{}`", connector.identifier), source);
    match &connector.auth {
        HttpAuth::Anonymous => Ok(None),
        HttpAuth::UsernamePassword { username, password } => {
            let user = secrets.reveal(username).map_err(failed)?;
            let password = secrets.get(password).map_err(failed)?;
            Ok(Some((user, password)))
        }
        HttpAuth::Bearer { .. } | HttpAuth::Ssh(_) => Err(error::spec(format!(
            "connector `{}`: helm takes a user and password (or token as password) only",
            connector.identifier
        ))),
    }
}

/// Flags for `helm template`, each checked: what is an argument is seen by everybody on the agent's machine.
fn flags(flags: &[CommandFlag]) -> Result<Vec<String>, StepError> {
    let mut words = Vec::new();
    for flag in flags.iter().filter(|flag| flag.command.eq_ignore_ascii_case("Template")) {
        if !proto::text::placeholders(&flag.flag).is_empty() {
            return Err(error::spec(
                "a flag of helm holds a secret, which would be seen in the process list; put it into values",
            ));
        }
        let mut value_follows = false;
        for word in flag.flag.split_whitespace() {
            let name = word.split('=').next().unwrap_or(word);
            if value_follows {
                value_follows = false;
            } else if FLAGS.contains(&name) {
                let takes = [
                    "--set",
                    "--set-string",
                    "--set-json",
                    "--set-literal",
                    "--api-versions",
                    "-a",
                    "--kube-version",
                ];
                value_follows = takes.contains(&word);
            } else {
                let text = format!(
                    "the flag `{word}` of `helm template` is not supported; known are {}",
                    FLAGS.join(", ")
                );
                return Err(error::spec(text));
            }
            words.push(word.to_owned());
        }
    }
    Ok(words)
}

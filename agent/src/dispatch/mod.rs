//! From step to executor: the one exhaustive match over [`StepSpec`] (D3).

mod artifacts;
mod internal;

use crate::config::{Config, Proxy};
use artifacts::ArtifactCache;
use executor_api::{Class, Executor, Recovery, StepContext, StepError, StepOutput};
use executor_http::HttpExecutor;
use executor_shell::ShellExecutor;
use executor_verify::VerifyExecutor;
use proto::result::TestStage;
use proto::task::{
    ConnectorTestSpec, ECS_KINDS, HostKeyMode, KUBERNETES_KINDS, STEP_KINDS, StepSpec, StepTask,
};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Code of a step that vanished, where its executor has none of its own.
const VANISHED: &str = "AGT-010";

/// The unit of steps that the agent answers itself.
pub(crate) const UNIT: &str = "Execute";

/// Every executor of this build. One per agent. Each is made when it is first needed: its TLS roots and pools cost memory
/// that an agent which never runs such a step does not spend.
pub(crate) struct Executors {
    ca_pem: Option<Vec<u8>>,
    proxy: Option<Proxy>,
    http: OnceCell<HttpExecutor>,
    verify: OnceCell<VerifyExecutor>,
    shell: ShellExecutor,
    #[cfg(feature = "kube")]
    kube: OnceCell<executor_kube::KubeExecutor>,
    #[cfg(feature = "ecs")]
    ecs: OnceCell<executor_ecs::EcsExecutor>,
    #[cfg(feature = "ssh")]
    ssh: OnceCell<executor_ssh::SshExecutor>,
    #[cfg(feature = "ssh")]
    ssh_dir: std::path::PathBuf,
    client: OnceCell<sources::Client>,
    aws: OnceCell<aws::Client>,
    artifacts: ArtifactCache,
    known_hosts_mode: Option<HostKeyMode>,
}

/// The executors cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("`ca_file` cannot be read")]
pub struct SetupError(#[source] std::io::Error);

/// An executor could not be made when it was first needed.
fn setup(step: &str, source: impl std::error::Error + Send + Sync + 'static) -> StepError {
    StepError::new(Class::Bug, "AGT-019", format!("steps of type {step} cannot be run: {source}"))
        .source(source)
}

impl Executors {
    /// Reads what all executors need. Blocks for a small read. `cache` is where steps keep downloaded artifacts.
    pub(crate) fn new(config: &Config, cache: &Path) -> Result<Executors, SetupError> {
        Ok(Executors {
            ca_pem: config.ca_file.as_ref().map(std::fs::read).transpose().map_err(SetupError)?,
            proxy: config.proxy.clone(),
            http: OnceCell::new(),
            verify: OnceCell::new(),
            shell: ShellExecutor::new(executor_shell::Settings::default()),
            #[cfg(feature = "kube")]
            kube: OnceCell::new(),
            #[cfg(feature = "ecs")]
            ecs: OnceCell::new(),
            #[cfg(feature = "ssh")]
            ssh: OnceCell::new(),
            #[cfg(feature = "ssh")]
            ssh_dir: config.data_dir.join("ssh"),
            client: OnceCell::new(),
            aws: OnceCell::new(),
            artifacts: ArtifactCache::new(cache.to_owned(), config.cache_limit),
            known_hosts_mode: config.known_hosts_mode,
        })
    }

    /// The content of `ca_file`.
    pub(crate) fn ca_pem(&self) -> Option<&[u8]> {
        self.ca_pem.as_deref()
    }

    async fn client(&self) -> Result<&sources::Client, StepError> {
        let make = async || {
            let options = sources::ClientOptions { ca_pem: self.ca_pem.clone(), ..Default::default() };
            sources::Client::new(options).map_err(|error| setup("ResolveArtifact", error))
        };
        self.client.get_or_try_init(make).await
    }

    /// The one client for AWS: its credentials and token buckets are shared by everything that runs here.
    async fn aws(&self) -> Result<&aws::Client, StepError> {
        let make = async || {
            let named = |name: &str| name.starts_with("AWS_") || name == "HOME";
            let text = |(name, value): (OsString, OsString)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            };
            let environment = std::env::vars_os().filter_map(text).filter(|(name, _)| named(name)).collect();
            let proxy = self.proxy.as_ref().map(|proxy| aws::Proxy {
                url: proxy.url.clone(),
                login: proxy.login.clone(),
                no_proxy: proxy.no_proxy.clone(),
            });
            let settings =
                aws::Settings { ca_pem: self.ca_pem.clone(), environment, proxy, ..Default::default() };
            aws::Client::new(settings).map_err(|error| setup("EcsRollingDeploy", error))
        };
        self.aws.get_or_try_init(make).await
    }

    async fn http(&self) -> Result<&HttpExecutor, StepError> {
        let ca_pem = || self.ca_pem.clone().unwrap_or_default();
        let make = async || {
            let config = executor_http::Config { ca_pem: ca_pem(), ..Default::default() };
            HttpExecutor::new(config).map_err(|error| setup("Http", error))
        };
        self.http.get_or_try_init(make).await
    }

    async fn verify(&self) -> Result<&VerifyExecutor, StepError> {
        let ca_pem = || self.ca_pem.clone().unwrap_or_default();
        let make = async || {
            let config = executor_verify::Config { ca_pem: ca_pem(), ..Default::default() };
            VerifyExecutor::new(config, self.aws().await?.clone()).map_err(|error| setup("Verify", error))
        };
        self.verify.get_or_try_init(make).await
    }

    #[cfg(feature = "kube")]
    async fn kube(&self) -> Result<&executor_kube::KubeExecutor, StepError> {
        let make = async || {
            let settings = executor_kube::Settings { ca_pem: self.ca_pem.clone(), ..Default::default() };
            let executor = executor_kube::KubeExecutor::new(settings);
            Ok(executor.with_sources(self.git_client().await?.clone()))
        };
        self.kube.get_or_try_init(make).await
    }

    #[cfg(feature = "ecs")]
    async fn ecs(&self) -> Result<&executor_ecs::EcsExecutor, StepError> {
        let make = async || {
            let executor =
                executor_ecs::EcsExecutor::new(self.aws().await?.clone(), executor_ecs::Settings::default());
            Ok(executor.with_sources(self.git_client().await?.clone()))
        };
        self.ecs.get_or_try_init(make).await
    }

    /// The client that also reaches repositories behind sshd: the SSH executor gives it the way there.
    async fn git_client(&self) -> Result<&sources::Client, StepError> {
        #[cfg(feature = "ssh")]
        self.ssh().await?;
        self.client().await
    }

    #[cfg(feature = "ssh")]
    async fn ssh(&self) -> Result<&executor_ssh::SshExecutor, StepError> {
        let make = async || {
            let client = self.client().await?.clone();
            let dir = self.ssh_dir.clone();
            let made = tokio::task::spawn_blocking(move || {
                std::fs::create_dir_all(&dir)?;
                let settings = executor_ssh::Settings { state_dir: Some(dir), ..Default::default() };
                executor_ssh::SshExecutor::new(settings, client)
            });
            let made: Result<executor_ssh::SshExecutor, _> =
                made.await.map_err(|error| setup("Command", error))?;
            let executor = made.map_err(|error| setup("Command", error))?;
            // From here on every clone of the client reaches Git over SSH too.
            self.client().await?.set_tunnel(executor.tunnel());
            Ok(executor)
        };
        self.ssh.get_or_try_init(make).await
    }

    /// Applies what this agent's settings say about every task.
    pub(crate) fn adjust(&self, task: &mut StepTask) {
        let Some(mode) = self.known_hosts_mode else { return };
        for login in task.logins_mut() {
            login.host_keys.mode = mode;
        }
    }

    /// Brings the artifact cache down to its limit: at the start, before any step uses it.
    pub(crate) async fn prune(&self) {
        self.artifacts.prune().await;
    }

    /// Checks and runs a step; with `recover` it first finds out what became of it.
    ///
    /// **Cancel**: by `cx.cancel`.
    pub(crate) async fn run(&self, cx: &StepContext, recover: bool) -> Result<StepOutput, StepError> {
        let ended = self.run_step(cx, recover).await;
        // Whether it went well or not, it may have brought files in.
        if let Some(client) = self.client.get() {
            self.artifacts.grew_to(client.transferred()).await;
        }
        ended
    }

    async fn run_step(&self, cx: &StepContext, recover: bool) -> Result<StepOutput, StepError> {
        match &cx.task.step.spec {
            #[cfg(feature = "ssh")]
            StepSpec::Command(spec) => drive(self.ssh().await?, spec, cx, recover, "SSH-013").await,
            #[cfg(not(feature = "ssh"))]
            StepSpec::Command(_) => Err(unsupported("Command")),
            StepSpec::Http(spec) => drive(self.http().await?, spec, cx, recover, VANISHED).await,
            StepSpec::Verify(spec) => drive(self.verify().await?, spec, cx, recover, VANISHED).await,
            StepSpec::ShellScript(spec) => {
                drive(&self.shell, spec, cx, recover, executor_shell::VANISHED).await
            }
            #[cfg(feature = "kube")]
            StepSpec::Kubernetes(spec) => drive(self.kube().await?, spec, cx, recover, VANISHED).await,
            #[cfg(not(feature = "kube"))]
            StepSpec::Kubernetes(spec) => Err(unsupported(spec.action.kind())),
            #[cfg(feature = "ecs")]
            StepSpec::Ecs(spec) => drive(self.ecs().await?, spec, cx, recover, VANISHED).await,
            #[cfg(not(feature = "ecs"))]
            StepSpec::Ecs(spec) => Err(unsupported(spec.action.kind())),
            StepSpec::ResolveArtifact(spec) => internal::resolve(self, spec, cx).await,
            StepSpec::ConnectorTest(spec) => self.connector_test(spec, cx).await,
            StepSpec::Noop(spec) => internal::noop(spec, cx).await,
            StepSpec::Unknown { kind, .. } => Err(unsupported(kind)),
        }
    }

    async fn connector_test(
        &self,
        spec: &ConnectorTestSpec,
        cx: &StepContext,
    ) -> Result<StepOutput, StepError> {
        let stages = match spec {
            #[cfg(feature = "ssh")]
            ConnectorTestSpec::Ssh(target) => self.ssh().await?.test_connection(target, cx).await,
            #[cfg(not(feature = "ssh"))]
            ConnectorTestSpec::Ssh(_) => return Err(unsupported("Command")),
            #[cfg(feature = "kube")]
            ConnectorTestSpec::Kubernetes(cluster) => self.kube().await?.test_connection(cluster, cx).await,
            #[cfg(not(feature = "kube"))]
            ConnectorTestSpec::Kubernetes(_) => return Err(unsupported("K8sApply")),
            ConnectorTestSpec::Aws(account) => self.aws().await?.test_connection(account, cx).await,
            ConnectorTestSpec::Prometheus(connector) => self.verify().await?.test(connector, cx).await,
            ConnectorTestSpec::DockerRegistry(connector) => {
                self.probe(cx, |access| async move { sources::probe_docker(&access, connector).await })
                    .await?
            }
            ConnectorTestSpec::Artifactory(connector) => {
                self.probe(cx, |access| async move { sources::probe_artifactory(&access, connector).await })
                    .await?
            }
            ConnectorTestSpec::Git(connector) => {
                let access = internal::access(self.git_client().await?, cx);
                sources::probe_git(&access, connector).await
            }
        };
        internal::report(stages, cx).await
    }

    async fn probe<F: Future<Output = Vec<TestStage>>>(
        &self,
        cx: &StepContext,
        probe: impl FnOnce(sources::Access) -> F,
    ) -> Result<Vec<TestStage>, StepError> {
        Ok(probe(internal::access(self.client().await?, cx)).await)
    }
}

/// The step types that this build runs.
fn supported() -> Vec<&'static str> {
    let kubernetes = if cfg!(feature = "kube") { &KUBERNETES_KINDS[..] } else { &[] };
    let ecs = if cfg!(feature = "ecs") { &ECS_KINDS[..] } else { &[] };
    STEP_KINDS.iter().chain(kubernetes).chain(ecs).copied().collect()
}

fn unsupported(kind: &str) -> StepError {
    let text =
        format!("this agent does not know steps of type `{kind}`; it supports {}", supported().join(", "));
    StepError::new(Class::BadSpec, "AGT-008", text)
        .hint("use an agent whose version knows this step, or correct its type")
}

/// The order of the four calls for any executor.
///
/// `vanished` is the code of a step that was started, is gone, and left no result.
async fn drive<E: Executor>(
    executor: &E,
    spec: &E::Spec,
    cx: &StepContext,
    recover: bool,
    vanished: &'static str,
) -> Result<StepOutput, StepError> {
    if let Err(faults) = executor.check(spec, cx) {
        let list: Vec<String> =
            faults.iter().map(|fault| format!("{}: {}", fault.field, fault.problem)).collect();
        let text = format!("the step `{}` is written wrongly: {}", cx.task.step.identifier, list.join("; "));
        return Err(StepError::new(Class::BadSpec, "AGT-009", text));
    }
    if recover {
        let found = executor.recover(spec, cx).await?;
        tracing::info!(task = cx.task_id, step = cx.task.step.identifier, verdict = ?found, "recovered a step");
        if let Recovery::Vanished { evidence } = found {
            let step = &cx.task.step.identifier;
            let mut text = format!(
                "the step `{step}` was started before the agent stopped, and left no result: {evidence}"
            );
            // Its last output is fetched and what is ours goes; if that fails, people must know what stays.
            if let Err(error) = executor.clear(spec, cx).await {
                text = format!("{text}; clearing up after it failed: {error}");
            }
            // 255 is what a shell reports for a command whose end nobody saw.
            return Err(StepError::new(Class::RemoteFailed { code: 255 }, vanished, text)
                .hint("look at the target to see how far it got; it is not run again by itself"));
        }
    }
    executor.run(spec, cx).await
}

/// What the rest of the agent must know of limits here: nothing of an executor may take longer to end than this after a
/// kill.
pub(crate) const ABANDON_AFTER: Duration = Duration::from_secs(60);

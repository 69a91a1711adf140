//! Proving the capabilities of a package: what a manager wants to know before it gives a task away. Nothing here changes
//! anything, except what a program that the manager names does.

use crate::config::Config;
use ::dialect::capability::{Capability, Check, Verdict};
use executor_api::{Clock, HostAliases};
use reqwest::{Certificate, redirect::Policy};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// How long one proof may take. A manager gives up a task two minutes after it asked.
const LIMIT: Duration = Duration::from_secs(10);

/// Proves capabilities.
pub(crate) struct Prover {
    ca_pem: Option<Vec<u8>>,
    aliases: Arc<HostAliases>,
    clock: Arc<dyn Clock>,
    /// No program of a manager's choice is run here.
    no_programs: bool,
}

impl Prover {
    /// `ca_pem`: the content of `ca_file`, as the executors have it.
    pub(crate) fn new(
        config: &Config,
        ca_pem: Option<Vec<u8>>,
        aliases: Arc<HostAliases>,
        clock: Arc<dyn Clock>,
    ) -> Prover {
        Prover { ca_pem, aliases, clock, no_programs: config.block_shell_task }
    }

    /// A verdict for each, in their order.
    pub(crate) async fn prove(&self, task: &str, all: Vec<Capability>) -> Vec<Verdict> {
        futures::future::join_all(all.into_iter().map(|one| self.one(task, one))).await
    }

    async fn one(&self, task: &str, capability: Capability) -> Verdict {
        let began = self.clock.mono();
        let proof = async {
            match &capability.check {
                Check::Holds => Ok(()),
                Check::Unknown(kind) => Err(format!("{kind} is not known to this agent")),
                Check::Address { host, port } => self.address(host, *port).await,
                Check::Url { url, any_status } => self.url(url, *any_status).await,
                Check::Program { arguments } => self.program(arguments).await,
            }
        };
        let found = tokio::select! {
            found = proof => found,
            () = self.clock.sleep(LIMIT) => Err(format!("no answer within {} s", LIMIT.as_secs())),
        };
        if let Err(problem) = &found {
            tracing::warn!(
                task,
                criteria = capability.criteria,
                problem,
                "a capability does not hold; the manager is told so"
            );
        }
        let took = self.clock.mono().saturating_duration_since(began).as_millis();
        Verdict {
            criteria: capability.criteria,
            holds: found.is_ok(),
            duration_ms: u64::try_from(took).unwrap_or(u64::MAX),
        }
    }

    async fn address(&self, host: &str, port: u16) -> Result<(), String> {
        let (host, port) = self.aliases.lookup(host, port).unwrap_or_else(|| (host.to_owned(), port));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        tokio::net::TcpStream::connect((host, port)).await.map(drop).map_err(|error| error.to_string())
    }

    async fn url(&self, url: &str, any_status: bool) -> Result<(), String> {
        let place = url::Url::parse(url).map_err(|error| error.to_string())?;
        let mut builder = reqwest::Client::builder().redirect(Policy::none()).timeout(LIMIT).no_proxy();
        if let Some(pem) = &self.ca_pem {
            let certificates = Certificate::from_pem_bundle(pem).map_err(|error| error.to_string())?;
            builder = builder.tls_certs_merge(certificates);
        }
        if let (Some(host), Some(port)) = (place.host_str(), place.port_or_known_default())
            && let Some((to, port)) = self.aliases.lookup(host, port)
        {
            let found = tokio::net::lookup_host((to.as_str(), port)).await;
            let found: Vec<SocketAddr> = found.map_err(|error| error.to_string())?.collect();
            builder = builder.resolve_to_addrs(host, &found);
        }
        let client = builder.build().map_err(|error| error.to_string())?;
        let reply = client.get(place).send().await.map_err(|error| error.without_url().to_string())?;
        match reply.status().as_u16() {
            400 if !any_status => Err("status 400".to_owned()),
            _ => Ok(()),
        }
    }

    async fn program(&self, arguments: &[String]) -> Result<(), String> {
        if self.no_programs {
            return Err("BLOCK_SHELL_TASK keeps programs from being run here".to_owned());
        }
        let Some((program, rest)) = arguments.split_first() else {
            return Err("no program is named".to_owned());
        };
        let mut command = tokio::process::Command::new(program);
        command.args(rest).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for name in ["PATH", "HOME"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let status = command.kill_on_drop(true).status().await.map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the program ended with {status}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_api::SystemClock;

    fn prover(no_programs: bool, aliases: &[(&str, &str)]) -> Prover {
        let _unused = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let aliases = aliases.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        let aliases = Arc::new(HostAliases::new(aliases.collect::<Vec<_>>()));
        Prover { ca_pem: None, aliases, clock: Arc::new(SystemClock), no_programs }
    }

    fn program(text: &str) -> Check {
        Check::Program { arguments: vec!["/bin/sh".into(), "-c".into(), text.into()] }
    }

    #[tokio::test]
    async fn each_kind_is_looked_at_and_counted_in_its_order() {
        let router = axum::Router::new()
            .route("/no", axum::routing::get(|| async { axum::http::StatusCode::BAD_REQUEST }))
            .route(
                "/away",
                axum::routing::get(|| async { axum::response::Redirect::to("http://127.0.0.1:1/") }),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let url =
            |path: &str, any_status| Check::Url { url: format!("http://127.0.0.1:{port}{path}"), any_status };
        let gone = {
            let one = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            one.local_addr().unwrap().port()
        };
        let cases = [
            (url("/", false), true),
            (url("/no", false), false),
            (url("/no", true), true),
            (url("/away", false), true),
            (Check::Url { url: format!("http://127.0.0.1:{gone}/"), any_status: true }, false),
            (Check::Url { url: "http://named.example/".into(), any_status: false }, true),
            (Check::Url { url: "no url".into(), any_status: false }, false),
            (Check::Address { host: "127.0.0.1".into(), port }, true),
            (Check::Address { host: "named.example".into(), port: 80 }, true),
            (Check::Address { host: "127.0.0.1".into(), port: gone }, false),
            (program("exit 0"), true),
            (program("exit 3"), false),
            (Check::Program { arguments: vec!["/no/such/program".into()] }, false),
            (Check::Holds, true),
            (Check::Unknown("PCF".into()), false),
        ];
        let all = cases.iter().enumerate();
        let all = all.map(|(n, (check, _))| Capability { criteria: format!("c{n}"), check: check.clone() });
        let to = format!("127.0.0.1:{port}");
        let verdicts = prover(false, &[("named.example:80", &to)]).prove("t", all.collect()).await;
        for (index, (verdict, (check, holds))) in verdicts.iter().zip(&cases).enumerate() {
            assert_eq!(
                (verdict.criteria.as_str(), verdict.holds),
                (format!("c{index}").as_str(), *holds),
                "{check:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_blocked_agent_runs_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ran");
        let check = program(&format!("touch {}", mark.display()));
        let verdicts = prover(true, &[]).prove("t", vec![Capability { criteria: "c".into(), check }]).await;
        assert!(!verdicts[0].holds && !mark.exists());
    }
}

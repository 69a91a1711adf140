//! Connectors and logins as the agent needs them.

use super::ahead::SshNeed;
use super::build::{Builder, bad_field};
use crate::connection::{self, Resolve};
use crate::model::Field;
use crate::model::connector::{Connector, ConnectorSpec};
use crate::plan::Login;
use proto::failure::{Failure, FailureKind};
use proto::task::{HostKeys, HttpConnector, SshCredential, SshTarget, SshUrl};
use proto::text::{SecretRef, Text, placeholders};

impl Resolve for Builder<'_> {
    type Error = Box<Failure>;

    fn text(&self, field: &Field) -> Result<String, Box<Failure>> {
        self.strict(field)
    }

    fn secret(&mut self, reference: &str) -> SecretRef {
        let secret = SecretRef(reference.to_owned());
        self.secrets.insert(secret.clone());
        secret
    }

    fn secret_text(&mut self, field: &Field) -> Result<Text, Box<Failure>> {
        let text = self.strict(field)?.trim().to_owned();
        let token = self.plan.run.secret_token;
        self.secrets.extend(placeholders(&text).into_iter().filter(|p| p.token == token).map(|p| p.secret));
        Ok(Text(text))
    }

    fn token(&self) -> i64 {
        self.plan.run.secret_token
    }

    fn login(&mut self, key_ref: &Field, place: SshUrl) -> Result<SshTarget, Box<Failure>> {
        let reference = self.strict(key_ref)?;
        let Some(login) = self.plan.logins.get(&reference) else {
            let text = format!("the SSH key `{reference}` was not known when the execution was planned");
            return Err(bad_field(key_ref, text));
        };
        let port = place.port.unwrap_or(login.port);
        let user = place.user.unwrap_or_else(|| login.user.clone());
        Ok(self.at(place.host, port, user, login))
    }

    fn fault(&self, field: &Field, message: String) -> Box<Failure> {
        bad_field(field, message)
    }
}

impl Builder<'_> {
    fn wrong_kind(&self, field: &Field, connector: &Connector, wanted: &str) -> Box<Failure> {
        let message =
            format!("the connector `{}` is of another type; expected {wanted}", connector.identifier);
        bad_field(field, message)
    }

    pub(crate) fn docker(&mut self, field: &Field) -> Result<HttpConnector, Box<Failure>> {
        let connector = self.use_connector(field)?;
        match &connector.spec {
            ConnectorSpec::DockerRegistry { url, auth } => {
                connection::http(self, &connector.identifier, url, auth)
            }
            _ => Err(self.wrong_kind(field, connector, "DockerRegistry")),
        }
    }

    pub(crate) fn artifactory(&mut self, field: &Field) -> Result<HttpConnector, Box<Failure>> {
        let connector = self.use_connector(field)?;
        match &connector.spec {
            ConnectorSpec::Artifactory { url, auth } => {
                connection::http(self, &connector.identifier, url, auth)
            }
            _ => Err(self.wrong_kind(field, connector, "Artifactory")),
        }
    }

    pub(crate) fn prometheus(&mut self, field: &Field) -> Result<HttpConnector, Box<Failure>> {
        let connector = self.use_connector(field)?;
        let ConnectorSpec::Prometheus { url, auth, headers } = &connector.spec else {
            return Err(self.wrong_kind(field, connector, "Prometheus"));
        };
        let mut http = connection::http(self, &connector.identifier, url, auth)?;
        http.headers = connection::headers(self, headers)?;
        Ok(http)
    }

    /// A Git connector; the URL of an account is joined with `repo_name`.
    pub(crate) fn git(
        &mut self,
        field: &Field,
        repo_name: Option<&Field>,
    ) -> Result<HttpConnector, Box<Failure>> {
        let connector = self.use_connector(field)?;
        let ConnectorSpec::Git { url, repository, auth } = &connector.spec else {
            return Err(self.wrong_kind(field, connector, "Git, Github, Gitlab or Bitbucket"));
        };
        let repo_name = match repo_name {
            _ if *repository => None,
            Some(repo_name) => Some(repo_name),
            None => return Err(bad_field(field, "the connector leads to an account: `repoName` is needed")),
        };
        connection::git(self, &connector.identifier, (url, repo_name), auth)
    }

    /// A repository of charts of the kind that its manifest says.
    pub(super) fn helm_repository(
        &mut self,
        field: &Field,
        oci: bool,
    ) -> Result<HttpConnector, Box<Failure>> {
        let connector = self.use_connector(field)?;
        match &connector.spec {
            ConnectorSpec::HelmRepository { oci: own, url, auth } if *own == oci => {
                connection::http(self, &connector.identifier, url, auth)
            }
            _ => Err(self.wrong_kind(field, connector, if oci { "OciHelmRepo" } else { "HttpHelmRepo" })),
        }
    }

    /// The host a step runs on and how to log in to it.
    pub(crate) fn ssh_target(&mut self, host: Option<&Field>) -> Result<SshTarget, Box<Failure>> {
        let written = match host {
            Some(field) => Some(self.strict(field)?),
            None => self.iteration_host(),
        };
        match written.filter(|host| !host.trim().is_empty()) {
            Some(written) => self.login_to(&written),
            None => Err(no_host("no host: write `host`, or repeat the step over `<+stage.output.hosts>`")),
        }
    }

    /// How to log in to a host.
    pub(crate) fn login_to(&mut self, written: &str) -> Result<SshTarget, Box<Failure>> {
        let Some(target) = self.target() else {
            return Err(no_host("the step runs on a host, but its stage has no infrastructure"));
        };
        let infrastructure = &target.infrastructure;
        let Some(login) = &infrastructure.login else {
            let message = format!(
                "nothing says how to log in to `{written}`: the infrastructure has neither `credentialsRef` nor an Ssh connector"
            );
            return Err(no_host(&message));
        };
        if let Some(reference) = &infrastructure.connector
            && let Some(connector) = self.plan.connectors.get(reference)
        {
            self.connectors.push(connector);
        }
        Ok(self.login_as(written, login))
    }

    /// The host that a step names itself, with the login that it names or that of the stage's infrastructure.
    pub(crate) fn explicit_target(
        &mut self,
        host: &Field,
        credential: Option<&Field>,
    ) -> Result<SshTarget, Box<Failure>> {
        let Some(credential) = credential else { return self.ssh_target(Some(host)) };
        let written = self.strict(host)?;
        if written.trim().is_empty() {
            return Err(no_host("`executionTarget.host` came out empty"));
        }
        let reference = self.strict(credential)?;
        let Some(login) = self.plan.logins.get(&reference) else {
            let message =
                format!("the credential `{reference}` was not known when the execution was planned");
            return Err(bad_field(credential, message));
        };
        Ok(self.login_as(written.trim(), login))
    }

    fn login_as(&mut self, written: &str, login: &Login) -> SshTarget {
        let listed = self.target().map(|target| target.infrastructure.hosts.as_slice()).unwrap_or_default();
        let listed = listed.iter().find(|known| known.written == written).cloned();
        let host = listed.unwrap_or_else(|| crate::plan::split_host(written));
        self.host = Some(written.to_owned());
        self.at(host.host, host.port.unwrap_or(login.port), login.user.clone(), login)
    }

    /// The key of `login` at a host, with what is known of the host.
    fn at(&mut self, host: String, port: u16, user: String, login: &Login) -> SshTarget {
        let key = self.secret(&login.key.0);
        let passphrase = login.passphrase.as_ref().map(|passphrase| self.secret(&passphrase.0));
        let known = self.known_keys(&host, port);
        let login = SshNeed { host: format!("{host}:{port}"), known: !known.is_empty() };
        if !self.logins.contains(&login) {
            self.logins.push(login);
        }
        let host_keys = HostKeys { mode: self.plan.host_key_mode, known };
        SshTarget { host, port, user, credential: SshCredential::Key { key, passphrase }, host_keys }
    }

    /// The item of the nearest loop, if it is a text: loops over hosts need no `host`.
    fn iteration_host(&self) -> Option<String> {
        let mut at = Some(self.id);
        while let Some(run) = at.and_then(|id| self.state.runs.get(id)) {
            if let Some(iteration) = &run.iteration
                && let Some(host) = iteration.item.as_str()
            {
                return Some(host.to_owned());
            }
            at = run.parent.as_deref();
        }
        None
    }

    fn known_keys(&self, host: &str, port: u16) -> Vec<String> {
        let name = format!("{host}:{port}");
        let mut keys = self.plan.host_keys.get(&name).cloned().unwrap_or_default();
        for key in self.state.learned.get(&name).into_iter().flatten() {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    }
}

fn no_host(message: &str) -> Box<Failure> {
    Box::new(Failure::new(FailureKind::BadSpec, "PIPE-006", message))
}

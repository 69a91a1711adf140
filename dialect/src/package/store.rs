//! Where files come from: stores of manifests and config files, Git repositories, artifacts.

use super::Cx;
use super::fault::Fault;
use super::secrets::Details;
use super::ssh;
use super::view::View;
use proto::task::{
    Artifact, ArtifactSource, ConfigFile, DownloadSource, FileStore, GitReference, GitSource, HttpAuth,
    HttpConnector, InlineFile, SshUrl,
};
use proto::text::Text;

#[derive(Clone, Copy)]
enum Kind {
    Git,
    Inline,
    Harness,
}

const KINDS: [(&str, Kind); 3] = [("GIT", Kind::Git), ("INLINE", Kind::Inline), ("HARNESS", Kind::Harness)];

/// Where a manifest lies.
pub(super) enum Origin {
    /// In a repository.
    Git(GitSource),
    /// In the package.
    Files(Vec<InlineFile>),
}

/// The store of a manifest (`storeDelegateConfig`).
pub(super) fn of_manifest(cx: &mut Cx<'_>, store: &View<'_>) -> Result<Origin, Fault> {
    let files = match store.word("type", &KINDS)? {
        Kind::Git => return Ok(Origin::Git(git(cx, store)?)),
        Kind::Inline => inline(cx, &store.list("files")?, "name", "content")?,
        Kind::Harness => {
            let mut files = Vec::new();
            for file in store.list("manifestFiles")? {
                let key = if file.maybe_str("filePath")?.is_some() { "filePath" } else { "fileName" };
                files.extend(inline(cx, &[file], key, "fileContent")?);
            }
            files
        }
    };
    match files.is_empty() {
        true => Err(Fault::shape(&store.at("files"), "is empty; expected at least one file")),
        false => Ok(Origin::Files(files)),
    }
}

/// Files whose content stands in the package.
fn inline(cx: &mut Cx<'_>, files: &[View<'_>], path: &str, content: &str) -> Result<Vec<InlineFile>, Fault> {
    let mut all = Vec::new();
    for file in files {
        let name = cx.plain(file, path)?.trim_start_matches('/').to_owned();
        // Charts and overlays are laid out in a folder, which nothing may leave.
        if name.split('/').any(|part| part == "..") {
            return Err(Fault::shape(&file.at(path), "leads out of the folder of the manifest"));
        }
        let content = cx.secrets.text(&file.at(content), file.maybe_str(content)?.unwrap_or_default())?;
        all.push(InlineFile { path: name, content });
    }
    Ok(all)
}

/// Config files of a service (`fileDelegateConfig.stores`).
pub(super) fn config_files(cx: &mut Cx<'_>, store: &View<'_>) -> Result<Vec<ConfigFile>, Fault> {
    store.word("type", &[("HARNESS", ()), ("GIT_FETCHED", ())])?;
    let mut files = Vec::new();
    for file in store.list("configFiles")? {
        let path = cx.plain(&file, "fileName")?;
        let content = match file.flag("encrypted")? || file.flag("isEncrypted")? {
            true => {
                let details = Details::of(&file, "encryptionDataDetails")?;
                let owner = file.object("secretConfigFile")?;
                let secret = cx.secrets.of_required(&details, &owner, "encryptedConfigFile")?;
                cx.secrets.standing_for(&secret)
            }
            false => cx.maybe_text(&file, "fileContent")?.unwrap_or_default(),
        };
        files.push(ConfigFile { identifier: path.clone(), store: FileStore::Inline { path, content } });
    }
    Ok(files)
}

fn git(cx: &mut Cx<'_>, store: &View<'_>) -> Result<GitSource, Fault> {
    let details = Details::of(store, "encryptedDataDetails")?;
    let name =
        store.maybe_str("connectorId")?.or(store.maybe_str("connectorName")?).unwrap_or("git").to_owned();
    let key = store.maybe("sshKeySpecDTO")?;
    let connector = repository(cx, &store.object("gitConfigDTO")?, key.as_ref(), &details, &name)?;
    let fetch = store.maybe_str("fetchType")?.unwrap_or("BRANCH");
    let reference = match fetch {
        "COMMIT" => GitReference::Commit(cx.plain(store, "commitId")?),
        _ => GitReference::Branch(cx.plain(store, "branch")?),
    };
    let paths: Vec<String> =
        cx.plains(store, "paths")?.iter().map(|path| path.trim_start_matches('/').to_owned()).collect();
    Ok(GitSource { connector, reference, paths })
}

/// A Git connector (`gitConfigDTO`): the manager has made every kind of Git provider into this one.
pub(super) fn repository(
    cx: &mut Cx<'_>,
    config: &View<'_>,
    key: Option<&View<'_>>,
    details: &Details<'_>,
    name: &str,
) -> Result<HttpConnector, Fault> {
    let url = cx.plain(config, "url")?;
    let auth = match config.word("type", &[("Http", true), ("Ssh", false)])? {
        true => match config.maybe("spec")? {
            Some(spec) => http_auth(cx, &spec, details)?,
            None => HttpAuth::Anonymous,
        },
        false => {
            let place = SshUrl::parse(&url).ok_or_else(|| {
                Fault::shape(
                    &config.at("url"),
                    format!("is no address of a repository over SSH; expected {}", SshUrl::SHAPE),
                )
            })?;
            let missing =
                || Fault::shape(&config.at("type"), "is Ssh, and no key stands beside it (sshKeySpecDTO)");
            let mut login = ssh::login(cx, key.ok_or_else(missing)?, details, &place.host)?;
            login.port = place.port.unwrap_or(login.port);
            login.user = place.user.unwrap_or(login.user);
            HttpAuth::Ssh(Box::new(login))
        }
    };
    Ok(HttpConnector { identifier: name.to_owned(), url, auth, headers: Vec::new() })
}

/// User and password of a connector: `{username | usernameRef, passwordRef}`.
fn http_auth(cx: &mut Cx<'_>, spec: &View<'_>, details: &Details<'_>) -> Result<HttpAuth, Fault> {
    let Some(password) = cx.secrets.of_maybe(details, spec, "passwordRef")? else {
        return Ok(HttpAuth::Anonymous);
    };
    let username = cx.secrets.name_or_secret(details, spec, "username", "usernameRef")?;
    Ok(HttpAuth::UsernamePassword { username: username.unwrap_or_else(|| Text::from("")), password })
}

/// The primary artifact of a command (`artifactDelegateConfig`).
pub(super) fn artifact(cx: &mut Cx<'_>, artifact: &View<'_>) -> Result<Artifact, Fault> {
    artifact.word("artifactType", &[("ARTIFACTORY", ())]).map_err(|fault| {
        fault.hint("of artifacts this agent fetches those of a generic Artifactory repository; leave others to a Harness delegate")
    })?;
    let details = Details::of(artifact, "encryptedDataDetails")?;
    let info = artifact.object("connectorDTO")?;
    // The connector's own document, with or without the envelope of its entity.
    let info = info.maybe("connector")?.unwrap_or(info);
    let config = info.maybe("spec")?.or(info.maybe("connectorConfig")?).unwrap_or_else(|| info.clone());
    let auth = match config.maybe("auth")? {
        Some(auth) if auth.word("type", &[("UsernamePassword", true), ("Anonymous", false)])? => {
            http_auth(cx, &auth.object("spec")?, &details)?
        }
        _ => HttpAuth::Anonymous,
    };
    let connector = HttpConnector {
        identifier: info.maybe_str("identifier")?.unwrap_or("artifactory").to_owned(),
        url: cx.plain(&config, "artifactoryServerUrl")?,
        auth,
        headers: Vec::new(),
    };
    let repository = cx.plain(artifact, "repositoryName")?;
    let path = cx.plain(artifact, "artifactPath")?;
    let folder = cx.maybe_plain(artifact, "artifactDirectory")?.unwrap_or_default();
    let folder = folder.trim_matches('/');
    let full = match folder {
        "" | "." => path.trim_start_matches('/').to_owned(),
        // The path may hold the folder already.
        folder if path.trim_start_matches('/').starts_with(&format!("{folder}/")) => {
            path.trim_start_matches('/').to_owned()
        }
        folder => format!("{folder}/{}", path.trim_start_matches('/')),
    };
    let tag = full.rsplit('/').next().unwrap_or_default().to_owned();
    let source = DownloadSource { connector, repository, path: full, sha256: None };
    Ok(Artifact { source: ArtifactSource::ArtifactoryRegistry(source), tag, digest: None })
}

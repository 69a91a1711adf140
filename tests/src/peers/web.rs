//! nginx: an artifact repository with passwords, and Git over smart HTTP.

use crate::peers::owned::Owned;
use crate::wait::free_port;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// nginx serving one folder under `/artifactory/`.
#[derive(Debug)]
pub struct Artifacts {
    _server: Owned,
    /// Its port.
    pub port: u16,
    /// What it serves; put files here.
    pub folder: PathBuf,
}

/// nginx refuses to serve what its workers may not read; tests' own folders are private by default.
fn open_up(dir: &Path) {
    let mut path = Some(dir);
    while let Some(part) = path.filter(|p| p.starts_with(std::env::temp_dir()) && *p != std::env::temp_dir())
    {
        std::fs::set_permissions(part, std::fs::Permissions::from_mode(0o755)).expect("mode");
        path = part.parent();
    }
}

fn nginx(dir: &Path, port: u16, locations: &str) -> Command {
    let user = if Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n") {
        "user root;\n"
    } else {
        ""
    };
    let d = dir.display();
    let text = format!(
        "{user}daemon off;\nworker_processes 1;\npid {d}/nginx.pid;\nerror_log {d}/error.log;\nevents {{}}\nhttp {{\n access_log {d}/access.log;\n \
         client_body_temp_path {d}/t1;\n proxy_temp_path {d}/t2;\n fastcgi_temp_path {d}/t3;\n uwsgi_temp_path {d}/t4;\n scgi_temp_path {d}/t5;\n \
         client_max_body_size 0;\n server {{\n  listen 127.0.0.1:{port};\n{locations}\n }}\n}}\n"
    );
    let config = dir.join("nginx.conf");
    std::fs::write(&config, text).expect("nginx.conf");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(config).arg("-e").arg(dir.join("error.log"));
    command
}

fn passwords(dir: &Path, user: &str, password: &str) -> PathBuf {
    let path = dir.join("htpasswd");
    let output = Command::new("htpasswd")
        .args(["-bc"])
        .arg(&path)
        .args([user, password])
        .output()
        .expect("htpasswd runs");
    assert!(output.status.success(), "htpasswd: {}", String::from_utf8_lossy(&output.stderr));
    path
}

impl Artifacts {
    /// Starts it under `dir` for one user.
    ///
    /// # Panics
    /// When nginx is missing or does not start.
    pub async fn start(dir: &Path, user: &str, password: &str) -> Artifacts {
        let dir = dir.join("artifacts");
        let folder = dir.join("files");
        std::fs::create_dir_all(&folder).expect("folder");
        open_up(&dir);
        let port = free_port();
        let users = passwords(&dir, user, password);
        let locations = format!(
            "  location /artifactory/ {{\n   alias {}/;\n   auth_basic artifacts;\n   auth_basic_user_file {};\n  }}",
            folder.display(),
            users.display()
        );
        let server = Owned::listening(nginx(&dir, port, &locations), &dir.join("out"), port).await;
        Artifacts { _server: server, port, folder }
    }

    /// Puts a file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, path: &str, content: &[u8]) {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
        std::fs::write(path, content).expect("file");
    }

    /// Requests so far, one line each, as nginx logs them.
    pub fn requests(&self) -> String {
        std::fs::read_to_string(self.folder.with_file_name("access.log")).unwrap_or_default()
    }
}

/// Git over smart HTTP: nginx, fcgiwrap and `git http-backend`.
#[derive(Debug)]
pub struct GitServer {
    _server: Owned,
    _cgi: CgiWrapper,
    /// Its port.
    pub port: u16,
    folder: PathBuf,
}

#[derive(Debug)]
struct CgiWrapper(std::process::Child);

impl Drop for CgiWrapper {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl GitServer {
    /// Starts it under `dir` for one user.
    ///
    /// # Panics
    /// When a program is missing or does not start.
    pub async fn start(dir: &Path, user: &str, password: &str) -> GitServer {
        let dir = dir.join("git");
        let folder = dir.join("repos");
        std::fs::create_dir_all(&folder).expect("folder");
        open_up(&dir);
        let users = passwords(&dir, user, password);
        let socket = dir.join("cgi.sock");
        let cgi = Command::new("/usr/sbin/fcgiwrap")
            .arg("-s")
            .arg(format!("unix:{}", socket.display()))
            .env("HOME", &dir)
            .stdin(std::process::Stdio::null())
            .spawn()
            .expect("fcgiwrap starts");
        let exec = Command::new("git").arg("--exec-path").output().expect("git runs");
        let exec = String::from_utf8_lossy(&exec.stdout).trim().to_owned();
        let port = free_port();
        let locations = format!(
            "  location / {{\n   auth_basic git;\n   auth_basic_user_file {};\n   fastcgi_pass unix:{};\n   \
             fastcgi_param SCRIPT_FILENAME {exec}/git-http-backend;\n   fastcgi_param GIT_PROJECT_ROOT {};\n   fastcgi_param GIT_HTTP_EXPORT_ALL 1;\n   \
             fastcgi_param PATH_INFO $uri;\n   fastcgi_param QUERY_STRING $query_string;\n   fastcgi_param REQUEST_METHOD $request_method;\n   \
             fastcgi_param CONTENT_TYPE $content_type;\n   fastcgi_param CONTENT_LENGTH $content_length;\n   fastcgi_param HTTP_GIT_PROTOCOL $http_git_protocol;\n   \
             fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;\n   fastcgi_param REMOTE_USER $remote_user;\n  }}",
            users.display(),
            socket.display(),
            folder.display()
        );
        let server = Owned::listening(nginx(&dir, port, &locations), &dir.join("out"), port).await;
        GitServer { _server: server, _cgi: CgiWrapper(cgi), port, folder }
    }

    /// Makes a repository `name` whose branch `main` holds `files`; returns the commit id.
    ///
    /// # Panics
    /// When git fails.
    pub fn repository(&self, name: &str, files: &[(&str, &str)]) -> String {
        let work = self.folder.with_file_name(format!("work-{name}"));
        for (path, content) in files {
            let path = work.join(path);
            std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
            std::fs::write(path, content).expect("file");
        }
        let script = "set -e; cd \"$1\"; git init -q -b main; git config user.email t@example.com; git config user.name t; git config commit.gpgsign false; git add -A; git commit -q -m first; git clone -q --bare . \"$2\"; git -C \"$2\" config http.uploadpack true; git rev-parse HEAD";
        let output = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&work)
            .arg(self.folder.join(name))
            .env("HOME", &work)
            .output()
            .expect("git runs");
        assert!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

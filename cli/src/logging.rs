//! The process's own log: standard error, never standard output.

use crate::args::Command;
use crate::settings::Env;
use tracing_subscriber::EnvFilter;

/// Starts the log. Agent and manager write `info` and above, as JSON lines with `DELEGATE_LOG_FORMAT=json`; client
/// commands write nothing unless `DELEGATE_LOG` asks for it.
pub(crate) fn start(command: &Command, env: &Env) {
    let serves = matches!(command, Command::Agent(_) | Command::Manager(_));
    let wanted = env.get("DELEGATE_LOG").unwrap_or(if serves { "info" } else { "off" });
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|_| EnvFilter::new("info"));
    let plain = env.get("NO_COLOR").is_some() || !console::Term::stderr().is_term();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(!plain);
    let started = match env.get("DELEGATE_LOG_FORMAT") {
        Some("json") => builder.json().try_init(),
        _ => builder.try_init(),
    };
    if started.is_err() {
        crate::output::tell("the log was started already");
    }
}

//! Command flags of kubectl that mean something here. Everything else is refused: a flag that is silently ignored is a
//! surprise later.

use crate::apply::Options;
use crate::error::bad_spec;
use executor_api::StepError;
use proto::task::CommandFlag;

/// What the flags of a step ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) options: Options,
    /// `--prune`.
    pub(crate) prune: bool,
    /// `--selector`.
    pub(crate) selector: Option<String>,
    /// `--all`.
    pub(crate) all: bool,
    /// Flags that change nothing here, for a line in the log.
    pub(crate) needless: Vec<String>,
}

/// Reads the flags of `command` (`Apply`, `Delete`); those of other commands are somebody else's.
///
/// **Errors**: `KUBE-037` names a flag that is not supported, or `--prune` where it is not allowed.
pub(crate) fn read(flags: &[CommandFlag], command: &str, may_prune: bool) -> Result<Flags, StepError> {
    let mut found = Flags::default();
    for flag in
        flags.iter().filter(|flag| flag.command.is_empty() || flag.command.eq_ignore_ascii_case(command))
    {
        let mut words = flag.flag.split_whitespace().map(|word| word.trim_matches(['"', '\''])).peekable();
        while let Some(word) = words.next() {
            let (name, mut value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.trim_matches(['"', '\'']).to_owned())),
                None => (word, None),
            };
            let takes_value = matches!(
                name,
                "-l" | "--selector"
                    | "--field-manager"
                    | "--timeout"
                    | "--grace-period"
                    | "--prune-allowlist"
            );
            if takes_value && value.is_none() {
                value = words.next().map(str::to_owned);
            }
            let on = value.as_deref() != Some("false");
            match name {
                "--force-conflicts" => found.options.force_conflicts = on,
                "--validate" => {
                    found.options.lenient = matches!(value.as_deref(), Some("false" | "ignore" | "warn"))
                }
                "--prune" if may_prune => found.prune = on,
                "-l" | "--selector" => found.selector = value,
                "--all" if may_prune => found.all = on,
                "--server-side" | "--wait" | "--overwrite" | "--ignore-not-found" | "--field-manager"
                | "--timeout" | "--record" | "--grace-period" | "--cascade" => {
                    found.needless.push(word.to_owned())
                }
                _ => {
                    let text = format!("the command flag `{word}` of {command} is not supported");
                    return Err(bad_spec("KUBE-037", text).hint(
                        "supported are --force-conflicts, --validate, --selector and, on K8sApply, --prune and --all",
                    ));
                }
            }
        }
    }
    if found.prune && found.selector.is_none() && !found.all {
        return Err(bad_spec("KUBE-037", "`--prune` needs `--selector` or `--all`")
            .hint("name with --selector which of the objects that this release applied may be pruned"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(command: &str, flag: &str) -> CommandFlag {
        CommandFlag { command: command.into(), flag: flag.into() }
    }

    #[test]
    fn flags_are_read_by_command_and_unknown_ones_refused() {
        let flags =
            [flag("Apply", "--prune --selector=app=web --server-side"), flag("Template", "--whatever")];
        let found = read(&flags, "Apply", true).unwrap();
        assert!(found.prune && found.selector.as_deref() == Some("app=web"));
        assert_eq!(found.needless, ["--server-side"]);
        assert_eq!(read(&flags, "Apply", false).unwrap_err().code, "KUBE-037");
        assert_eq!(read(&[flag("", "--force")], "Apply", true).unwrap_err().code, "KUBE-037");
        assert_eq!(read(&[flag("", "--prune")], "Apply", true).unwrap_err().code, "KUBE-037");
        assert_eq!(
            read(&[flag("", "-l app=web --prune")], "Apply", true).unwrap().selector.as_deref(),
            Some("app=web")
        );
        let found =
            read(&[flag("Apply", "--force-conflicts"), flag("Apply", "--validate=false")], "Apply", false);
        assert_eq!(
            found.unwrap().options,
            Options { force_conflicts: true, lenient: true, skip_dry_run: false }
        );
    }
}

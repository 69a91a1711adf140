//! What a child sees of the agent's environment.

/// Names that every child gets from the agent: where programs are, which language and time zone. Nothing that can hold a
/// credential is among them.
const KEPT: [&str; 7] = ["PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER"];

/// Where programs are when the agent itself was started without a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment that every child starts from, by name and value.
pub fn basics() -> Vec<(String, String)> {
    let mut kept: Vec<(String, String)> =
        KEPT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    if kept.iter().all(|(name, value)| name != "PATH" || value.is_empty()) {
        kept.retain(|(name, _)| name != "PATH");
        kept.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
    }
    // Without any of these a tool reads and writes ASCII only.
    if kept.iter().all(|(name, _)| !matches!(name.as_str(), "LANG" | "LC_ALL" | "LC_CTYPE")) {
        kept.push(("LANG".to_owned(), "C.UTF-8".to_owned()));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_always_has_a_path_and_a_language() {
        let kept = basics();
        assert!(kept.iter().any(|(name, value)| name == "PATH" && !value.is_empty()));
        assert!(kept.iter().any(|(name, _)| matches!(name.as_str(), "LANG" | "LC_ALL" | "LC_CTYPE")));
        assert!(kept.iter().all(|(name, _)| KEPT.contains(&name.as_str())), "{kept:?}");
    }
}

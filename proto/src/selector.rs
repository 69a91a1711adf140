//! Which agents may take a task. **Source**: protocol facts §8.
//!
//! Everything is AND: each selector of a task equals one of the agent's words, trimmed and regardless of case. There is
//! no OR, no negation and no pattern.

use std::collections::BTreeSet;

/// The words an agent answers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSelectors(BTreeSet<String>);

/// A selector that an agent lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Who asked for it: `step`, `stage`, `connector`.
    pub origin: String,
    /// The selector as it was written.
    pub selector: String,
}

impl AgentSelectors {
    /// The set of an agent: its tags and, implicitly, its name, its group and its host name, so that one replica can
    /// be addressed.
    pub fn new(name: &str, group: &str, host: &str, tags: &[String]) -> Self {
        let implicit = [name, group, host].into_iter();
        let all = implicit.chain(tags.iter().map(String::as_str)).map(normal);
        AgentSelectors(all.filter(|word| !word.is_empty()).collect())
    }

    /// Whether one selector fits.
    pub fn has(&self, selector: &str) -> bool {
        self.0.contains(&normal(selector))
    }

    /// What this agent lacks for a task whose sets are `(origin, selectors)`. Empty means that it may take the task.
    ///
    /// Sets that a pipeline wrote push out all others ([`effective`]). A blank selector asks for nothing.
    pub fn missing<'a, O, S>(&self, sets: impl IntoIterator<Item = (&'a O, &'a [S])>) -> Vec<Missing>
    where
        O: AsRef<str> + ?Sized + 'a,
        S: AsRef<str> + 'a,
    {
        let mut missing = Vec::new();
        for (origin, selectors) in effective(sets) {
            for selector in selectors {
                let selector = selector.as_ref();
                if !normal(selector).is_empty() && !self.has(selector) {
                    let lack =
                        Missing { origin: origin.as_ref().to_owned(), selector: selector.trim().to_owned() };
                    if !missing.contains(&lack) {
                        missing.push(lack);
                    }
                }
            }
        }
        missing
    }

    /// The words, sorted, in lower case.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The sets that count: if any comes from a step, step group, stage or pipeline, the others are dropped.
pub fn effective<'a, O, S>(sets: impl IntoIterator<Item = (&'a O, &'a [S])>) -> Vec<(&'a O, &'a [S])>
where
    O: AsRef<str> + ?Sized + 'a,
{
    let mut sets: Vec<_> = sets.into_iter().filter(|(_, selectors)| !selectors.is_empty()).collect();
    let written = |origin: &str| {
        ["step", "stepGroup", "stage", "pipeline"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(origin.trim()))
    };
    if sets.iter().any(|(origin, _)| written(origin.as_ref())) {
        sets.retain(|(origin, _)| written(origin.as_ref()));
    }
    sets
}

/// `DELEGATE_TAGS` as users write it: separated by commas, trimmed, empty ones left out.
pub fn parse_tags(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

fn normal(word: &str) -> String {
    word.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agent() -> AgentSelectors {
        AgentSelectors::new("Zone-A", "grp", "host-7", &["linux".into(), " DC1 ".into(), String::new()])
    }

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn all_must_match_trimmed_and_regardless_of_case() {
        let step = texts(&["LINUX", " dc1", "zone-a", "GRP", "Host-7", " "]);
        assert!(agent().missing([("step", step.as_slice())]).is_empty());
        let step = texts(&["linux", "gpu ", "gpu"]);
        let missing = agent().missing([("step", step.as_slice())]);
        assert_eq!(missing, [Missing { origin: "step".into(), selector: "gpu".into() }]);
    }

    #[test]
    fn no_pattern_and_no_part_matches() {
        let step = texts(&["lin", "linux*", "!gpu"]);
        assert_eq!(agent().missing([("step", step.as_slice())]).len(), 3);
    }

    #[test]
    fn what_a_pipeline_wrote_pushes_out_connectors() {
        let (stage, connector) = (texts(&["linux"]), texts(&["gpu"]));
        let sets = [("connector", connector.as_slice()), ("stage", stage.as_slice())];
        assert!(agent().missing(sets).is_empty());
        assert_eq!(agent().missing([sets[0]]).len(), 1);
        let nothing: &[String] = &[];
        assert_eq!(agent().missing([sets[0], ("stage", nothing)]).len(), 1);
    }

    #[test]
    fn no_selectors_fit_everybody_and_some_fit_nobody_without_words() {
        let none: [(&str, &[String]); 0] = [];
        let bare = AgentSelectors::default();
        assert!(bare.missing(none).is_empty());
        let step = texts(&["linux"]);
        assert_eq!(bare.missing([("step", step.as_slice())]).len(), 1);
    }

    #[test]
    fn tags_are_split_on_commas() {
        assert_eq!(parse_tags(" a , b,,c , "), ["a", "b", "c"]);
        assert!(parse_tags("").is_empty());
    }

    proptest! {
        #[test]
        fn an_agent_has_its_own_tags(tags: Vec<String>) {
            let agent = AgentSelectors::new("", "", "", &tags);
            prop_assert!(agent.missing([("step", tags.as_slice())]).is_empty());
        }
    }
}

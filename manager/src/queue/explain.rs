//! Why a task waits: which agents there are and what they lack.

use super::index::{AgentState, Index};
use pipeline::machine::SelectorSet;

/// Agents named in an explanation.
const NAMED: usize = 5;

/// Why nobody has taken a task yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// A fitting agent is connected and has room: it will take the task any moment.
    Ready,
    /// All fitting agents are busy.
    Busy {
        /// How many fit.
        agents: usize,
    },
    /// No connected agent fits.
    NoAgent {
        /// One sentence: what is asked for, which agents there are, what they lack.
        message: String,
        /// The nearest agents, nearest first.
        nearest: Vec<Nearest>,
    },
}

impl Explanation {
    /// One sentence for people.
    pub fn sentence(&self) -> String {
        match self {
            Explanation::Ready => "an agent is about to take the task".to_owned(),
            Explanation::Busy { agents } => format!("all {agents} fitting agents are busy"),
            Explanation::NoAgent { message, .. } => message.clone(),
        }
    }
}

/// An agent that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// Its name.
    pub agent: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Selectors it lacks.
    pub missing: Vec<String>,
    /// It does not know the task type.
    pub lacks_type: bool,
    /// The task needs secrets and the agent announced no key to seal them to.
    pub lacks_key: bool,
}

impl Nearest {
    fn of(state: &AgentState, task_type: &str, needs_key: bool, sets: &[SelectorSet]) -> Self {
        let mut missing: Vec<String> = state.missing(sets).into_iter().map(|lack| lack.selector).collect();
        missing.dedup();
        Nearest {
            agent: state.agent.name.clone(),
            connected: state.connected,
            missing,
            lacks_type: !state.knows_type(task_type),
            lacks_key: needs_key && !state.has_key(),
        }
    }

    fn fits(&self) -> bool {
        self.missing.is_empty() && !self.lacks_type && !self.lacks_key
    }

    fn distance(&self) -> usize {
        self.missing.len() + usize::from(self.lacks_type) + usize::from(self.lacks_key)
    }

    fn words(&self, task_type: &str) -> String {
        let mut lacks = Vec::new();
        if !self.connected {
            lacks.push("is not connected".to_owned());
        }
        if !self.missing.is_empty() {
            lacks.push(format!("lacks {}", self.missing.join(", ")));
        }
        if self.lacks_type {
            lacks.push(format!("does not run {task_type}"));
        }
        if self.lacks_key {
            lacks.push("announced no key for secrets".to_owned());
        }
        format!("{} {}", self.agent, lacks.join(" and "))
    }
}

/// Explains why a task of this type, with or without secrets, with these selectors, is not taken.
pub(super) fn explain(index: &Index, task_type: &str, needs_key: bool, sets: &[SelectorSet]) -> Explanation {
    let mut fitting = 0;
    let mut room = false;
    let mut others = Vec::new();
    for state in index.agents.values().filter(|state| !state.agent.gone) {
        let near = Nearest::of(state, task_type, needs_key, sets);
        if near.fits() && state.connected {
            fitting += 1;
            room |= !state.is_busy();
        } else {
            others.push(near);
        }
    }
    if room {
        return Explanation::Ready;
    }
    if fitting > 0 {
        return Explanation::Busy { agents: fitting };
    }
    others
        .sort_by(|a, b| (a.distance(), !a.connected, &a.agent).cmp(&(b.distance(), !b.connected, &b.agent)));
    others.dedup();
    let wanted: Vec<&str> =
        proto::selector::effective(sets.iter().map(|s| (s.origin.as_str(), s.selectors.as_slice())))
            .into_iter()
            .flat_map(|(_, selectors)| selectors.iter().map(String::as_str))
            .collect();
    let what = match wanted.as_slice() {
        [] => "no connected agent can take this task".to_owned(),
        [one] => format!("no connected agent has the selector {one}"),
        many => format!("no connected agent has all the selectors {}", many.join(", ")),
    };
    let there = if others.is_empty() {
        "no agent has registered".to_owned()
    } else {
        let named: Vec<String> = others.iter().take(NAMED).map(|near| near.words(task_type)).collect();
        let more = others.len().saturating_sub(NAMED);
        let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
        format!("{}{tail}", named.join("; "))
    };
    others.truncate(NAMED);
    Explanation::NoAgent { message: format!("{what}: {there}"), nearest: others }
}

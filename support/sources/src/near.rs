//! What a person may have meant.

/// The `limit` names most like `wanted`, best first, each at most a third of its length away, or two letters if it is short.
///
/// **Shape**: names as given; empty when nothing is near. Long names and lists are cut, so that the cost is bounded.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>, limit: usize) -> Vec<&'a str> {
    const MAX_NAMES: usize = 10_000;
    const MAX_CHARS: usize = 200;
    let wanted: Vec<char> = wanted.to_lowercase().chars().take(MAX_CHARS).collect();
    let mut scored: Vec<(usize, &str)> = names
        .into_iter()
        .take(MAX_NAMES)
        .filter_map(|name| {
            let chars: Vec<char> = name.to_lowercase().chars().take(MAX_CHARS).collect();
            let longer = wanted.len().max(chars.len());
            let allowed = (longer / 3).max(2).min(longer.saturating_sub(1));
            let apart = distance(&wanted, &chars);
            // A name that contains the other is near however long the rest is: `release/1.2` for `1.2`.
            let contained = wanted.len() >= 3
                && chars.len() >= 3
                && (chars.windows(wanted.len()).any(|w| w == wanted)
                    || wanted.windows(chars.len()).any(|w| w == chars));
            (apart <= allowed || contained).then_some((apart, name))
        })
        .collect();
    scored.sort();
    scored.into_iter().take(limit).map(|(_, name)| name).collect()
}

/// Levenshtein distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let here = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = here;
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// A phrase for an error text: the nearest names, else some of those that there are.
pub(crate) fn phrase(wanted: &str, names: &[String], kind: &str) -> String {
    if names.is_empty() {
        return format!("it has no {kind} at all");
    }
    let near = nearest(wanted, names.iter().map(String::as_str), 3);
    if near.is_empty() {
        let some: Vec<String> = names.iter().take(5).map(|name| format!("`{name}`")).collect();
        let more = if names.len() > some.len() {
            format!(" and {} more", names.len() - some.len())
        } else {
            String::new()
        };
        format!("there are {}{more}", some.join(", "))
    } else {
        format!("nearest: {}", near.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first_and_strangers_are_left_out() {
        let names = ["main", "maintenance", "develop", "release/1.2"];
        assert_eq!(nearest("mian", names, 3), ["main"]);
        assert_eq!(nearest("1.2", names, 3), ["release/1.2"]);
        assert!(nearest("zzzzzz", names, 3).is_empty());
        assert_eq!(nearest("MAIN", names, 1), ["main"]);
        assert!(nearest("", names, 3).is_empty());
    }

    #[test]
    fn a_phrase_names_what_there_is() {
        assert_eq!(phrase("x", &[], "tag"), "it has no tag at all");
        let many: Vec<String> = (100..107).map(|i| i.to_string()).collect();
        assert_eq!(phrase("zzz", &many, "tag"), "there are `100`, `101`, `102`, `103`, `104` and 2 more");
    }
}

//! Suggestions for names that do not exist.

/// The candidates most like `name`, best first, at most three; none when nothing is near. Case does not matter.
///
/// Linear in the number of candidates; names over 200 characters are compared by their beginning.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    const MOST: usize = 3;
    let wanted = fold(name);
    let limit = (wanted.len() / 3).max(1);
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = fold(candidate);
            if wanted.len().abs_diff(other.len()) > limit {
                return None;
            }
            let distance = distance(&wanted, &other);
            (distance <= limit).then_some((distance, candidate))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(MOST).map(|(_, candidate)| candidate).collect()
}

fn fold(text: &str) -> Vec<char> {
    const LONGEST: usize = 200;
    text.chars().flat_map(char::to_lowercase).take(LONGEST).collect()
}

/// Edits (insert, delete, replace, swap of neighbours) that lead from one to the other.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (at(&last, j) + usize::from(l != r)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && left.get(i - 1) == Some(r) && right.get(j - 1) == Some(l);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_best_first() {
        let candidates = ["pipeline.variables.imageTag", "pipeline.variables.image", "service.name"];
        assert_eq!(nearest("pipeline.variables.imagetga", candidates)[0], "pipeline.variables.imageTag");
        assert_eq!(nearest("sevrice.name", candidates), ["service.name"]);
        assert!(nearest("zzz", candidates).is_empty());
        assert!(nearest("", ["", "a"]).contains(&""));
    }
}

//! Durations as pipeline YAML writes them.

/// Parses `1d 2h 30m`, `90s`, `1m30s`. **Units**: milliseconds. `None` when it is not a duration or its total is zero.
///
/// **Source**: pipeline.md 2.7.
pub fn parse_duration(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let amount: u64 = rest.get(..digits)?.parse().ok()?;
        let after = rest.get(digits..)?;
        let unit = after.chars().next()?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(amount.checked_mul(seconds)?.checked_mul(1_000)?)?;
        rest = after.get(unit.len_utf8()..)?.trim_start();
    }
    (total > 0).then_some(total)
}

/// Writes milliseconds for people.
pub fn show_duration(ms: u64) -> String {
    if ms < 1_000 || !ms.is_multiple_of(1_000) && ms < 60_000 {
        return format!("{ms} ms");
    }
    let mut seconds = ms / 1_000;
    let mut text = String::new();
    for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= size {
            text.push_str(&format!("{}{unit}", seconds / size));
            seconds %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_the_grammar() {
        assert_eq!(parse_duration("10m"), Some(600_000));
        assert_eq!(parse_duration("1d 2h 30m"), Some(95_400_000));
        assert_eq!(parse_duration("1m30s"), Some(90_000));
        for wrong in ["", "10", "m", "10x", "0s", "-1s", "1.5h", "99999999999999999w"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_shown_shortly() {
        assert_eq!(show_duration(90_000), "1m30s");
        assert_eq!(show_duration(250), "250 ms");
        assert_eq!(show_duration(86_400_000), "1d");
    }
}

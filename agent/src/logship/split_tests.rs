use super::*;
use proptest::prelude::*;
use secrecy::SecretString;
use secrets::Masker;

fn masker(values: &[&str]) -> Masker {
    let masker = Masker::new();
    for value in values {
        masker.add(&SecretString::from((*value).to_owned()));
    }
    masker
}

fn run(masker: &Masker, offset: u64, chunks: &[&[u8]]) -> Vec<(String, Option<u64>)> {
    let mut splitter = Splitter::new(masker.stream(), offset);
    let mut lines = Vec::new();
    let mut emit =
        |piece: Piece<'_>| lines.push((String::from_utf8_lossy(piece.text).into_owned(), piece.end));
    for chunk in chunks {
        splitter.push(chunk, &mut emit);
    }
    splitter.finish(&mut emit);
    splitter.finish(&mut emit);
    lines
}

fn texts(lines: &[(String, Option<u64>)]) -> Vec<&str> {
    lines.iter().map(|(text, _)| text.as_str()).collect()
}

#[test]
fn every_kind_of_line_end_ends_a_line_once() {
    let lines = run(&masker(&[]), 10, &[b"a\nb\r\n10%\r20%\r\r\n\nend"]);
    assert_eq!(texts(&lines), ["a", "b", "10%", "20%", "", "end"]);
    let ends: Vec<_> = lines.iter().map(|(_, end)| end.unwrap()).collect();
    assert_eq!(ends, [12, 15, 19, 25, 26, 29]);
}

#[test]
fn a_secret_cut_by_chunks_is_masked_and_offsets_stay_those_of_the_source() {
    let lines = run(&masker(&["sesame"]), 0, &[b"x ses", b"ame y\nplain\nses", b"t\n"]);
    assert_eq!(texts(&lines), ["x ************** y", "plain", "sest"]);
    assert_eq!(lines.iter().map(|l| l.1).collect::<Vec<_>>(), [Some(11), Some(17), Some(22)]);
}

#[test]
fn a_secret_over_two_lines_leaves_the_next_known_offset_right() {
    let lines = run(&masker(&["first\nsecond"]), 0, &[b"a first\nsecond b\nlast\n"]);
    assert_eq!(texts(&lines), ["a ************** b", "last"]);
    assert_eq!(lines.last().unwrap().1, Some(22));
}

#[test]
fn a_line_without_end_is_cut_between_characters() {
    let text = "ä".repeat(MAX_LINE_BYTES);
    let mut splitter = Splitter::new(masker(&[]).stream(), 0);
    let mut lines = Vec::new();
    let mut emit = |piece: Piece<'_>| {
        lines.push((String::from_utf8(piece.text.to_vec()).unwrap(), piece.end, piece.continues));
    };
    for chunk in text.as_bytes().chunks(1001) {
        splitter.push(chunk, &mut emit);
    }
    splitter.finish(&mut emit);
    assert_eq!(lines.iter().map(|l| l.0.as_str()).collect::<String>(), text);
    assert!(lines.iter().all(|l| l.0.len() <= MAX_LINE_BYTES));
    let mut end = 0;
    for line in &lines {
        end += line.0.len() as u64;
        assert_eq!(line.1, Some(end));
    }
    assert!(!lines.last().unwrap().2);
}

proptest! {
    #[test]
    fn lines_do_not_depend_on_chunks(
        parts in proptest::collection::vec(prop_oneof![
            Just("\n"), Just("\r"), Just("\r\n"), Just("secret-one"), Just("two\nlines"), Just("two"), Just("text"), Just("ö")
        ], 0..40),
        cuts in proptest::collection::vec(1usize..9, 1..60),
    ) {
        let text: String = parts.concat();
        let masker = masker(&["secret-one", "two\nlines"]);
        let whole = run(&masker, 0, &[text.as_bytes()]);
        let mut chunks = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break; }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            chunks.push(head);
            rest = tail;
        }
        let cut = run(&masker, 0, &chunks);
        prop_assert_eq!(texts(&whole), texts(&cut));
        // Where both know an offset, it is the same one.
        for (a, b) in whole.iter().zip(&cut) {
            if let (Some(a), Some(b)) = (a.1, b.1) { prop_assert_eq!(a, b); }
        }
        if !text.is_empty() {
            prop_assert_eq!(whole.last().and_then(|l| l.1), Some(text.len() as u64));
        }
    }

    #[test]
    fn going_on_at_a_known_offset_gives_the_rest(text in "[a-c\r\n]{0,60}", pick in 0usize..60) {
        let masker = masker(&[]);
        let whole = run(&masker, 0, &[text.as_bytes()]);
        prop_assume!(!whole.is_empty());
        let pick = pick % whole.len();
        let at = whole[pick].1.unwrap();
        let rest = run(&masker, at, &[&text.as_bytes()[at as usize..]]);
        prop_assert_eq!(&whole[pick + 1..], &rest[..]);
    }
}

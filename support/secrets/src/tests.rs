use crate::{MASK, Masker, TaskSecrets, variants};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use executor_api::{SecretError, SecretSource, SecretText};
use proptest::prelude::*;
use proto::text::{SecretRef, Text, placeholder};
use secrecy::ExposeSecret;
use serde_json::json;
use std::collections::BTreeMap;

fn masker(values: &[&str]) -> Masker {
    let masker = Masker::new();
    for value in values {
        masker.add(&SecretText::from(*value));
    }
    masker
}

fn in_chunks(masker: &Masker, text: &[u8], size: usize) -> Vec<u8> {
    let mut stream = masker.stream();
    let mut out = Vec::new();
    for chunk in text.chunks(size.max(1)) {
        stream.push(chunk, &mut out);
    }
    stream.finish(&mut out);
    out
}

#[test]
fn a_whole_value_becomes_fourteen_asterisks() {
    assert_eq!(masker(&["s3cret"]).mask_str("pw=s3cret;"), format!("pw={MASK};"));
    assert_eq!(MASK.len(), 14);
}

#[test]
fn the_longest_wins_and_overlaps_leave_no_part() {
    assert_eq!(masker(&["abc", "abcdef"]).mask_str("xabcdefy"), format!("x{MASK}y"));
    assert_eq!(masker(&["abcd", "cdef"]).mask_str("xabcdefy"), format!("x{MASK}y"));
    assert_eq!(masker(&["abcd", "cdef", "efgh"]).mask_str("abcdefgh"), MASK);
    // Side by side is twice.
    assert_eq!(masker(&["abc"]).mask_str("abcabc"), format!("{MASK}{MASK}"));
    // An early find inside a longer one that is not completed.
    assert_eq!(masker(&["bcd", "abcdefgh"]).mask_str("abcdefgx"), format!("a{MASK}efgx"));
}

#[test]
fn values_under_three_characters_are_left_alone() {
    assert_eq!(masker(&["ab", "ü1", " x \n"]).mask_str("ab ü1 x"), "ab ü1 x");
    assert!(masker(&["ab"]).is_empty());
}

#[test]
fn lines_of_a_multi_line_value_are_masked_one_by_one() {
    let masker = masker(&["-----BEGIN-----\r\n  line one  \nx\nline two\n"]);
    assert_eq!(masker.mask_str("got line one and line two and x"), format!("got {MASK} and {MASK} and x"));
    assert_eq!(masker.mask_str("-----BEGIN-----"), MASK);
}

#[test]
fn encoded_multi_line_values_keep_no_line() {
    let value = "first/line+1\nsecond \"line\"\nthird='line'\n";
    let masker = masker(&[value]);
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(masker.mask_str(&json), format!("\"{MASK}\\n{MASK}\\n{MASK}\\n\""));
    let url = "first%2Fline%2B1%0Asecond%20%22line%22%0Athird%3D%27line%27%0A";
    assert_eq!(masker.mask_str(url), format!("{MASK}%0A{MASK}%0A{MASK}%0A"));
}

#[test]
fn encodings_are_masked_wherever_the_value_stands() {
    let value = "p\"a/ss wörd<1>'";
    let masker = masker(&[value]);
    for before in ["", "u", "us", "use:"] {
        for after in ["", "!", "!!"] {
            let text = format!("{before}{value}{after}");
            for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
                let masked = masker.mask_str(&encoded).into_owned();
                assert!(masked.contains(MASK), "{encoded}");
                // At most the two characters at each end that also depend on the neighbours remain.
                let rest = masked.replace(MASK, "");
                assert!(rest.len() <= before.len() * 2 + after.len() * 2 + 8, "{encoded} -> {masked}");
            }
        }
    }
    assert_eq!(masker.mask_str(&serde_json::to_string(value).unwrap()), format!("\"{MASK}\""));
    assert_eq!(masker.mask_str("p%22a%2Fss%20w%C3%B6rd%3C1%3E%27"), MASK);
    assert_eq!(masker.mask_str("p%22a%2fss+w%c3%b6rd%3c1%3e%27"), MASK);
    assert_eq!(masker.mask_str("pa/ss wörd<1>'"), MASK);
    assert_eq!(masker.mask_str("p\"a/ss wörd<1>"), MASK);
    assert_eq!(masker.mask_str(r#"p\"a/ss w\u00f6rd<1>'"#), MASK);
    assert_eq!(masker.mask_str(r#"p\"a/ss wörd\u003c1\u003e'"#), MASK);
    assert_eq!(masker.mask_str(r#"p"a/ss wörd<1>'\''"#), MASK);
}

#[test]
fn wrapped_base64_of_a_long_value_is_masked_line_by_line() {
    let value = "0123456789abcdefghijklmnopqrstuvwxyz".repeat(6);
    let masker = masker(&[&value]);
    let encoded = STANDARD.encode(&value);
    for columns in [64, 76] {
        for line in encoded.as_bytes().chunks(columns) {
            let masked = masker.mask_bytes(line).into_owned();
            let rest = String::from_utf8(masked).unwrap().replace(MASK, "");
            assert!(rest.trim_end_matches('=').is_empty(), "{columns}: {rest}");
        }
    }
}

#[test]
fn a_stream_holds_back_only_what_may_begin_a_secret() {
    let masker = masker(&["hunter2hunter2"]);
    let mut stream = masker.stream();
    let mut out = Vec::new();
    stream.push(b"hello\n", &mut out);
    assert_eq!(out, b"hello\n");
    assert_eq!(stream.held(), 0);
    stream.push(b"pw hunter2hun", &mut out);
    assert_eq!(out, b"hello\npw ");
    assert_eq!(stream.held(), 10);
    stream.push(b"ter2 ok hunt", &mut out);
    assert_eq!(out, format!("hello\npw {MASK} ok ").as_bytes());
    stream.finish(&mut out);
    assert_eq!(out, format!("hello\npw {MASK} ok hunt").as_bytes());
    assert_eq!(stream.held(), 0);
}

#[test]
fn a_run_of_overlapping_finds_is_held_back_within_the_bound() {
    let masker = masker(&["aaaa"]);
    let mut stream = masker.stream();
    let mut out = Vec::new();
    for _ in 0..1000 {
        stream.push(b"aaa", &mut out);
        assert!(stream.held() < 4);
    }
    stream.push(b"b", &mut out);
    stream.finish(&mut out);
    assert_eq!(out, format!("{MASK}b").as_bytes());
}

#[test]
fn a_secret_added_on_the_way_applies_to_what_is_held_back() {
    let masker = masker(&["xyz-first"]);
    let mut stream = masker.stream();
    let mut out = Vec::new();
    stream.push(b"see xyz-", &mut out);
    assert_eq!(out, b"see ");
    masker.add(&SecretText::from("yz-second"));
    stream.push(b"second xyz-first", &mut out);
    stream.finish(&mut out);
    assert_eq!(out, format!("see x{MASK} {MASK}").as_bytes());
}

#[test]
fn json_is_masked_in_keys_strings_and_numbers() {
    let masker = masker(&["token-1", "4711"]);
    assert_eq!(
        masker.mask_json(&json!({"token-1": ["a token-1", 4711, 12, true, null]})),
        json!({MASK: [format!("a {MASK}"), MASK, 12, true, null]})
    );
}

#[test]
fn a_fork_has_the_base_and_keeps_its_own() {
    let base = masker(&["base-secret"]);
    let fork = base.fork();
    fork.add(&SecretText::from("task-secret"));
    assert_eq!(fork.mask_str("base-secret task-secret"), format!("{MASK} {MASK}"));
    assert_eq!(base.mask_str("base-secret task-secret"), format!("{MASK} task-secret"));
}

#[test]
fn large_values_are_found_beside_small_ones_and_share_their_automata() {
    let key =
        |salt: u32| (0..17).map(|i| format!("{:064}\n", u64::from(i + salt) * 7_919_777)).collect::<String>();
    let (one, two, three) = (key(1), key(100), key(1000));
    let base = masker(&["base-secret"]);
    let tasks: Vec<Masker> = (0..3)
        .map(|i| {
            let task = base.fork();
            for value in [&one, &two, &three, &format!("token-of-task-{i}")] {
                task.add(&SecretText::from(value.as_str()));
            }
            task
        })
        .collect();
    for (i, task) in tasks.iter().enumerate() {
        let text =
            format!("a token-of-task-{i} b {} c {} d base-secret e", two.trim(), STANDARD.encode(&three));
        for size in [1, 7, 4096] {
            let masked = String::from_utf8(in_chunks(task, text.as_bytes(), size)).unwrap();
            assert_eq!(
                masked.replace('=', ""),
                format!("a {MASK} b {MASK} c {MASK} d {MASK} e"),
                "in chunks of {size}"
            );
        }
        let line = one.lines().nth(3).unwrap();
        assert_eq!(task.mask_str(line), MASK);
    }
    let built: Vec<_> = tasks.iter().map(|task| task.newer_than(0).unwrap()).collect();
    assert_eq!(built[0].automata.len(), 3);
    for large in 0..2 {
        assert!(std::sync::Arc::ptr_eq(&built[0].automata[large], &built[1].automata[large]));
    }
    assert!(!std::sync::Arc::ptr_eq(&built[0].automata[2], &built[1].automata[2]));
}

#[test]
fn finds_of_different_automata_are_joined_where_they_overlap() {
    let large: String = (0..210).map(|i| format!("{i:05}")).collect();
    let masker = masker(&[&large, "00209after", "before00000"]);
    let text = format!("x before{large}after y");
    for size in [1, 3, 1000] {
        let masked = String::from_utf8(in_chunks(&masker, text.as_bytes(), size)).unwrap();
        assert_eq!(masked, format!("x {MASK} y"), "in chunks of {size}");
    }
}

fn task(token: i64) -> TaskSecrets {
    let values = BTreeMap::from([(SecretRef("org.db".into()), SecretText::from("pass-word"))]);
    TaskSecrets::new(values, token, Masker::new())
}

#[test]
fn placeholders_are_replaced_and_foreign_tokens_refused() {
    let secrets = task(5);
    let name = SecretRef("org.db".into());
    let text = Text(format!("u:{}@h", placeholder(&name, 5)));
    assert_eq!(secrets.reveal(&text).unwrap().expose_secret(), "u:pass-word@h");
    let forged = secrets.reveal(&Text(placeholder(&name, 6))).unwrap_err();
    assert_eq!(forged, SecretError::Forged("org.db".into()));
    let missing = secrets.reveal(&Text(placeholder(&SecretRef("other".into()), 5))).unwrap_err();
    assert_eq!(missing, SecretError::Missing("other".into()));
    assert_eq!(
        secrets.reveal(&Text("${ngSecretManager.obtain(".into())).unwrap().expose_secret(),
        "${ngSecretManager.obtain("
    );
}

#[test]
fn values_are_masked_before_anybody_asked_and_debug_shows_none() {
    let secrets = task(5);
    assert_eq!(secrets.masker().mask_str("pass-word"), MASK);
    secrets.mask(&SecretText::from("late-token"));
    assert_eq!(secrets.masker().mask_str("late-token"), MASK);
    assert!(
        !format!("{secrets:?} {:?} {:?}", secrets.masker(), secrets.masker().stream()).contains("pass-word")
    );
}

#[test]
fn a_value_that_cannot_be_opened_is_told_apart_from_a_missing_one() {
    let sealed = [(SecretRef("good".into()), "ok-value"), (SecretRef("bad".into()), "")];
    let secrets = TaskSecrets::open(sealed, 1, Masker::new(), |_, sealed| {
        (!sealed.is_empty()).then(|| SecretText::from(sealed))
    });
    assert_eq!(secrets.get(&SecretRef("good".into())).unwrap().expose_secret(), "ok-value");
    assert_eq!(secrets.get(&SecretRef("bad".into())).unwrap_err(), SecretError::Sealed("bad".into()));
    assert_eq!(secrets.get(&SecretRef("none".into())).unwrap_err(), SecretError::Missing("none".into()));
}

#[test]
fn sealed_values_open_with_the_right_key_under_their_own_name_only() {
    let keys = proto::seal::SealKeyPair::generate().unwrap();
    let other = proto::seal::SealKeyPair::generate().unwrap();
    let sealed = |name: &str| proto::seal::seal(keys.public(), name, b"sealed-value").unwrap();
    let all = [("a".to_owned(), sealed("a")), ("b".to_owned(), sealed("a"))];
    let secrets = TaskSecrets::open_sealed(all.clone(), &keys, 1, Masker::new());
    assert_eq!(secrets.get(&SecretRef("a".into())).unwrap().expose_secret(), "sealed-value");
    assert_eq!(secrets.get(&SecretRef("b".into())).unwrap_err(), SecretError::Sealed("b".into()));
    assert_eq!(secrets.masker().mask_str("sealed-value"), MASK);
    let foreign = TaskSecrets::open_sealed(all, &other, 1, Masker::new());
    assert_eq!(foreign.get(&SecretRef("a".into())).unwrap_err(), SecretError::Sealed("a".into()));
}

/// Processor time of this thread: other work on the machine does not count.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// A PEM-sized secret and lines of ordinary text. Printed, not judged: debug builds say nothing about speed.
#[test]
#[ignore = "a measurement: cargo test --release -p secrets -- --ignored --nocapture throughput"]
fn throughput() {
    // Base64 of noise, as a key looks.
    let noise: Vec<u8> = (0..1900u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let key: String = STANDARD
        .encode(noise)
        .as_bytes()
        .chunks(64)
        .map(|line| format!("{}\n", String::from_utf8_lossy(line)))
        .collect();
    let small = masker(&["s3cret-value", "another-secret/with+chars", "tok_0123456789abcdef"]);
    let large = masker(&["s3cret-value", &key]);
    let line =
        b"2026-11-21T10:00:00Z INFO worker 17 handled request /api/v1/items?page=3 in 12 ms status=200\n";
    for (name, masker) in [("3 short secrets", small), ("with a private key", large)] {
        for (kind, chunk) in [("lines", line.to_vec()), ("64 KiB chunks", line.repeat(700))] {
            let mut stream = masker.stream();
            let mut out = Vec::new();
            stream.push(b"warm up\n", &mut out);
            let total = 256 << 20;
            let begin = cpu_seconds();
            let mut done = 0;
            while done < total {
                out.clear();
                stream.push(&chunk, &mut out);
                done += chunk.len();
            }
            let mib = done as f64 / (cpu_seconds() - begin) / 1e6;
            println!("{name}, {kind}: {mib:.0} MB/s");
        }
        let begin = std::time::Instant::now();
        let fork = masker.fork();
        let _ = fork.mask_str("x");
        println!("{name}: built in {:?}", begin.elapsed());
    }
}

/// Values without asterisks: one made of them is found in the mask itself.
fn secret() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]{3,6}",
        "[ab]{1020,1030}",
        "[ab\n]{1020,1030}",
        "[a-c\"'/+ <%]{3,12}",
        "[a-zäöü]{3,8}",
        "[a-z]{3,6}\n[a-z]{3,6}"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_spelling_of_a_secret_survives_any_chunking(
        secrets in prop::collection::vec(secret(), 1..4),
        noise in prop::collection::vec("[ab xyz\n]{0,6}", 1..8),
        picks in prop::collection::vec((0usize..64, 0usize..64), 0..8),
        size in 1usize..20,
    ) {
        let masker = masker(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        let spellings: Vec<String> = secrets.iter().flat_map(|s| variants::of(s)).collect();
        let mut text = String::new();
        for (i, part) in noise.iter().enumerate() {
            text.push_str(part);
            if let (Some((pick, _)), false) = (picks.get(i), spellings.is_empty()) {
                text.push_str(&spellings[pick % spellings.len()]);
            }
        }
        let whole = masker.mask_str(&text).into_owned();
        for spelling in &spellings {
            prop_assert!(!whole.contains(spelling.as_str()), "{spelling:?} in {whole:?} from {text:?}");
        }
        prop_assert_eq!(in_chunks(&masker, text.as_bytes(), size), whole.as_bytes());
    }

    #[test]
    fn text_without_secrets_is_unchanged(
        secrets in prop::collection::vec("[0-9]{3,10}", 0..4),
        bytes in prop::collection::vec(prop_oneof![Just(b' '), Just(b'~'), Just(0u8), Just(0xffu8), Just(b'!')], 0..200),
        size in 1usize..20,
    ) {
        let masker = masker(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(in_chunks(&masker, &bytes, size), bytes);
    }

    #[test]
    fn the_bound_on_bytes_held_back_stands(
        secrets in prop::collection::vec("[ab]{3,8}", 1..4),
        text in "[abc]{0,80}",
        size in 1usize..5,
    ) {
        let masker = masker(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        let longest = secrets.iter().flat_map(|s| variants::of(s)).map(|s| s.len()).max().unwrap_or(0);
        let mut stream = masker.stream();
        let mut out = Vec::new();
        for chunk in text.as_bytes().chunks(size) {
            stream.push(chunk, &mut out);
            prop_assert!(stream.held() < longest);
        }
    }
}

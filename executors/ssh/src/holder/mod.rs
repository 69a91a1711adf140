//! The POSIX-sh holder on the host: building its programs and reading its answers.
//!
//! ```text
//! boot ──mkdir leaves──► holder (a fork) ──► scripts, one after another (own sessions, markers in the environment)
//!   │                      │  pipes ──► spoolers ──► o.1 o.2 … e.1 … (segments)
//!   └─ follow ◄────────────┴───────────────────────────────────────┘   exit, pid, go: files written whole
//! ```
//! Every call sends the program it needs over stdin; nothing is installed, and only the functions it uses are sent
//! (`base.sh` with `ask.sh`, `follow.sh`, or all that starting takes). What costs a host is the processes it has to start, so
//! there are few, and a test counts them: script units that follow each other are started together, and one holder runs them
//! in their order, with one pair of spools, until one fails. After each unit the holder puts a mark into both streams that
//! only the agent and it know. It carries the exit code and which unit the rest of the stream belongs to: so a unit is
//! complete when the mark has passed, also when a background process keeps the streams open. Such a process is the end of
//! going on together, as is much output. Each unit has a folder of its own beside: a later agent finds it as if it had been
//! started alone, and attaches to its part of the stream.

mod wire;

pub(crate) use wire::{Ended, Found, Greeting, StreamEnd, answer};

use proto::task::Shell;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;
use std::time::Duration;

const BASE: &str = include_str!("base.sh");
const ASK: &str = include_str!("ask.sh");
const FOLLOW: &str = include_str!("follow.sh");
const BOOT: &str = include_str!("boot.sh");
const HOLD: &str = include_str!("hold.sh");

/// One read of the spooler; a pipe never gives more at once.
const READ: u64 = 65_536;

/// Reads in a segment at most. Units that share a spool have smaller ones: while the agent waits for the end of one
/// stream, it holds what the other brings of the next unit, and that is never more than a segment.
const SEGMENT_READS: u64 = 256;
const SHARED_SEGMENT_READS: u64 = 16;

/// The smallest limit of one stream's spool.
const MIN_LIMIT: u64 = 1 << 20;

/// What a unit starts with.
pub(crate) struct Script<'a> {
    pub(crate) shell: Shell,
    pub(crate) text: &'a SecretString,
    /// Environment; names are valid shell names.
    pub(crate) env: &'a [(String, SecretString)],
    pub(crate) directory: Option<&'a SecretString>,
    /// Shell variables to read back.
    pub(crate) variables: &'a [String],
}

/// Folder name of a unit on the host: the same for every attempt of the agent to run it.
pub(crate) fn leaf_key(task: &str, node: &str, unit: &str) -> String {
    let mut hash = Sha256::new();
    for part in [task, node, unit] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    format!("u-{}", hex::encode(digest.get(..16).unwrap_or_default()))
}

/// 128 random bits in hex.
pub(crate) fn random_word() -> String {
    let mut bytes = [0u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// `text` as one word of the shell.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for (n, part) in text.split('\'').enumerate() {
        if n > 0 {
            quoted.push_str("'\\''");
        }
        quoted.push_str(part);
    }
    quoted.push('\'');
    quoted
}

/// A path as one word of the shell in which `$NAME`, `${NAME}` and a leading `~` mean what they mean on the host, and
/// nothing else does: no command is ever run.
pub(crate) fn path_word(path: &str) -> String {
    let mut word = String::new();
    let mut rest = path;
    if rest == "~" || rest.starts_with("~/") {
        word.push_str("\"$HOME\"");
        rest = rest.get(1..).unwrap_or_default();
    }
    let mut literal = String::new();
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        literal.push_str(before);
        let tail = after.get(1..).unwrap_or_default();
        let (name, end) = match tail.strip_prefix('{') {
            Some(inner) => match inner.find('}') {
                Some(close) => (inner.get(..close).unwrap_or_default(), close + 2),
                None => ("", 0),
            },
            None => {
                let length =
                    tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
                (tail.get(..length).unwrap_or_default(), length)
            }
        };
        if executor_api::is_variable_name(name) {
            if !literal.is_empty() {
                word.push_str(&quote(&literal));
                literal.clear();
            }
            word.push_str(&format!("\"${{{name}}}\""));
            rest = tail.get(end..).unwrap_or_default();
        } else {
            literal.push('$');
            rest = tail;
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() || word.is_empty() {
        word.push_str(&quote(&literal));
    }
    word
}

/// The functions of each kind of program without their comments: every byte is sent to and parsed on every host.
static ASKING: LazyLock<String> = LazyLock::new(|| bare(&[BASE, ASK]));
static SAYING: LazyLock<String> = LazyLock::new(|| bare(&[BASE]));
static FOLLOWING: LazyLock<String> = LazyLock::new(|| bare(&[BASE, FOLLOW]));
static STARTING: LazyLock<String> = LazyLock::new(|| bare(&[BASE, FOLLOW, BOOT, HOLD]));

/// The texts without lines that are only a comment, and without indentation.
fn bare(texts: &[&str]) -> String {
    let lines = texts.iter().flat_map(|t| t.lines()).map(str::trim_start);
    lines.filter(|l| !l.is_empty() && !l.starts_with('#')).flat_map(|l| [l, "\n"]).collect()
}

/// A whole program: nothing of it runs unless all of it has arrived.
fn program(functions: &str, nonce: &str, head: &str, call: &str) -> String {
    format!("{{\nNONCE={nonce} ME= B= {head}\n{functions}{call}\n}}\n")
}

/// Starts units, or attaches to the first if it was started before, and follows both outputs from the offsets, which are
/// the first unit's. All units together keep to `spool_limit` and an eighth of it.
pub(crate) fn boot(nonce: &str, units: &[(&str, Script<'_>)], spool_limit: u64, from: (u64, u64)) -> String {
    let (token, marker) = (random_word(), random_word());
    // Each stream has half of the limit, and a segment an eighth of that, so that acknowledging frees space early.
    let limit = (spool_limit / 2).max(MIN_LIMIT);
    let most = if units.len() > 1 { SHARED_SEGMENT_READS } else { SEGMENT_READS };
    let count = (limit / 8 / READ).clamp(1, most);
    let mut call = format!("boot {} {}", from.0, from.1);
    for (key, script) in units {
        let name = if script.shell == Shell::PowerShell { "script.ps1" } else { "script" };
        for word in [*key, &quote(&start(script, name)), name, &quote(script.text.expose_secret())] {
            call.push(' ');
            call.push_str(word);
        }
        call.push(' ');
        call.push_str(&quote(&main(script)));
    }
    let head = format!(
        "LOGIN=$PWD TOKEN={token} MARKER={marker} MASK= mine= LIMIT={} COUNT={count}",
        limit - count * READ
    );
    program(&STARTING, nonce, &head, &call)
}

/// The text that sets up the environment and becomes the interpreter, in a process that the holder has forked. `$1` is the
/// unit's folder, `$2` the login directory, `$MASK` the login's umask.
fn start(script: &Script<'_>, name: &str) -> String {
    let mut text = String::from("delegate_dir=$1 delegate_mask=$MASK\ncd \"$2\"\n");
    for (name, value) in script.env {
        text.push_str(&format!("{name}={}\nexport {name}\n", quote(value.expose_secret())));
    }
    if let Some(directory) = script.directory {
        let word = path_word(directory.expose_secret());
        text.push_str(&format!(
            "cd -- {word} || {{ printf 'directory\\n' > \"$delegate_dir/fault\"; exit 1; }}\n"
        ));
    }
    let file = if script.variables.is_empty() { name } else { "main" };
    let (probe, run) = match script.shell {
        Shell::Bash => ("bash", format!("apart bash \"$delegate_dir/{file}\"")),
        Shell::Sh => ("sh", format!("apart sh \"$delegate_dir/{file}\"")),
        Shell::PowerShell => {
            ("pwsh", format!("apart pwsh -NoProfile -NonInteractive -File \"$delegate_dir/{file}\""))
        }
        Shell::Python => ("python3", format!("apart python3 \"$delegate_dir/{file}\"")),
    };
    text.push_str(&format!(
        "command -v {probe} > /dev/null 2>&1 || {{ printf 'interpreter\\n' > \"$delegate_dir/fault\"; exit 127; }}\n\
         umask \"$delegate_mask\"\n{run}\n"
    ));
    text
}

/// What reads the variables back: around the script, as an EXIT trap, so that it survives `exit`.
fn main(script: &Script<'_>) -> String {
    if script.variables.is_empty() {
        return String::new();
    }
    match script.shell {
        Shell::Bash | Shell::Sh => {
            let mut text = String::from("delegate_vars() {\n  {\n");
            for name in script.variables {
                text.push_str(&format!(
                    "    [ -z \"${{{name}+x}}\" ] || printf '{name}\\0%s\\0' \"${name}\"\n"
                ));
            }
            text.push_str(
                "  } > \"${0%/*}/vars\"\n}\n\
                 trap 'delegate_code=$?; trap - EXIT; delegate_vars; exit \"$delegate_code\"' EXIT\n\
                 . \"${0%/*}/script\"\n",
            );
            text
        }
        Shell::Python => {
            let names: Vec<String> = script.variables.iter().map(|n| format!("'{n}'")).collect();
            format!(
                "import os\nd = os.path.dirname(os.path.abspath(__file__))\np = os.path.join(d, 'script')\n\
                 g = {{'__name__': '__main__', '__file__': p}}\n\
                 try:\n    with open(p) as f:\n        t = f.read()\n    exec(compile(t, p, 'exec'), g)\n\
                 finally:\n    with open(os.path.join(d, 'vars'), 'wb') as f:\n        for n in [{}]:\n            \
                 v = g.get(n, os.environ.get(n))\n            if v is not None:\n                \
                 f.write(n.encode() + b'\\0' + str(v).encode() + b'\\0')\n",
                names.join(", ")
            )
        }
        Shell::PowerShell => String::new(),
    }
}

/// Attaches to a started unit.
pub(crate) fn attach(nonce: &str, key: &str, from: (u64, u64)) -> String {
    program(&FOLLOWING, nonce, "mine=", &format!("attach {key} {} {}", from.0, from.1))
}

/// Asks how a unit stands.
pub(crate) fn look(nonce: &str, key: &str) -> String {
    program(&ASKING, nonce, "", &format!("look {key}"))
}

/// Tells that everything of the unit before these offsets is safe; `base` is where its part of the spool begins.
pub(crate) fn ack(nonce: &str, key: &str, base: (u64, u64), upto: (u64, u64)) -> String {
    let (out, err) = (base.0 + upto.0, base.1 + upto.1);
    program(&ASKING, nonce, "", &format!("ack {key} {} {} {out} {err}", base.0, base.1))
}

/// Ends a unit's processes with `signal`; the later units that may have been started with it never begin, or are ended.
pub(crate) fn finish(nonce: &str, keys: &[String], signal: &str) -> String {
    program(&ASKING, nonce, "", &format!("finish {signal} {}", keys.join(" ")))
}

/// Sees to it that units that have not begun never do.
pub(crate) fn bar(nonce: &str, keys: &[String]) -> String {
    program(&ASKING, nonce, "", &format!("bar {}; say ok", keys.join(" ")))
}

/// How long after the last thing that came a shell that follows is told to look again, by a line. A look that finds
/// something starts two programs on the host, so the first comes soon, for the person who waits, and those after it rarely
/// unless much is coming.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pause: Duration,
    /// Bytes that came since the last line.
    came: usize,
}

impl Pace {
    const SOON: Duration = Duration::from_millis(200);
    const RARELY: Duration = Duration::from_millis(800);
    /// More than this between two lines is much.
    const MUCH: usize = 16 << 10;

    pub(crate) fn new() -> Self {
        Pace { pause: Self::SOON, came: 0 }
    }

    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }

    /// Something came.
    pub(crate) fn came(&mut self, bytes: usize) {
        self.came = self.came.saturating_add(bytes);
        if self.came > Self::MUCH {
            self.pause = Self::SOON;
        }
    }

    /// The line is sent.
    pub(crate) fn looked(&mut self) {
        self.came = 0;
        self.pause = (self.pause * 2).min(Self::RARELY);
    }
}

/// The last wish to the shell that has followed units to their end: one line, answered like [`sweep`].
pub(crate) fn last_sweep(keys: &[String]) -> String {
    format!("sweep {}\n", keys.join(" "))
}

/// Reads the variables of units.
pub(crate) fn fetch(nonce: &str, keys: &[String]) -> String {
    program(&ASKING, nonce, "", &format!("fetch {}", keys.join(" ")))
}

/// Removes the folders of units.
pub(crate) fn sweep(nonce: &str, keys: &[String]) -> String {
    program(&ASKING, nonce, "mine=", &format!("sweep {}", keys.join(" ")))
}

/// Resolves a path on the host, and says whether it is a directory.
pub(crate) fn expand(nonce: &str, path: &str) -> String {
    let word = path_word(path);
    program(
        &SAYING,
        nonce,
        "",
        &format!("p={word}\nif [ -d \"$p\" ]; then say dir \"$p\"; else say file \"$p\"; fi"),
    )
}

/// SHA-256 of a file on the host, and `mv -f`, where SFTP cannot do it.
pub(crate) fn checksum(nonce: &str, path: &str) -> String {
    let call = format!(
        "if command -v sha256sum > /dev/null 2>&1; then h=$(sha256sum < {p} 2>/dev/null); say sum \"${{h%% *}}\"; \
         else say none; fi",
        p = quote(path)
    );
    program(&SAYING, nonce, "", &call)
}

/// Renames a file over another.
pub(crate) fn replace(nonce: &str, from: &str, to: &str) -> String {
    let call = format!(
        "if why=$(mv -f -- {} {} 2>&1); then say ok; else say failed \"$why\"; fi",
        quote(from),
        quote(to)
    );
    program(&SAYING, nonce, "", &call)
}

/// Removes files.
pub(crate) fn remove(nonce: &str, paths: &[String]) -> String {
    let words: Vec<String> = paths.iter().map(|p| quote(p)).collect();
    program(&SAYING, nonce, "", &format!("rm -f -- {} 2>/dev/null; say ok", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_left() {
        assert_eq!(quote("a'b$(x)"), r"'a'\''b$(x)'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn a_path_expands_names_and_nothing_else() {
        assert_eq!(path_word("/opt/app"), "'/opt/app'");
        assert_eq!(path_word("$HOME/a b"), "\"${HOME}\"'/a b'");
        assert_eq!(path_word("${X}/$(id)`id`"), "\"${X}\"'/$(id)`id`'");
        assert_eq!(path_word("~/x"), "\"$HOME\"'/x'");
        assert_eq!(path_word(""), "''");
        assert_eq!(path_word("a$"), "'a$'");
    }

    #[test]
    fn looks_become_rare_unless_much_comes() {
        let mut pace = Pace::new();
        let mut next = |bytes: usize| {
            let pause = pace.pause();
            pace.looked();
            pace.came(bytes);
            pause.as_millis()
        };
        assert_eq!(
            [next(40), next(40), next(40), next(17_000), next(0), next(0)],
            [200, 400, 800, 800, 200, 400]
        );
    }

    #[test]
    fn every_program_brings_the_functions_that_it_calls() {
        // A name that is followed by arguments and defined nowhere in the program would be looked for as a program.
        let all: Vec<String> =
            [BASE, ASK, FOLLOW, BOOT, HOLD].iter().flat_map(|t| t.lines()).filter_map(defined).collect();
        let text = SecretString::from("true");
        let script = Script { shell: Shell::Sh, text: &text, env: &[], directory: None, variables: &[] };
        let programs = [
            boot("n", &[("u-1", script)], 1 << 20, (0, 0)),
            attach("n", "u-1", (0, 0)),
            look("n", "u-1"),
            ack("n", "u-1", (0, 0), (0, 0)),
            finish("n", &["u-1".into()], "TERM"),
            bar("n", &["u-1".into()]),
            fetch("n", &["u-1".into()]),
            sweep("n", &["u-1".into()]),
            expand("n", "/x"),
            checksum("n", "/x"),
            replace("n", "/x", "/y"),
            remove("n", &["/x".into()]),
        ];
        for program in programs {
            let has: Vec<String> = program.lines().filter_map(defined).collect();
            for name in all.iter().filter(|name| !has.contains(name)) {
                let called = program.lines().any(|line| {
                    line.split(|c: char| !c.is_ascii_alphanumeric() && !"_-'=./$\"".contains(c))
                        .any(|word| word == name)
                });
                assert!(!called, "{name} is called but not sent:\n{program}");
            }
        }
    }

    /// The name of the function whose definition begins in this line.
    fn defined(line: &str) -> Option<String> {
        line.split_once("() {")
            .map(|(name, _)| name.to_owned())
            .filter(|name| executor_api::is_variable_name(name))
    }

    /// What a look at the unit `u-1` of this home says when `alive` is as given.
    fn looked(home: &std::path::Path, alive: &str) -> String {
        let program = look("n", "u-1").replace("\nlook u-1\n", &format!("\n{alive}\nlook u-1\n"));
        let done =
            std::process::Command::new("sh").arg("-c").arg(program).env("HOME", home).output().unwrap();
        String::from_utf8(done.stdout).unwrap().trim_start_matches("\u{1}n ").trim_end().to_owned()
    }

    #[test]
    fn a_holder_that_begins_while_it_is_looked_for_has_not_vanished() {
        let home = tempfile::tempdir().unwrap();
        let unit = home.path().join(".delegate/u-1");
        std::fs::create_dir_all(&unit).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        // Its line comes just when it was found missing; the process has ended by the time it is asked about again.
        let begins = format!(
            "alive() {{ printf '999999999 1 {}\\n' > {}/go; return 1; }}",
            boot.trim(),
            unit.display()
        );
        assert_eq!(looked(home.path(), &begins), "never");
        // Whoever looks from now on sees that it was there.
        assert_eq!(looked(home.path(), ""), "vanished process 999999999");
        std::fs::write(unit.join("exit"), "3 -\n").unwrap();
        assert_eq!(looked(home.path(), ""), "ended 3 -");
    }

    #[test]
    fn leaf_keys_keep_their_parts_apart() {
        assert_ne!(leaf_key("ab", "c", "d"), leaf_key("a", "bc", "d"));
        assert_eq!(leaf_key("a", "b", "c").len(), 34);
    }
}

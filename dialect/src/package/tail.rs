//! Files that are watched while a script runs: the unit ends well only when a line of each file matches its pattern.
//! **Source**: facts `ecs-ssh-steps.md` B4.
//!
//! Our executors know no such files, so the script itself does it: it notes how long each file is, runs what the user wrote, and
//! then looks at what was added since, once a second for twenty minutes at most.

use std::fmt::Write;

/// How long the manager's own delegate waits.
const SECONDS: u32 = 1200;

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `script` with the watch around it. A script that ends by `exit` is not watched on, as with Harness.
pub(super) fn wrapped(script: &str, patterns: &[(String, String)]) -> String {
    let mut head = String::new();
    let mut tail = String::new();
    for (index, (file, pattern)) in patterns.iter().enumerate() {
        let (file, pattern) = (quoted(file), quoted(pattern));
        // A file that is not there yet is watched from its beginning.
        let _infallible = writeln!(head, "__tail_from_{index}=$( (wc -c <{file}) 2>/dev/null || echo 0)");
        let _infallible = writeln!(tail, "__tail_watch {file} {pattern} \"$__tail_from_{index}\" || exit 1");
    }
    format!(
        "{head}{script}\n__tail_end=$(( $(date +%s) + {SECONDS} ))\n\
         __tail_watch() {{\n\
         until tail -c \"+$(( $3 + 1 ))\" -- \"$1\" 2>/dev/null | grep -E -e \"$2\"; do\n\
         if [ \"$(date +%s)\" -ge \"$__tail_end\" ]; then echo \"no line of $1 matches $2\" >&2; return 1; fi\n\
         sleep 1\ndone\n}}\n{tail}"
    )
}

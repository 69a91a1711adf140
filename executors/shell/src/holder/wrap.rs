//! What reads the variables back: a frame around the script that survives its `exit`.

use proto::task::Shell;

/// The text of the frame; empty when there is nothing to read back. It lies beside the script and writes `vars`:
/// name and value in turn, each ended by a NUL byte.
pub(super) fn main(shell: Shell, variables: &[&str]) -> String {
    if variables.is_empty() {
        return String::new();
    }
    match shell {
        Shell::Bash | Shell::Sh => {
            let mut text = String::from("delegate_vars() {\n  {\n");
            for name in variables {
                text.push_str(&format!(
                    "    [ -z \"${{{name}+x}}\" ] || printf '{name}\\0%s\\0' \"${name}\"\n"
                ));
            }
            // The trap is for `exit`; a script that sets one of its own and runs to its end is met by the last lines.
            text.push_str(
                "  } > \"${0%/*}/vars\"\n}\n\
                 trap 'delegate_code=$?; trap - EXIT; delegate_vars; exit \"$delegate_code\"' EXIT\n\
                 . \"${0%/*}/script\"\n\
                 delegate_code=$?\ndelegate_vars\nexit \"$delegate_code\"\n",
            );
            text
        }
        Shell::Python => {
            let names: Vec<String> = variables.iter().map(|name| format!("'{name}'")).collect();
            format!(
                "import os\nd = os.path.dirname(os.path.abspath(__file__))\np = os.path.join(d, 'script')\n\
                 g = {{'__name__': '__main__', '__file__': p}}\n\
                 try:\n    with open(p, encoding='utf-8') as f:\n        t = f.read()\n    \
                 exec(compile(t, p, 'exec'), g)\n\
                 finally:\n    with open(os.path.join(d, 'vars'), 'wb') as f:\n        for n in [{}]:\n            \
                 v = g.get(n, os.environ.get(n))\n            if v is not None:\n                \
                 v = str(v).replace('\\0', '')\n                \
                 f.write(n.encode() + b'\\0' + v.encode('utf-8', 'surrogateescape') + b'\\0')\n",
                names.join(", ")
            )
        }
        Shell::PowerShell => String::new(),
    }
}

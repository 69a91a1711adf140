//! `docs/harness-answers.md`, made from the table.

use super::class::Declared;
use super::fields::Name;
use super::table::{self, Interface};
use std::fmt::Write;

const HEAD: &str = "# Answers to Harness' own tasks

Made from the table in `dialect/src/kryo/table`; a test holds it. Do not edit it: `DELEGATE_WRITE_DOCS=1 cargo test -p dialect document`.

Every class that the agent can put into an answer of `application/x-kryo-v2`, with its registration id and its fields in the order of
the wire. `final` and `open` in a type decide whether a class id stands before the value. *always*: the agent never leaves the field out, because
the manager uses it without asking. *never*: always `null`.

The shapes are those of December 2023; the proof is Kryo 4.0.3 with stub classes of these shapes (`tests/peers/kryo`), not a live manager.
";

pub(super) fn enums() -> [super::Class; 6] {
    [
        table::ResponseCode::CLASS,
        table::SerializationFormat::CLASS,
        table::CommandExecutionStatus::CLASS,
        table::FailureType::CLASS,
        table::ConnectivityStatus::CLASS,
        table::GitCommandStatus::CLASS,
    ]
}

/// The document.
pub fn document() -> String {
    let mut out = HEAD.to_owned();
    out.push_str("\n## Enums\n\nWritten by name.\n\n| enum | id | names |\n|---|---|---|\n");
    for class in enums() {
        line(&mut out, format_args!("| {} | {} | {} |", class.name, class.id, class.names.join(" ")));
    }
    out.push_str("\n## Interfaces\n\n| interface | classes that the agent puts there |\n|---|---|\n");
    for Interface { name, classes } in table::interfaces() {
        let all: Vec<&str> = classes.iter().map(|class| class.name).collect();
        line(&mut out, format_args!("| {name} | {} |", all.join(", ")));
    }
    out.push_str("\n## Classes\n");
    for class in table::classes() {
        let kind = if class.last { "final" } else { "open" };
        line(&mut out, format_args!("\n### {} ({}, {kind})\n", class.name, class.id));
        if class.fields.is_empty() {
            out.push_str("No fields.\n");
            continue;
        }
        out.push_str("| field | type | |\n|---|---|---|\n");
        for field in class.fields {
            let name = field.name.split_once('.').map_or(field.name, |(_, name)| name);
            let note = match (field.written, field.optional, field.declared) {
                (false, ..) => "never",
                (_, true, _) | (_, _, Declared::Plain("boolean" | "int" | "long")) => "",
                _ => "always",
            };
            line(&mut out, format_args!("| {name} | {} | {note} |", field.declared));
        }
    }
    out.push_str(
        "\n### UnitProgress (9701, Protocol Buffers)\n\n`1` unitName, `2` status (1 SUCCESS, 2 FAILURE, 3 RUNNING, 4 QUEUED, \
         5 SKIPPED), `3` startTime, `4` endTime.\n",
    );
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _infallible = writeln!(out, "{text}");
}

//! The command line as scripts see it: what is parsed, what is refused, and the help texts.

use crate::args::Cli;
use clap::{CommandFactory, Parser};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_documented_commands_are_parsed() {
    Cli::command().debug_assert();
    for line in [
        "delegate manager --data-dir d",
        "delegate manager --data-dir d --listen 127.0.0.1:0 --agent-wait 30s --host-keys strict --tls-cert c --tls-key k",
        "delegate agent",
        "delegate agent --record d",
        "delegate harness check p.json --output json",
        "delegate agent --config f --data-dir d --health-listen 127.0.0.1:0",
        "delegate apply a.yaml dir",
        "delegate get pipeline",
        "delegate get services x --output json",
        "delegate delete connector x",
        "delegate secret set n --stdin",
        "delegate secret set n --file f",
        "delegate secret list",
        "delegate secret rm n",
        "delegate pipeline run p.yaml --input a=b --input c=d --inputs f --follow --rehearse 60x --output json",
        "delegate pipeline run p --rehearse 60 --detach --output json",
        "delegate pipeline validate p.yaml --strict",
        "delegate execution list --output json",
        "delegate execution show e --output json",
        "delegate execution logs e --step s --follow",
        "delegate execution abort e",
        "delegate agents --output json --manager http://h:1 --api-key k --ca-file f",
        "delegate token create n --output json",
        "delegate token list",
        "delegate apikey revoke n",
        "delegate hostkey list",
        "delegate hostkey accept h:22 SHA256:abc",
        "delegate hostkey accept h ssh-ed25519 AAAA comment",
        "delegate hostkey forget h",
        "delegate connector test c --host h --selectors a,b --output json",
        "delegate expression eval x --context f",
        "delegate expression eval --mode evaluate --unresolved throw --context f --output json -- x",
        "delegate probe --count 3 --selectors a,b",
        "delegate quickstart --break --serve --embedded-target",
        "delegate init vm --host u@h",
        "delegate completion bash",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn everything_else_is_bad_usage() {
    for line in [
        "delegate",
        "delegate nope",
        "delegate help",
        "delegate agents --nope",
        "delegate manager",
        "delegate manager --data-dir d --tls-cert c",
        "delegate get host",
        "delegate pipeline run",
        "delegate pipeline run p --input a",
        "delegate pipeline run p --rehearse 0",
        "delegate pipeline run p --detach --follow",
        "delegate secret set n --stdin --file f",
        "delegate init vm --host h",
        "delegate probe --count 0",
        "delegate agents --output yaml",
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.use_stderr(), "{line} must not count as an answer");
    }
}

#[test]
fn every_command_answers_help() {
    fn visit(command: &clap::Command, path: &[String]) {
        for child in command.get_subcommands() {
            let mut path = path.to_vec();
            path.push(child.get_name().to_owned());
            let line = [path.as_slice(), &["--help".to_owned()]].concat();
            let error = Cli::try_parse_from(&line).expect_err("help ends the parsing");
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{line:?}");
            assert!(!error.use_stderr());
            visit(child, &path);
        }
    }
    visit(&Cli::command(), &["delegate".to_owned()]);
}

/// The reference of all commands, as `golden/help.txt` holds it. `UPDATE_GOLDEN=1 cargo test` writes it anew; every
/// difference is read by a person.
#[test]
fn help_texts_are_as_recorded() {
    fn visit(command: &mut clap::Command, path: &str, out: &mut String) {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        out.push_str(&format!("== {path}\n{}\n", command.clone().term_width(100).render_help()));
        let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            if let Some(child) = command.find_subcommand_mut(&name) {
                visit(child, &path, out);
            }
        }
    }
    let mut text = String::new();
    let mut command = Cli::command().term_width(100);
    command.build();
    visit(&mut command, "", &mut text);
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).unwrap();
        std::fs::write(golden, &text).unwrap();
    }
    let recorded = std::fs::read_to_string(golden).unwrap_or_default();
    let first = text.lines().zip(recorded.lines()).find(|(new, old)| new != old);
    assert!(
        text == recorded,
        "the help differs from golden/help.txt, first at {first:?}; UPDATE_GOLDEN=1 writes it anew"
    );
}

//! 50 hosts × 7 commands: our executor alone, and manager with agent, against OpenSSH with ControlMaster.
//!
//! The recipe is `ssh-perf.md` §7: same key exchange and cipher on every side, host keys checked by every peer, one
//! discarded warm-up, then rounds in rotated order.

use crate::figures::{judged, percentile, spread};
use crate::proc::cpu_seconds;
use anyhow::{Context, Result};
use e2e::peers::sshd::Sshd;
use e2e::world::{AgentProcess, Layout, Manager, Process};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const HOSTS: u8 = 50;
const ROUNDS: usize = 7;

/// The pipelines: the commands as units of one step, as the peer has them on one connection, and as steps.
const UNITS: &str = "fanout_units";
const STEPS: &str = "fanout_steps";

/// The seven commands of a small deployment; `@` stands for the host's own folder.
const COMMANDS: [&str; 7] = [
    "mkdir -p @/releases/r1 @/backup @/shared",
    "if [ -e @/current ]; then cp -a @/current @/backup/prev; fi",
    "cp @/../artifact.tar @/releases/r1/app.tar",
    "tar -xf @/releases/r1/app.tar -C @/releases/r1",
    "sed -e s/HOST/here/ -e s/REL/r1/ @/../app.conf.tmpl > @/shared/app.conf",
    "printf '%s\\n' r1 > @/VERSION && ln -sfn releases/r1 @/current",
    "test -s @/VERSION && true",
];

/// One side of the comparison in one round.
#[derive(Clone, Copy)]
struct Sample {
    wall: f64,
    cpu: f64,
}

/// `whole`: also through manager and agent.
pub(crate) async fn measure(whole: bool) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("fanout").tempdir_in("/dev/shm")?;
    let sshd = Sshd::start(dir.path(), HOSTS).await;
    prepare(dir.path(), &sshd)?;
    println!("{}", version("ssh", &["-V"]));

    let product = if whole { Some(Product::start(dir.path(), &sshd)?) } else { None };
    let mut mux = Vec::new();
    let mut executor = Vec::new();
    let mut through = Vec::new();
    let mut by_steps = Vec::new();
    let mut one_script = Vec::new();
    for round in 0..=ROUNDS {
        let mut order = [0, 1, 2, 3, 4];
        order.rotate_left(round % 5);
        for which in order {
            let sample = match which {
                0 => control_master(dir.path(), &sshd)?,
                1 => executor_alone(dir.path(), &sshd, "units")?,
                2 => executor_alone(dir.path(), &sshd, "one-script")?,
                _ => match &product {
                    Some(product) => product.run(if which == 3 { UNITS } else { STEPS }).await?,
                    None => continue,
                },
            };
            if round > 0 {
                match which {
                    0 => mux.push(sample),
                    1 => executor.push(sample),
                    2 => one_script.push(sample),
                    3 => through.push(sample),
                    _ => by_steps.push(sample),
                }
            }
        }
    }
    report("OpenSSH ControlMaster, 50 at once", &mux, None);
    report("executor alone, seven units", &executor, Some((&mux, 0.5, 0.05)));
    report("executor alone, the seven commands as one script", &one_script, Some((&mux, 0.5, 0.05)));
    if whole {
        report("manager and agent, one step of seven units", &through, Some((&mux, 1.0, 0.5)));
        // Seven times the tasks: each is queued, acquired, journaled, reported and shown by itself.
        report("manager and agent, seven steps of one unit", &by_steps, Some((&mux, 1.0, 0.5)));
    }
    Ok(())
}

fn report(name: &str, samples: &[Sample], peer: Option<(&[Sample], f64, f64)>) {
    let walls: Vec<f64> = samples.iter().map(|s| s.wall).collect();
    let cpus: Vec<f64> = samples.iter().map(|s| s.cpu).collect();
    spread(&format!("{name}: wall"), &walls, "s");
    spread(&format!("{name}: client CPU"), &cpus, "s");
    if let Some((peer, wall_bar, cpu_bar)) = peer {
        let ratio = |f: fn(&Sample) -> f64| -> Vec<f64> {
            samples.iter().zip(peer).map(|(ours, theirs)| f(ours) / f(theirs)).collect()
        };
        judged(
            "  wall / ControlMaster, median of paired rounds",
            percentile(&ratio(|s| s.wall), 50.0),
            "",
            wall_bar,
            false,
        );
        judged(
            "  CPU / ControlMaster, median of paired rounds",
            percentile(&ratio(|s| s.cpu), 50.0),
            "",
            cpu_bar,
            false,
        );
    }
}

/// The command with the host's own folder; the host is told by the address that its connection came to, without a program
/// that the recipe's commands do not start.
fn per_host(dir: &Path, command: &str) -> String {
    let base = dir.join("h").display().to_string();
    format!("set -- $SSH_CONNECTION\nD={base}/$3\n{}", command.replace('@', "$D"))
}

fn prepare(dir: &Path, sshd: &Sshd) -> Result<()> {
    let script = "set -e; cd \"$1\"; user=$2; shift 2; mkdir -p h app; for i in 0 1 2 3 4 5 6 7 8 9; do head -c 2048 /dev/urandom > app/f$i; done
tar -cf h/artifact.tar app; printf 'host=HOST\\nrelease=REL\\n' > h/app.conf.tmpl; for h in \"$@\"; do mkdir -p h/$h; done; chown -R \"$user\" h";
    let status =
        Command::new("sh").args(["-c", script, "sh"]).arg(dir).arg(&sshd.user).args(sshd.hosts()).status()?;
    anyhow::ensure!(status.success(), "preparing the targets");
    let config = format!(
        "Host 127.*\n Port {}\n User {}\n IdentityFile {}\n IdentitiesOnly yes\n UserKnownHostsFile {}\n GlobalKnownHostsFile /dev/null\n \
         StrictHostKeyChecking yes\n GSSAPIAuthentication no\n PreferredAuthentications publickey\n UpdateHostKeys no\n LogLevel ERROR\n \
         KexAlgorithms curve25519-sha256\n Ciphers aes128-gcm@openssh.com\n ControlMaster auto\n ControlPersist 60\n ControlPath {}/cm/%C\n",
        sshd.port,
        sshd.user,
        sshd.client_key.display(),
        sshd.known_hosts.display(),
        dir.display()
    );
    std::fs::create_dir_all(dir.join("cm"))?;
    std::fs::write(dir.join("ssh_config"), config)?;
    let lines: String = COMMANDS.iter().map(|c| per_host(dir, c).replace('\n', "; ") + "\n").collect();
    std::fs::write(dir.join("commands"), lines)?;
    Ok(())
}

/// One ssh process per command and host over a master per host, 50 hosts at once; masters are charged to the peer.
fn control_master(dir: &Path, sshd: &Sshd) -> Result<Sample> {
    let one =
        "h=$1; while IFS= read -r c; do ssh -n -F ssh_config \"$h\" \"$c\" || exit 255; done < commands";
    let all = format!(
        "cd '{}' && printf '%s\\n' {} | xargs -P 50 -I@ sh -c '{}' sh @ 2>/dev/null; for h in {}; do ssh -F ssh_config -O exit $h 2>/dev/null; done",
        dir.display(),
        sshd.hosts().join(" "),
        one,
        sshd.hosts().join(" ")
    );
    let before = children_cpu()?;
    let begin = Instant::now();
    let status = Command::new("sh").args(["-c", &all]).stdout(Stdio::null()).status()?;
    anyhow::ensure!(status.success() || status.code() == Some(255), "the peer ended {status}");
    Ok(Sample { wall: begin.elapsed().as_secs_f64(), cpu: children_cpu()? - before })
}

fn children_cpu() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn executor_alone(dir: &Path, sshd: &Sshd, shape: &str) -> Result<Sample> {
    let before = children_cpu()?;
    let begin = Instant::now();
    let status = Command::new(std::env::current_exe()?)
        .arg("executor-fanout")
        .arg(shape)
        .arg(dir)
        .arg(&sshd.client_key)
        .arg(&sshd.known_hosts)
        .arg(&sshd.user)
        .arg(sshd.port.to_string())
        .args(sshd.hosts())
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "executor-fanout ended {status}");
    Ok(Sample { wall: begin.elapsed().as_secs_f64(), cpu: children_cpu()? - before })
}

/// Manager, agent and the pipeline in them.
struct Product {
    manager: Manager,
    agent: AgentProcess,
}

impl Product {
    fn start(dir: &Path, sshd: &Sshd) -> Result<Product> {
        let manager = Manager::start(dir);
        let agent = AgentProcess::start(&manager, dir, "bench", &[]);
        let scripts: Vec<(String, String)> =
            COMMANDS.iter().enumerate().map(|(n, c)| (format!("c{n}"), per_host(dir, c))).collect();
        let steps: Vec<(&str, &str)> = scripts.iter().map(|(n, c)| (n.as_str(), c.as_str())).collect();
        for (pipeline, layout) in [(UNITS, Layout::Units), (STEPS, Layout::Steps)] {
            let files = e2e::world::ssh_entities(dir, sshd, pipeline, &steps, layout)?;
            e2e::world::load_ssh(&manager, &files, sshd);
        }
        Ok(Product { manager, agent })
    }

    async fn run(&self, pipeline: &str) -> Result<Sample> {
        let manager = &self.manager;
        let manager_pid = manager.process.as_ref().map(Process::pid).context("manager")?;
        let agent = self.agent.process.as_ref().map(Process::pid).context("agent")?;
        let before = cpu_seconds(agent)? + cpu_seconds(manager_pid)?;
        let begin = Instant::now();
        // One client that waits, as a person has it; asking in a loop would load the manager and be measured with it.
        let client = manager.cli(&["pipeline", "run", pipeline, "--output", "json"]);
        let ended =
            tokio::process::Command::from(client).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = tokio::time::timeout(Duration::from_secs(300), ended).await.context("the fan-out")??;
        let wall = begin.elapsed().as_secs_f64();
        anyhow::ensure!(status.success(), "the fan-out ended {status}");
        Ok(Sample { wall, cpu: cpu_seconds(agent)? + cpu_seconds(manager_pid)? - before })
    }
}

fn version(program: &str, args: &[&str]) -> String {
    Command::new(program).args(args).output().map_or_else(
        |e| e.to_string(),
        |o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).trim().to_owned(),
    )
}

/// The body of the child process that runs our executor alone on every host at once.
pub(crate) fn executor(arguments: &[String]) -> Result<()> {
    let [shape, dir, key, known_hosts, user, port, hosts @ ..] = arguments else {
        anyhow::bail!("arguments")
    };
    let mut commands = COMMANDS.map(|c| per_host(Path::new(dir), c)).to_vec();
    if shape == "one-script" {
        commands = vec![commands.join("\n")];
    }
    crate::executor::fan_out(
        std::fs::read_to_string(key)?,
        &std::fs::read_to_string(known_hosts)?,
        user,
        port.parse()?,
        hosts,
        &commands,
    )
}

//! `make bench`: speed and memory of the product, as ratios against a named peer in one run where there is one.
//!
//! Every figure is printed beside the bar it is held to; nothing here fails a build. The machine is usually noisy and
//! has two cores, so walls are medians of several rounds and CPU is counted, not timed.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "A bench prints its figures, compares with wall clocks of other processes, and may panic."
)]

mod dispatch;
mod ecs;
mod executor;
mod expressions;
mod fanout;
mod figures;
mod idle;
mod kryo;
mod kube;
mod logs;
mod mask;
mod pipelines;
mod proc;
mod start;

use anyhow::Result;

fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, rest @ ..] = asked.as_slice()
        && mode == "executor-fanout"
    {
        return fanout::executor(rest);
    }
    let all = [
        "idle",
        "start",
        "dispatch",
        "fanout",
        "logs",
        "mask",
        "expressions",
        "pipelines",
        "growth",
        "kubernetes",
        "ecs",
        "kryo",
    ];
    let sections: Vec<&str> =
        if asked.is_empty() { all.to_vec() } else { asked.iter().map(String::as_str).collect() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for section in sections {
        println!("\n== {section}");
        match section {
            "idle" => runtime.block_on(idle::measure())?,
            "start" => runtime.block_on(start::measure())?,
            "dispatch" => runtime.block_on(dispatch::measure())?,
            "fanout" => runtime.block_on(fanout::measure(true))?,
            "fanout-executor" => runtime.block_on(fanout::measure(false))?,
            "logs" => runtime.block_on(logs::measure())?,
            "mask" => mask::measure()?,
            "expressions" => expressions::measure()?,
            "pipelines" => runtime.block_on(pipelines::measure())?,
            "kubernetes" => kube::measure()?,
            "ecs" => ecs::measure()?,
            "kryo" => kryo::measure()?,
            "growth" => runtime.block_on(pipelines::growth())?,
            other => anyhow::bail!("unknown section `{other}`; sections: {} fanout-executor", all.join(" ")),
        }
    }
    Ok(())
}

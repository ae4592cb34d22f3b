//! `coracle run`: from a file to a run, and its progress.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use jiff::Zoned;
use serde_json::{Value, json};

use crate::{
    arguments::{Format, Global, Run},
    client::{Client, PIPELINES, Refusal},
    events::Events,
    output::{self, field},
    progress::Progress,
    runs::{self, Failure},
    source::{Source, experiment_id},
};

/// How long a server may be away while a run is followed.
const PATIENCE: Duration = Duration::from_mins(5);

pub(super) fn run(options: &Run, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global)?;
    let mut source = Source::find(&options.choice, &client)?;
    let values = source.parameters(&options.choice)?;
    if options.no_cache {
        source.without_cache();
    }
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| format!("{} {}", source.name(), Zoned::now().strftime("%Y-%m-%d %H-%M-%S")));
    let mut body = json!({"display_name": name, "runtime_config": {"parameters": values}});
    source.write(&mut body, false);
    if let Some(root) = &options.pipeline_root {
        body["runtime_config"]["pipeline_root"] = json!(root);
    }
    if let Some(experiment) = &options.experiment {
        body["experiment_id"] = json!(experiment_id(&client, experiment)?);
    }
    let made = client.post(&format!("{PIPELINES}/runs"), &body)?;
    let id = field(&made, "run_id");
    output::warn(&made)?;
    if !options.follow {
        if !output::raw(&made, global.output)? {
            writeln!(io::stdout(), "{id}")?;
            writeln!(
                io::stderr(),
                "started `{name}`; watch it at {}/#/runs/details/{id}",
                client.url()
            )?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if global.output == Format::Text {
        writeln!(io::stdout(), "run {id} ({name})")?;
    }
    follow(&client, id, global.output)
}

/// Shows a run until it ends. The exit code says whether it succeeded.
pub(super) fn follow(client: &Client, id: &str, format: Format) -> anyhow::Result<ExitCode> {
    // Progress is what was asked for; beside data, it is a message.
    let mut progress: Progress<Box<dyn Write>> = if format == Format::Text {
        let out = io::stdout();
        let colour = output::has_colour(&out);
        Progress::new(Box::new(out), colour, colour)
    } else {
        let err = io::stderr();
        let is_live = err.is_terminal() && output::has_colour(&err);
        Progress::new(Box::new(err), is_live, is_live)
    };
    let end = watch(client, id, |run| progress.update(run), || Ok(()))?;
    progress.pause()?;
    if format != Format::Text {
        output::raw(&client.get(&runs::path(id, ""), &[])?, format)?;
    }
    let state = field(&end, "state");
    if state == "SUCCEEDED" {
        return Ok(ExitCode::SUCCESS);
    }
    tell(id, &end, &progress.failed())?;
    Ok(ExitCode::FAILURE)
}

/// Says on stderr why a run did not succeed.
fn tell(id: &str, run: &Value, failed: &[(String, Value)]) -> anyhow::Result<()> {
    const SHOWN: usize = 5;
    let mut stderr = io::stderr().lock();
    for (path, error) in failed.iter().take(SHOWN) {
        if let Some(failure) = Failure::of(error) {
            failure.write(&mut stderr, &format!("task `{path}`: "))?;
        }
    }
    if failed.len() > SHOWN {
        writeln!(
            stderr,
            "… and {} more: `coracle describe run {id}`",
            failed.len() - SHOWN
        )?;
    }
    let told = failed.iter().any(|(_, error)| Failure::of(error).is_some());
    match Failure::of(&run["error"]) {
        Some(failure) if !told => failure.write(&mut stderr, &format!("run {id}: "))?,
        _ => writeln!(stderr, "error: run {id} ended as {}", field(run, "state"))?,
    }
    Ok(())
}

/// Gives every event of a run to `show` until the run ends, and returns the last. A server that
/// goes away meanwhile is waited for.
pub(super) fn watch(
    client: &Client,
    id: &str,
    mut show: impl FnMut(&Value) -> io::Result<()>,
    mut lost: impl FnMut() -> io::Result<()>,
) -> anyhow::Result<Value> {
    let path = runs::path(id, ":watch");
    let mut last_seen = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        let broken = match client.stream(&path, &[]) {
            Ok(stream) => {
                for event in Events::new(stream) {
                    let Ok(event) = event else { break };
                    (last_seen, pause) = (Instant::now(), Duration::from_millis(100));
                    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
                    match event.name.as_str() {
                        "run" => show(&data)?,
                        "failed" => anyhow::bail!("the run cannot be followed: {}", field(&data, "message")),
                        _ => continue,
                    }
                    if runs::is_over(field(&data, "state")) {
                        return Ok(data);
                    }
                }
                None
            }
            Err(error) if error.is::<Refusal>() => return Err(error),
            Err(error) => Some(error),
        };
        if last_seen.elapsed() > PATIENCE {
            return Err(
                broken.unwrap_or_else(|| anyhow::anyhow!("the server ended the stream again and again"))
            );
        }
        lost()?;
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

//! `coracle schedule`: what makes runs again and again.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use coracle_api::schedule::{Cron, Pattern, Times};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::get;
use crate::{
    amounts::{Moment, Span},
    arguments::{Choice, Format},
    client::{Client, PIPELINES},
    kind::Kind,
    output::{self, Table, field},
    runs::Failure,
    source::{Source, experiment_id},
    trouble::Trouble,
};

/// How many coming times are shown.
const COMING: usize = 5;

/// `coracle schedule`.
#[derive(Debug, clap::Args)]
pub(crate) struct Schedule {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a schedule: runs of a pipeline at certain times
    Create(Box<Create>),
    /// List schedules
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a schedule, the times that come, and its newest runs
    Describe(Named),
    /// Let a schedule make runs; missed times are made up, unless it was made with --no-catchup
    Enable(Named),
    /// Keep a schedule from making runs
    Disable(Named),
    /// Delete a schedule; its runs stay
    Delete(Named),
}

/// `coracle schedule create`.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("when").required(true).args(["cron", "every"])),
    after_help = "Examples:
  coracle schedule create train.py --cron '0 30 2 * * MON-FRI' -p day='[[ScheduledTime.2006-01-02]]'
  coracle schedule create my-pipeline --every 6h --max-concurrency 2 --no-catchup

Cron expressions have six fields, seconds first, and are in UTC; @hourly, @daily, @weekly, @monthly and
@every 90m work too. In text parameters, [[ScheduledTime]], [[CurrentTime]], [[Index]] and [[RunUUID]] are
replaced; after a dot comes a format as Go writes it: [[ScheduledTime.2006-01-02]]."
)]
struct Create {
    #[command(flatten)]
    choice: Choice,
    /// When: second, minute, hour, day of month, month, day of week, in UTC
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<Cron>,
    /// How often: `45s`, `90m`, `6h`, `1d`; the first run comes that long after the start
    #[arg(long, value_name = "DURATION")]
    every: Option<Span>,
    /// Not before: `2026-01-31`, `2026-01-31T09:30` (UTC), `2026-01-31T09:30:00+01:00`
    #[arg(long, value_name = "MOMENT")]
    start: Option<Moment>,
    /// Not after
    #[arg(long, value_name = "MOMENT")]
    end: Option<Moment>,
    /// Runs of this schedule that may be unfinished at once; further ones wait
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10))]
    max_concurrency: u32,
    /// Of times that were missed, make up for the last one only
    #[arg(long)]
    no_catchup: bool,
    /// Make it, and let it make no runs before `coracle schedule enable`
    #[arg(long)]
    disabled: bool,
    /// Name of the schedule, which its runs begin with [default: the pipeline's name]
    #[arg(long)]
    name: Option<String>,
    /// Experiment to put the runs in; made if it is not there
    #[arg(long)]
    experiment: Option<String>,
    /// Where artifacts go, instead of the server's own folder
    #[arg(long, value_name = "FOLDER")]
    pipeline_root: Option<String>,
}

/// `coracle schedule list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coracle schedule list")]
struct List {
    /// Show at most this many, the newest first
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: u32,
}

/// One schedule.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coracle schedule describe nightly")]
struct Named {
    /// Id of the schedule, its first or last characters, or its name
    #[arg(value_name = "SCHEDULE")]
    schedule: String,
}

pub(super) fn schedule(options: &Schedule, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match &options.command {
        Command::Create(options) => create(options, client, format)?,
        Command::List(options) => get::list(client, Kind::SCHEDULE, options.limit, format)?,
        Command::Describe(named) => {
            describe(client, &Kind::SCHEDULE.find(client, &named.schedule)?, format)?;
        }
        Command::Enable(named) => set(client, named, "enable", format)?,
        Command::Disable(named) => set(client, named, "disable", format)?,
        Command::Delete(named) => {
            let id = Kind::SCHEDULE.find(client, &named.schedule)?;
            client.delete(&Kind::SCHEDULE.of(&id, ""), &[])?;
            writeln!(io::stdout(), "{id} deleted")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(options: &Create, client: &Client, format: Format) -> anyhow::Result<()> {
    if options.every == Some(Span(0)) {
        return Err(Trouble::error(
            "`--every 0s` would make runs without end",
            "choose 1s or more",
        ));
    }
    let source = Source::find(&options.choice, client)?;
    let values = source.parameters(&options.choice)?;
    let mut body = json!({
        "display_name": options.name.as_deref().unwrap_or_else(|| source.name()),
        "runtime_config": {"parameters": values},
        "trigger": trigger(options),
        "mode": if options.disabled { "DISABLE" } else { "ENABLE" },
        "max_concurrency": options.max_concurrency.to_string(),
        "no_catchup": options.no_catchup,
    });
    source.write(&mut body, true);
    if let Some(root) = &options.pipeline_root {
        body["runtime_config"]["pipeline_root"] = json!(root);
    }
    if let Some(experiment) = &options.experiment {
        body["experiment_id"] = json!(experiment_id(client, experiment)?);
    }
    let made = client.post(&format!("{PIPELINES}/{}", Kind::SCHEDULE.path), &body)?;
    output::warn(&made)?;
    if output::raw(&made, format)? {
        return Ok(());
    }
    writeln!(io::stdout(), "{}", field(&made, Kind::SCHEDULE.id))?;
    let mut stderr = io::stderr().lock();
    writeln!(
        stderr,
        "made schedule `{}`: {}",
        field(&made, "display_name"),
        pattern(&made)
    )?;
    write_coming(&mut stderr, &made, Timestamp::now())?;
    Ok(())
}

fn trigger(options: &Create) -> Value {
    let mut trigger = match (&options.cron, options.every) {
        (Some(cron), _) => json!({"cron_schedule": {"cron": cron.to_string()}}),
        (None, every) => {
            let seconds = every.map_or(0, |every| every.0);
            json!({"periodic_schedule": {"interval_second": seconds.to_string()}})
        }
    };
    for schedule in trigger
        .as_object_mut()
        .into_iter()
        .flat_map(serde_json::Map::values_mut)
    {
        for (name, moment) in [("start_time", options.start), ("end_time", options.end)] {
            if let Some(moment) = moment {
                schedule[name] = json!(moment.0.to_string());
            }
        }
    }
    trigger
}

fn set(client: &Client, named: &Named, verb: &str, format: Format) -> anyhow::Result<()> {
    let id = Kind::SCHEDULE.find(client, &named.schedule)?;
    client.post(&Kind::SCHEDULE.of(&id, &format!(":{verb}")), &json!({}))?;
    let schedule = client.get(&Kind::SCHEDULE.of(&id, ""), &[])?;
    if !output::raw(&schedule, format)? {
        writeln!(io::stdout(), "{id} {}", field(&schedule, "status"))?;
    }
    Ok(())
}

/// Shows a schedule in full.
pub(super) fn describe(client: &Client, id: &str, format: Format) -> anyhow::Result<()> {
    let schedule = client.get(&Kind::SCHEDULE.of(id, ""), &[])?;
    if output::raw(&schedule, format)? {
        return Ok(());
    }
    let filter =
        json!({"predicates": [{"operation": "EQUALS", "key": "recurring_run_id", "string_value": id}]});
    let query = [
        ("filter", filter.to_string()),
        ("sort_by", "scheduled_at desc".to_owned()),
        ("page_size", "5".to_owned()),
    ];
    let query: Vec<(&str, &str)> = query
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let runs = client.get(&format!("{PIPELINES}/runs"), &query)?;
    let runs = runs["runs"].as_array().cloned().unwrap_or_default();
    let mut out = io::stdout().lock();
    let colour = output::has_colour(&out);
    write(&mut out, &schedule, &runs, Timestamp::now(), colour)?;
    Ok(out.flush()?)
}

fn write(
    out: &mut impl Write,
    schedule: &Value,
    runs: &[Value],
    now: Timestamp,
    colour: bool,
) -> io::Result<()> {
    let mut line = |name: &str, value: &str| {
        if value.is_empty() {
            Ok(())
        } else {
            writeln!(out, "{name:<12} {value}")
        }
    };
    line("schedule", field(schedule, Kind::SCHEDULE.id))?;
    line("name", field(schedule, "display_name"))?;
    line("about", field(schedule, "description"))?;
    line("status", field(schedule, "status"))?;
    line("when", &pattern(schedule))?;
    let (_, when) = when(schedule);
    line("start", field(when, "start_time"))?;
    line("end", field(when, "end_time"))?;
    let at_once = match &schedule["max_concurrency"] {
        Value::String(count) => count.clone(),
        Value::Number(count) => count.to_string(),
        _ => "1".to_owned(),
    };
    let missed = match schedule["no_catchup"].as_bool() {
        Some(true) => "of missed times, the last is made up",
        _ => "missed times are made up",
    };
    line("at once", &format!("{at_once} at most; {missed}"))?;
    let reference = &schedule["pipeline_version_reference"];
    let version = match field(reference, "pipeline_version_id") {
        "" => "the latest version",
        version => version,
    };
    if reference.is_object() {
        line(
            "pipeline",
            &format!("{}, {version}", field(reference, "pipeline_id")),
        )?;
    }
    line("experiment", field(schedule, "experiment_id"))?;
    if let Some(parameters) = schedule["runtime_config"]["parameters"].as_object() {
        let shown: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", output::short(value, 80)))
            .collect();
        line("parameters", &shown.join("  "))?;
    }
    write_coming(out, schedule, now)?;
    if let Some(failure) = Failure::of(&schedule["error"]) {
        writeln!(out)?;
        failure.write(out, "the last run that was due could not be made: ")?;
    }
    if runs.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["run id", "name", "state", "due", "duration"]);
    for run in runs {
        table.row([
            field(run, "run_id").to_owned(),
            field(run, "display_name").to_owned(),
            field(run, "state").to_owned(),
            field(run, "scheduled_at").to_owned(),
            output::between(field(run, "created_at"), field(run, "finished_at"), now),
        ]);
    }
    writeln!(out)?;
    get::write(out, &table, colour)
}

/// The pattern of a schedule's trigger, and the object that says it.
fn when(schedule: &Value) -> (Option<Pattern>, &Value) {
    let trigger = &schedule["trigger"];
    let cron = &trigger["cron_schedule"];
    if cron.is_object() {
        let pattern = Cron::parse(field(cron, "cron")).ok().map(Pattern::Cron);
        return (pattern, cron);
    }
    let periodic = &trigger["periodic_schedule"];
    let seconds = match &periodic["interval_second"] {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    (seconds.map(Pattern::Every), periodic)
}

/// A schedule's pattern, as people say it.
pub(super) fn pattern(schedule: &Value) -> String {
    match when(schedule) {
        (Some(Pattern::Every(seconds @ 0..60)), _) => format!("every {seconds}s"),
        (Some(Pattern::Every(seconds)), _) => format!("every {}", output::duration(Span(seconds).duration())),
        (_, when) => match field(when, "cron") {
            "" => "never".to_owned(),
            cron => format!("{cron} (UTC)"),
        },
    }
}

/// The times that come after `now`.
fn coming(schedule: &Value, now: Timestamp) -> Vec<Timestamp> {
    let (Some(pattern), when) = when(schedule) else {
        return Vec::new();
    };
    let times = Times {
        pattern,
        start: output::moment(field(when, "start_time")),
        end: output::moment(field(when, "end_time")),
    };
    let created = output::moment(field(schedule, "created_at")).unwrap_or(now);
    let mut next = times.next(None, created);
    if let Some(first) = next.filter(|first| *first <= now) {
        next = times.next(Some(times.latest(first, now)), created);
    }
    std::iter::successors(next, |last| times.next(Some(*last), created))
        .take(COMING)
        .collect()
}

/// The next time of a schedule, when it is enabled.
pub(super) fn next(schedule: &Value, now: Timestamp) -> String {
    if field(schedule, "status") == "DISABLED" {
        return String::new();
    }
    coming(schedule, now)
        .first()
        .map(|next| format!("in {}", output::duration(next.duration_since(now))))
        .unwrap_or_default()
}

fn write_coming(out: &mut impl Write, schedule: &Value, now: Timestamp) -> io::Result<()> {
    let coming = coming(schedule, now);
    let heading = match (field(schedule, "status"), coming.is_empty()) {
        (_, true) => return writeln!(out, "{:<12} never", "next"),
        ("DISABLED", _) => "if enabled",
        _ => "next",
    };
    for (place, time) in coming.iter().enumerate() {
        let heading = if place == 0 { heading } else { "" };
        let distance = output::duration(time.duration_since(now));
        writeln!(out, "{heading:<12} {time} (in {distance})")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn parsed(line: &str) -> Result<Create, String> {
        let words = line.split('|').map(str::trim);
        match Line::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .command
        {
            Command::Create(create) => Ok(*create),
            _ => Err("another command".to_owned()),
        }
    }

    #[test]
    fn a_trigger_is_what_the_api_takes() {
        let create = parsed("x|create|p.py|--cron|0 0 3 * * MON|--start|2026-01-31|--end|2026-02-01T12:00")
            .expect("valid");
        let expected = json!({"cron_schedule": {
            "cron": "0 0 3 * * MON", "start_time": "2026-01-31T00:00:00Z", "end_time": "2026-02-01T12:00:00Z"}});
        assert_eq!(trigger(&create), expected);
        let create = parsed("x|create|p.py|--every|1h30m").expect("valid");
        assert_eq!(
            trigger(&create),
            json!({"periodic_schedule": {"interval_second": "5400"}})
        );
    }

    #[test]
    fn one_way_to_say_when_is_needed() {
        for (line, expected) in [
            ("x|create|p.py", "--cron"),
            ("x|create|p.py|--every|1h|--cron|@daily", "cannot be used with"),
            (
                "x|create|p.py|--cron|0 0 3 * *|--max-concurrency|0",
                "0 is not in 1..=10",
            ),
            (
                "x|create|p.py|--cron|61 * * * * *",
                "the second `61` goes beyond 0 to 59",
            ),
        ] {
            let error = parsed(line).expect_err("refused");
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn a_schedule_is_told_with_the_times_that_come() {
        let schedule = json!({
            "recurring_run_id": "s1", "display_name": "nightly", "status": "ENABLED", "experiment_id": "e1",
            "created_at": "2026-01-01T12:00:00Z", "max_concurrency": "2",
            "trigger": {"cron_schedule": {"cron": "0 0 3 * * *", "end_time": "2026-01-05T03:00:00Z"}},
            "pipeline_version_reference": {"pipeline_id": "p1"},
            "runtime_config": {"parameters": {"day": "[[ScheduledTime]]"}},
            "error": {"code": 2, "message": "its pipeline p1 has no version",
                "details": [{"reason": "ScheduleInvalid", "metadata": {"hint": "mend it"}}]},
        });
        let runs = [
            json!({"run_id": "r1", "display_name": "nightly-1", "state": "SUCCEEDED",
            "scheduled_at": "2026-01-02T03:00:00Z", "created_at": "2026-01-02T03:00:01Z",
            "finished_at": "2026-01-02T03:00:31Z"}),
        ];
        let now = "2026-01-03T01:00:00Z".parse().expect("a moment");
        let mut text = Vec::new();
        write(&mut text, &schedule, &runs, now, false).expect("written");
        let expected = "\
schedule     s1
name         nightly
status       ENABLED
when         0 0 3 * * * (UTC)
end          2026-01-05T03:00:00Z
at once      2 at most; missed times are made up
pipeline     p1, the latest version
experiment   e1
parameters   day=[[ScheduledTime]]
next         2026-01-03T03:00:00Z (in 2h00m)
             2026-01-04T03:00:00Z (in 1d02h)
             2026-01-05T03:00:00Z (in 2d02h)

error: the last run that was due could not be made: ScheduleInvalid: its pipeline p1 has no version
hint: mend it

RUN ID  NAME       STATE      DUE                   DURATION
r1      nightly-1  SUCCEEDED  2026-01-02T03:00:00Z  30s
";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
    }

    #[test]
    fn an_interval_keeps_its_beat() {
        let schedule = json!({"created_at": "2026-01-01T00:00:00Z", "status": "ENABLED",
            "trigger": {"periodic_schedule": {"interval_second": "3600"}}});
        let now = "2026-01-01T05:59:00Z".parse().expect("a moment");
        assert_eq!(next(&schedule, now), "in 1m00s");
        assert_eq!(pattern(&schedule), "every 1h00m");
    }
}

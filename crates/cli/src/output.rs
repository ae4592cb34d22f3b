//! What is shown, and how: tables for people, JSON and YAML for programs.
//!
//! Colour only where somebody looks at it and did not ask for none (`NO_COLOR`).

use std::io::{self, IsTerminal, Write};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::arguments::Format;

/// Shows JSON as it is, or as YAML. For text there is nothing to do here: `false`.
pub(crate) fn raw(value: &Value, format: Format) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match format {
        Format::Text => return Ok(false),
        Format::Json => writeln!(out, "{value:#}")?,
        Format::Yaml => write!(out, "{}", yaml(value)?)?,
    }
    out.flush()?;
    Ok(true)
}

/// Says on stderr what the server noticed in a pipeline and lets pass.
pub(crate) fn warn(made: &Value) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    for warning in made["warnings"].as_array().into_iter().flatten() {
        writeln!(stderr, "warning: {}", warning.as_str().unwrap_or_default())?;
    }
    Ok(())
}

/// A value as YAML.
pub(crate) fn yaml(value: &Value) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(value)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Whether to colour what goes to a stream.
pub(crate) fn has_colour(stream: &impl IsTerminal) -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_unwanted && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A state in its colour.
pub(crate) fn state(state: &str, colour: bool) -> String {
    let code = match state {
        "SUCCEEDED" => 32,
        "FAILED" => 31,
        "RUNNING" => 36,
        "SKIPPED" => 90,
        "CANCELED" | "CANCELING" => 33,
        _ => return state.to_owned(),
    };
    if colour {
        format!("\x1b[{code}m{state}\x1b[0m")
    } else {
        state.to_owned()
    }
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            rows: vec![headings.into_iter().map(str::to_uppercase).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A cell is one line, and no terminal command.
        let plain = |cell: String| {
            cell.chars()
                .map(|char| if char.is_control() { ' ' } else { char })
                .collect()
        };
        self.rows.push(cells.into_iter().map(plain).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The table's lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }

    /// Writes the table to stdout.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.lines().iter().try_for_each(|line| writeln!(out, "{line}"))?;
        out.flush()
    }
}

/// A field as text; nothing for what is not there.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A moment that the API gave. KFP writes the epoch for what has not happened yet.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|moment| *moment > Timestamp::UNIX_EPOCH)
}

/// From one moment to another, or until now; empty when it has not begun.
pub(crate) fn between(start: &str, end: &str, now: Timestamp) -> String {
    match moment(start) {
        Some(start) => duration(moment(end).unwrap_or(now).duration_since(start)),
        None => String::new(),
    }
}

/// How long ago a moment was; empty when there is none.
pub(crate) fn age(text: &str, now: Timestamp) -> String {
    moment(text).map_or_else(String::new, |moment| duration(now.duration_since(moment)))
}

/// A duration as people say it, with two units at most.
pub(crate) fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64().max(0.0)),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Bytes as people say them.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut size = count as f64;
    let mut unit = "";
    for name in UNITS {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = name;
    }
    format!("{size:.1} {unit}")
}

/// A value on one line, cut to a length.
pub(crate) fn short(value: &Value, length: usize) -> String {
    let text = coracle_api::ir::value::text(value);
    let mut shown: String = text
        .chars()
        .take(length)
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    if text.chars().count() > length {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(["name", "state"]);
        assert!(table.is_empty());
        table.row(["größer".to_owned(), "RUNNING".to_owned()]);
        table.row(["a\nb".to_owned(), String::new()]);
        assert_eq!(table.lines(), ["NAME    STATE", "größer  RUNNING", "a b"]);
    }

    #[test]
    fn durations_are_said_in_two_units() {
        for (seconds, expected) in [
            (0.25, "0.2s"),
            (9.96, "10.0s"),
            (59.0, "59s"),
            (60.0, "1m00s"),
            (3725.0, "1h02m"),
            (90_000.0, "1d01h"),
            (-5.0, "0.0s"),
        ] {
            assert_eq!(duration(SignedDuration::from_secs_f64(seconds)), expected);
        }
    }

    #[test]
    fn what_has_not_ended_lasts_until_now() {
        let now = "2026-01-01T00:01:00Z".parse().expect("a moment");
        assert_eq!(
            between("2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z", now),
            "1m00s"
        );
        assert_eq!(
            between("2026-01-01T00:00:00Z", "2026-01-01T00:00:02.500Z", now),
            "2.5s"
        );
        assert_eq!(between("", "", now), "");
    }

    #[test]
    fn sizes_are_said_in_the_largest_unit() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 30, "3.0 GiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn values_are_cut_to_one_line() {
        assert_eq!(short(&json!("a\nb"), 10), "a b");
        assert_eq!(short(&json!([1, 2, 3]), 4), "[1,2…");
    }

    #[test]
    fn yaml_reads_back() {
        let value = json!({"a": [1, "yes", null, "x: y"], "b": {"c": true}});
        let text = yaml(&value).expect("written");
        assert_eq!(
            serde_saphyr::from_str::<Value>(&text).expect("read"),
            value,
            "{text}"
        );
    }
}

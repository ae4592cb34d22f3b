//! What stands for a time, a number or an id in the parameters of a run: `[[ScheduledTime]]`,
//! `[[CurrentTime.2006-01-02]]`, `{{$.scheduledTime.strftime('%F')}}`, `[[Index]]`, `[[RunUUID]]`.
//!
//! The rules are those of KFP's parameter formatter: a macro whose value is not known, or that
//! is none, stays as it is. Formats after a dot are Go's, which write one certain moment,
//! 2 January 2006 at 15:04:05.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde_json::{Map, Value};

use crate::id::RunId;

/// What macros stand for in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Macros {
    /// The run.
    pub run_id: RunId,
    /// Now.
    pub now: Timestamp,
    /// When the run was due, for one that a recurring run makes.
    pub scheduled: Option<Timestamp>,
    /// Which of its recurring run's runs it is, from 1.
    pub index: Option<u32>,
}

/// Go's `20060102150405`.
const DEFAULT_LAYOUT: &str = "20060102150405";

impl Macros {
    /// Parameters with the macros of all texts replaced; of the texts in lists and structs too.
    #[must_use]
    pub fn expand_parameters(&self, parameters: &Map<String, Value>) -> Map<String, Value> {
        parameters
            .iter()
            .map(|(name, value)| (name.clone(), self.expand_value(value)))
            .collect()
    }

    fn expand_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.expand(text)),
            Value::Array(items) => items.iter().map(|item| self.expand_value(item)).collect(),
            Value::Object(fields) => Value::Object(self.expand_parameters(fields)),
            other => other.clone(),
        }
    }

    /// A text with its macros replaced.
    #[must_use]
    pub fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((start, open, close)) = next_macro(rest) {
            expanded.push_str(&rest[..start]);
            let body_start = start + open.len();
            let Some(length) = rest[body_start..]
                .find(close)
                .filter(|length| !rest[body_start..body_start + length].contains('\n'))
            else {
                // Not closed on its line: no macro begins here.
                expanded.push_str(open);
                rest = &rest[body_start..];
                continue;
            };
            let end = body_start + length + close.len();
            let body = &rest[body_start..body_start + length];
            match self.value(open, body) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&rest[start..end]),
            }
            rest = &rest[end..];
        }
        expanded.push_str(rest);
        expanded
    }

    fn value(&self, open: &str, body: &str) -> Option<String> {
        if open == BRACES.0 {
            let (time, call) = body.split_once(".strftime('")?;
            let time = match time {
                "scheduledTime" => self.scheduled?,
                "currentTime" => self.now,
                _ => return None,
            };
            let format = call.strip_suffix("')")?;
            return jiff::fmt::strtime::format(format, &utc(time)).ok();
        }
        let (name, layout) = match body.split_once('.') {
            Some((name, layout)) => (name, Some(layout)),
            None => (body, None),
        };
        match (name, layout) {
            ("RunUUID", None) => Some(self.run_id.to_string()),
            ("Index", None) => self.index.map(|index| index.to_string()),
            ("ScheduledTime", layout) => Some(go_format(self.scheduled?, layout.unwrap_or(DEFAULT_LAYOUT))),
            ("CurrentTime", layout) => Some(go_format(self.now, layout.unwrap_or(DEFAULT_LAYOUT))),
            _ => None,
        }
    }
}

const BRACKETS: (&str, &str) = ("[[", "]]");
const BRACES: (&str, &str) = ("{{$.", "}}");

/// Where the next macro may begin, and how it begins and ends.
fn next_macro(text: &str) -> Option<(usize, &'static str, &'static str)> {
    [BRACKETS, BRACES]
        .into_iter()
        .filter_map(|(open, close)| text.find(open).map(|start| (start, open, close)))
        .min_by_key(|(start, ..)| *start)
}

fn utc(time: Timestamp) -> Zoned {
    time.to_zoned(TimeZone::UTC)
}

/// An element of a Go layout, and what it is in `strftime`. Where one begins like another, the
/// longer comes first.
const ELEMENTS: [(&str, &str); 34] = [
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "UTC"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("1", "%-m"),
    ("2006", "%Y"),
    ("2", "%-d"),
    ("__2", "%_3j"),
    ("_2", "%e"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("-07:00:00", "+00:00:00"),
    ("-070000", "+000000"),
    ("-07:00", "+00:00"),
    ("-0700", "+0000"),
    ("-07", "+00"),
    ("Z07:00:00", "Z"),
    ("Z070000", "Z"),
    ("Z07:00", "Z"),
    ("Z0700", "Z"),
    ("Z07", "Z"),
    ("_2006", "_%Y"),
];

/// A time to the second in UTC, as Go writes it in a layout.
fn go_format(time: Timestamp, layout: &str) -> String {
    let time = utc(time);
    let mut written = String::with_capacity(layout.len());
    let mut rest = layout;
    while let Some(char) = rest.chars().next() {
        if let Some((element, format)) = element(rest) {
            // These formats are all known to jiff.
            written.push_str(&jiff::fmt::strtime::format(format, &time).unwrap_or_default());
            rest = &rest[element.len()..];
        } else if let Some(length) = fraction(rest) {
            // There are no parts of seconds: `.000` is zeros, `.999` is nothing.
            if rest[1..].starts_with('0') {
                written.push_str(&rest[..length]);
            }
            rest = &rest[length..];
        } else {
            written.push(char);
            rest = &rest[char.len_utf8()..];
        }
    }
    written
}

fn element(layout: &str) -> Option<(&'static str, &'static str)> {
    let found = ELEMENTS
        .into_iter()
        .filter(|(element, _)| layout.starts_with(element))
        .max_by_key(|(element, _)| element.len())?;
    // `Jan` and `Mon` are none in a longer word.
    let is_word = matches!(found.0, "Jan" | "Mon");
    let goes_on = layout[found.0.len()..].starts_with(|char: char| char.is_ascii_lowercase());
    (!is_word || !goes_on).then_some(found)
}

/// The length of `.000` or `,999` at the beginning of a layout.
fn fraction(layout: &str) -> Option<usize> {
    let digits = layout.strip_prefix(['.', ','])?;
    let digit = digits.chars().next().filter(|char| matches!(char, '0' | '9'))?;
    let rest = digits.trim_start_matches(digit);
    (!rest.starts_with(|char: char| char.is_ascii_digit())).then(|| layout.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn macros() -> Macros {
        Macros {
            run_id: "0198c0de-0000-7000-8000-000000000001".parse().expect("an id"),
            now: Timestamp::from_second(26).expect("a moment"),
            scheduled: Some(Timestamp::from_second(25).expect("a moment")),
            index: Some(27),
        }
    }

    #[test]
    fn macros_stand_for_what_they_stand_for_in_kubeflow() {
        for (text, expected) in [
            ("FOO FOO", "FOO FOO"),
            (
                "FOO [[RunUUID]] FOO",
                "FOO 0198c0de-0000-7000-8000-000000000001 FOO",
            ),
            ("FOO [[ScheduledTime]] FOO", "FOO 19700101000025 FOO"),
            ("FOO [[CurrentTime]] FOO", "FOO 19700101000026 FOO"),
            ("FOO [[Index]] FOO", "FOO 27 FOO"),
            ("FOO [[ScheduledTime.15-04-05]] FOO", "FOO 00-00-25 FOO"),
            ("FOO [[CurrentTime.15-04-05]] FOO", "FOO 00-00-26 FOO"),
            ("[[ScheduledTime]][[Index]] [[Index]]", "1970010100002527 27"),
            ("[[CurrentTime.Mon Jan]]", "Thu Jan"),
            (
                "{{$.scheduledTime.strftime('%Y-%m-%d %H:%M:%S')}}",
                "1970-01-01 00:00:25",
            ),
            ("a {{$.currentTime.strftime('%s')}} b", "a 26 b"),
            ("[[UnknownExpression]]", "[[UnknownExpression]]"),
            ("{{$.inputs.parameters['a']}}", "{{$.inputs.parameters['a']}}"),
            ("[[1, 2], [3, 4]]", "[[1, 2], [3, 4]]"),
            ("[[Index", "[[Index"),
            ("[[Index\n]]", "[[Index\n]]"),
            ("é[[Index]]é", "é27é"),
        ] {
            assert_eq!(macros().expand(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_stays() {
        let once = Macros {
            scheduled: None,
            index: None,
            ..macros()
        };
        let text = "[[ScheduledTime]] [[ScheduledTime.2006]] [[Index]] {{$.scheduledTime.strftime('%Y')}}";
        assert_eq!(once.expand(text), text);
        assert_eq!(once.expand("[[CurrentTime.2006]]"), "1970");
    }

    #[test]
    fn texts_anywhere_in_a_parameter_are_expanded() {
        let given = json!({"a": 1, "b": "[[Index]]", "c": ["x [[Index]]", {"d": "[[Index]]"}], "e": null});
        let expected = json!({"a": 1, "b": "27", "c": ["x 27", {"d": "27"}], "e": null});
        let given = given.as_object().expect("an object");
        assert_eq!(Value::Object(macros().expand_parameters(given)), expected);
    }

    #[test]
    fn layouts_are_written_as_go_writes_them() {
        let time: Timestamp = "2009-02-04T21:00:57.012Z".parse().expect("a moment");
        for (layout, expected) in [
            ("Mon Jan _2 15:04:05 2006", "Wed Feb  4 21:00:57 2009"),
            ("Mon Jan _2 15:04:05 MST 2006", "Wed Feb  4 21:00:57 UTC 2009"),
            ("02 Jan 06 15:04 -0700", "04 Feb 09 21:00 +0000"),
            ("2006-01-02T15:04:05Z07:00", "2009-02-04T21:00:57Z"),
            ("2006-01-02T15:04:05-07:00", "2009-02-04T21:00:57+00:00"),
            ("3:04PM", "9:00PM"),
            ("03:04pm", "09:00pm"),
            ("1/2/06 4:5", "2/4/09 0:57"),
            ("002 __2", "035  35"),
            ("Monday, January 2", "Wednesday, February 4"),
            ("Month January", "Month February"),
            ("_2006", "_2009"),
            ("15:04:05.000", "21:00:57.000"),
            ("15:04:05.999", "21:00:57"),
            ("%Y é", "%Y é"),
        ] {
            assert_eq!(go_format(time, layout), expected, "{layout}");
        }
    }
}

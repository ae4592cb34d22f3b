//! Cron expressions as KFP takes them: the dialect of `robfig/cron` version 1.
//!
//! [`Cron::parse_standard`] reads what CronJobs of Kubernetes take: the five fields of version 3.
//!
//! Six fields: second, minute, hour, day of month, month, day of week. The last may be left out.
//! A day matches when day of month and day of week both do; when neither is `*` or `?`, one of
//! them is enough. `*/2` counts as a star. No other library has these rules.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

/// The text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{expression}` is no cron expression: {problem}")]
pub struct InvalidCron {
    /// The text.
    pub expression: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// A cron expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// `@every 1h30m`.
    Every(SignedDuration),
    /// The six fields.
    Fields(Box<Fields>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    second: Set,
    minute: Set,
    hour: Set,
    day: Set,
    month: Set,
    weekday: Set,
}

/// Numbers below 64, and whether a `*` or `?` was among what named them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    bits: u64,
    has_star: bool,
}

/// Which expressions are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Six fields; `*/2` is a star.
    Kubeflow,
    /// Five fields, to the minute; `*/2` is no star.
    Standard,
}

/// What a field may hold.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names of the numbers from `min`.
    names: &'static [&'static str],
}

const SECOND: Field = Field::numbers("second", 0, 59);
const MINUTE: Field = Field::numbers("minute", 0, 59);
const HOUR: Field = Field::numbers("hour", 0, 23);
const DAY: Field = Field::numbers("day of month", 1, 31);
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAY: Field = Field {
    name: "day of week",
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// How far to look: from 29 February 2096 to the next one are 8 years.
const YEARS: i16 = 12;

impl Cron {
    /// Reads an expression: five or six fields, or `@hourly`, `@daily`, `@midnight`, `@weekly`,
    /// `@monthly`, `@yearly`, `@annually`, `@every DURATION`.
    ///
    /// # Errors
    ///
    /// [`InvalidCron`], with the field and what it may hold. An expression that never comes true,
    /// such as 30 February, is one.
    pub fn parse(text: &str) -> Result<Self, InvalidCron> {
        let invalid = |problem: String| InvalidCron {
            expression: text.to_owned(),
            problem,
        };
        let rule = rule(text, Dialect::Kubeflow).map_err(invalid)?;
        let cron = Self {
            text: text.to_owned(),
            rule,
        };
        if cron.next_after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(invalid("no date ever matches it".to_owned()));
        }
        Ok(cron)
    }

    /// Reads an expression as CronJobs take it: five fields (minute, hour, day of month, month, day of week), or what
    /// [`Cron::parse`] takes with an `@`.
    ///
    /// # Errors
    ///
    /// [`InvalidCron`], with the field and what it may hold. An expression that never comes true is none.
    pub fn parse_standard(text: &str) -> Result<Self, InvalidCron> {
        let rule = rule(text, Dialect::Standard).map_err(|problem| InvalidCron {
            expression: text.to_owned(),
            problem,
        })?;
        Ok(Self {
            text: text.to_owned(),
            rule,
        })
    }

    /// The first time after `after`, in UTC.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.next_after_in(after, &TimeZone::UTC)
    }

    /// The first time after `after`, as clocks in the zone show it. A time that clocks leave out does not come; one
    /// that they show twice comes twice.
    #[must_use]
    pub fn next_after_in(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let second = i64::try_from(after.as_nanosecond().div_euclid(1_000_000_000)).ok()?;
        let from = Timestamp::from_second(second).ok()?;
        let fields = match &self.rule {
            Rule::Every(interval) => return from.checked_add(*interval).ok(),
            Rule::Fields(fields) => fields,
        };
        let mut from = from.checked_add(SignedDuration::from_secs(1)).ok()?;
        let last = from
            .checked_add(SignedDuration::from_hours(24 * 366 * i64::from(YEARS)))
            .ok()?;
        // Between two changes of the clocks, time is as even as in UTC.
        while from <= last {
            let offset = zone.to_offset(from);
            let change = zone.following(from).next().map(|change| change.timestamp());
            let found = fields
                .at_or_after(offset.to_datetime(from))
                .and_then(|found| offset.to_timestamp(found).ok());
            match (found, change) {
                (Some(found), Some(change)) if found < change => return Some(found),
                (found, None) => return found,
                (_, Some(change)) => from = change,
            }
        }
        None
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Cron {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        Self::parse(text)
    }
}

impl Fields {
    fn at_or_after(&self, from: civil::DateTime) -> Option<civil::DateTime> {
        let last_year = from.year().checked_add(YEARS)?;
        let mut date = from.date();
        let mut earliest = from.time();
        loop {
            if date.year() > last_year {
                return None;
            }
            if !self.month.has(date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
                earliest = civil::Time::midnight();
                continue;
            }
            if self.has_day(date)
                && let Some(time) = self.time_at_or_after(earliest)
            {
                return Some(date.to_datetime(time));
            }
            date = date.tomorrow().ok()?;
            earliest = civil::Time::midnight();
        }
    }

    fn has_day(&self, date: civil::Date) -> bool {
        let day = self.day.has(date.day());
        let weekday = self.weekday.has(date.weekday().to_sunday_zero_offset());
        if self.day.has_star || self.weekday.has_star {
            day && weekday
        } else {
            day || weekday
        }
    }

    fn time_at_or_after(&self, from: civil::Time) -> Option<civil::Time> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        let in_minute = |hour, minute, second| {
            let second = self.second.at_or_after(second)?;
            civil::Time::new(hour, minute, second, 0).ok()
        };
        let in_hour = |hour, minute| in_minute(hour, self.minute.at_or_after(minute)?, 0);
        if self.hour.has(hour) {
            if self.minute.has(minute)
                && let Some(time) = in_minute(hour, minute, second)
            {
                return Some(time);
            }
            if let Some(time) = in_hour(hour, minute + 1) {
                return Some(time);
            }
        }
        in_hour(self.hour.at_or_after(hour + 1)?, 0)
    }
}

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits.checked_shr(number).unwrap_or(0) & 1 == 1)
    }

    /// The smallest number in it that is not below `number`.
    fn at_or_after(self, number: i8) -> Option<i8> {
        let number = u32::try_from(number).ok()?;
        let rest = self.bits.checked_shr(number).unwrap_or(0);
        if rest == 0 {
            return None;
        }
        i8::try_from(number + rest.trailing_zeros()).ok()
    }
}

impl Field {
    const fn numbers(name: &'static str, min: u32, max: u32) -> Self {
        Self {
            name,
            min,
            max,
            names: &[],
        }
    }

    /// Reads `1,2-5,*/10,mon`.
    fn set(&self, text: &str, dialect: Dialect) -> Result<Set, String> {
        let mut set = Set {
            bits: 0,
            has_star: false,
        };
        for part in text.split(',') {
            let one = self.range(part, dialect).map_err(|problem| {
                format!(
                    "the {} `{text}` {problem}; it may hold {} to {}, `*`, `?`, ranges `a-b`, steps `a-b/n` and lists",
                    self.name, self.min, self.max
                )
            })?;
            set.bits |= one.bits;
            set.has_star |= one.has_star;
        }
        Ok(set)
    }

    fn range(&self, text: &str, dialect: Dialect) -> Result<Set, String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let (low, high) = match range.split_once('-') {
            Some((low, high)) => (low, Some(high)),
            None => (range, None),
        };
        let has_star = matches!(low, "*" | "?");
        let (first, last) = match high {
            _ if has_star => {
                if high.is_some() {
                    return Err(format!("begins a range with `{low}`"));
                }
                (self.min, self.max)
            }
            Some(high) => (self.number(low)?, self.number(high)?),
            // `N/step` is `N-max/step`.
            None if step.is_some() => (self.number(low)?, self.max),
            None => {
                let number = self.number(low)?;
                (number, number)
            }
        };
        if first < self.min || last > self.max {
            return Err(format!("goes beyond {} to {}", self.min, self.max));
        }
        if first > last {
            return Err(format!("begins its range at {first}, after its end {last}"));
        }
        let step = match step {
            None => 1,
            Some(step) => match step.parse::<u32>() {
                Ok(0) | Err(_) => return Err(format!("has the step `{step}`, which is no number above 0")),
                Ok(step) => step,
            },
        };
        let bits = (first..=last)
            .step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .fold(0, |bits, number| bits | 1 << number);
        let has_star = has_star && (step == 1 || dialect == Dialect::Kubeflow);
        Ok(Set { bits, has_star })
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        if let Some(place) = named.and_then(|place| u32::try_from(place).ok()) {
            return Ok(self.min + place);
        }
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|_| is_digits)
            .ok_or_else(|| format!("has `{text}` where a number belongs"))
    }
}

fn rule(text: &str, dialect: Dialect) -> Result<Rule, String> {
    if let Some(descriptor) = text.strip_prefix('@') {
        return named(descriptor);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let (second, words) = match dialect {
        Dialect::Kubeflow => words
            .split_first()
            .map_or(("", &[][..]), |(second, rest)| (*second, rest)),
        Dialect::Standard => ("0", words.as_slice()),
    };
    let given = words.len() + usize::from(dialect == Dialect::Kubeflow && !second.is_empty());
    let [minute, hour, day, month, rest @ ..] = words else {
        return Err(count(given, dialect));
    };
    let weekday = match rest {
        [] if dialect == Dialect::Kubeflow => "*",
        [weekday] => weekday,
        _ => return Err(count(given, dialect)),
    };
    Ok(Rule::Fields(Box::new(Fields {
        second: SECOND.set(second, dialect)?,
        minute: MINUTE.set(minute, dialect)?,
        hour: HOUR.set(hour, dialect)?,
        day: DAY.set(day, dialect)?,
        month: MONTH.set(month, dialect)?,
        weekday: WEEKDAY.set(weekday, dialect)?,
    })))
}

fn count(found: usize, dialect: Dialect) -> String {
    match dialect {
        Dialect::Kubeflow => format!(
            "it has {found} fields; expected 6 (second, minute, hour, day of month, month, day of week), \
             e.g. `0 30 9 * * MON-FRI`"
        ),
        Dialect::Standard => format!(
            "it has {found} fields; expected 5 (minute, hour, day of month, month, day of week), \
             e.g. `30 9 * * MON-FRI`"
        ),
    }
}

fn named(descriptor: &str) -> Result<Rule, String> {
    let fields = match descriptor {
        "yearly" | "annually" => "0 0 0 1 1 *",
        "monthly" => "0 0 0 1 * *",
        "weekly" => "0 0 0 * * 0",
        "daily" | "midnight" => "0 0 0 * * *",
        "hourly" => "0 0 * * * *",
        other => {
            let duration = other.strip_prefix("every ").ok_or_else(|| {
                "expected @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or @every 1h30m"
                    .to_owned()
            })?;
            return every(duration)
                .map(Rule::Every)
                .ok_or_else(|| format!("`{duration}` is no duration; expected e.g. `1h30m`"));
        }
    };
    rule(fields, Dialect::Kubeflow)
}

/// Go's durations, `1h30m` or `1.5h`, to the second and one second at least.
fn every(text: &str) -> Option<SignedDuration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("h", 3600.0),
        ("m", 60.0),
        ("s", 1.0),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        seconds += number * factor;
    }
    let duration = SignedDuration::try_from_secs_f64(seconds).ok()?;
    Some(SignedDuration::from_secs(duration.as_secs().max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(expression: &str, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(expression).unwrap_or_else(|error| panic!("{error}"));
        let mut time: Timestamp = from.parse().expect("a moment");
        let mut found = Vec::new();
        for _ in 0..count {
            time = cron.next_after(time).expect("a time");
            found.push(time.to_string());
        }
        found
    }

    #[test]
    fn each_expression_gives_the_times_that_kubeflow_gives() {
        // Up to the blank line: the table of robfig/cron's own documentation and tests.
        for (from, expression, expected) in [
            ("2012-07-09T14:45:00Z", "0 0/15 * * *", "2012-07-09T15:00:00Z"),
            ("2012-07-09T14:59:59Z", "0 0/15 * * *", "2012-07-09T15:00:00Z"),
            ("2012-07-09T15:45:00Z", "0 20-35/15 * * *", "2012-07-09T16:20:00Z"),
            ("2012-07-09T23:46:00Z", "0 */15 * * *", "2012-07-10T00:00:00Z"),
            ("2012-07-09T23:45:00Z", "0 20-35/15 * * *", "2012-07-10T00:20:00Z"),
            (
                "2012-07-09T23:35:51Z",
                "15/35 20-35/15 * * *",
                "2012-07-10T00:20:15Z",
            ),
            (
                "2012-07-09T23:35:51Z",
                "15/35 20-35/15 1/2 * *",
                "2012-07-10T01:20:15Z",
            ),
            (
                "2012-07-09T23:35:51Z",
                "15/35 20-35/15 10-12 * *",
                "2012-07-10T10:20:15Z",
            ),
            (
                "2012-07-09T23:35:51Z",
                "15/35 20-35/15 1/2 */2 * *",
                "2012-07-11T01:20:15Z",
            ),
            (
                "2012-07-09T23:35:51Z",
                "15/35 20-35/15 * 9-20 * *",
                "2012-07-10T00:20:15Z",
            ),
            (
                "2012-07-09T23:35:51Z",
                "15/35 20-35/15 * 9-20 Jul *",
                "2012-07-10T00:20:15Z",
            ),
            (
                "2012-07-09T23:35:00Z",
                "0 0 0 9 Apr-Oct ?",
                "2012-08-09T00:00:00Z",
            ),
            (
                "2012-07-09T23:35:00Z",
                "0 0 0 */5 Apr,Aug,Oct Mon",
                "2012-08-06T00:00:00Z",
            ),
            (
                "2012-07-09T23:35:00Z",
                "0 0 0 */5 Oct Mon",
                "2012-10-01T00:00:00Z",
            ),
            ("2012-07-09T23:35:00Z", "0 0 0 * Feb Mon", "2013-02-04T00:00:00Z"),
            (
                "2012-07-09T23:35:00Z",
                "0 0 0 * Feb Mon/2",
                "2013-02-01T00:00:00Z",
            ),
            ("2012-07-09T23:59:45Z", "0 0 * * * *", "2012-07-10T00:00:00Z"),
            ("2012-12-31T23:59:45Z", "* * * * * *", "2012-12-31T23:59:46Z"),
            ("2012-12-31T23:59:59Z", "* * * * * *", "2013-01-01T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 0 29 Feb ?", "2016-02-29T00:00:00Z"),
            ("2012-07-09T14:45:00.005Z", "0 0/15 * * *", "2012-07-09T15:00:00Z"),
            ("2012-11-04T00:00:00Z", "0 30 2 04 Nov ?", "2012-11-04T02:30:00Z"),
            ("2096-03-01T00:00:00Z", "0 0 0 29 2 *", "2104-02-29T00:00:00Z"),
            ("2026-01-31T00:00:00Z", "0 0 0 31 * ?", "2026-03-31T00:00:00Z"),
            ("2026-02-28T23:59:59Z", "0 0 0 30 * ?", "2026-03-30T00:00:00Z"),
            ("2026-12-31T23:59:59Z", "@yearly", "2027-01-01T00:00:00Z"),
            ("2026-12-31T23:59:59Z", "@annually", "2027-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "@monthly", "2026-02-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "@weekly", "2026-01-04T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "@daily", "2026-01-02T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "@midnight", "2026-01-02T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "@hourly", "2026-01-01T01:00:00Z"),
            ("2026-01-01T00:00:00.9Z", "@every 1h30m", "2026-01-01T01:30:00Z"),
            ("2026-01-01T00:00:00Z", "@every 1.5m500ms", "2026-01-01T00:01:30Z"),
            ("2026-01-01T00:00:00Z", "@every 1ms", "2026-01-01T00:00:01Z"),
            ("1969-12-31T23:59:58.5Z", "* * * * * *", "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(
                after(expression, from, 1),
                [expected],
                "{expression} after {from}"
            );
        }
    }

    #[test]
    fn one_of_two_named_days_is_enough_and_a_star_beside_it_is_none() {
        let from = "2026-01-01T00:00:00Z";
        // 2026-01-01 is a Thursday.
        assert_eq!(
            after("0 0 9 15 * MON", from, 3),
            [
                "2026-01-05T09:00:00Z",
                "2026-01-12T09:00:00Z",
                "2026-01-15T09:00:00Z"
            ]
        );
        for star in ["*", "?", "*/1"] {
            assert_eq!(
                after(&format!("0 0 9 {star} * mon"), from, 2),
                ["2026-01-05T09:00:00Z", "2026-01-12T09:00:00Z"]
            );
        }
        assert_eq!(after("0 0 9 15 * ?", from, 1), ["2026-01-15T09:00:00Z"]);
        assert_eq!(
            after("0 0 9 ? * SAT,Sun", from, 2),
            ["2026-01-03T09:00:00Z", "2026-01-04T09:00:00Z"]
        );
        assert_eq!(
            after("0 0 9 ? * 2-6", from, 2),
            ["2026-01-01T09:00:00Z", "2026-01-02T09:00:00Z"]
        );
        assert_eq!(
            after("0 0 9 ? * 2-6", "2026-01-03T12:00:00Z", 1),
            ["2026-01-06T09:00:00Z"]
        );
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_field() {
        for (expression, expected) in [
            ("", "it has 0 fields"),
            ("* * * *", "it has 4 fields; expected 6"),
            ("* * * * * * *", "it has 7 fields"),
            ("60 0 * * * *", "the second `60` goes beyond 0 to 59"),
            ("0 x * * * *", "the minute `x` has `x` where a number belongs"),
            (
                "0 0 9-3 * * *",
                "the hour `9-3` begins its range at 9, after its end 3",
            ),
            ("0 0 0 0 * *", "the day of month `0` goes beyond 1 to 31"),
            ("0 0 0 1-2-3 * *", "the day of month `1-2-3` has `2-3`"),
            ("0 0 0 * JAN-XYZ *", "the month `JAN-XYZ` has `XYZ`"),
            ("0 0 0 * * 7", "the day of week `7` goes beyond 0 to 6"),
            ("*/0 * * * * *", "the second `*/0` has the step `0`"),
            ("1/2/3 * * * * *", "the second `1/2/3` has the step `2/3`"),
            ("1,,2 * * * * *", "the second `1,,2` has `` where"),
            ("+1 * * * * *", "the second `+1` has `+1` where"),
            ("0 0 0 30 2 *", "no date ever matches it"),
            ("@reboot", "expected @hourly"),
            ("@every soon", "`soon` is no duration"),
            ("@every -1h", "`-1h` is no duration"),
            ("@every 5", "`5` is no duration"),
        ] {
            let error = Cron::parse(expression).expect_err("refused").to_string();
            assert!(error.contains(expected), "{expression}: {error}");
        }
    }

    #[test]
    fn cron_jobs_have_five_fields_and_time_zones() {
        // In New York clocks go from 02:00 to 03:00 on 8 March and from 02:00 back to 01:00 on 1 November 2026.
        for (expression, zone, from, expected) in [
            (
                "30 9 * * 1-5",
                "UTC",
                "2026-01-03T00:00:00Z",
                ["2026-01-05T09:30:00Z", "2026-01-06T09:30:00Z"],
            ),
            (
                "0 0 */10 * 1",
                "UTC",
                "2026-01-01T00:00:00Z",
                ["2026-01-05T00:00:00Z", "2026-01-11T00:00:00Z"],
            ),
            (
                "@hourly",
                "UTC",
                "2026-01-01T00:00:00Z",
                ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"],
            ),
            (
                "0 9 * * *",
                "America/New_York",
                "2026-03-07T00:00:00Z",
                ["2026-03-07T14:00:00Z", "2026-03-08T13:00:00Z"],
            ),
            (
                "30 2 * * *",
                "America/New_York",
                "2026-03-07T12:00:00Z",
                ["2026-03-09T06:30:00Z", "2026-03-10T06:30:00Z"],
            ),
            (
                "30 1 * * *",
                "America/New_York",
                "2026-11-01T00:00:00Z",
                ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"],
            ),
            (
                "0 * * * *",
                "America/New_York",
                "2026-11-01T05:30:00Z",
                ["2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z"],
            ),
        ] {
            let cron = Cron::parse_standard(expression).unwrap_or_else(|error| panic!("{error}"));
            let zone = TimeZone::get(zone).expect("a zone");
            let first = cron
                .next_after_in(from.parse().expect("a moment"), &zone)
                .expect("a time");
            let second = cron.next_after_in(first, &zone).expect("a time");
            assert_eq!(
                [first.to_string(), second.to_string()],
                expected,
                "{expression} after {from}"
            );
        }
        let error = Cron::parse_standard("0 0 * * * *")
            .expect_err("six fields")
            .to_string();
        assert!(error.contains("it has 6 fields; expected 5"), "{error}");
        let never = Cron::parse_standard("0 0 30 2 *").expect("valid");
        assert_eq!(never.next_after(Timestamp::UNIX_EPOCH), None);
    }

    proptest::proptest! {
        #[test]
        fn times_are_found_in_order_and_none_is_left_out(
            second in 0_u32..60, minute_step in 1_u32..30, hour in 0_u32..24, day in 1_u32..29,
            from in 0_i64..4_000_000_000,
        ) {
            let cron = Cron::parse(&format!("{second} */{minute_step} {hour} {day} * ?")).expect("valid");
            let from = Timestamp::from_second(from).expect("in range");
            let next = cron.next_after(from).expect("a time");
            proptest::prop_assert!(next > from);
            // Asking from any moment between gives the same time.
            let between = from.as_second() + (next.as_second() - from.as_second() - 1) / 2;
            let between = Timestamp::from_second(between).expect("in range");
            proptest::prop_assert_eq!(cron.next_after(between), Some(next));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[@0-9*?/,a-zA-Z -]{0,40}") {
            if let Ok(cron) = Cron::parse(&text) {
                let _ = cron.next_after(Timestamp::MAX);
                let _ = cron.next_after(Timestamp::MIN);
            }
        }
    }
}

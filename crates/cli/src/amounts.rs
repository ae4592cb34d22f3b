//! Durations, sizes and moments as people type them.

use std::str::FromStr;

use coracle_api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

/// `30d`, `12h`, `1h30m`, `45s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) u64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected e.g. `30d`, `12h`, `1h30m` or `45s`".to_owned();
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut seconds: u64 = 0;
        while !rest.is_empty() {
            let end = rest.find(|char: char| !char.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..end].parse().map_err(|_| wrong())?;
            let unit = rest[end..].chars().next().ok_or_else(wrong)?;
            let factor = match unit {
                'w' => 7 * 86_400,
                'd' => 86_400,
                'h' => 3600,
                'm' => 60,
                's' => 1,
                _ => return Err(wrong()),
            };
            seconds = number
                .checked_mul(factor)
                .and_then(|more| seconds.checked_add(more))
                .ok_or_else(wrong)?;
            rest = &rest[end + 1..];
        }
        Ok(Self(seconds))
    }
}

impl Span {
    /// The same as a duration, for showing it.
    pub(crate) fn duration(self) -> SignedDuration {
        SignedDuration::from_secs(i64::try_from(self.0).unwrap_or(i64::MAX))
    }
}

/// `10Gi`, `500M`, `1048576`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.trim().trim_end_matches('B');
        let quantity: Option<Quantity> = plain.parse().ok();
        quantity
            .and_then(|quantity| u64::try_from(quantity.units()).ok())
            .map(Self)
            .ok_or_else(|| "expected a number of bytes, e.g. `10Gi` or `500M`".to_owned())
    }
}

/// `2026-01-31`, `2026-01-31T09:30`, `2026-01-31 09:30:00`, in UTC unless it names an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(Self(moment));
        }
        let civil: Option<civil::DateTime> = text.parse().ok();
        civil
            .and_then(|civil| TimeZone::UTC.to_timestamp(civil).ok())
            .map(Self)
            .ok_or_else(|| "expected e.g. `2026-01-31T09:30` (UTC) or `2026-01-31T09:30:00+01:00`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_their_units() {
        for (text, expected) in [
            ("45s", 45),
            ("1h30m", 5400),
            ("30d", 30 * 86_400),
            ("2w", 14 * 86_400),
            ("0s", 0),
        ] {
            assert_eq!(text.parse(), Ok(Span(expected)), "{text}");
        }
        for text in [
            "",
            "5",
            "h",
            "5x",
            "-5m",
            "1.5h",
            "99999999999999999999s",
            "9999999999999999w",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_their_units() {
        for (text, expected) in [
            ("10Gi", 10 << 30),
            ("10GiB", 10 << 30),
            ("500M", 500_000_000),
            ("7", 7),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Size(expected)), "{text}");
        }
        for text in ["", "big", "-1"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_in_utc_unless_they_say_otherwise() {
        for (text, expected) in [
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026-01-31T09:30", "2026-01-31T09:30:00Z"),
            ("2026-01-31 09:30:05", "2026-01-31T09:30:05Z"),
            ("2026-01-31T09:30:00+01:00", "2026-01-31T08:30:00Z"),
        ] {
            let moment: Moment = text.parse().expect(text);
            assert_eq!(moment.0.to_string(), expected, "{text}");
        }
        assert!("tomorrow".parse::<Moment>().is_err());
    }
}

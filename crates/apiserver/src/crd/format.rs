//! What `format` says of values. Formats that are not known here say nothing, as in Kubernetes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::{Timestamp, civil::Date};
use serde_json::Value;
use uuid::Uuid;

use crate::validation;

/// Whether the text is in the format.
pub(super) fn is_valid(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_time(text),
        "date" => text.parse::<Date>().is_ok() && text.len() == 10,
        "duration" => duration(text).is_some(),
        "byte" => BASE64_STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uri" => url::Url::parse(text).is_ok(),
        "hostname" => text
            .split('.')
            .all(|label| validation::is_label(&label.to_ascii_lowercase())),
        "email" => text
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains(['@', ' '])),
        "uuid" => Uuid::try_parse(text).is_ok(),
        "uuid3" => is_uuid(text, 3),
        "uuid4" => is_uuid(text, 4),
        "uuid5" => is_uuid(text, 5),
        "k8s-short-name" => validation::is_label(text),
        "k8s-long-name" => validation::is_subdomain(text),
        _ => true,
    }
}

/// Whether the number can be what the format says.
pub(super) fn is_in_range(format: &str, number: &Value) -> bool {
    let value = number.as_f64().unwrap_or_default();
    match format {
        "int32" => value >= f64::from(i32::MIN) && value <= f64::from(i32::MAX),
        "uint32" => value >= 0.0 && value <= f64::from(u32::MAX),
        "int64" => number.is_i64() || value.abs() < 9.2e18,
        "uint64" => value >= 0.0,
        "float" => value.abs() <= f64::from(f32::MAX),
        _ => true,
    }
}

fn is_time(text: &str) -> bool {
    // RFC 3339: a date, a time, and where that was.
    text.parse::<Timestamp>().is_ok() && text.get(10..11).is_some_and(|t| t.eq_ignore_ascii_case("t"))
}

/// The nanoseconds of a duration as Go writes it: `1h30m`, `-1.5s`, `0`.
pub(super) fn duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 9] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
        ("d", 86400e9),
        ("w", 604800e9),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let number = number.parse::<f64>().ok()?;
        let whole = |tail: &&str| !tail.starts_with(char::is_alphabetic);
        let (tail, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((tail.strip_prefix(name).filter(whole)?, unit)))?;
        total += number * unit;
        if tail.is_empty() {
            let nanoseconds = sign * total;
            return (nanoseconds.abs() < 9.2e18).then_some(nanoseconds as i64);
        }
        rest = tail;
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn is_mac(text: &str) -> bool {
    let pairs = text.split([':', '-']).collect::<Vec<_>>();
    let is_pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(pairs.len(), 6 | 8) && pairs.iter().all(is_pair)
}

fn is_uuid(text: &str, version: usize) -> bool {
    Uuid::try_parse(text).is_ok_and(|id| id.get_version_num() == version)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_judged_by_their_format() {
        for (format, good, bad) in [
            ("date-time", "2026-11-22T10:00:00.5+01:00", "2026-11-22 10:00"),
            ("date", "2026-11-22", "22.11.2026"),
            ("duration", "1h30m", "1 hour"),
            ("duration", "-1.5s", "5"),
            ("byte", "aGVsbG8=", "h!"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:23:45:67:89:ab", "01:23"),
            ("uri", "https://a.io/b", "a b"),
            ("hostname", "a.io", "-a"),
            ("email", "a@b.io", "a.b.io"),
            ("uuid", "0198c0de-0000-7000-8000-000000000001", "0198"),
        ] {
            assert!(is_valid(format, good), "{format} {good}");
            assert!(!is_valid(format, bad), "{format} {bad}");
        }
        assert!(is_in_range("int32", &json!(-5)) && !is_in_range("int32", &json!(1_u64 << 31)));
        assert!(is_in_range("int64", &json!(1_u64 << 40)) && !is_in_range("int64", &json!(u64::MAX)));
    }
}

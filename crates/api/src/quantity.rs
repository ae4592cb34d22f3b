//! Kubernetes resource quantities (`500m`, `2Gi`, `1e3`), parsed to whole milli-units.
//!
//! Source of the rules: kubernetes/apimachinery `pkg/api/resource/quantity.go`. Fractions finer
//! than a thousandth are rounded up, as Kubernetes does.

/// The text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a quantity: expected a number with an optional suffix, such as 500m, 2 or 4Gi")]
pub struct InvalidQuantity(pub String);

/// An amount of a resource in thousandths of its unit: of a core, of a byte, of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i128);

impl Quantity {
    /// An amount from whole units.
    #[must_use]
    pub const fn from_units(units: i64) -> Self {
        Self(units as i128 * 1000)
    }

    /// Thousandths of the unit.
    #[must_use]
    pub const fn milli(self) -> i128 {
        self.0
    }

    /// Whole units, rounded up.
    #[must_use]
    pub const fn units(self) -> i128 {
        self.0.div_euclid(1000) + if self.0.rem_euclid(1000) > 0 { 1 } else { 0 }
    }
}

/// How an amount is written: Kubernetes keeps to the way that its first writer chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Notation {
    /// `500m`, `2`, `3k`, `4G`.
    #[default]
    Decimal,
    /// `3Ki`, `4Gi`.
    Binary,
    /// `3e3`.
    Exponent,
}

impl Notation {
    /// The notation of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let suffix = text
            .trim()
            .trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-'));
        match suffix {
            "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => Self::Binary,
            _ if suffix.len() > 1 && suffix.starts_with(['e', 'E']) => Self::Exponent,
            _ => Self::Decimal,
        }
    }
}

/// An amount and how it is written. Adding keeps the notation of what was there first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Amount {
    /// How much.
    pub quantity: Quantity,
    /// How it is written.
    pub notation: Notation,
}

impl Amount {
    /// A number of things.
    #[must_use]
    pub fn count(things: usize) -> Self {
        Self {
            quantity: Quantity::from_units(i64::try_from(things).unwrap_or(i64::MAX)),
            notation: Notation::Decimal,
        }
    }
}

impl std::str::FromStr for Amount {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        Ok(Self {
            quantity: text.parse()?,
            notation: Notation::of(text),
        })
    }
}

impl std::ops::Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            quantity: self.quantity + other.quantity,
            notation: if self.quantity.0 == 0 {
                other.notation
            } else {
                self.notation
            },
        }
    }
}

impl std::ops::Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            quantity: self.quantity - other.quantity,
            ..self
        }
    }
}

impl std::fmt::Display for Amount {
    /// In Kubernetes' canonical form: no fraction, the largest suffix that leaves none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let milli = self.quantity.0;
        if milli == 0 {
            return f.write_str("0");
        }
        let is_binary = self.notation == Notation::Binary && milli.abs() >= 1_024_000;
        let (mut number, suffixes): (i128, &[&str]) = match self.notation {
            _ if is_binary => (self.quantity.units(), &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]),
            Notation::Exponent => (milli, &["e-3", "", "e3", "e6", "e9", "e12", "e15", "e18"]),
            Notation::Decimal | Notation::Binary => (milli, &["m", "", "k", "M", "G", "T", "P", "E"]),
        };
        let base = if is_binary { 1024 } else { 1000 };
        let mut at = 0;
        while number % base == 0 && at + 1 < suffixes.len() {
            number /= base;
            at += 1;
        }
        write!(f, "{number}{}", suffixes[at])
    }
}

impl std::str::FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        parse(text)
            .map(Self)
            .ok_or_else(|| InvalidQuantity(text.to_owned()))
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |sum, amount| sum + amount)
    }
}

impl std::fmt::Display for Quantity {
    /// Whole units when there are no thousandths left over, else thousandths with `m`; large
    /// multiples of 1024 in the largest binary suffix that is exact.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 % 1000 != 0 {
            return write!(f, "{}m", self.0);
        }
        let units = self.0 / 1000;
        for (suffix, power) in [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)] {
            if units != 0 && units % (1_i128 << power) == 0 {
                return write!(f, "{}{suffix}", units >> power);
            }
        }
        write!(f, "{units}")
    }
}

fn parse(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits_end = text
        .char_indices()
        .find(|(index, c)| !(c.is_ascii_digit() || *c == '.' || (*index == 0 && matches!(c, '+' | '-'))))
        .map_or(text.len(), |(index, _)| index);
    let (number, suffix) = text.split_at(digits_end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (numerator, denominator) = scale(suffix)?;
    let denominator = denominator.checked_mul(10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let numerator = mantissa.checked_mul(numerator)?;
    let rounded_up = numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) > 0);
    Some(if negative { -rounded_up } else { rounded_up })
}

/// What one of the suffix is in thousandths, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |power: u32| Some((10_i128.checked_pow(power)?, 1));
    match suffix {
        "n" => Some((1, 1_000_000)),
        "u" => Some((1, 1000)),
        "m" => Some((1, 1)),
        "" => decimal(3),
        "k" => decimal(6),
        "M" => decimal(9),
        "G" => decimal(12),
        "T" => decimal(15),
        "P" => decimal(18),
        "E" => decimal(21),
        "Ki" => Some((1000 << 10, 1)),
        "Mi" => Some((1000 << 20, 1)),
        "Gi" => Some((1000 << 30, 1)),
        "Ti" => Some((1000 << 40, 1)),
        "Pi" => Some((1000 << 50, 1)),
        "Ei" => Some((1000 << 60, 1)),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            if (-21..=18).contains(&exponent) {
                let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
                Some(if exponent < 0 {
                    (1000, power)
                } else {
                    (1000 * power, 1)
                })
            } else {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, milli: i128, shown: &str) {
        let quantity: Quantity = text.parse().expect(text);
        assert_eq!(
            (quantity.milli(), quantity.to_string().as_str()),
            (milli, shown),
            "{text}"
        );
    }

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        check("1", 1000, "1");
        check("500m", 500, "500m");
        check("0.5", 500, "500m");
        check("1.5", 1500, "1500m");
        check("2Gi", (2 << 30) * 1000, "2Gi");
        check("1.5Gi", (3 << 29) * 1000, "1536Mi");
        check("100M", 100_000_000_000, "100000000");
        check("1e3", 1_000_000, "1000");
        check("100u", 1, "1m");
    }

    #[test]
    fn amounts_are_written_in_canonical_form() {
        for (text, shown) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("3000", "3k"),
            ("100M", "100M"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1024", "1024"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
        ] {
            let amount: Amount = text.parse().unwrap();
            assert_eq!(amount.to_string(), shown, "{text}");
        }
        let sum = "1Gi".parse::<Amount>().unwrap() + "1000M".parse().unwrap();
        assert_eq!(sum.to_string(), "2073741824");
        let from_nothing = Amount::default() + "1Gi".parse().unwrap();
        assert_eq!(from_nothing.to_string(), "1Gi");
    }

    #[test]
    fn text_that_is_no_quantity_is_refused() {
        for text in ["", "Gi", "1.2.3", "2GB", "two", "1 2", "."] {
            assert_eq!(text.parse::<Quantity>(), Err(InvalidQuantity(text.to_owned())));
        }
    }
}

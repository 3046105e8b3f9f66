//! Lengths of time and sizes as people write them: `90s`, `5m`, `16MiB`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A length of time in whole milliseconds. Written `250ms`, `90s`, `5m`, `4h`; `0` is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// Bytes. Written as a number, or with `KiB`, `MiB`, `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

/// Units of time, longest first, in milliseconds.
const TIME: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Units of size, largest first.
const BYTES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// Splits the digits from the unit and multiplies.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The largest unit that leaves a whole number.
fn written(value: u64, units: &[(&str, u64)]) -> String {
    let (unit, factor) =
        units.iter().find(|(_, f)| value >= *f && value.is_multiple_of(*f)).unwrap_or(&("", 1));
    format!("{}{unit}", value / factor)
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let millis = if text == "0" { Some(0) } else { quantity(text, &TIME) };
        let span = millis.map(|ms| Span(Duration::from_millis(ms)));
        span.ok_or_else(|| format!("{text:?} is not a length of time such as 90s, 5m or 4h"))
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let size = quantity(text, &BYTES).map(Size);
        size.ok_or_else(|| format!("{text:?} is not a size such as 65536 or 16MiB"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        f.write_str(&written(millis, &TIME))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(self.0, &BYTES))
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, millis, back) in [
            ("0", 0, "0"),
            ("250ms", 250, "250ms"),
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("4h", 14_400_000, "4h"),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!((span.0, span.to_string().as_str()), (Duration::from_millis(millis), back));
        }
        for bad in ["", "5", "m", "-5m", "5 m", "5d", "1.5h", "99999999999999999h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, back) in [
            ("0", 0, "0"),
            ("1000", 1000, "1000"),
            ("16MiB", 16 << 20, "16MiB"),
            ("2048KiB", 2 << 20, "2MiB"),
        ] {
            let size: Size = text.parse().expect(text);
            assert_eq!((size.0, size.to_string().as_str()), (bytes, back));
        }
        for bad in ["", "MiB", "16MB", "-1", "99999999999GiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}

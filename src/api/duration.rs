//! Go durations: the text form of every time span in FAR's objects.

use std::time::Duration;

/// Why a text is no Go duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing was given.
    #[error("the duration is empty")]
    Empty,
    /// The text does not follow the form.
    #[error("{0:?} is not a duration such as \"60s\" or \"1m30s\"")]
    Malformed(String),
    /// The span is longer than Go can count: 2^63 - 1 nanoseconds, some 292 years.
    #[error("{0:?} is too long a duration")]
    TooLong(String),
}

/// Parses a duration as Go's `time.ParseDuration` does, except for a sign: `90s`, `1m30s`, `1.5h`, `100us`, `0`.
///
/// Units: `ns`, `us`, `µs` (U+00B5 or U+03BC), `ms`, `s`, `m`, `h`. What lies below a nanosecond is cut off.
///
/// # Errors
/// When the text is empty, has another form, or the span does not fit 2^63 - 1 nanoseconds.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    // Go lets a bare zero go without a unit.
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let malformed = || DurationError::Malformed(text.to_owned());
    let too_long = || DurationError::TooLong(text.to_owned());

    let mut total: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(malformed());
        }
        let (unit, after) = unit(after).ok_or_else(malformed)?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long())? };
        total += u128::from(whole) * unit + fraction_of(fraction, unit);
        if total > i64::MAX as u128 {
            return Err(too_long());
        }
        rest = after;
    }
    let nanos = u64::try_from(total).map_err(|_| too_long())?;
    Ok(Duration::from_nanos(nanos))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Splits off the unit, in nanoseconds. Two letters come before one: `ms` is not `m` and then an `s`.
fn unit(text: &str) -> Option<(u128, &str)> {
    const UNITS: [(&str, u128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("\u{3bc}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    UNITS.iter().find_map(|(name, nanos)| text.strip_prefix(name).map(|rest| (*nanos, rest)))
}

/// Returns `0.fraction` of the unit in nanoseconds, cut off. 18 digits are more than the largest unit can show.
fn fraction_of(fraction: &str, unit: u128) -> u128 {
    let shown = &fraction[..fraction.len().min(18)];
    let scale = 10u128.pow(u32::try_from(shown.len()).expect("at most 18"));
    shown.parse::<u128>().unwrap_or(0) * unit / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("7us", 7_000),
            ("7\u{b5}s", 7_000),
            ("7\u{3bc}s", 7_000),
            ("20ms", 20_000_000),
            ("5s", 5_000_000_000),
            ("60s", 60_000_000_000),
            ("2m", 120_000_000_000),
            ("3h", 10_800_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("1m1m", 120_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("0.1ns", 0),
            ("1.0000000019s", 1_000_000_001),
            ("0.3333333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
            ("007s", 7_000_000_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        assert_eq!(parse_duration(""), Err(DurationError::Empty));
        for text in ["5", "s", ".s", "5 s", " 5s", "5s ", "5S", "5d", "1.2.3s", "-5s", "+5s", "5s3", "٣s", "1e3s"] {
            assert_eq!(parse_duration(text), Err(DurationError::Malformed(text.into())), "{text}");
        }
        for text in ["9223372036854775808ns", "99999999999999999999h", "2562048h", "9223372036s9223372036s"] {
            assert_eq!(parse_duration(text), Err(DurationError::TooLong(text.into())), "{text}");
        }
    }
}

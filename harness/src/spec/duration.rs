// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Durations as Go and Kubernetes write them (`1m30s`, `1.5h`, `500ms`), or plain seconds.

use std::time::Duration;

use super::problem::{Fault, quoted};

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const SECOND: u128 = 1_000_000_000;

/// Reads a duration of at most `longest`.
///
/// # Errors
/// Anything else, negative durations included.
pub(super) fn parse(text: &str, longest: Duration) -> Result<Duration, Fault> {
    let range = format!("0s to {}", describe(longest));
    if text.starts_with('-') {
        return Err(Fault::new(format!("duration {} is negative", quoted(text))).allowed(range));
    }
    if let Some(better) = without_zeros(text) {
        let fault = Fault::new(format!("duration {} begins with a 0", quoted(text)));
        // As a number of its own it would be octal.
        return Err(fault.allowed(range).hint(format!("write {better}")));
    }
    let nanos = sum(text.strip_prefix('+').unwrap_or(text)).ok_or_else(|| {
        Fault::new(format!("{} is not a duration", quoted(text))).allowed(
            "numbers with the units h, m, s, ms, us, ns, such as 10s or 1m30s, or plain seconds",
        )
    })?;
    let duration = u64::try_from(nanos)
        .ok()
        .map(Duration::from_nanos)
        .filter(|duration| *duration <= longest);
    duration
        .ok_or_else(|| Fault::new(format!("duration {} is too long", quoted(text))).allowed(range))
}

/// The text without the zeros that stand before its first number.
fn without_zeros(text: &str) -> Option<String> {
    let number = text.strip_prefix('+').unwrap_or(text);
    let rest = number.trim_start_matches('0');
    let zeros = number.len() - rest.len();
    match (zeros, rest.starts_with(|c: char| c.is_ascii_digit())) {
        (0, _) | (1, false) => None,
        (_, true) => Some(rest.to_owned()),
        (_, false) => Some(format!("0{rest}")),
    }
}

fn describe(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds => format!("{seconds}s"),
    }
}

/// Nanoseconds; none when it is not a duration. A value beyond the type is its maximum.
fn sum(text: &str) -> Option<u128> {
    if let (amount, "") = amount(text, SECOND)? {
        return Some(amount);
    }
    let mut rest = text;
    let mut total = 0_u128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit_and_more = rest.get(end..)?;
        let unit_end = unit_and_more
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit_and_more.len());
        let (unit, more) = unit_and_more.split_at(unit_end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (value, _) = amount(rest, *scale)?;
        total = total.saturating_add(value);
        rest = more;
    }
    Some(total)
}

/// The leading decimal number times `scale`, and what follows it.
fn amount(text: &str, scale: u128) -> Option<(u128, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len().saturating_add(fraction.len()) == 0 || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| {
        if text.is_empty() {
            0
        } else {
            text.parse::<u128>().unwrap_or(u128::MAX)
        }
    };
    // Eighteen places are finer than a nanosecond in an hour.
    let fraction = fraction.get(..18).unwrap_or(fraction);
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = digits(fraction).saturating_mul(scale) / divisor;
    Some((
        digits(whole).saturating_mul(scale).saturating_add(part),
        rest,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn values() {
        let table = [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("2000000us", 2_000),
            ("1000µs", 1),
            ("10", 10_000),
            ("0.5", 500),
            ("0", 0),
            ("0s", 0),
            ("+3s", 3_000),
            ("1h05m", 3_900_000),
            ("0.050s", 50),
            ("24h", 86_400_000),
            ("0.000000000000000000000001s", 0),
        ];
        for (text, millis) in table {
            assert_eq!(
                parse(text, DAY),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn refused() {
        let table = [
            ("", "not a duration"),
            ("soon", "not a duration"),
            ("10 s", "not a duration"),
            ("10sec", "not a duration"),
            ("1d", "not a duration"),
            ("1m30", "not a duration"),
            ("1.2.3s", "not a duration"),
            (".s", "not a duration"),
            ("-5s", "negative"),
            ("010s", "begins with a 0"),
            ("00", "begins with a 0"),
            ("+01.5h", "begins with a 0"),
            ("25h", "too long"),
            ("99999999999999999999999999999999999999999999h", "too long"),
        ];
        for (text, says) in table {
            let fault = parse(text, DAY).expect_err(text);
            assert!(
                fault.message.contains(says) && fault.allowed.is_some(),
                "{text}: {fault:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+]?([0-9.]{0,30}[a-zµ]{0,2}){0,4}") {
            if let Ok(duration) = parse(&text, DAY) {
                prop_assert!(duration <= DAY);
            }
        }
    }
}

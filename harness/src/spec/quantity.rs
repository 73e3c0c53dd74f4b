// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kubernetes quantities: `1024M`, `1Gi`, `0.5Gi`, `1e9`, `134217728`, `1500m`.

use super::problem::{Fault, quoted};

/// A quantity in thousand-millionths; what is finer is rounded up, as Kubernetes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity(i128);

const NANO: i128 = 1_000_000_000;
/// Kubernetes keeps quantities within 63 bits.
const MAX: i128 = i64::MAX as i128;
/// Every suffix: the power of ten in thousand-millionths, or the power of two of a binary one.
const SUFFIXES: [(&str, Factor); 16] = [
    ("Ki", Factor::Two(10)),
    ("Mi", Factor::Two(20)),
    ("Gi", Factor::Two(30)),
    ("Ti", Factor::Two(40)),
    ("Pi", Factor::Two(50)),
    ("Ei", Factor::Two(60)),
    ("n", Factor::Ten(-9)),
    ("u", Factor::Ten(-6)),
    ("m", Factor::Ten(-3)),
    ("", Factor::Ten(0)),
    ("k", Factor::Ten(3)),
    ("M", Factor::Ten(6)),
    ("G", Factor::Ten(9)),
    ("T", Factor::Ten(12)),
    ("P", Factor::Ten(15)),
    ("E", Factor::Ten(18)),
];

#[derive(Clone, Copy)]
enum Factor {
    Two(u32),
    Ten(i32),
}

impl Quantity {
    /// Reads a quantity.
    ///
    /// # Errors
    /// Anything that Kubernetes would not take, and what does not fit in 63 bits.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len().saturating_add(fraction.len()) == 0 || fraction.contains('.') {
            return Err(not_a_quantity(text));
        }
        let factor = factor(suffix).ok_or_else(|| unknown_suffix(text, suffix))?;
        let nanos = scaled(whole, fraction, factor).filter(|&nanos| nanos <= MAX * NANO);
        let nanos =
            nanos.ok_or_else(|| Fault::new(format!("quantity {} is too large", quoted(text))))?;
        Ok(Self(if negative { -nanos } else { nanos }))
    }

    /// Whole units, what is left over dropped.
    pub(super) fn floor(self) -> i128 {
        self.0.div_euclid(NANO)
    }

    /// Whole units, what is left over counted as one more.
    pub(super) fn ceil(self) -> i128 {
        -((-self.0).div_euclid(NANO))
    }
}

fn factor(suffix: &str) -> Option<Factor> {
    if let Some((_, factor)) = SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Some(*factor);
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // An exponent beyond this range gives nothing or too much whatever the digits.
    exponent
        .parse()
        .ok()
        .map(|exponent: i32| Factor::Ten(exponent.clamp(-1000, 1000)))
        .or(Some(Factor::Ten(1000)))
}

/// The value in thousand-millionths, rounded up; none when it does not fit.
fn scaled(whole: &str, fraction: &str, factor: Factor) -> Option<i128> {
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let digits: i128 = digits.parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let (digits, power) = match factor {
        Factor::Two(bits) => (digits.checked_mul(1_i128.checked_shl(bits)?)?, 9 - places),
        Factor::Ten(exponent) => (digits, 9 + exponent - places),
    };
    let ten = 10_i128.checked_pow(power.unsigned_abs());
    if power >= 0 {
        digits.checked_mul(ten?)
    } else {
        // Below the smallest step something is still more than nothing.
        Some(ten.map_or(1, |ten| digits / ten + i128::from(digits % ten != 0)))
    }
}

fn not_a_quantity(text: &str) -> Fault {
    Fault::new(format!("{} is not a quantity", quoted(text)))
        .hint("write a number and a unit, such as 512Mi or 1G")
}

fn unknown_suffix(text: &str, suffix: &str) -> Fault {
    let fault = Fault::new(format!(
        "unknown unit {} in quantity {}",
        quoted(suffix),
        quoted(text)
    ));
    let fault = fault.allowed("Ki, Mi, Gi, Ti, Pi, Ei, k, M, G, T, P, E, or none for bytes");
    let near = match suffix.trim().to_ascii_lowercase().as_str() {
        "k" | "kb" => "k (thousand) or Ki (1024)",
        "ki" | "kib" => "Ki",
        "mb" => "M (million) or Mi (1024 Ki)",
        "mi" | "mib" => "Mi",
        "g" | "gb" => "G (thousand M) or Gi (1024 Mi)",
        "gi" | "gib" => "Gi",
        "t" | "tb" => "T (thousand G) or Ti (1024 Gi)",
        "ti" | "tib" => "Ti",
        _ => return fault,
    };
    fault.hint(format!("write {near}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn floor(text: &str) -> Option<i128> {
        Quantity::parse(text).ok().map(Quantity::floor)
    }

    #[test]
    fn values() {
        let table: [(&str, i128); 27] = [
            ("0", 0),
            ("3", 3),
            ("1024M", 1_024_000_000),
            ("1Gi", 1 << 30),
            ("128Mi", 128 << 20),
            ("1Ki", 1024),
            ("2Ti", 2 << 40),
            ("7Ei", 7 << 60),
            ("1k", 1000),
            ("1T", 1_000_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1e+9", 1_000_000_000),
            ("12e-1", 1),
            ("0.5Gi", 1 << 29),
            (".5Gi", 1 << 29),
            ("5.M", 5_000_000),
            ("1.5G", 1_500_000_000),
            ("+1M", 1_000_000),
            ("1500m", 1),
            ("134217728000m", 134_217_728),
            ("1e-50", 0),
            ("-1Gi", -(1 << 30)),
            ("-0", 0),
            ("0e999999999999", 0),
            ("9223372036854775807", i64::MAX as i128),
        ];
        for (text, bytes) in table {
            assert_eq!(floor(text), Some(bytes), "{text}");
        }
        assert_eq!(Quantity::parse("1500m").map(Quantity::ceil), Ok(2));
        assert_eq!(Quantity::parse("2").map(Quantity::ceil), Ok(2));
    }

    #[test]
    fn refused() {
        let table = [
            ("", "not a quantity"),
            ("Mi", "not a quantity"),
            ("-", "not a quantity"),
            (".", "not a quantity"),
            ("1.2.3", "not a quantity"),
            ("two", "not a quantity"),
            ("12Q", "unknown unit \"Q\""),
            ("1 Gi", "unknown unit \" Gi\""),
            ("0x10", "unknown unit"),
            ("1e", "unknown unit"),
            ("1e3x", "unknown unit"),
            ("9223372036854775808", "too large"),
            ("8Ei", "too large"),
            ("1e999999999999", "too large"),
            ("99999999999999999999999999999999999999999999", "too large"),
        ];
        for (text, says) in table {
            let fault = Quantity::parse(text).expect_err(text);
            assert!(fault.message.contains(says), "{text}: {fault:?}");
        }
    }

    #[test]
    fn other_spellings_of_a_unit_get_a_hint() {
        for (text, hint) in [
            ("1GB", "G"),
            ("1GiB", "Gi"),
            ("512mb", "M"),
            ("4K", "Ki"),
            ("1gi", "Gi"),
        ] {
            let fault = Quantity::parse(text).expect_err(text);
            assert!(
                fault
                    .hint
                    .as_deref()
                    .is_some_and(|text| text.contains(hint)),
                "{text}: {fault:?}"
            );
        }
        assert_eq!(Quantity::parse("12Q").expect_err("no unit").hint, None);
    }

    proptest! {
        #[test]
        fn whole_numbers_are_themselves(value in 0..=i64::MAX) {
            prop_assert_eq!(floor(&value.to_string()), Some(i128::from(value)));
        }

        #[test]
        fn never_panics(text in "[-+]?[0-9.]{0,45}[a-zA-Z+-]{0,3}[0-9]{0,12}") {
            if let Ok(quantity) = Quantity::parse(&text) {
                prop_assert!(quantity.floor() <= quantity.ceil());
            }
        }
    }
}

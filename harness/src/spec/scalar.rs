// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a scalar means: what kubectl makes of it when it turns YAML into the JSON that a cluster
//! reads. That is YAML 1.1 as kubectl's reader keeps it: `010` is 8, `yes` is true, `1:30` is text.

/// A scalar's type and value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Flag(bool),
    /// Also a number such as `1e3`, which reaches the cluster as 1000.
    Integer(i128),
    Fraction(f64),
    /// As it is written.
    Text,
    /// kubectl refuses it: infinities, and a tag that its text does not fit.
    Unfit,
}

/// The tags that decide what a text is; any other makes it [`Scalar::Text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag<'t> {
    /// None: a plain text decides by itself, a quoted one is text.
    None,
    /// A tag of YAML's own, by its name: `int`.
    Core(&'t str),
    /// Another one.
    Local,
}

/// What `text` means; `plain` is without quotes.
pub(super) fn resolve(text: &str, plain: bool, tag: Tag<'_>) -> Scalar {
    let wanted = match tag {
        Tag::None if plain => return resolve_plain(text),
        Tag::None | Tag::Local | Tag::Core("str" | "timestamp") => return Scalar::Text,
        Tag::Core(name) => name,
    };
    match (wanted, resolve_plain(text)) {
        ("int", value @ Scalar::Integer(_)) if is_written_as_integer(text) => value,
        ("float", value @ (Scalar::Integer(_) | Scalar::Fraction(_)))
        | ("bool", value @ Scalar::Flag(_))
        | ("null", value @ Scalar::Null) => value,
        ("int" | "float" | "bool" | "null" | "binary", _) => Scalar::Unfit,
        _ => Scalar::Text,
    }
}

/// What a plain scalar without a tag means.
pub(super) fn resolve_plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Flag(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Flag(false);
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF"
        | ".nan" | ".NaN" | ".NAN" => return Scalar::Unfit,
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Scalar::Text;
    }
    let digits = text.replace('_', "");
    integer(&digits)
        .map(Scalar::Integer)
        .or_else(|| decimal(&digits))
        .unwrap_or(Scalar::Text)
}

/// Whether a number stands in another form than its decimal one, which a person may read as another
/// number: `010`, `0x10`, `1_0`.
pub(super) fn looks_otherwise(text: &str, value: i128) -> bool {
    let digits = text.trim_start_matches('+');
    match digits.parse::<i128>() {
        Ok(decimal) => decimal != value,
        Err(_) => digits.parse::<f64>().is_err(),
    }
}

fn is_written_as_integer(text: &str) -> bool {
    integer(&text.replace('_', "")).is_some()
}

/// An integer of 64 bits, by its prefix to base 2, 8, 10 or 16.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let based = |prefixes: [&str; 2], base| {
        let mut rest = prefixes.into_iter();
        let rest = rest.find_map(|prefix| digits.strip_prefix(prefix))?;
        Some((rest, base))
    };
    let (digits, base) = based(["0b", "0B"], 2)
        .or_else(|| based(["0o", "0O"], 8))
        .or_else(|| based(["0x", "0X"], 16))
        .or_else(|| based(["0", "0"], 8).filter(|(rest, _)| !rest.is_empty()))
        .unwrap_or((digits, 10));
    // The standard library's parser would take another sign.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, base).ok()?;
    let value = if negative { -value } else { value };
    (i128::from(i64::MIN)..=i128::from(u64::MAX))
        .contains(&value)
        .then_some(value)
}

/// A decimal number with a point, an exponent, or digits that are no octal ones (`08`).
fn decimal(text: &str) -> Option<Scalar> {
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = number
        .split_once(['e', 'E'])
        .map_or((number, None), |(mantissa, exponent)| {
            (mantissa, Some(exponent))
        });
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    if (whole.is_empty() && fraction.is_empty())
        || !all_digits(whole)
        || !all_digits(fraction)
        || exponent.is_some_and(|digits| digits.is_empty() || !all_digits(digits))
    {
        return None;
    }
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    if value.fract() != 0.0 {
        return Some(Scalar::Fraction(value));
    }
    // Exact within 53 bits; beyond 127 the number farthest from 0, too large for every field.
    let farthest = if value < 0.0 { i128::MIN } else { i128::MAX };
    Some(Scalar::Integer(
        format!("{value:.0}").parse().unwrap_or(farthest),
    ))
}

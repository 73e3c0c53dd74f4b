// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Words for people.

/// The message without the system's numbers of its errors: beside the words for an error, its number
/// tells nobody anything.
pub(crate) fn without_error_numbers(message: &str) -> String {
    const OPEN: &str = " (os error ";
    let mut parts = message.split(OPEN);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.push_str(rest);
            }
            _ => text.extend([OPEN, part]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_error_numbers_are_left_out() {
        for (message, shown) in [
            (
                "x: No such file (os error 2); check",
                "x: No such file; check",
            ),
            ("a (os error 1), b (os error 13)", "a, b"),
            ("(os error 2)", "(os error 2)"),
            (
                "my (os error file).yaml: bad",
                "my (os error file).yaml: bad",
            ),
            ("cut (os error 2", "cut (os error 2"),
            ("", ""),
        ] {
            assert_eq!(without_error_numbers(message), shown);
        }
    }
}

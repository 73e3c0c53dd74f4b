// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Text that a guest chose the length of.

/// How much of it is kept, in bytes: as much as the kubelet keeps of a probe's output.
pub(crate) const KEPT: usize = 10 << 10;

/// What is kept of a text, whole characters.
pub(crate) fn beginning(text: &str) -> &str {
    let longest = KEPT.min(text.len());
    let mut ends = (0..=longest).rev();
    ends.find_map(|end| text.get(..end)).unwrap_or_default()
}

/// The text, or its beginning and a word about that.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > KEPT {
        text.truncate(beginning(&text).len());
        text.push_str(" [cut short]");
        // What is cut off is not to stay allocated.
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let fits = "x".repeat(KEPT);
        assert_eq!(cut(fits.clone()), fits);
        let long = cut("€".repeat(KEPT));
        let kept = long.strip_suffix(" [cut short]").unwrap();
        assert_eq!(kept, "€".repeat(KEPT / 3));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The known word that a misspelling most likely stands for.

/// The nearest of `known`, or none when nothing is near. Case, `_` and `-` do not count.
pub(super) fn among<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // No known word is this long; the distance costs the product of both lengths.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let folded = fold(word);
    let near = (folded.chars().count() / 3).max(1);
    known
        .map(|candidate| (strsim::osa_distance(&folded, &fold(candidate)), candidate))
        .filter(|&(distance, candidate)| distance <= near && distance < candidate.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> String {
    word.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::among;

    #[test]
    fn misspellings_find_their_word_and_strangers_do_not() {
        let keys = [
            "watchdog",
            "memory",
            "cpu",
            "kernelArgs",
            "poweroff",
            "reset",
            "successThreshold",
        ];
        let table = [
            ("watchdg", Some("watchdog")),
            ("Watchdog", Some("watchdog")),
            ("kernel_args", Some("kernelArgs")),
            ("powerof", Some("poweroff")),
            ("resett", Some("reset")),
            ("successThreashold", Some("successThreshold")),
            ("cpus", Some("cpu")),
            ("completely", None),
            ("x", None),
            ("", None),
        ];
        for (word, expected) in table {
            assert_eq!(among(word, keys.into_iter()), expected, "{word}");
        }
        assert_eq!(among(&"w".repeat(100_000), keys.into_iter()), None);
    }
}

//! Lengths of time as people write them: `500ms`, `10s`, `5m`, `72h`, `30d`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// From text.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wanted = || format!("{text:?} is not a length of time such as 500ms, 10s, 5m, 72h or 30d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wanted)?;
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().map_err(|_| wanted())?;
    let (_, millis) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wanted)?;
    let millis = number.checked_mul(millis).ok_or_else(|| format!("{text:?} is too long"))?;
    Ok(Duration::from_millis(millis))
}

/// Seconds in the largest unit that fits evenly.
pub(super) fn words(seconds: i64) -> String {
    match seconds {
        s if s != 0 && s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s != 0 && s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s != 0 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("72h", 259_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_of_time_is_refused_by_its_text() {
        for text in ["", "10", "s", "1.5h", "-3s", "10 s", "99999999999999999999s", "9999999999999999999d"] {
            assert!(parse(text).unwrap_err().contains(&format!("{text:?}")), "{text}");
        }
    }

    #[test]
    fn seconds_are_told_in_the_largest_even_unit() {
        assert_eq!([0, 59, 120, 7200, 259_200].map(words), ["0s", "59s", "2m", "2h", "3d"]);
    }
}

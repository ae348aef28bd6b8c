//! Figures of several runs as text: median (min–max), ratios, Markdown tables.

use std::fmt::Write as _;

/// Median and extremes of the runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many.
    pub runs: usize,
}

/// None without figures.
#[must_use]
pub fn spread(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let (min, max) = (*figures.first()?, *figures.last()?);
    let half = figures.len() / 2;
    let median =
        if figures.len() % 2 == 1 { figures[half] } else { f64::midpoint(figures[half - 1], figures[half]) };
    Some(Spread { median, min, max, runs: figures.len() })
}

/// Three significant digits, thousands apart.
#[must_use]
pub fn number(figure: f64) -> String {
    let size = figure.abs();
    if size >= 999.5 {
        let digits = format!("{figure:.0}");
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && digit != '-' && (digits.len() - index).is_multiple_of(3) && !text.ends_with('-') {
                text.push(',');
            }
            text.push(digit);
        }
        return text;
    }
    match size {
        _ if size >= 99.95 => format!("{figure:.0}"),
        _ if size >= 9.995 => format!("{figure:.1}"),
        _ if size >= 0.9995 || size == 0.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

/// `median (min–max)`; a dash without figures, the bare figure for a single run.
#[must_use]
pub fn cell(spread: Option<Spread>) -> String {
    match spread {
        None => "–".to_string(),
        Some(Spread { median, runs: 1, .. }) => number(median),
        Some(Spread { median, min, max, .. }) => {
            format!("{} ({}–{})", number(median), number(min), number(max))
        }
    }
}

/// How many times the first median is the second.
#[must_use]
pub fn ratio(first: Option<Spread>, second: Option<Spread>) -> String {
    match (first, second) {
        (Some(first), Some(second)) if second.median > 0.0 => {
            format!("{}×", number(first.median / second.median))
        }
        _ => "–".to_string(),
    }
}

/// A Markdown table.
#[must_use]
pub fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    let _infallible = writeln!(text, "| {} |", head.join(" | "));
    let _infallible = writeln!(text, "|{}", "---|".repeat(head.len()));
    for row in rows {
        let _infallible = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(spread([3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(spread([]), None);
    }

    #[test]
    fn numbers_have_three_digits_or_are_whole() {
        let written =
            [0.0, 0.0526, 1.0, 9.996, 16.84, 158.3, 999.6, 4321.0, 1_234_567.0, -4321.0].map(number);
        let wanted =
            ["0.00", "0.053", "1.00", "10.0", "16.8", "158", "1,000", "4,321", "1,234,567", "-4,321"];
        assert_eq!(written, wanted);
    }

    #[test]
    fn a_cell_names_its_extremes_only_when_there_are_several_runs() {
        assert_eq!(cell(spread([5.0])), "5.00");
        assert_eq!(cell(spread([5.0, 7.0, 6.0])), "6.00 (5.00–7.00)");
        assert_eq!(cell(None), "–");
        assert_eq!(ratio(spread([90.0]), spread([2.0])), "45.0×");
        assert_eq!(ratio(spread([90.0]), None), "–");
    }
}

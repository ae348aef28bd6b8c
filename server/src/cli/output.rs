//! Answers as text: aligned columns for people, one JSON value for programs.

use std::io::{self, Write};

use serde_json::Value;

/// Writes one JSON value, indented, with a line end.
pub(super) fn json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Rows of equal length under a heading, columns aligned, two spaces apart.
pub(crate) fn table(out: &mut dyn Write, heading: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heading: Vec<String> = heading.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Names and values, one a line, values aligned.
pub(super) fn fields(out: &mut dyn Write, fields: &[(&str, String)]) -> io::Result<()> {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in fields {
        writeln!(out, "{name:<width$}  {value}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut out = Vec::new();
        let rows =
            [vec!["east".to_string(), "1".to_string()], vec!["a-long-name".to_string(), String::new()]];
        table(&mut out, &["REGION", "VERSION"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "REGION       VERSION\neast         1\na-long-name\n");
    }
}

//! Formats tables with aligned columns.

use super::text::{DIM, truncate};

/// Formats rows under headings. A column is as wide as its widest cell; a column whose heading ends in `#` is aligned
/// to the right, and the `#` is not printed. With a width, longer lines are truncated.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let column_width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|h| h.trim_end_matches('#').chars().count())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(column_width).collect();
    let line = |cells: &[String]| {
        let mut line = String::new();
        for ((cell, width), heading) in cells.iter().zip(&widths).zip(headings) {
            let padding = " ".repeat(width - cell.chars().count().min(*width));
            let (before, after) =
                if heading.ends_with('#') { (padding, String::new()) } else { (String::new(), padding) };
            line.extend([&before, cell, &after, "  "]);
        }
        truncate(line.trim_end(), width).into_owned()
    };
    let headings: Vec<String> = headings.iter().map(|heading| heading.trim_end_matches('#').to_owned()).collect();
    let mut text = format!("{DIM}{}{DIM:#}", line(&headings));
    for row in rows {
        text.push('\n');
        text.push_str(&line(row));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(width: Option<usize>) -> String {
        let rows = [["shop/charge", "7", "ok"], ["b", "12345", "ü: a long story"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        anstream::adapter::strip_str(&table(&["function", "done#", "state"], &rows, width)).to_string()
    }

    #[test]
    fn columns_are_aligned_and_numbers_are_aligned_right() {
        let expected = "\
function      done  state
shop/charge      7  ok
b            12345  ü: a long story";
        assert_eq!(rendered(None), expected);
    }

    #[test]
    fn lines_are_truncated_to_the_width() {
        let expected = "\
function      done  state
shop/charge      7  ok
b            12345  ü: a…";
        assert_eq!(rendered(Some(25)), expected);
    }
}

//! Formats tables with aligned columns that fit the terminal.

use super::text::{DIM, truncate};

/// Text columns are not narrowed below this number of characters.
const NARROW: usize = 12;

/// Formats rows under headings. A column is as wide as its widest cell. A heading may end with marks, which are not
/// printed. With `#`, the column is aligned to the right; with `=`, it is never narrowed; with `?`, it is left out if
/// the table is too wide. If the table is still too wide, first the widest text columns are narrowed, then each line is
/// truncated.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut columns: Vec<Column> =
        headings.iter().enumerate().map(|(index, heading)| Column::new(index, heading, rows)).collect();
    if let Some(width) = width {
        while line_width(&columns) > width
            && let Some(last) = columns.iter().rposition(|column| column.can_go)
        {
            columns.remove(last);
        }
        narrow(&mut columns, width);
    }
    let line = |cell_of: &dyn Fn(&Column) -> String| {
        let mut line = String::new();
        for column in &columns {
            let cell = cell_of(column);
            let cell = truncate(&cell, Some(column.width));
            let padding = " ".repeat(column.width - cell.chars().count().min(column.width));
            let (before, after) = if column.is_right { (padding, String::new()) } else { (String::new(), padding) };
            line.extend([&before, cell.as_ref(), &after, "  "]);
        }
        truncate(line.trim_end(), width).into_owned()
    };
    let mut text = format!("{DIM}{}{DIM:#}", line(&|column| column.heading.clone()));
    for row in rows {
        text.push('\n');
        text.push_str(&line(&|column| row.get(column.index).cloned().unwrap_or_default()));
    }
    text
}

struct Column {
    /// Index of the column in the rows.
    index: usize,
    heading: String,
    is_right: bool,
    is_fixed: bool,
    /// True if the column may be left out when the table is too wide.
    can_go: bool,
    width: usize,
}

impl Column {
    fn new(index: usize, heading: &str, rows: &[Vec<String>]) -> Self {
        let (is_right, can_go) = (heading.contains('#'), heading.contains('?'));
        let is_fixed = is_right || heading.contains('=');
        let heading = heading.trim_end_matches(['#', '=', '?']).to_owned();
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
        let width = cells.chain([heading.chars().count()]).max().unwrap_or_default();
        Self { index, heading, is_right, is_fixed, can_go, width }
    }
}

fn line_width(columns: &[Column]) -> usize {
    columns.iter().map(|column| column.width + 2).sum::<usize>().saturating_sub(2)
}

/// Narrows the widest text columns until the line fits into `width`. No column becomes narrower than [`NARROW`].
fn narrow(columns: &mut [Column], width: usize) {
    loop {
        let excess = line_width(columns).saturating_sub(width);
        let widest = columns.iter_mut().filter(|column| !column.is_fixed && column.width > NARROW);
        let Some(widest) = widest.max_by_key(|column| column.width) else { return };
        if excess == 0 {
            return;
        }
        // Narrows by one character at a time, so that columns of similar width are narrowed equally.
        widest.width -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(headings: &[&str], rows: &[[&str; 3]], width: Option<usize>) -> String {
        let rows: Vec<_> = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        anstream::adapter::strip_str(&table(headings, &rows, width)).to_string()
    }

    const ROWS: [[&str; 3]; 2] = [["shop/charge", "7", "ok"], ["b", "12345", "ü: a long story of failure"]];

    #[test]
    fn columns_are_aligned_and_numbers_are_aligned_right() {
        let expected = "\
function      done  state
shop/charge      7  ok
b            12345  ü: a long story of failure";
        assert_eq!(rendered(&["function", "done#", "state"], &ROWS, None), expected);
        assert_eq!(rendered(&["function", "done#?", "state"], &ROWS, Some(80)), expected);
    }

    #[test]
    fn the_widest_text_column_is_narrowed_to_the_width() {
        let expected = "\
function      done  state
shop/charge      7  ok
b            12345  ü: a long sto…";
        assert_eq!(rendered(&["function", "done#", "state"], &ROWS, Some(34)), expected);
    }

    #[test]
    fn columns_that_can_go_are_left_out_first() {
        let expected = "\
function     state
shop/charge  ok
b            ü: a long story of f…";
        assert_eq!(rendered(&["function", "done#?", "state"], &ROWS, Some(34)), expected);
        let narrow = rendered(&["function", "done#", "state"], &ROWS, Some(20));
        assert!(narrow.lines().all(|line| line.chars().count() <= 20), "{narrow}");
    }
}

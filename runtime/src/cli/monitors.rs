//! `monitors`: shows the things that monitors watch, with their values and states.

use super::client::{Client, parse};
use super::table::table;
use super::text::{columns, escape, local_time, print, print_json_text};
use super::{Common, Failure};
use crate::admin::view::Monitor;

/// The characters of a sparkline, from the lowest value to the highest.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The number of minutes that one character of a sparkline covers.
const MINUTES: usize = 3;

pub(super) fn run(common: &Common) -> Result<(), Failure> {
    let mut watched: Vec<Monitor> = Vec::new();
    let is_json = common.client_args.json;
    Client::find(common)?.lines("/api/v1/monitors", &[], |line| {
        if is_json {
            return print_json_text(line);
        }
        watched.push(parse(line)?);
        Ok(())
    })?;
    match (is_json, watched.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => print("no monitors"),
        (false, false) => print(&render(&watched, columns())),
    }
}

fn render(watched: &[Monitor], columns: Option<usize>) -> String {
    let rows: Vec<_> = watched.iter().map(row).collect();
    let mut text = table(&["monitor", "subject", "value#", "state", "since", "last hour"], &rows, columns);
    for Monitor { monitor, subject, state, detail, flapping, .. } in watched {
        if let Some(detail) = detail.as_deref().filter(|_| state != "ok") {
            text += &format!("\n{} of {} is {state}: {}", escape(subject), escape(monitor), escape(detail));
        }
        if *flapping {
            let (subject, monitor) = (escape(subject), escape(monitor));
            text += &format!(
                "\n{subject} of {monitor} is flapping (its state changes too often; `flap` in the manifest sets the \
                 limit): the monitor reports no changes of this state until they are less frequent"
            );
        }
    }
    text
}

fn row(watched: &Monitor) -> Vec<String> {
    let Monitor { monitor, subject, shown, state, since, last_hour, .. } = watched;
    vec![
        escape(monitor).into_owned(),
        escape(subject).into_owned(),
        shown.as_deref().map_or_else(|| "-".to_owned(), |shown| escape(shown).into_owned()),
        escape(state).into_owned(),
        local_time(since),
        sparkline(last_hour),
    ]
}

/// Draws one character for each [`MINUTES`] minutes: the average of their readings, scaled between the lowest and the
/// highest average. Minutes without a reading are blank.
fn sparkline(last_hour: &[Option<f32>]) -> String {
    let average = |minutes: &[Option<f32>]| {
        let read: Vec<f32> = minutes.iter().flatten().copied().collect();
        (!read.is_empty()).then(|| read.iter().sum::<f32>() / read.len() as f32)
    };
    let values: Vec<Option<f32>> = last_hour.chunks(MINUTES).map(average).collect();
    let lowest = values.iter().flatten().copied().fold(f32::INFINITY, f32::min);
    let highest = values.iter().flatten().copied().fold(f32::NEG_INFINITY, f32::max);
    let bar = |value: f32| {
        let share = if highest > lowest { (value - lowest) / (highest - lowest) } else { 0.0 };
        BARS.get((share * 7.0).round() as usize).copied().unwrap_or(' ')
    };
    values.into_iter().map(|value| value.map_or(' ', bar)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_has_a_character_for_three_minutes() {
        let mut hour = vec![None; 48];
        hour.extend([1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 8.0, 8.0, 8.0, 5.0, 4.0, 3.0].map(Some));
        assert_eq!(sparkline(&hour), format!("{}▁▄█▄", " ".repeat(16)));
        assert_eq!(sparkline(&[Some(5.0); 6]), "▁▁");
    }

    #[test]
    fn the_table_has_a_row_for_each_subject_and_a_line_for_each_problem() {
        let watched: Vec<Monitor> = [
            r#"{"monitor":"/host/disks","kind":"disk","subject":"/mnt/a","state":"warning","since":"x","value":85.2,
                "unit":"%","shown":"85.2%","last_hour":[1.0]}"#,
            r#"{"monitor":"/host/web","kind":"http","subject":"https://a.example/","state":"critical","since":"x",
                "unit":"s","detail":"the status is 500","last_hour":[]}"#,
        ]
        .map(|text| parse(text).unwrap())
        .into();
        let expected = "\
monitor      subject             value  state     since  last hour
/host/disks  /mnt/a              85.2%  warning   x      ▁
/host/web    https://a.example/      -  critical  x
https://a.example/ of /host/web is critical: the status is 500";
        assert_eq!(anstream::adapter::strip_str(&render(&watched, None)).to_string(), expected);
    }
}

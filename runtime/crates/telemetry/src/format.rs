//! The text formats of metrics: OpenMetrics 1.0, and the older Prometheus format.

use std::collections::HashSet;

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
}

impl Format {
    /// Returns the format that an `Accept` header prefers; the Prometheus format if the header has no preference.
    pub fn preferred(accept: &str) -> Self {
        let quality_of = |wanted: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let named = parts.next()?.eq_ignore_ascii_case(wanted);
                let quality = parts.find_map(|parameter| parameter.strip_prefix("q="));
                named.then(|| quality.map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0)))
            });
            ranges.fold(0.0, f32::max)
        };
        let (new, old) = (quality_of("application/openmetrics-text"), quality_of("text/plain"));
        if new > 0.0 && new >= old { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Returns the value of the `Content-Type` header.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Converts OpenMetrics text to the Prometheus format. In the Prometheus format, the `# HELP` and `# TYPE` lines of a
/// counter or info metric have the full name of its samples, with `_total` or `_info`. An info metric has the type
/// `gauge`. There are no `# UNIT` lines and no end marker.
pub(super) fn to_prometheus(text: &str) -> String {
    let mut counters = HashSet::new();
    let mut infos = HashSet::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ").and_then(|described| described.split_once(' ')) {
            Some((name, "counter")) => drop(counters.insert(name)),
            Some((name, "info")) => drop(infos.insert(name)),
            _ => {}
        }
    }
    let mut converted = String::with_capacity(text.len());
    for line in text.lines() {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|start| Some((start, line.strip_prefix(start)?)));
        let described = described.and_then(|(start, rest)| Some((start, rest.split_once(' ')?)));
        match described {
            Some((start, (name, rest))) if counters.contains(name) => {
                converted.extend([start, name, "_total ", rest, "\n"]);
            }
            Some((start, (name, rest))) if infos.contains(name) => {
                let rest = if start == "# TYPE " { "gauge" } else { rest };
                converted.extend([start, name, "_info ", rest, "\n"]);
            }
            None if line.starts_with("# ") => {}
            _ => converted.extend([line, "\n"]),
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_selects_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/OpenMetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.9", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=much", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::preferred(accept), format, "{accept}");
        }
    }

    #[test]
    fn the_prometheus_format_names_counters_and_infos_by_their_samples_and_has_no_units() {
        let new = "# HELP a Some \"a\"\n# TYPE a counter\na_total{x=\"# TYPE a b\"} 1\n# HELP b B\n# TYPE b info\nb_info 1\n\
                   # HELP c_seconds C\n# TYPE c_seconds gauge\n# UNIT c_seconds seconds\nc_seconds 2.0\n# EOF\n";
        let old = "# HELP a_total Some \"a\"\n# TYPE a_total counter\na_total{x=\"# TYPE a b\"} 1\n# HELP b_info B\n\
                   # TYPE b_info gauge\nb_info 1\n# HELP c_seconds C\n# TYPE c_seconds gauge\nc_seconds 2.0\n";
        assert_eq!(to_prometheus(new), old);
    }
}

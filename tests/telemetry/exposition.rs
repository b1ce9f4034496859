//! Parses the metrics text as strictly as Prometheus does: a `TYPE` line must come before the samples of a metric.

use std::collections::BTreeMap;

/// Samples by name and sorted labels.
type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

#[derive(Debug, Default)]
pub(crate) struct Scrape {
    samples: Samples,
    /// Types by metric name.
    pub(crate) types: BTreeMap<String, String>,
    /// Units by metric name; OpenMetrics only.
    pub(crate) units: BTreeMap<String, String>,
}

impl Scrape {
    /// Parses the OpenMetrics format, or the Prometheus text format 0.0.4. Panics on malformed text.
    pub(crate) fn read(text: &str, open_metrics: bool) -> Self {
        let mut scrape = Self::default();
        let mut lines: Vec<&str> = text.lines().collect();
        assert!(text.ends_with('\n'));
        if open_metrics {
            assert_eq!(lines.pop(), Some("# EOF"));
        }
        for line in lines {
            match line.strip_prefix("# ") {
                Some(comment) => scrape.comment(comment, open_metrics),
                None => scrape.sample(line, open_metrics),
            }
        }
        scrape
    }

    fn comment(&mut self, comment: &str, open_metrics: bool) {
        let (kind, rest) = comment.split_once(' ').unwrap();
        let (name, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("{comment}"));
        match kind {
            "HELP" => assert!(!rest.is_empty(), "{comment}"),
            "TYPE" => {
                let types = ["counter", "gauge", "histogram"];
                assert!(types.contains(&rest) || (open_metrics && rest == "info"), "{comment}");
                assert!(self.types.insert(name.into(), rest.into()).is_none(), "duplicate: {comment}");
            }
            "UNIT" if open_metrics => {
                assert!(name.ends_with(&format!("_{rest}")), "{comment}");
                self.units.insert(name.into(), rest.into());
            }
            _ => panic!("{comment}"),
        }
    }

    fn sample(&mut self, line: &str, open_metrics: bool) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, labels(rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}")))),
            None => (series, Vec::new()),
        };
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
        let endings: &[(&str, &str)] = if open_metrics {
            &[("_total", "counter"), ("", "gauge"), ("_info", "info")]
        } else {
            &[("", "counter"), ("", "gauge")]
        };
        let histogram = ["_bucket", "_sum", "_count"].map(|ending| (ending, "histogram"));
        let described = endings.iter().chain(&histogram).any(|(ending, kind)| {
            name.strip_suffix(ending).and_then(|metric| self.types.get(metric)).is_some_and(|found| found == kind)
        });
        assert!(described, "no TYPE line before {line}");
        let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap_or_else(|_| panic!("{line}")) };
        assert!(self.samples.insert((name.into(), labels), value).is_none(), "duplicate: {line}");
    }

    /// Returns the value of a sample. Panics if there is none.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|| panic!("no {name}{labels:?} in {:#?}", self.samples))
    }

    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut labels: Vec<_> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        labels.sort();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// Returns the non-zero samples of a metric that have the label `fixed`, keyed by the value of `label`.
    pub(crate) fn by(&self, name: &str, fixed: (&str, &str), label: &str) -> BTreeMap<String, u64> {
        let samples = self.samples.iter().filter(|((n, labels), value)| {
            n == name && labels.contains(&(fixed.0.into(), fixed.1.into())) && **value != 0.0
        });
        samples
            .map(|((_, labels), value)| {
                (labels.iter().find(|(name, _)| name == label).unwrap().1.clone(), *value as u64)
            })
            .collect()
    }

    /// Returns the number of observations in a histogram. Asserts that its buckets are cumulative and match the count.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |all: &[(String, String)]| labels.iter().all(|(k, v)| all.contains(&((*k).into(), (*v).into())));
        let bucket = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = self
            .samples
            .iter()
            .filter(|((n, all), _)| *n == bucket && has(all))
            .map(|((_, all), count)| (all.iter().find(|(k, _)| k == "le").unwrap().1.parse().unwrap(), *count))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}: {buckets:?}");
        let (last, total) = *buckets.last().unwrap_or_else(|| panic!("no {bucket}{labels:?}"));
        assert_eq!((last, total), (f64::INFINITY, self.value(&format!("{name}_count"), labels)), "{name}");
        total as u64
    }
}

/// Parses `name="value",…` with escapes, sorted by name.
fn labels(text: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{text}")) {
                (at, '"') => break at,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    escaped => value.push(escaped),
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels.sort();
    labels
}

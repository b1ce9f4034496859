//! A histogram that many threads update at the same time. It uses only atomics, while the histogram of the metrics
//! library takes a lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Bucket bounds for durations from microseconds to a minute, in nanoseconds.
const SHORT_NS: [u64; 21] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Bucket bounds for durations from a millisecond to a day, in nanoseconds.
const LONG_NS: [u64; 18] = [
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
    300_000_000_000,
    3_600_000_000_000,
    21_600_000_000_000,
    86_400_000_000_000,
];

/// Bucket bounds for counts up to a thousand.
const COUNTS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// Counts observed values in buckets.
#[derive(Debug)]
pub struct Histogram {
    /// The inclusive upper bounds of the buckets, ascending. The last bucket has no upper bound.
    bounds: &'static [u64],
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// The number of observed units (such as nanoseconds) in one displayed unit (such as a second).
    per_unit: f64,
}

/// The content of a histogram at one moment, in the displayed unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// The sum of all values.
    pub sum: f64,
    /// The number of values.
    pub count: u64,
    /// The number of values in each bucket, with the bucket's inclusive upper bound; the last bound is infinity.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Creates a histogram for short durations: 10 µs to 60 s, displayed in seconds.
    pub fn for_durations() -> Self {
        Self::new(&SHORT_NS, 1e9)
    }

    /// Creates a histogram for waits: 1 ms to a day, displayed in seconds.
    pub fn for_waits() -> Self {
        Self::new(&LONG_NS, 1e9)
    }

    /// Creates a histogram for counts: 1 to 1024.
    pub fn for_counts() -> Self {
        Self::new(&COUNTS, 1.0)
    }

    fn new(bounds: &'static [u64], per_unit: f64) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0), per_unit }
    }

    /// Records a duration, in a histogram for durations or waits.
    pub fn observe(&self, duration: Duration) {
        self.observe_count(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Records a value, in a histogram for counts.
    pub fn observe_count(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Returns the current content. `count` always equals the sum of the bucket counts, even if other threads observe
    /// values at the same time.
    pub fn read(&self) -> Distribution {
        let bounds = self.bounds.iter().map(|bound| *bound as f64 / self.per_unit).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(|b| b.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Distribution { sum: self.sum.load(Ordering::Relaxed) as f64 / self.per_unit, count, buckets }
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Distribution { sum, count, buckets } = self.read();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::for_counts();
        [0, 1, 2, 3, 4, 1024, 1025, 5_000].into_iter().for_each(|n| histogram.observe_count(n));
        let read = histogram.read();
        let filled: Vec<_> = read.buckets.iter().copied().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, vec![(1.0, 2), (2.0, 1), (4.0, 2), (1024.0, 1), (f64::INFINITY, 2)]);
        assert_eq!((read.count, read.sum), (8, 7059.0));
    }

    #[test]
    fn durations_are_shown_in_seconds_and_the_longest_fits() {
        let histogram = Histogram::for_durations();
        histogram.observe(Duration::from_micros(10));
        histogram.observe(Duration::from_millis(1_500));
        let read = histogram.read();
        assert_eq!(read.buckets.first(), Some(&(0.000_01, 1)));
        assert!(read.buckets.contains(&(2.5, 1)), "{read:?}");
        assert!((read.sum - 1.500_01).abs() < 1e-9, "{read:?}");
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.read().buckets.last(), Some(&(f64::INFINITY, 1)));
    }

    #[test]
    fn bounds_ascend_strictly() {
        for bounds in [&SHORT_NS[..], &LONG_NS, &COUNTS] {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{bounds:?}");
        }
    }

    #[test]
    fn concurrent_observations_are_all_counted() {
        let histogram = Histogram::for_counts();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|n| histogram.observe_count(n % 7)));
            }
        });
        assert_eq!(histogram.read().count, 40_000);
    }
}

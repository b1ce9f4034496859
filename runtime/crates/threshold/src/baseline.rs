//! Detects readings that deviate from their moving average.

/// The rule for when a reading deviates from its moving average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// A reading deviates if it is more than this number of standard deviations above or below the average.
    pub sigmas: f64,
    /// The time constant of the moving average, in milliseconds: a reading of this age has about a third of the weight
    /// of a new reading.
    pub over_ms: i64,
}

/// Number of readings that a baseline needs before a later reading can deviate from it.
const READINGS_MIN: u32 = 10;
/// Lower limit of the standard deviation, as a share of the average. Without this limit, the rounding noise of a
/// constant value would already be a deviation.
const SIGMA_MIN: f64 = 0.001;

/// An exponentially weighted moving average of readings, with their variance (Finch, "Incremental calculation of
/// weighted mean and variance", 2009, section 9).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Baseline {
    first_ms: i64,
    last_ms: i64,
    readings: u32,
    mean: f64,
    variance: f64,
}

impl Baseline {
    /// Returns whether a reading deviates from the earlier readings, and adds the reading to the baseline. Returns
    /// `None` while the baseline is too short: it needs [`READINGS_MIN`] readings over at least a quarter of
    /// [`Deviation::over_ms`]. Ignores a reading that is not a finite number.
    pub(crate) fn observe(&mut self, deviation: &Deviation, at_ms: i64, reading: f64) -> Option<bool> {
        if !reading.is_finite() {
            return None;
        }
        let is_known = self.readings >= READINGS_MIN && self.last_ms - self.first_ms >= deviation.over_ms / 4;
        let sigma = self.variance.sqrt().max(self.mean.abs() * SIGMA_MIN);
        // If all earlier readings were 0, `sigma` is 0 and every reading other than 0 deviates.
        let deviates = is_known.then(|| (reading - self.mean).abs() > deviation.sigmas * sigma);
        self.add(deviation, at_ms, reading);
        deviates
    }

    fn add(&mut self, deviation: &Deviation, at_ms: i64, reading: f64) {
        if self.readings == 0 {
            *self = Self { first_ms: at_ms, last_ms: at_ms, readings: 1, mean: reading, variance: 0.0 };
            return;
        }
        let passed = (at_ms - self.last_ms).max(0) as f64;
        let weight = 1.0 - (-passed / deviation.over_ms.max(1) as f64).exp();
        // The first readings have equal weight: otherwise the average would stay near the first reading.
        let weight = if self.readings < READINGS_MIN { weight.max(1.0 / f64::from(self.readings + 1)) } else { weight };
        let difference = reading - self.mean;
        let mean = self.mean + weight * difference;
        let variance = (1.0 - weight) * (self.variance + weight * difference * difference);
        // A huge reading can make the mean or the variance infinite. The baseline ignores such a reading: with an
        // infinite variance, no later reading would deviate.
        if !(mean.is_finite() && variance.is_finite()) {
            return;
        }
        (self.mean, self.variance) = (mean, variance);
        self.last_ms = self.last_ms.max(at_ms);
        self.readings = self.readings.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVIATION: Deviation = Deviation { sigmas: 3.0, over_ms: 3_600_000 };

    /// Observes readings, one every ten seconds. Returns the result for each reading.
    fn results(readings: impl IntoIterator<Item = f64>) -> Vec<Option<bool>> {
        let mut baseline = Baseline::default();
        let results = readings.into_iter().zip(0_i64..);
        results.map(|(reading, n)| baseline.observe(&DEVIATION, n * 10_000, reading)).collect()
    }

    /// Returns readings that vary by 2 around 100.
    fn usual(count: u32) -> impl Iterator<Item = f64> {
        (0..count).map(|n| 100.0 + [-2.0, 1.0, 0.0, 2.0, -1.0][n as usize % 5])
    }

    #[test]
    fn nothing_deviates_before_the_baseline_is_long_enough() {
        let results = results([1.0, 1_000.0].into_iter().cycle().take(90));
        assert!(results.iter().all(Option::is_none), "{results:?}");
    }

    #[test]
    fn a_reading_far_from_the_average_deviates_on_either_side() {
        for far in [110.0, 90.0] {
            let results = results(usual(400).chain([far, 101.0]));
            assert!(results[100..400].iter().all(|result| *result == Some(false)), "{results:?}");
            assert_eq!(results[400..], [Some(true), Some(false)]);
        }
    }

    #[test]
    fn a_level_that_stays_becomes_usual() {
        let results = results(usual(400).chain(std::iter::repeat_n(110.0, 2_000)));
        assert_eq!(results[400], Some(true));
        assert_eq!(results.last(), Some(&Some(false)));
    }

    #[test]
    fn a_value_that_was_always_zero_deviates_when_it_changes() {
        let results = results(std::iter::repeat_n(0.0, 400).chain([1.0, 0.0]));
        assert!(!results[..400].contains(&Some(true)) && results[400] == Some(true), "{results:?}");
    }

    #[test]
    fn a_reading_beyond_all_bounds_deviates_and_does_not_hide_later_ones() {
        for huge in [1e200, -f64::MAX, f64::MAX] {
            let results = results(usual(400).chain([huge, 100.0, 110.0]));
            assert_eq!(results[400..], [Some(true), Some(false), Some(true)], "{huge}");
        }
    }

    #[test]
    fn a_constant_value_with_rounding_noise_does_not_deviate() {
        let noise = (0..400_u32).map(|n| 1.0 + f64::from(n % 2) * 1e-9);
        assert!(!results(noise).contains(&Some(true)));
    }
}

//! Pseudo-random numbers that a seed reproduces, and the choice between the short and the long form of a test.

/// SplitMix64: small, and good enough to choose faults.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the seed from `EVOKE_SEED`, or a new one. Prints it either way, with the name of the test.
    pub(crate) fn seed(test: &str) -> u64 {
        let given = std::env::var("EVOKE_SEED").ok().map(|text| text.parse().expect("EVOKE_SEED is a number"));
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) ^ (u64::from(subsecond_ns()) << 16));
        println!("{test}: EVOKE_SEED={seed}");
        seed
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`. Panics if `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Returns true with a probability of `share` percent.
    pub(crate) fn percent(&mut self, share: u32) -> bool {
        self.next() % 100 < u64::from(share)
    }
}

fn subsecond_ns() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos()
}

/// Returns true if `EVOKE_CAMPAIGN=long` selects the long forms of the tests.
pub(crate) fn is_long_form() -> bool {
    std::env::var("EVOKE_CAMPAIGN").is_ok_and(|form| form == "long")
}

/// Returns the first size in the short form of a test, and the second in the long form.
pub(crate) fn size(short_form: usize, long_form: usize) -> usize {
    if is_long_form() { long_form } else { short_form }
}

//! Random numbers that a seed brings back.

/// SplitMix64: small, and good enough to choose faults by.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed that `EVOKE_SEED` names, or one of its own; told in any case.
    pub(crate) fn seed(what: &str) -> u64 {
        let named = std::env::var("EVOKE_SEED").ok().map(|text| text.parse().expect("EVOKE_SEED is a number"));
        let seed = named.unwrap_or_else(|| u64::from(std::process::id()) ^ (u64::from(clock()) << 16));
        println!("{what}: EVOKE_SEED={seed}");
        seed
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Whether something happens that happens in so many of a hundred cases.
    pub(crate) fn percent(&mut self, share: u32) -> bool {
        self.next() % 100 < u64::from(share)
    }
}

fn clock() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos()
}

/// Whether the long forms are asked for.
pub(crate) fn long() -> bool {
    std::env::var("EVOKE_CAMPAIGN").is_ok_and(|form| form == "long")
}

/// The size of a test: in its short form, in its long one.
pub(crate) fn size(short: usize, in_full: usize) -> usize {
    if long() { in_full } else { short }
}

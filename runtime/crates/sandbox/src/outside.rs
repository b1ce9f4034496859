//! The values that an attempt reads from outside, except its event and its configuration: clocks, random numbers,
//! stored state, and the responses to its requests. An attempt reads them from the machine and the network, and can
//! record them. In a test, the test provides these values, for example from a recording.

use std::sync::Arc;
use std::time::Duration;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use wasmtime_wasi::{HostWallClock, WasiCtxBuilder};

use super::answers::HttpAnswers;
use super::keyvalue::StateSource;
use evoke_model::clock::{Clock, UnixMs};
use evoke_model::recording::Seed;

mod clocks;
mod exchange;
mod given;
mod recorder;
mod state;

pub(super) use exchange::RecordedExchange;
pub use given::Given;
pub use recorder::Recorder;

/// The source of the values that an attempt reads from outside.
#[derive(Clone, Default)]
pub enum Outside {
    /// The machine and the network.
    #[default]
    Live,
    /// The machine and the network; all reads are recorded.
    Recorded(Recorder),
    /// A test.
    Given(Given),
}

impl Outside {
    /// Sets the clocks and the generators of random numbers of a new WASI context. If a clock or generator is not set
    /// here, the guest uses that of the machine.
    pub(super) fn set_up(&self, wasi: &mut WasiCtxBuilder, clock: &Clock) {
        match self {
            Self::Live => set_fixed_clock(wasi, clock),
            Self::Recorded(recorder) => {
                wasi.wall_clock(clocks::RecordedWall(recorder.clone()));
                wasi.monotonic_clock(clocks::RecordedMonotonic::new(recorder.clone()));
                match recorder.seed() {
                    Some(seed) => set_random(wasi, seed),
                    None => recorder.refuse("the operating system provided no random numbers".to_owned()),
                }
            }
            Self::Given(given) => {
                match given.wall() {
                    Some(wall) => drop(wasi.wall_clock(wall)),
                    None => set_fixed_clock(wasi, clock),
                }
                if let Some(monotonic) = given.monotonic() {
                    wasi.monotonic_clock(monotonic);
                }
                if let Some(seed) = given.reads().random {
                    set_random(wasi, seed);
                }
            }
        }
    }

    /// Returns the wall clock in milliseconds, for the time of a published event.
    pub(super) fn publish_ms(&self, clock: &Clock) -> UnixMs {
        match self {
            Self::Live => clock.now_ms(),
            Self::Recorded(recorder) => recorder.publish_ms(clock),
            Self::Given(given) => given.publish_ms().unwrap_or_else(|| clock.now_ms()),
        }
    }

    /// Returns the next result of a poll, if a test gives one.
    pub(super) fn given_poll(&self) -> Option<Vec<u32>> {
        match self {
            Self::Given(given) => given.poll(),
            Self::Live | Self::Recorded(_) => None,
        }
    }

    /// Records the result of a poll: the indexes of the pollables that are ready.
    pub(super) fn record_poll(&self, ready: &[u32]) {
        if let Self::Recorded(recorder) = self {
            recorder.poll(ready);
        }
    }

    /// Returns the source from which an attempt of `function` reads stored state: `source` itself, or a source that
    /// also records the reads.
    pub(super) fn state(
        &self,
        source: Option<Arc<dyn StateSource>>,
        function: &Arc<str>,
    ) -> Option<Arc<dyn StateSource>> {
        match self {
            Self::Live | Self::Given(_) => source,
            Self::Recorded(recorder) => {
                Some(Arc::new(state::Recorded::new(source?, recorder.clone(), function.clone())))
            }
        }
    }

    /// Returns the responses that a test gives in place of the network.
    pub(super) fn answers(&self) -> Option<&HttpAnswers> {
        match self {
            Self::Given(given) => Some(given.answers()),
            Self::Live | Self::Recorded(_) => None,
        }
    }

    pub(super) fn recorder(&self) -> Option<&Recorder> {
        match self {
            Self::Recorded(recorder) => Some(recorder),
            Self::Live | Self::Given(_) => None,
        }
    }

    /// Prepares for another run of the attempt. Discards the recorded values, or starts again with the first values
    /// that the test gives.
    pub(super) fn reset(&self) {
        match self {
            Self::Live => {}
            Self::Recorded(recorder) => recorder.reset(),
            Self::Given(given) => given.reset(),
        }
    }
}

/// Derives all random numbers of an attempt from one seed. Each generator uses an independent stream of this seed.
fn set_random(wasi: &mut WasiCtxBuilder, Seed(seed): Seed) {
    let stream = |number| {
        let mut random = ChaCha20Rng::from_seed(seed);
        random.set_stream(number);
        random
    };
    let mut of_seed = stream(2);
    let insecure_seed = u128::from(of_seed.next_u64()) << 64 | u128::from(of_seed.next_u64());
    wasi.secure_random(stream(0)).insecure_random(stream(1)).insecure_random_seed(insecure_seed);
}

fn set_fixed_clock(wasi: &mut WasiCtxBuilder, clock: &Clock) {
    if let Some(now_ms) = clock.fixed_ms() {
        wasi.wall_clock(FixedClock(now_ms));
    }
}

/// A wall clock that always shows this time.
struct FixedClock(UnixMs);

impl HostWallClock for FixedClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.0).unwrap_or_default())
    }
}

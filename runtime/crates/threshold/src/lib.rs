//! Thresholds with hysteresis, and the state machine of a watched thing. The machine turns readings into changes of
//! state. Monitors and the SDK share this crate. It has no I/O and reads no clock.
//!
//! ```
//! use evoke_threshold::{Machine, Moment, Rules, Sample, State, Thresholds};
//!
//! let rules = Rules { thresholds: Thresholds::rising(80.0, 90.0).clear(5.0), ..Rules::default() };
//! let at = |second: i64| Moment { wall_ms: 1_700_000_000_000 + second * 1_000, mono_us: second * 1_000_000 };
//! let mut disk = Machine::new(at(0));
//! assert!(disk.observe(&rules, at(0), Sample::value(79.0)).is_none());
//! let change = disk.observe(&rules, at(5), Sample::value(85.0)).unwrap();
//! assert_eq!((change.from, change.to), (State::Ok, State::Warning));
//! assert!(disk.observe(&rules, at(10), Sample::value(76.0)).is_none(), "it is ok again below 75");
//! ```

#![warn(missing_docs)]

mod baseline;
mod counter;
mod flap;
mod level;
mod machine;

pub use baseline::Deviation;
pub use counter::{Counter, Per};
pub use flap::Flap;
pub use level::{Direction, Level, Limit, State, Thresholds};
pub use machine::{Change, ChangeKind, Machine, Moment, Rules, Sample, Saved};

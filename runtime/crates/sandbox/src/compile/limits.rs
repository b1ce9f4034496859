//! Limits on components and on their compilation.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Size limit of a component file, in bytes. Python components are the largest known ones and have 18 MB. Compiling
/// takes about 50 times as much memory as the component's size, and 0.3 s per MB.
pub const COMPONENT_SIZE_MAX: u64 = 64 * MIB;

/// Limit on the number of functions in a component, summed over all its modules. Python components have about 30,000.
/// At this limit, compiling takes about half a gigabyte of memory.
pub const COMPONENT_FUNCTIONS_MAX: u64 = 100_000;

/// Size limit of a component in text form, in bytes. The text form is for components written by hand.
pub const COMPONENT_TEXT_SIZE_MAX: usize = 1024 * 1024;

/// Limit on the number of imports of a component, and on the number of its exports. Real components have at most about
/// 50.
pub(super) const NAMES_MAX: usize = 1_000;
/// Length limit of the name of an import or export, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 1_024;
/// Length limit of an error message from the compiler process, in bytes; longer messages are cut.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 * 1024;

const MIB: u64 = 1024 * 1024;

/// Limits on the compilation of one component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Memory that the compiler process may take in addition to the memory that it has before it reads the component,
    /// in bytes.
    pub memory: u64,
    /// Processor time of all threads together, rounded up to seconds. The limit on the wall time is three times this
    /// limit plus 10 s, because other processes also need the processor.
    pub time: Duration,
}

impl CompileLimits {
    /// The default limits.
    pub const DEFAULT: Self = Self { memory: 2048 * MIB, time: Duration::from_secs(120) };

    /// Processor time in whole seconds, the unit of the operating system's limit.
    pub(super) fn cpu_seconds(self) -> u64 {
        self.time.as_secs().saturating_add(u64::from(self.time.subsec_nanos() > 0)).max(1)
    }

    /// Limit on the wall time. A compilation reaches the limit on processor time first, unless other processes use most
    /// of the processor time.
    pub(super) fn wall_time(self) -> Duration {
        Duration::from_secs(self.cpu_seconds()).saturating_mul(3).saturating_add(Duration::from_secs(10))
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Limit on the compiled form of a component, in bytes. Compiled code has 2 to 4 times the size of the component; the
/// fixed part of the limit (16 MiB) is for small components, whose compiled form is mostly overhead.
pub(crate) fn output_bytes_max(component_bytes: u64) -> u64 {
    component_bytes.saturating_mul(16).saturating_add(16 * MIB)
}

/// Limit on the metadata in the compiled form, in bytes. The parent decodes the metadata when it loads the component;
/// the decoded form takes up to 50 times as much memory. Without a limit, nested components could expand to any amount
/// of metadata. The metadata of real components has 5 to 15% of the component's size.
pub(super) fn metadata_bytes_max(component_bytes: u64) -> u64 {
    (component_bytes / 6).saturating_add(MIB / 2).min(10 * MIB)
}

/// Why a component was refused: its compilation exceeds a limit, or makes the compiler crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Compiling takes more memory than this limit, in bytes.
    Memory(u64),
    /// Compiling takes more processor time than this limit, in seconds.
    Time(u64),
    /// The compiled form is larger than this limit, in bytes. The limit follows from the size of the component.
    Output(u64),
    /// The compiler crashed, with this message.
    Crash(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(f, "takes more than {} MiB of memory to compile", bytes / MIB),
            Self::Time(seconds) => write!(f, "takes more than {seconds} s of processor time to compile"),
            Self::Output(bytes) => {
                write!(f, "compiles to more than {} MiB of code, the limit for a component of its size", bytes / MIB)
            }
            Self::Crash(message) => write!(f, "makes the compiler crash: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_rounded_up_to_whole_seconds() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (120_000, 120)] {
            let limits = CompileLimits { time: Duration::from_millis(millis), ..CompileLimits::DEFAULT };
            assert_eq!(limits.cpu_seconds(), seconds, "{millis} ms");
            assert!(limits.wall_time() > Duration::from_secs(3 * seconds));
        }
        let endless = CompileLimits { time: Duration::MAX, ..CompileLimits::DEFAULT };
        assert_eq!(endless.wall_time(), Duration::MAX);
    }
}

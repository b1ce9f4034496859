//! The checks that monitors can make. Each check has a key in the manifest, settings, a parser, and a function that
//! takes a reading. A check returns a value, which the state machine in `evoke_threshold` compares with the thresholds.
//! A check may also return a level, such as critical for a missing file.

mod command;
mod cpu;
mod disk;
mod disk_io;
mod endpoint;
mod file;
mod globs;
mod http;
mod load;
mod memory;
mod network;
mod process;
mod tcp;
mod temperature;
mod tls;
mod unit;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader};
use evoke_threshold::{Direction, Level};
use schemars::{Schema, SchemaGenerator};
use serde::Serialize;

use super::quantity::Unit;
use super::resources::Resources;

/// Longest time of a reading, with the wait for its start.
const READING_MAX: Duration = Duration::from_secs(10);

/// The check of a monitor. The name of the variant is its key in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Check {
    Cpu(cpu::Cpu),
    Load(load::Load),
    Memory(memory::Memory),
    Swap(memory::Swap),
    Disk(disk::Disk),
    DiskIo(disk_io::DiskIo),
    Network(network::Network),
    Temperature(temperature::Temperature),
    Process(process::Process),
    Unit(unit::SystemdUnit),
    Tcp(tcp::Tcp),
    Http(http::Http),
    Tls(tls::Tls),
    File(file::File),
    Command(command::Command),
}

/// The keys of all checks, in the order in which messages list them.
pub(super) const KEYS: [&str; 15] = [
    "cpu",
    "load",
    "memory",
    "swap",
    "disk",
    "disk_io",
    "network",
    "temperature",
    "process",
    "unit",
    "tcp",
    "http",
    "tls",
    "file",
    "command",
];

/// What a check measures: its units, and which values are bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measure {
    /// The units that thresholds may have. A monitor without thresholds uses the first one.
    pub(super) units: &'static [Unit],
    /// The side on which readings are bad. A threshold with a comparison sign can change this side.
    pub(super) direction: Direction,
    /// True if the value is a counter that only grows. The monitor then watches its rate, or the differences of
    /// readings.
    pub(super) is_counter: bool,
    /// True if the check itself can return a bad level. The monitor then needs no threshold.
    pub(super) has_own_levels: bool,
}

impl Measure {
    const fn new(units: &'static [Unit], direction: Direction) -> Self {
        Self { units, direction, is_counter: false, has_own_levels: false }
    }

    const fn above(units: &'static [Unit]) -> Self {
        Self::new(units, Direction::Above)
    }

    const fn below(units: &'static [Unit]) -> Self {
        Self::new(units, Direction::Below)
    }

    const fn counter(self) -> Self {
        Self { is_counter: true, ..self }
    }

    const fn with_own_levels(self) -> Self {
        Self { has_own_levels: true, ..self }
    }
}

/// The result of one reading of one subject.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    /// The watched thing, such as the path of a disk.
    pub(super) subject: String,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// There is no value yet: the value is the difference of two readings, and this was the first one.
    Pending,
    /// The subject could not be read, for this reason.
    Unknown(String),
    /// The subject was read.
    Read(Found),
}

/// The findings of one reading, or the reason why the whole reading failed.
pub(super) type Reading = Result<Vec<Finding>, String>;

/// The content of a successful reading of one subject.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) value: Option<f64>,
    /// The level that the check itself returned; thresholds can only make the state worse.
    pub(super) at_least: Level,
    /// A text for the user, such as why the level is critical.
    pub(super) detail: Option<String>,
}

impl Found {
    pub(super) fn value(value: f64) -> Self {
        Self { value: Some(value), at_least: Level::Ok, detail: None }
    }

    /// Returns the reading of a check that itself found a critical problem.
    pub(super) fn critical(detail: impl Into<String>) -> Self {
        Self { value: None, at_least: Level::Critical, detail: Some(detail.into()) }
    }
}

impl Finding {
    fn new(subject: impl Into<String>, outcome: Result<Found, String>) -> Self {
        let outcome = match outcome {
            Ok(found) => Outcome::Read(found),
            Err(reason) => Outcome::Unknown(reason),
        };
        Self { subject: subject.into(), outcome }
    }
}

/// The data that a monitor keeps in memory from one reading to the next.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    cpu: cpu::Seen,
    disk_io: disk_io::Seen,
    process: process::Seen,
    /// The client of network checks.
    endpoint: Option<endpoint::Endpoint>,
    /// A reading on another thread that has not ended yet.
    pub(super) unfinished: Option<tokio::task::JoinHandle<Vec<Finding>>>,
}

/// A reading that may block its thread.
type BlockingReading = Box<dyn FnOnce(&Resources) -> Vec<Finding> + Send>;

impl Check {
    /// Parses the value of one of [`KEYS`].
    pub(super) fn parse(reader: &mut Reader<'_>, key: &str, node: &Node, place: &Place<'_>) -> Option<Self> {
        Some(match key {
            "cpu" => Self::Cpu(cpu::parse(reader, node, place)?),
            "load" => Self::Load(load::parse(reader, node, place)?),
            "memory" => Self::Memory(memory::parse_memory(reader, node, place)?),
            "swap" => Self::Swap(memory::parse_swap(reader, node, place)?),
            "disk" => Self::Disk(disk::parse(reader, node, place)?),
            "disk_io" => Self::DiskIo(disk_io::parse(reader, node, place)?),
            "network" => Self::Network(network::parse(reader, node, place)?),
            "temperature" => Self::Temperature(temperature::parse(reader, node, place)?),
            "process" => Self::Process(process::parse(reader, node, place)?),
            "unit" => Self::Unit(unit::parse(reader, node, place)?),
            "tcp" => Self::Tcp(tcp::parse(reader, node, place)?),
            "http" => Self::Http(http::parse(reader, node, place)?),
            "tls" => Self::Tls(tls::parse(reader, node, place)?),
            "file" => Self::File(file::parse(reader, node, place)?),
            "command" => Self::Command(command::parse(reader, node, place)?),
            _ => return None,
        })
    }

    /// Returns the JSON schema of the value of one of [`KEYS`].
    pub(super) fn schema(key: &str, generator: &mut SchemaGenerator) -> Schema {
        match key {
            "cpu" => generator.subschema_for::<cpu::Cpu>(),
            "load" => generator.subschema_for::<load::Load>(),
            "memory" => generator.subschema_for::<memory::Memory>(),
            "swap" => generator.subschema_for::<memory::Swap>(),
            "disk" => generator.subschema_for::<disk::Disk>(),
            "disk_io" => generator.subschema_for::<disk_io::DiskIo>(),
            "network" => generator.subschema_for::<network::Network>(),
            "temperature" => generator.subschema_for::<temperature::Temperature>(),
            "process" => generator.subschema_for::<process::Process>(),
            "unit" => generator.subschema_for::<unit::SystemdUnit>(),
            "tcp" => generator.subschema_for::<tcp::Tcp>(),
            "http" => generator.subschema_for::<http::Http>(),
            "tls" => generator.subschema_for::<tls::Tls>(),
            "file" => generator.subschema_for::<file::File>(),
            _ => generator.subschema_for::<command::Command>(),
        }
    }

    /// Returns the key in the manifest.
    pub(super) fn key(&self) -> &'static str {
        let position = match self {
            Self::Cpu(_) => 0,
            Self::Load(_) => 1,
            Self::Memory(_) => 2,
            Self::Swap(_) => 3,
            Self::Disk(_) => 4,
            Self::DiskIo(_) => 5,
            Self::Network(_) => 6,
            Self::Temperature(_) => 7,
            Self::Process(_) => 8,
            Self::Unit(_) => 9,
            Self::Tcp(_) => 10,
            Self::Http(_) => 11,
            Self::Tls(_) => 12,
            Self::File(_) => 13,
            Self::Command(_) => 14,
        };
        KEYS[position]
    }

    pub(super) fn measure(&self) -> Measure {
        match self {
            Self::Cpu(_) => cpu::MEASURE,
            Self::Load(_) => load::MEASURE,
            Self::Memory(memory) => memory.measure(),
            Self::Swap(swap) => swap.measure(),
            Self::Disk(disk) => disk.measure(),
            Self::DiskIo(io) => io.measure(),
            Self::Network(network) => network.measure(),
            Self::Temperature(_) => temperature::MEASURE,
            Self::Process(process) => process.measure(),
            Self::Unit(unit) => unit.measure(),
            Self::Tcp(_) => tcp::MEASURE,
            Self::Http(http) => http.measure(),
            Self::Tls(_) => tls::MEASURE,
            Self::File(file) => file.measure(),
            Self::Command(_) => command::MEASURE,
        }
    }

    /// Returns true if this check can have this subject. The store may have other subjects, from earlier settings of
    /// the monitor.
    pub(super) fn covers(&self, subject: &str) -> bool {
        match self {
            Self::Disk(disk) => disk.covers(subject),
            Self::DiskIo(io) => io.covers(subject),
            Self::Network(network) => network.covers(subject),
            Self::Temperature(temperature) => temperature.covers(subject),
            Self::File(file) => file.covers(subject),
            Self::Process(process) => process.subject() == subject,
            Self::Unit(unit) => unit.covers(subject),
            Self::Tcp(tcp) => tcp.address == subject,
            Self::Http(http) => http.subject() == subject,
            Self::Tls(tls) => tls.address == subject,
            Self::Command(command) => command.subject() == subject,
            Self::Cpu(_) | Self::Load(_) | Self::Memory(_) | Self::Swap(_) => self.key() == subject,
        }
    }

    /// Returns the subjects that are watched even if they do not exist. A name or path with wildcards has no such
    /// subjects.
    pub(super) fn subjects(&self) -> Vec<String> {
        let fixed = match self {
            Self::Disk(disk) => disk.fixed(),
            Self::File(file) => file.fixed(),
            Self::DiskIo(_) | Self::Network(_) | Self::Temperature(_) => None,
            Self::Process(process) => Some(process.subject()),
            Self::Unit(unit) => return unit.fixed(),
            Self::Tcp(tcp) => Some(tcp.address.clone()),
            Self::Http(http) => Some(http.subject()),
            Self::Tls(tls) => Some(tls.address.clone()),
            Self::Command(command) => Some(command.subject()),
            Self::Cpu(_) | Self::Load(_) | Self::Memory(_) | Self::Swap(_) => Some(self.key().to_owned()),
        };
        fixed.into_iter().collect()
    }

    /// Returns the outcome for a subject that the last reading did not find any more.
    pub(super) fn gone(&self) -> Outcome {
        match self {
            Self::Unit(unit) => unit.gone(),
            _ => Outcome::Unknown("it does not exist any more".to_owned()),
        }
    }

    /// Returns the longest time of a reading, with the wait for its start. A reading that takes longer is unknown.
    pub(super) fn reading_max(&self) -> Duration {
        match self {
            Self::Command(command) => command.reading_max(),
            _ => READING_MAX,
        }
    }

    /// Returns the part of the reading that may block its thread or take long, for example because of a network file
    /// system. The caller runs this function on a separate thread. Returns `None` if there is no such part. Waits while
    /// another monitor scans the processes.
    pub(super) async fn blocking(&self, resources: &Resources, unit: Unit) -> Option<BlockingReading> {
        Some(match self {
            Self::Disk(disk) => {
                let disk = disk.clone();
                Box::new(move |_| disk.read(unit))
            }
            Self::File(file) => {
                let file = file.clone();
                Box::new(move |_| file.read())
            }
            Self::Temperature(temperature) => {
                let temperature = temperature.clone();
                Box::new(move |_| temperature.read(Path::new("/sys")))
            }
            Self::Process(_) => {
                let permit = resources.processes.permit().await?;
                Box::new(move |resources| {
                    resources.processes.refresh(permit);
                    Vec::new()
                })
            }
            _ => return None,
        })
    }

    /// Takes a reading. Returns no findings for the checks `disk`, `file` and `temperature`, because [`Self::blocking`]
    /// reads them. An error is the reason why no subject could be read. The futures of requests and commands are boxed,
    /// because they are large and most monitors do not need them.
    pub(super) async fn read(&self, resources: &Arc<Resources>, remembered: &mut Remembered, unit: Unit) -> Reading {
        Ok(match self {
            Self::Cpu(cpu) => cpu.read(&resources.files, &mut remembered.cpu),
            Self::Load(load) => load.read(&resources.files),
            Self::Memory(memory) => memory.read(&resources.files, unit),
            Self::Swap(swap) => swap.read(&resources.files, unit),
            Self::DiskIo(io) => io.read(&resources.files, &mut remembered.disk_io),
            Self::Network(network) => network.read(&resources.files, Path::new("/sys/class/net")),
            Self::Process(process) => process.read(&resources.processes, &mut remembered.process),
            Self::Unit(unit) => Box::pin(unit.read(resources)).await?,
            Self::Tcp(tcp) => Box::pin(tcp.read(resources, &mut remembered.endpoint)).await,
            Self::Http(http) => Box::pin(http.read(resources, &mut remembered.endpoint)).await,
            Self::Tls(tls) => Box::pin(tls.read(resources, &mut remembered.endpoint)).await,
            Self::Command(command) => Box::pin(command.read(resources, unit)).await,
            Self::Disk(_) | Self::File(_) | Self::Temperature(_) => Vec::new(),
        })
    }
}

/// Reads an optional key whose value is one of a few words.
fn choice<T: Copy + Default>(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    what: &str,
    words: &[(&'static str, T)],
) -> T {
    use evoke_manifest::parser::{ValueError, excerpt, join_with_or, nearest};
    let parsed = node.and_then(|node| {
        reader.parse_text(node, what, |text| {
            let known = words.iter().find(|(word, _)| *word == text);
            known.map(|(_, value)| *value).ok_or_else(|| {
                let all = || words.iter().map(|(word, _)| *word);
                let help = match nearest(text, all()) {
                    Some(similar) => format!("did you mean `{similar}`?"),
                    None => format!("write {}", join_with_or(all())),
                };
                ValueError::new(format!("`{}` is not a value of {what}", excerpt(text)), help)
            })
        })
    });
    parsed.unwrap_or_default()
}

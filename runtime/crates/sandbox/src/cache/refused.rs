//! The records of components that the compiler refused, because they exceed a limit or make the compiler crash. A
//! reload or a restart does not compile a component that has a record, because the compilation would fail again.
//!
//! A record is one line of JSON and one line with its authentication code in hexadecimal. The JSON contains the version
//! of Evoke and the limits of the failed compilation. With another version or a higher limit, the component is compiled
//! again.

use std::io::{self, Read as _};
use std::path::Path;

use hmac::Mac as _;
use serde::{Deserialize, Serialize};

use super::super::compile::{CompileLimits, Refusal, open_cached};
use super::key::{Key, Mac};
use evoke_model::hex;

/// Size limit of a record, in bytes. The largest part of a record is the message of a crash.
const RECORD_BYTES_MAX: u64 = 64 * 1024;
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Version of Evoke.
    version: String,
    refusal: Refusal,
    /// Limit on memory, in bytes.
    memory: u64,
    /// Limit on processor time, in milliseconds.
    time_ms: u64,
}

impl Record {
    pub(super) fn new(refusal: Refusal, limits: CompileLimits) -> Self {
        Self { version: VERSION.to_owned(), refusal, memory: limits.memory, time_ms: millis(limits) }
    }

    /// Returns the refusal; `None` if another compilation with these limits can succeed.
    pub(super) fn refusal(&self, limits: CompileLimits) -> Option<&Refusal> {
        let (more_memory, more_time) = (limits.memory > self.memory, millis(limits) > self.time_ms);
        let may_succeed = match self.refusal {
            Refusal::Memory(_) => more_memory,
            Refusal::Time(_) => more_time,
            Refusal::Output(_) => false,
            Refusal::Crash(_) => more_memory || more_time,
        };
        (self.version == VERSION && !may_succeed).then_some(&self.refusal)
    }

    /// Reads a record. Returns `None` if there is no record with a valid authentication code. `name` identifies the
    /// component.
    pub(super) fn read(path: &Path, key: &Key, name: &str) -> Option<Self> {
        let mut text = String::new();
        open_cached(path).ok()?.take(RECORD_BYTES_MAX).read_to_string(&mut text).ok()?;
        let (json, code) = text.trim_end().split_once('\n')?;
        let expected = hex(&mac(key, name, json).ok()?.finalize().into_bytes());
        // A comparison in constant time is not needed: an attacker cannot measure how long the comparison takes,
        // because it runs only when a function is loaded.
        if expected != code {
            tracing::warn!(path = %path.display(), "the record of a refused component is damaged; compiling the component again");
            return None;
        }
        serde_json::from_str::<Self>(json).ok()
    }

    /// Returns the content of the record's file.
    pub(super) fn to_text(&self, key: &Key, name: &str) -> io::Result<String> {
        let json = serde_json::to_string(self)?;
        let code = hex(&mac(key, name, &json)?.finalize().into_bytes());
        Ok(format!("{json}\n{code}\n"))
    }
}

fn mac(key: &Key, name: &str, json: &str) -> io::Result<Mac> {
    let mut mac = key.mac("refused")?;
    mac.update(name.as_bytes());
    mac.update(&[0]);
    mac.update(json.as_bytes());
    Ok(mac)
}

fn millis(limits: CompileLimits) -> u64 {
    u64::try_from(limits.time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_a_higher_limit_of_the_same_kind_or_another_version_tries_again() {
        let limits = CompileLimits { memory: 100, time: Duration::from_secs(10) };
        let more_memory = CompileLimits { memory: 101, ..limits };
        let more_time = CompileLimits { time: Duration::from_secs(11), ..limits };
        let less = CompileLimits { memory: 99, time: Duration::from_secs(9) };
        for (refusal, memory_helps, time_helps) in [
            (Refusal::Memory(100), true, false),
            (Refusal::Time(10), false, true),
            (Refusal::Output(1), false, false),
            (Refusal::Crash("x".into()), true, true),
        ] {
            let record = Record::new(refusal.clone(), limits);
            assert_eq!(record.refusal(limits), Some(&refusal));
            assert_eq!(record.refusal(less), Some(&refusal));
            assert_eq!(record.refusal(more_memory).is_none(), memory_helps, "{refusal:?}");
            assert_eq!(record.refusal(more_time).is_none(), time_helps, "{refusal:?}");
            assert_eq!(Record { version: "0.0.0".into(), ..record }.refusal(limits), None);
        }
    }

    #[test]
    fn a_record_is_read_only_with_its_key_and_for_its_component() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = (folder.path().join("a.refused"), Key::random().unwrap());
        let record = Record::new(Refusal::Memory(5), CompileLimits::DEFAULT);
        let text = record.to_text(&key, "a").unwrap();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Record::read(&path, &key, "a"), Some(record));
        assert_eq!(Record::read(&path, &key, "b"), None);
        assert_eq!(Record::read(&path, &Key::random().unwrap(), "a"), None);
        std::fs::write(&path, text.replace("\"memory\":5", "\"memory\":6")).unwrap();
        assert_eq!(Record::read(&path, &key, "a"), None);
        assert_eq!(Record::read(&folder.path().join("missing"), &key, "a"), None);
    }
}

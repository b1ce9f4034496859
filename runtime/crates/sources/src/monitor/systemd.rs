//! Reads the states of systemd units over a message bus (D-Bus, see org.freedesktop.systemd1(5)).

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::dbus::{Argument, Call, CallError, Connection, Malformed};

/// The longest wait for a reading: for the bus and for systemd together.
const TIMEOUT: Duration = Duration::from_secs(5);
const SERVICE: &str = "org.freedesktop.systemd1";
/// Maximum length of a word that systemd returns for a state, such as `active`; the rest is cut off.
const WORD_CHARS_MAX: usize = 32;

/// The message bus on which systemd is queried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "UnitBus")]
pub(super) enum Bus {
    /// The system bus, with the units of the machine.
    #[default]
    System,
    /// The session bus of the user who runs Evoke, with the units of `systemctl --user`.
    User,
}

/// The connections that all monitors share: one for each bus, opened at the first use. The calls on a connection run
/// one after another.
#[derive(Debug, Default)]
pub(super) struct Systemd {
    system: Mutex<Option<Connection>>,
    user: Mutex<Option<Connection>>,
}

/// The units to read.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    /// Exact names of units. The units need not exist.
    pub(super) names: Vec<&'a str>,
    /// Patterns for names, as in glob(7). They match only units that systemd has loaded.
    pub(super) patterns: Vec<&'a str>,
    /// True if [`UnitState::restarts`] must be read too.
    pub(super) with_restarts: bool,
}

/// The state of a unit, in the words that systemd returns. Characters other than letters, digits, `-` and `_` are
/// removed from the words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UnitState {
    pub(super) name: String,
    /// The load state, such as `loaded`, `not-found` or `masked`.
    pub(super) load: String,
    /// The active state, such as `active` or `failed`.
    pub(super) active: String,
    /// The detailed state, such as `running` or `exited`.
    pub(super) sub: String,
    /// The path of the unit's object on the bus.
    pub(super) path: String,
    /// How often systemd restarted a service by itself; `None` for other units.
    pub(super) restarts: Option<u32>,
}

impl Systemd {
    /// Reads the states of units, within 5 s. Returns first the units of the exact names in their order, then the units
    /// that match a pattern. An error is a message for the user.
    pub(super) async fn read(&self, bus: Bus, query: &Query<'_>) -> Result<Vec<UnitState>, String> {
        let slot = match bus {
            Bus::System => &self.system,
            Bus::User => &self.user,
        };
        let read = async {
            let mut slot = slot.lock().await;
            loop {
                // Take the connection out of the slot, so that it is not used again if this reading is interrupted: the
                // next reply on the connection would then belong to the interrupted call.
                let kept = slot.take();
                let is_kept = kept.is_some();
                let mut connection = match kept {
                    Some(connection) => connection,
                    None => Connection::open(&address(bus)?).await.map_err(|error| error.to_string())?,
                };
                match units(&mut connection, query).await {
                    // The bus may have been restarted since the last reading: try once with a new connection.
                    Err(CallError::Lost(_)) if is_kept => {}
                    Err(CallError::Lost(reason)) => return Err(reason),
                    result => {
                        *slot = Some(connection);
                        return result.map_err(|error| refused(&error));
                    }
                }
            }
        };
        timeout(TIMEOUT, read).await.unwrap_or_else(|_| Err(format!("systemd did not reply within {TIMEOUT:?}")))
    }
}

fn refused(error: &CallError) -> String {
    format!("systemd did not return the states of its units: {error}")
}

/// Returns the address of a bus, in the format of dbus-daemon(1). The environment variables `DBUS_SYSTEM_BUS_ADDRESS`
/// and `DBUS_SESSION_BUS_ADDRESS` override the usual address.
fn address(bus: Bus) -> Result<String, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match bus {
        Bus::System => Ok(variable("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| {
            "unix:path=/run/dbus/system_bus_socket;unix:path=/var/run/dbus/system_bus_socket".to_owned()
        })),
        Bus::User => variable("DBUS_SESSION_BUS_ADDRESS")
            .or_else(|| Some(format!("unix:path={}/bus", variable("XDG_RUNTIME_DIR")?)))
            .ok_or_else(|| "cannot find the session bus: set DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR".to_owned()),
    }
}

async fn units(connection: &mut Connection, query: &Query<'_>) -> Result<Vec<UnitState>, CallError> {
    let mut units = Vec::new();
    if !query.names.is_empty() {
        units = list(connection, "ListUnitsByNames", &[Argument::Texts(&query.names)]).await?;
        if units.len() != query.names.len() {
            return Err(Malformed::Format.into());
        }
        // systemd returns the primary name of a unit, also if the query has an alias. Use the name in the query.
        for (unit, name) in units.iter_mut().zip(&query.names) {
            unit.name = (*name).to_owned();
        }
    }
    if !query.patterns.is_empty() {
        let arguments = [Argument::Texts(&[]), Argument::Texts(&query.patterns)];
        units.extend(list(connection, "ListUnitsByPatterns", &arguments).await?);
    }
    if query.with_restarts {
        for unit in units.iter_mut().filter(|unit| unit.name.ends_with(".service")) {
            unit.restarts = Some(restarts(connection, &unit.path).await?);
        }
    }
    Ok(units)
}

/// Calls a method of systemd's manager object that returns a list of units.
async fn list(
    connection: &mut Connection,
    member: &str,
    arguments: &[Argument<'_>],
) -> Result<Vec<UnitState>, CallError> {
    let manager = "org.freedesktop.systemd1.Manager";
    let path = "/org/freedesktop/systemd1";
    let reply = connection.call(&Call { destination: SERVICE, path, interface: manager, member, arguments }).await?;
    let units = reply.body("a(ssssssouso)")?.structures(|unit| {
        let name = unit.text()?.to_owned();
        let _description = unit.text()?;
        let [load, active, sub] = [word(unit.text()?), word(unit.text()?), word(unit.text()?)];
        let _followed = unit.text()?;
        let path = unit.text()?.to_owned();
        let (_job, _kind, _path) = (unit.u32()?, unit.text()?, unit.text()?);
        Ok(UnitState { name, load, active, sub, path, restarts: None })
    })?;
    Ok(units)
}

/// Reads the property `NRestarts` of a service.
async fn restarts(connection: &mut Connection, path: &str) -> Result<u32, CallError> {
    let arguments = [Argument::Text("org.freedesktop.systemd1.Service"), Argument::Text("NRestarts")];
    let properties = "org.freedesktop.DBus.Properties";
    let call = Call { destination: SERVICE, path, interface: properties, member: "Get", arguments: &arguments };
    let reply = connection.call(&call).await?;
    let mut value = reply.body("v")?;
    match value.signature()? {
        "u" => Ok(value.u32()?),
        _ => Err(Malformed::Format.into()),
    }
}

/// Removes unusual characters from a word that systemd returned, and limits its length, so that the word can safely be
/// shown to users.
fn word(text: &str) -> String {
    let is_valid = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.chars().filter(is_valid).take(WORD_CHARS_MAX).collect()
}

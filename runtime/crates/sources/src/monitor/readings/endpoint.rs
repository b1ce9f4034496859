//! Parts that the network checks `tcp`, `http` and `tls` share: the address, the limits, and the client.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use evoke_egress::{Error, Grant, Owner, TrustAnchors};
use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Span, Table, ValueError, excerpt};
use evoke_model::destination::{AddressRange, Destination, InvalidDestination, Target};
use evoke_model::not_global;
use serde::Serializer;

use super::super::resources::Resources;

/// Maximum size of a file with certificate authorities, in bytes.
const CA_BYTES_MAX: u64 = 1024 * 1024;
/// The allowed values of `timeout`. A longer one would often have no effect: the client of outbound requests waits at
/// most 5 s for the lookup of a name and, in the check `http`, at most 5 s for a connection.
const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(5);

/// The client of one check. The client may only connect to the address of this check.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) owner: Owner,
    pub(super) target: Target,
    /// The modification time that the file with certificate authorities had when Evoke read the file.
    ca_modified: Option<SystemTime>,
}

impl Endpoint {
    /// Returns the client of a check. Creates it at the first use, and again after the file `ca` has changed. The
    /// client may connect to the `addresses` even if they are not public. It trusts the certificate authorities in `ca`
    /// in addition to the authorities that the machine trusts.
    pub(super) async fn of<'r>(
        remembered: &'r mut Option<Self>,
        resources: &Resources,
        target: &Target,
        addresses: &[AddressRange],
        ca: Option<&PathBuf>,
    ) -> Result<&'r Self, String> {
        let ca_modified = match ca {
            Some(path) => tokio::fs::metadata(path).await.and_then(|metadata| metadata.modified()).ok(),
            None => None,
        };
        // If the file is missing at this moment, keep the client: someone may be replacing the file.
        let is_changed = |made: &Self| ca_modified.is_some() && made.ca_modified != ca_modified;
        if remembered.as_ref().is_none_or(is_changed) {
            let destination = Destination::parse(&target.to_string()).map_err(|error| error.to_string())?;
            let read = |path: &PathBuf| {
                let pem = evoke_fs::read_text(path, CA_BYTES_MAX).map_err(|error| error.to_string());
                let anchors = pem.and_then(|pem| TrustAnchors::from_pem(pem.as_bytes()).map_err(|e| e.to_string()));
                anchors.map_err(|error| format!("cannot use the certificates in {}: {error}", path.display()))
            };
            let ca = ca.map(read).transpose()?;
            let grant = Grant { addresses: addresses.to_vec(), ca, ..Grant::new(destination) };
            let owner = resources.client.owner("monitors", vec![grant]);
            *remembered = Some(Self { owner, target: target.clone(), ca_modified });
        }
        remembered.as_ref().ok_or_else(String::new)
    }
}

/// Returns the reason why a check failed. `Ok` means that the other side failed, so the state is critical. `Err` means
/// that the check could not run, so the state is unknown.
pub(super) fn failure(error: &Error) -> Result<String, String> {
    match error {
        Error::AddressRefused { target, address, reason } => Err(format!(
            "{} has the address {address}, which is {reason}; to allow it, add `addresses: [\"{address}\"]`",
            target.host
        )),
        Error::NotGranted { .. }
        | Error::Invalid(_)
        | Error::TooManyCalls
        | Error::TooManyConnections
        | Error::TooManyLookups { .. }
        | Error::Internal(_) => Err(error.to_string()),
        other => Ok(other.to_string()),
    }
}

/// Reads `address`: a host and a port.
pub(super) fn address(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    example: &str,
    https: bool,
) -> Option<(String, Target, Span)> {
    let help = format!("`address: {example}`, a host and a port");
    let node = table.required(reader, "address", &["host", "url", "port"], &help)?;
    let parsed = reader.parse_text(node, "`address`", |text| {
        let scheme = if https { "https" } else { "http" };
        let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let target = Target::parse(scheme, text).ok().filter(|_| has_port);
        target.map(|target| (text.to_owned(), target)).ok_or_else(|| {
            let message = format!("`{}` is not a host and a port", excerpt(text));
            ValueError::new(message, format!("write both, as in `{example}`"))
        })
    });
    parsed.map(|(text, target)| (text, target, node.span))
}

/// Reads `timeout` and `addresses`. Warns if the address of the target is not public and not in `addresses`. The
/// warning appears at the span of the target.
pub(super) fn limits(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    target: Option<(&Target, Span)>,
) -> (Duration, Vec<AddressRange>) {
    let timeout = table.optional(reader, "timeout");
    let timeout = timeout.and_then(|node| reader.duration(node, "`timeout`", TIMEOUT_RANGE));
    let found = table.optional(reader, "addresses");
    (timeout.unwrap_or_else(timeout_default), addresses(reader, found, target))
}

fn addresses(reader: &mut Reader<'_>, node: Option<&Node>, target: Option<(&Target, Span)>) -> Vec<AddressRange> {
    let found = node.map(|node| {
        let items = reader.nonempty_list(node, "`addresses`", "it allows nothing", "remove the key, or add an address");
        let range =
            |text: &str| text.parse().map_err(|error: InvalidDestination| ValueError::new(error.message, error.help));
        items.iter().filter_map(|item| reader.parse_text(item, "an address", range)).collect::<Vec<AddressRange>>()
    });
    let found = found.unwrap_or_default();
    let Some((target, span)) = target else { return found };
    let is_localhost = target.host == "localhost" || target.host.ends_with(".localhost");
    let refused = match target.address() {
        Some(address) => not_global(address)
            .filter(|_| !found.iter().any(|range| range.contains(address)))
            .map(|reason| (reason.to_string(), format!("[\"{address}\"]"))),
        None => (is_localhost && found.is_empty())
            .then(|| ("this machine (loopback)".to_owned(), "[\"127.0.0.1\", \"::1\"]".to_owned())),
    };
    if let Some((reason, needed)) = refused {
        let message = format!("this check will be refused: `{}` is {reason}, not a public address", target.host);
        reader.warning(span, message, format!("to allow it, add `addresses: {needed}`"));
    }
    found
}

/// Serializes `addresses` in the format of the manifest.
pub(super) fn serialize_addresses<S: Serializer>(addresses: &[AddressRange], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(addresses.iter().map(ToString::to_string))
}

/// Reads `ca`: the path of a PEM file with certificate authorities.
pub(super) fn ca(reader: &mut Reader<'_>, table: &mut Table<'_>, place: &Place<'_>) -> Option<PathBuf> {
    let node = table.optional(reader, "ca")?;
    let path = place.folder.join(reader.text(node, "`ca`")?);
    if !path.is_file() {
        let message = format!("the file `{}` does not exist", excerpt(&path.to_string_lossy()));
        reader.error(node.span, message, "write the path of a PEM file, relative to the manifest");
    }
    Some(path)
}

/// Returns the default of `timeout`.
pub(super) fn timeout_default() -> Duration {
    Duration::from_secs(5)
}

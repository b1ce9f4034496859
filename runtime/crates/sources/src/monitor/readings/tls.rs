//! The check `tls`: how long the certificate of a server is valid, and whether its chain is trusted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use evoke_manifest::units::DurationText;
use evoke_model::destination::{AddressRange, Target};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::super::resources::Resources;
use super::endpoint::{self, Endpoint};
use super::{Finding, Found, Measure};

/// Connects to a server with TLS, and reads how long its certificates are still valid. The state is critical if the
/// connection fails, if a certificate has expired, or if the certificate chain is not trusted for the name.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "TlsReading")]
pub(in super::super) struct Tls {
    /// Host and port, such as `shop.example:443`.
    #[schemars(length(min = 1))]
    pub(super) address: String,
    /// The name that the certificate must have. The default is the host of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// A PEM file with certificate authorities that are trusted in addition to those of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// The longest wait for the connection and the handshake.
    #[serde(default = "endpoint::timeout_default", with = "DurationText")]
    timeout: Duration,
    /// IP addresses and ranges that the check may connect to although they are not on the public internet.
    #[serde(default, serialize_with = "endpoint::serialize_addresses")]
    #[schemars(with = "Vec<String>")]
    addresses: Vec<AddressRange>,
    #[serde(skip)]
    target: Option<Target>,
}

pub(super) const MEASURE: Measure = Measure::below(&[Unit::Seconds]).with_own_levels();

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Tls> {
    let example = "`tls: { address: \"shop.example:443\" }`";
    let mut table = Table::read(reader, node, place.key_span, "TlsReading", "`tls`", example)?;
    let address = endpoint::address(reader, &mut table, "\"shop.example:443\"", true);
    let name = table.optional(reader, "name").and_then(|node| reader.text(node, "`name`")).map(str::to_owned);
    let ca = endpoint::ca(reader, &mut table, place);
    let target = address.as_ref().map(|(_, target, span)| (target, *span));
    let (timeout, addresses) = endpoint::limits(reader, &mut table, target);
    table.reject_unknown_keys(reader, |key| match key {
        "host" | "port" | "url" => Some("write `address: \"HOST:PORT\"`"),
        "days" => Some("write the thresholds next to `tls`, such as `warning: 14d`"),
        _ => None,
    });
    let (address, target, _) = address?;
    Some(Tls { address, name, ca, timeout, addresses, target: Some(target) })
}

impl Tls {
    pub(super) async fn read(&self, resources: &Arc<Resources>, remembered: &mut Option<Endpoint>) -> Vec<Finding> {
        vec![Finding::new(self.address.clone(), self.handshake(resources, remembered).await)]
    }

    async fn handshake(&self, resources: &Resources, remembered: &mut Option<Endpoint>) -> Result<Found, String> {
        let target = self.target.as_ref().ok_or("no address")?;
        let endpoint = Endpoint::of(remembered, resources, target, &self.addresses, self.ca.as_ref()).await?;
        let name = self.name.as_deref().unwrap_or(&target.host);
        let peer = match endpoint.owner.probe_tls(&endpoint.target, name, self.timeout).await {
            Ok(peer) => peer,
            Err(error) => return endpoint::failure(&error).map(Found::critical),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let left = peer.not_after_s.map(|end| end as f64 - now);
        Ok(match (peer.distrust, left) {
            (_, Some(left)) if left < 0.0 => {
                Found { value: Some(left), ..Found::critical("a certificate of the server has expired") }
            }
            (Some(reason), left) => {
                Found { value: left, ..Found::critical(format!("the certificate chain is not trusted: {reason}")) }
            }
            (None, Some(left)) => Found::value(left),
            (None, None) => Found::critical("the server sent no certificate that Evoke can read"),
        })
    }
}

//! The check `tcp`: whether a port accepts connections, and how long that takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Connects to a port, and reads how long that takes. The state is critical if the connection fails.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "TcpReading")]
pub(in super::super) struct Tcp {
    /// Host and port, such as `db.example:5432`.
    #[schemars(length(min = 1))]
    pub(super) address: String,
    /// The longest wait for the connection.
    #[serde(default = "endpoint::timeout_default", with = "DurationText")]
    timeout: Duration,
    /// IP addresses and ranges that the check may connect to although they are not on the public internet.
    #[serde(default, serialize_with = "endpoint::serialize_addresses")]
    #[schemars(with = "Vec<String>")]
    addresses: Vec<AddressRange>,
    #[serde(skip)]
    target: Option<Target>,
}

pub(super) const MEASURE: Measure = Measure::above(&[Unit::Seconds]).with_own_levels();

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Tcp> {
    let example = "`tcp: { address: \"db.example:5432\" }`";
    let mut table = Table::read(reader, node, place.key_span, "TcpReading", "`tcp`", example)?;
    let address = endpoint::address(reader, &mut table, "\"db.example:5432\"", false);
    let target = address.as_ref().map(|(_, target, span)| (target, *span));
    let (timeout, addresses) = endpoint::limits(reader, &mut table, target);
    table.reject_unknown_keys(reader, |key| {
        (key == "host" || key == "port").then_some("write `address: \"HOST:PORT\"`")
    });
    let (address, target, _) = address?;
    Some(Tcp { address, timeout, addresses, target: Some(target) })
}

impl Tcp {
    pub(super) async fn read(&self, resources: &Arc<Resources>, remembered: &mut Option<Endpoint>) -> Vec<Finding> {
        vec![Finding::new(self.address.clone(), self.connect(resources, remembered).await)]
    }

    async fn connect(&self, resources: &Resources, remembered: &mut Option<Endpoint>) -> Result<Found, String> {
        let target = self.target.as_ref().ok_or("no address")?;
        let endpoint = Endpoint::of(remembered, resources, target, &self.addresses, None).await?;
        let started = Instant::now();
        match endpoint.owner.probe_tcp(&endpoint.target, self.timeout).await {
            Ok(()) => Ok(Found::value(started.elapsed().as_secs_f64())),
            Err(error) => endpoint::failure(&error).map(Found::critical),
        }
    }
}

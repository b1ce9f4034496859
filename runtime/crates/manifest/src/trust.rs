//! The keys `addresses` and `ca` of a destination: addresses and certificate authorities that are accepted in addition
//! to public addresses and the certificate authorities of the machine.

use super::diagnostics::{ValueError, excerpt};
use super::parser::{Node, Reader, Table};
use super::paths::check_path;
use evoke_model::destination::AddressRange;
use evoke_model::{NotGlobal, not_global};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Addresses and certificate authorities that are accepted in addition to public addresses and the certificate
/// authorities of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Trust {
    /// Addresses and networks that may be reached although they are not on the public internet, such as `10.1.0.0/16`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "as_texts")]
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<AddressRange>,
    /// PEM file with certificate authorities that are trusted besides those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl Trust {
    /// Reads the keys of this type from a table that can also have other keys. Relative paths start in `folder`.
    pub(super) fn read(reader: &mut Reader<'_>, table: &mut Table<'_>, folder: &Path) -> Self {
        let addresses = table.optional(reader, "addresses").map(|node| addresses(reader, node)).unwrap_or_default();
        let ca = table.optional(reader, "ca").and_then(|node| ca(reader, folder, node));
        Self { addresses, ca }
    }

    /// Returns the help text for a wrong key if the user probably means a key of this type.
    pub(super) fn hint(key: &str) -> Option<&'static str> {
        match key {
            "ip" | "ips" | "cidr" | "networks" | "private" => {
                Some("to allow addresses that are not public, write `addresses: [10.1.0.0/16]`")
            }
            "cert" | "certificate" | "cacert" | "tls" => {
                Some("to trust another certificate authority, write `ca: ./FILE.pem`")
            }
            _ => None,
        }
    }

    /// Returns why requests to an address are refused; `None` if the address is allowed.
    pub(super) fn refuses(&self, address: IpAddr) -> Option<NotGlobal> {
        not_global(address).filter(|_| !self.addresses.iter().any(|range| range.contains(address)))
    }
}

fn addresses(reader: &mut Reader<'_>, node: &Node) -> Vec<AddressRange> {
    let items = reader.nonempty_list(node, "`addresses`", "it allows nothing", "remove it, or name an address");
    let range = |text: &str| text.parse::<AddressRange>().map_err(|error| ValueError::new(error.message, error.help));
    items.iter().filter_map(|item| reader.parse_text(item, "an address", range)).collect()
}

fn ca(reader: &mut Reader<'_>, folder: &Path, node: &Node) -> Option<PathBuf> {
    let text = reader.text(node, "`ca`")?;
    reader.ok_or_report(node.span, check_path(folder, text))?;
    let path = folder.join(text);
    if !path.is_file() {
        let message = format!("the file `{}` does not exist", excerpt(text));
        reader.error(node.span, message, "write the path of a PEM file, relative to the manifest");
    }
    Some(path)
}

fn as_texts<S: Serializer>(ranges: &[AddressRange], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ranges.iter().map(ToString::to_string))
}

//! Finds the secrets of functions that are not set on this machine, for a check of manifests.

use super::{outbound, secrets};
use evoke_manifest::{Function, SecretRef};

/// Checks whether the variable or credential of each secret of a function is set on this machine. Returns a message and
/// a hint for each that is not. A file that cannot be read is not reported here, but when the function is loaded.
pub(crate) fn of(function: &Function) -> Vec<(String, String)> {
    let grants = function.allow.http.iter().flat_map(|grant| &grant.secrets);
    let deliver = function.deliver.iter().flat_map(|deliver| &deliver.secrets);
    let named = function.allow.secrets.iter().chain(grants).chain(deliver);
    let read =
        |(name, location): (&String, &SecretRef)| secrets::read_one(&format!("the secret {name}"), location).err();
    let mut found: Vec<_> = named.filter_map(read).collect();
    // A header may use a secret that has no entry in `secrets` and is read from the variable of the same name.
    if found.is_empty() {
        found.extend(outbound::read(function).err());
    }
    let signing = function.deliver.iter().filter_map(|deliver| deliver.sign.as_ref()).flat_map(|sign| sign.secrets());
    found.extend(signing.filter_map(|location| secrets::read_one("the secret of `sign`", location).err()));
    found.retain(|(message, _)| message.contains(secrets::NOT_SET));
    found
}

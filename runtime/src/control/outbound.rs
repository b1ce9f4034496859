//! Reads the secrets and the certificate authorities to which the grants for outbound requests refer.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};

use super::secrets;
use evoke_egress::{Grant, TrustAnchors};
use evoke_manifest::{Function, HttpGrant, SecretRef, Trust};
use evoke_sandbox::{Secret, Secrets};

/// Size limit of a file with certificate authorities, in bytes.
const CA_BYTES_MAX: u64 = 1024 * 1024;

/// Message and help of an error.
pub(super) type Mistake = (String, String);

/// Reads the secrets of a function, and its grants for outbound requests. The function can read only the secrets in its
/// `allow: secrets`. Secrets that are only in headers are hidden from the function. Both kinds of secrets are redacted
/// from its log lines and messages. An error never contains the value of a secret.
pub(super) fn read(function: &Function) -> Result<(Secrets, Vec<Grant>), Mistake> {
    let mut hidden = BTreeMap::new();
    let grants =
        function.allow.http.iter().map(|grant| grant_of(function, grant, &mut hidden)).collect::<Result<_, _>>()?;
    Ok((secrets::read(function, &hidden)?, grants))
}

fn grant_of(function: &Function, grant: &HttpGrant, hidden: &mut BTreeMap<String, Secret>) -> Result<Grant, Mistake> {
    let mut values: BTreeMap<&str, Secret> = BTreeMap::new();
    for name in grant.headers.values().flat_map(|template| template.secrets()) {
        let secret = secret(function, grant, name)?;
        let shown = hidden_name(hidden, name, &secret);
        hidden.insert(shown, secret.clone());
        values.insert(name, secret);
    }
    let headers = grant.headers.iter().map(|(name, template)| {
        let value = template.fill(|name| values.get(name).map(Secret::expose)).unwrap_or_default();
        let invalid = || {
            let message = format!("the value of the header `{name}` for {} cannot be sent", grant.url);
            (message, "remove line breaks and control characters from the header and from the secrets in it".to_owned())
        };
        let name = HeaderName::try_from(name).map_err(|_| invalid())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        Ok((name, value))
    });
    let headers = headers.collect::<Result<_, Mistake>>()?;
    let ca = authorities(&grant.trust)?;
    Ok(Grant { destination: grant.url.clone(), headers, addresses: grant.trust.addresses.clone(), ca })
}

/// Reads the certificate authorities of a destination.
pub(super) fn authorities(trust: &Trust) -> Result<Option<TrustAnchors>, Mistake> {
    let Some(path) = &trust.ca else { return Ok(None) };
    let read = evoke_fs::read_text(path, CA_BYTES_MAX).map_err(|error| error.to_string());
    let anchors = read.and_then(|pem| TrustAnchors::from_pem(pem.as_bytes()).map_err(|error| error.to_string()));
    anchors.map(Some).map_err(|error| {
        let message = format!("cannot use the certificate authorities in {}: {error}", path.display());
        (message, "`ca` must name a file with certificates in PEM form, as in `ca: ./authority.pem`".to_owned())
    })
}

/// Reads a secret for a header: from its location in the grant, else in the function, else from the environment
/// variable of the same name.
fn secret(function: &Function, grant: &HttpGrant, name: &str) -> Result<Secret, Mistake> {
    let location = grant.secrets.get(name).or_else(|| function.allow.secrets.get(name));
    if let Some(location) = location {
        return secrets::read_one(&format!("the secret {name}"), location);
    }
    secrets::read_one(&format!("the secret {name}"), &SecretRef::Env(name.to_owned())).map_err(|(message, help)| {
        let elsewhere = format!("{help}, or add its location: `secrets: {{ {name}: {{ file: PATH }} }}`");
        (format!("{message}; `{{secret.{name}}}` is in a header for {}", grant.url), elsewhere)
    })
}

/// Returns a unique name for a hidden secret: its own name, unless another grant has a different secret with this name.
fn hidden_name(hidden: &BTreeMap<String, Secret>, name: &str, secret: &Secret) -> String {
    let mut free = name.to_owned();
    while hidden.get(&free).is_some_and(|other| other != secret) {
        free.push('\'');
    }
    free
}

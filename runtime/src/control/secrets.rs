//! Reads the values of secrets: those of functions, and those of `auth:` in http sources.

use std::collections::BTreeMap;
use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};

use evoke_manifest::{Checked, Diagnostic, Function, SecretRef};
use evoke_sandbox::{REDACTED_BYTES_MIN, Secret, Secrets};

/// Size limit of a file with a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 1024 * 1024;
/// The variable with the folder of the credentials that systemd passes to a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Reads the secrets of a function. An error has a message and a hint, and never contains the value of a secret.
/// `hidden` are secrets that the function cannot read itself.
pub(super) fn read(function: &Function, hidden: &BTreeMap<String, Secret>) -> Result<Secrets, (String, String)> {
    let read = |(name, location): (&String, &SecretRef)| {
        read_one(&format!("the secret {name}"), location).map(|secret| (name.clone(), secret))
    };
    let values = function.allow.secrets.iter().map(read).collect::<Result<BTreeMap<_, _>, _>>()?;
    Secrets::with_hidden(values, hidden).map_err(|error| {
        let hint = "give keys and passwords as secrets; put large data elsewhere, such as into an event or into state";
        (error.to_string(), hint.to_owned())
    })
}

/// Returns a warning for each function with a secret that is too short to be redacted. A secret that cannot be read is
/// reported when its function is loaded.
pub(crate) fn warnings(checked: &Checked) -> Vec<Diagnostic> {
    let of_function = |function: &Function| {
        let is_short = |(name, location): &(&String, &SecretRef)| {
            read_one(name, location).is_ok_and(|secret| !secret.is_redacted())
        };
        let secrets = function.allow.secrets.iter().chain(function.deliver.iter().flat_map(|deliver| &deliver.secrets));
        let short: Vec<_> = secrets.filter(is_short).map(|(name, _)| name.as_str()).collect();
        if short.is_empty() {
            return None;
        }
        let message = format!(
            "secrets of `{}` with fewer than {REDACTED_BYTES_MIN} bytes are not redacted from log lines and messages: {}",
            function.name.as_str(),
            short.join(", ")
        );
        let help = "use longer values for secrets, or make them settings under `config`";
        Some(Diagnostic::warning(&checked.source, function.spans.allow, message).help(help))
    };
    checked.manifest.functions.iter().filter_map(of_function).collect()
}

/// Part of the messages about a variable that is not set, and about credentials that systemd did not pass. The module
/// `unset_secrets` recognises these messages by it.
pub(super) const NOT_SET: &str = " is not set";

/// Reads a secret. Messages name the secret by `what`. An error has a message and a hint, and never contains the value.
pub(super) fn read_one(what: &str, location: &SecretRef) -> Result<Secret, (String, String)> {
    let value = match location {
        // The error of the system is not shown, because it contains the value.
        SecretRef::Env(variable) => std::env::var(variable).map_err(|error| match error {
            VarError::NotPresent => {
                let message = format!("cannot read {what}: the environment variable {variable}{NOT_SET}");
                (message, format!("start Evoke with {variable} set"))
            }
            VarError::NotUnicode(_) => {
                let message =
                    format!("cannot read {what}: the value of the environment variable {variable} is not valid UTF-8");
                (message, "encode the value, for example as base64, and decode it in the function".to_owned())
            }
        }),
        SecretRef::File(path) => read_file(path).map_err(|error| {
            let message = format!("cannot read {what} from {}: {error}", path.display());
            (message, "put the secret into this file, and make it readable for Evoke".to_owned())
        }),
        SecretRef::Credential(name) => match std::env::var_os(CREDENTIALS) {
            None => {
                let message = format!("cannot read {what}: systemd passes no credentials ({CREDENTIALS}{NOT_SET})");
                let help = "start Evoke as a service of systemd, with `LoadCredential=` or `LoadCredentialEncrypted=`";
                Err((message, help.to_owned()))
            }
            Some(folder) => read_file(&Path::new(&folder).join(name)).map_err(|error| {
                let message = format!("cannot read {what} from the systemd credential {name}: {error}");
                (message, format!("add `LoadCredential={name}:PATH` to the unit of Evoke"))
            }),
        },
    };
    value.map(Secret::from)
}

/// Returns the file from which a secret is read; `None` for an environment variable.
pub(super) fn file_of(location: &SecretRef) -> Option<PathBuf> {
    match location {
        SecretRef::Env(_) => None,
        SecretRef::File(path) => Some(path.clone()),
        SecretRef::Credential(name) => Some(Path::new(&std::env::var_os(CREDENTIALS)?).join(name)),
    }
}

/// Reads a file with a secret. A line break at the end is removed: editors add it, and it is not part of the secret.
fn read_file(path: &Path) -> io::Result<String> {
    let mut text = evoke_fs::read_text(path, SECRET_BYTES_MAX)?;
    if text.ends_with('\n') {
        text.truncate(text.len() - 1);
        if text.ends_with('\r') {
            text.truncate(text.len() - 1);
        }
    }
    Ok(text)
}

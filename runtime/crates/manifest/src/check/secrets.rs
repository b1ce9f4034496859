//! Reads the secrets of a function: their names and locations.

use super::Context;
use crate::diagnostics::excerpt;
use crate::parser::{Entry, Node, Reader};
use crate::secret::SecretRef;
use std::collections::BTreeMap;

pub(super) fn secrets(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node) -> BTreeMap<String, SecretRef> {
    let mut secrets = BTreeMap::new();
    for entry in reader.entries(node, "`secrets`", "`{ API_KEY: { env: PAYMENT_KEY } }`") {
        if !has_nonempty_key(reader, entry) {
            continue;
        }
        let what = format!("secret `{}`", excerpt(&entry.key));
        if let Some(secret) = SecretRef::parse(reader, &entry.node, entry.key_span, what, context.folder) {
            secrets.insert(entry.key.clone(), secret);
        }
    }
    secrets
}

pub(super) fn has_nonempty_key(reader: &mut Reader<'_>, entry: &Entry) -> bool {
    let nonempty = !entry.key.trim().is_empty();
    if !nonempty {
        reader.error(entry.key_span, "this key is empty", "write the name by which the function reads the value");
    }
    nonempty
}

//! The grants of the active functions, in the form that the records store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::control::functions::{self, LoadedGrants, full_name};
use evoke_manifest::{Checked, Function, HttpGrant, SecretRef, StateLimits};
use evoke_model::destination::{Destination, Target};
use evoke_model::{GrantKey, GrantKind};
use evoke_sandbox::GrantUse;

/// Maximum number of grants for which uses are recorded, for each function.
const GRANTS_MAX: usize = 256;
/// The longest name of a grant for which uses are recorded, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Size limit of the stored grants of a function, as JSON, in bytes.
const ALLOW_BYTES_MAX: usize = 64 * 1024;

/// A function with its grants.
pub(in crate::control) struct Declared {
    /// `app/function`.
    pub(super) name: String,
    pub(super) grants: Vec<DeclaredGrant>,
    /// The secrets of the function that are inserted into its requests, by the origin of the requests.
    pub(super) inserted: BTreeMap<String, Vec<String>>,
    /// The grants in the form of the manifest.
    pub(super) allow: Option<Value>,
    pub(super) refusing_imports: Vec<&'static str>,
    /// Returns true if the function has a grant for this use. Called with uses that were refused before.
    pub(super) covers: Box<dyn Fn(&GrantKey) -> bool + Send>,
    pub(super) grant_use: Arc<GrantUse>,
}

/// A grant of a manifest.
#[derive(Clone)]
pub(super) struct DeclaredGrant {
    pub(super) key: GrantKey,
    pub(super) headers: Vec<String>,
    pub(super) addresses: Vec<String>,
}

/// Returns the functions of manifests with their grants.
pub(in crate::control) fn declared(manifests: &[Checked], mut loaded: BTreeMap<String, LoadedGrants>) -> Vec<Declared> {
    let all = functions::all(manifests).filter_map(|(checked, function)| {
        let name = full_name(&checked.manifest, function);
        let (grant_use, refusing_imports) = loaded.remove(&name)?;
        let allow = Value::Object(allow(function, &checked.manifest.folder));
        let of_function = function.clone();
        Some(Declared {
            name,
            grants: grants(function),
            inserted: inserted(function),
            allow: (allow.to_string().len() <= ALLOW_BYTES_MAX).then_some(allow),
            refusing_imports,
            covers: Box::new(move |key| covers(&of_function, key)),
            grant_use,
        })
    });
    all.collect()
}

fn grants(function: &Function) -> Vec<DeclaredGrant> {
    let allow = &function.allow;
    let plain =
        |kind: GrantKind, name: &str| DeclaredGrant { key: kind.key(name), headers: Vec::new(), addresses: Vec::new() };
    let http = allow.http.iter().map(|grant| DeclaredGrant {
        key: GrantKind::Http.key(grant.url.origin()),
        headers: grant.headers.keys().cloned().collect(),
        addresses: grant.trust.addresses.iter().map(ToString::to_string).collect(),
    });
    let deliver = function.deliver.iter().map(|deliver| DeclaredGrant {
        key: GrantKind::Http.key(deliver.url.target().to_string()),
        headers: deliver.headers.keys().cloned().collect(),
        addresses: deliver.trust.addresses.iter().map(ToString::to_string).collect(),
    });
    let shared = allow.state.filter(|state| state.shared);
    let deliver_secrets = function.deliver.iter().flat_map(|deliver| deliver.secrets.keys());
    let all = allow.publish.iter().map(|glob| plain(GrantKind::Publish, glob.as_str()));
    let all = all.chain(allow.state.map(|_| plain(GrantKind::State, "")));
    let all = all.chain(shared.map(|_| plain(GrantKind::SharedState, "")));
    let all = all.chain(http).chain(deliver);
    let all = all.chain(allow.config.keys().map(|name| plain(GrantKind::Config, name)));
    let all = all.chain(allow.secrets.keys().chain(deliver_secrets).map(|name| plain(GrantKind::Secret, name)));
    all.filter(|grant| grant.key.name.len() <= NAME_BYTES_MAX).take(GRANTS_MAX).collect()
}

/// Returns the secrets that are inserted into requests, by the origin of the requests. Secrets that an entry of `http`
/// declares itself are left out, because they are not grants of their own.
fn inserted(function: &Function) -> BTreeMap<String, Vec<String>> {
    let of_grant = |grant: &HttpGrant| {
        let names = grant.headers.values().flat_map(|template| template.secrets());
        let names = names.filter(|name| !grant.secrets.contains_key(*name)).map(str::to_owned);
        (grant.url.origin(), names.collect())
    };
    let mut inserted: BTreeMap<String, Vec<String>> = function.allow.http.iter().map(of_grant).collect();
    if let Some(deliver) = &function.deliver {
        let names = deliver.templates().flat_map(|template| template.placeholders());
        let names = names.filter_map(|placeholder| match &placeholder.name {
            evoke_manifest::deliver::Field::Secret(name) => Some(name.clone()),
            _ => None,
        });
        inserted.insert(deliver.url.target().to_string(), names.collect());
    }
    inserted
}

fn covers(function: &Function, key: &GrantKey) -> bool {
    let allow = &function.allow;
    let target = |origin: &str| origin.split_once("://").and_then(|(scheme, rest)| Target::parse(scheme, rest).ok());
    let grant_for = |origin: &str| {
        let target = target(origin)?;
        allow.http.iter().find(|grant| Destination::matches(&grant.url, &target))
    };
    match key.kind {
        GrantKind::Publish => allow.publish.iter().any(|glob| glob.matches(&key.name)),
        GrantKind::State => allow.state.is_some(),
        GrantKind::SharedState => allow.state.is_some_and(|state| state.shared),
        GrantKind::Http => grant_for(&key.name).is_some(),
        GrantKind::Address => key.name.split_once(' ').is_some_and(|(origin, address)| {
            let address = address.parse().ok();
            grant_for(origin)
                .zip(address)
                .is_some_and(|(grant, address)| grant.trust.addresses.iter().any(|range| range.contains(address)))
        }),
        GrantKind::Config | GrantKind::Secret => {
            allow.config.contains_key(&key.name) || allow.secrets.contains_key(&key.name)
        }
    }
}

/// Returns the function's grants in the form of `allow:` in a manifest. Paths below the manifest's folder are relative
/// to that folder.
fn allow(function: &Function, folder: &Path) -> Map<String, Value> {
    let allow = &function.allow;
    let mut map = Map::new();
    let mut add = |key: &str, value: Value, is_empty: bool| {
        if !is_empty {
            map.insert(key.to_owned(), value);
        }
    };
    let globs: Vec<_> = allow.publish.iter().map(|glob| glob.as_str()).collect();
    add("publish", json!(globs), globs.is_empty());
    add("state", allow.state.map_or(Value::Null, state), allow.state.is_none());
    let http: Vec<Value> = allow.http.iter().map(|grant| http_grant(grant, folder)).collect();
    add("http", json!(http), http.is_empty());
    add("config", json!(allow.config), allow.config.is_empty());
    let secrets = secrets(&allow.secrets, folder);
    add("secrets", json!(secrets), secrets.is_empty());
    map
}

/// Returns the grant of state with only those limits that differ from the defaults.
fn state(limits: StateLimits) -> Value {
    let (given, default) = (json!(limits), json!(StateLimits::default()));
    let changed = given.as_object().into_iter().flatten().filter(|(key, value)| default.get(key) != Some(value));
    let changed: Map<String, Value> = changed.map(|(key, value)| (key.clone(), value.clone())).collect();
    if changed.is_empty() { true.into() } else { changed.into() }
}

fn http_grant(grant: &HttpGrant, folder: &Path) -> Value {
    let mut map = Map::from_iter([("url".to_owned(), Value::from(grant.url.origin()))]);
    if !grant.headers.is_empty() {
        map.insert("headers".to_owned(), json!(grant.headers));
    }
    if !grant.secrets.is_empty() {
        map.insert("secrets".to_owned(), json!(secrets(&grant.secrets, folder)));
    }
    if !grant.trust.addresses.is_empty() {
        let addresses: Vec<_> = grant.trust.addresses.iter().map(ToString::to_string).collect();
        map.insert("addresses".to_owned(), json!(addresses));
    }
    if let Some(ca) = &grant.trust.ca {
        map.insert("ca".to_owned(), relative(ca, folder));
    }
    if map.len() == 1 { grant.url.origin().into() } else { map.into() }
}

fn secrets(secrets: &BTreeMap<String, SecretRef>, folder: &Path) -> BTreeMap<String, Value> {
    let location = |location: &SecretRef| match location {
        SecretRef::File(path) => json!({ "file": relative(path, folder) }),
        other => json!(other),
    };
    secrets.iter().map(|(name, secret)| (name.clone(), location(secret))).collect()
}

fn relative(path: &Path, folder: &Path) -> Value {
    path.strip_prefix(folder).unwrap_or(path).display().to_string().into()
}

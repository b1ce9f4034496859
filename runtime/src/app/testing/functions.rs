//! Loads the functions of tests, with the configuration and the secrets of the tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::Case;
use crate::control::AppError;
use crate::control::functions::full_name;
use crate::control::load::load_with;
use evoke_egress::Grant;
use evoke_manifest::test_file::Spanned;
use evoke_manifest::{Diagnostics, Function};
use evoke_sandbox::{self as sandbox, Kind, Sandbox, Secret, Secrets};

type Values = BTreeMap<String, String>;

/// Returns the loaded function of each test. Tests with the same function, configuration and secrets share one value.
pub(super) async fn load_all(cases: &[Case<'_>], sandbox: &Sandbox) -> Result<Vec<Arc<sandbox::Function>>, AppError> {
    let key = |case: &Case<'_>| {
        let name = full_name(&case.checked.manifest, case.function);
        (case.checked.manifest.path.clone(), name, values(&case.test.config), values(&case.test.secrets))
    };
    let mut distinct = BTreeMap::new();
    for case in cases {
        distinct.entry(key(case)).or_insert(case);
    }
    let loads: Vec<_> = distinct.into_iter().map(|(key, case)| load(key, case, sandbox).boxed()).collect();
    let results: Vec<_> = stream::iter(loads).buffered(Sandbox::loads_max()).collect().await;
    let (mut loaded, mut errors) = (BTreeMap::new(), Diagnostics::default());
    for result in results {
        match result {
            Ok((key, function)) => drop(loaded.insert(key, function)),
            Err(found) => errors.extend(found),
        }
    }
    if errors.has_errors() {
        return Err(errors.into());
    }
    Ok(cases.iter().filter_map(|case| loaded.get(&key(case)).cloned()).collect())
}

async fn load<K>(key: K, case: &Case<'_>, sandbox: &Sandbox) -> Result<(K, Arc<sandbox::Function>), Diagnostics> {
    let Case { file, test, checked, function } = *case;
    let at_test =
        |message: String, help: &str| Err(Diagnostics::from_iter([file.error_at(test.name.span, message, help)]));
    let mut function: Function = function.clone();
    function.allow.config.extend(values(&test.config));
    let secrets = function.allow.secrets.keys().map(|name| {
        let given = test.secrets.get(name).map(|secret| Secret::from(secret.value.clone()));
        (name.clone(), given.unwrap_or_else(|| Secret::for_tests(name)))
    });
    let secrets = match Secrets::new(secrets.collect()) {
        Ok(secrets) => secrets,
        Err(error) => return at_test(error.to_string(), "use shorter values"),
    };
    // The test answers the requests, so the grants need no headers.
    let http = function.allow.http.iter().map(|grant| Grant::new(grant.url.clone())).collect();
    let loaded = load_with(checked, &function, (secrets, http), sandbox).await?;
    if loaded.kind() == Kind::Http {
        let message = format!("`{}` handles HTTP requests, not events", function.name.as_str());
        return at_test(message, "remove this test: only functions that handle events can be tested");
    }
    Ok((key, loaded))
}

fn values(given: &BTreeMap<String, Spanned<String>>) -> Values {
    given.iter().map(|(name, given)| (name.clone(), given.value.clone())).collect()
}

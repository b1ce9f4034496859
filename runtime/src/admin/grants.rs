//! Lists the grants of functions, and the use of each grant.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::Response;
use serde::Deserialize;

use super::names;
use super::request::Params;
use super::stream::ndjson;
use super::view::FunctionGrants;
use super::{Admin, ApiResult};
use evoke_http::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantsQuery {
    /// Name of a function, or of an app for all of its functions.
    name: Option<String>,
}

/// Lists the grants, one function per line. Without a name, only functions that an active manifest declares are listed.
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(query): Params<GrantsQuery>,
) -> ApiResult<Response<Body>> {
    let mut records = admin.control.grant_records();
    match query.name {
        None => records.retain(|_, record| record.gone_ms.is_none()),
        Some(name) => {
            let is_of_app = |function: &str| function.split_once('/').is_some_and(|(app, _)| app == name);
            if records.keys().any(|function| is_of_app(function)) {
                records.retain(|function, _| is_of_app(function));
            } else {
                let known: BTreeSet<&str> = records.keys().map(String::as_str).collect();
                let found = names::find(&known, &name).map_err(Problem::not_found)?.to_owned();
                records.retain(|function, _| *function == found);
            }
        }
    }
    Ok(ndjson(&admin, |mut lines| async move {
        for (name, record) in records {
            lines.json(&FunctionGrants::new(name, &record)).await?;
        }
        Ok(lines.flush().await?)
    }))
}

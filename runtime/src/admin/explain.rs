//! Why an event is, or is not, owed to functions.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::Explained;
use super::problem::{Params, Problem};
use super::{Admin, Answer, events};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    function: Option<String>,
}

pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    Path(reference): Path<String>,
    Params(wanted): Params<Wanted>,
) -> Answer<Json<Vec<Explained>>> {
    let stored = events::intact(events::find(&*admin.store, &reference).await?)?;
    let explained = (admin.explain)(&stored.event, wanted.function.as_deref());
    let explained = explained.map_err(|e| Problem::malformed(format!("the event's data cannot be matched: {e}")))?;
    match wanted.function {
        Some(function) if explained.is_empty() => Err(Problem::not_found(format!(
            "no manifest in force declares {function}; `evoke status` lists the functions"
        ))),
        _ => Ok(Json(explained)),
    }
}

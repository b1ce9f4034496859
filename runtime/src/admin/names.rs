//! Finds a function by the name that a user gives, which may lack the app.

use std::collections::BTreeSet;

use super::{Admin, ApiResult};
use evoke_http::problem::Problem;
use evoke_manifest::parser::nearest;

/// Returns the full name of the function `given`. A user may leave out the app if only one function has the rest of the
/// name. Finds active functions, and inactive functions that have deliveries in the store. Returns an error with a
/// suggestion if there is no such function.
pub(super) async fn function(admin: &Admin, given: &str) -> ApiResult<String> {
    let (totals, active) = (admin.store.totals().await?, admin.control.function_ids());
    let known: BTreeSet<&str> = totals.functions.keys().chain(active.keys()).map(String::as_str).collect();
    Ok(find(&known, given).map_err(Problem::not_found)?.to_owned())
}

/// Like [`function`], for an optional parameter.
pub(super) async fn optional_function(admin: &Admin, given: Option<&str>) -> ApiResult<Option<String>> {
    match given {
        Some(given) => function(admin, given).await.map(Some),
        None => Ok(None),
    }
}

/// Returns the full name of the function `given`, or the error message for the user.
pub(super) fn find<'a>(known: &BTreeSet<&'a str>, given: &str) -> Result<&'a str, String> {
    if let Some(exact) = known.get(given) {
        return Ok(exact);
    }
    let short = |name: &'a str| name.split_once('/').map_or(name, |(_, short)| short);
    let meant: Vec<&str> = known.iter().copied().filter(|name| short(name) == given).collect();
    match meant.as_slice() {
        [one] => Ok(one),
        [] => {
            let full = nearest(given, known.iter().copied());
            let of_short = || {
                let found = nearest(given, known.iter().copied().map(short))?;
                known.iter().copied().find(|name| short(name) == found)
            };
            let help = full.or_else(of_short).map(|nearest| format!("; did you mean `{nearest}`?"));
            let help = help.unwrap_or_else(|| "; `evoke status` lists the functions".to_owned());
            Err(format!("there is no function `{given}`{help}"))
        }
        several => Err(format!("several functions are named `{given}`; write one of: {}", several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_by_its_full_name_or_by_a_unique_short_name() {
        let known = BTreeSet::from(["shop/charge", "shop/receipt", "lab/receipt"]);
        assert_eq!(find(&known, "shop/charge"), Ok("shop/charge"));
        assert_eq!(find(&known, "charge"), Ok("shop/charge"));
        let error = |given| find(&known, given).unwrap_err();
        let several = "several functions are named `receipt`; write one of: lab/receipt, shop/receipt";
        assert_eq!(error("receipt"), several);
        assert_eq!(error("shop/chrage"), "there is no function `shop/chrage`; did you mean `shop/charge`?");
        assert_eq!(error("chrage"), "there is no function `chrage`; did you mean `shop/charge`?");
        assert_eq!(error("zzz"), "there is no function `zzz`; `evoke status` lists the functions");
    }
}

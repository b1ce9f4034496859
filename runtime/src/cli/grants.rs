//! `grants`: shows the grants of functions and their use, and proposes the smallest grants that suffice.

use clap::Args;
use serde_json::Value;

use super::client::{Client, parse};
use super::table::table;
use super::text::{BOLD, DIM, colour, columns, count, escape, local_time, print, print_json_text};
use super::{Common, Failure};
use crate::admin::view::{FunctionGrants, Grant, RefusedUse};
use crate::yaml;
use evoke_model::{GrantKind, Json};

/// The number of spaces before the printed `allow:`, the same as in a manifest.
const INDENT: usize = 4;

#[derive(Debug, Args)]
pub(super) struct Grants {
    /// Only this function, as app/function, or the functions of this app
    #[arg(value_name = "FUNCTION|APP")]
    name: Option<String>,
}

impl Grants {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let query: Vec<_> = self.name.map(|name| ("name", name)).into_iter().collect();
        let client = Client::find(common)?;
        if common.client_args.json {
            return client.lines("/api/v1/grants", &query, print_json_text);
        }
        let functions = read(&client, &query)?;
        if functions.is_empty() {
            return print("no functions");
        }
        let shown: Vec<_> = functions.iter().map(|function| render(function, columns())).collect();
        print(&shown.join("\n\n"))
    }
}

/// Reads the grants of functions.
pub(super) fn read(client: &Client, query: &[(&str, String)]) -> Result<Vec<FunctionGrants>, Failure> {
    let mut functions = Vec::new();
    client.lines("/api/v1/grants", query, |line| {
        functions.push(parse(line)?);
        Ok(())
    })?;
    Ok(functions)
}

fn render(function: &FunctionGrants, columns: Option<usize>) -> String {
    let FunctionGrants { function: name, active, since, attempts, unclean_end, grants, refused, .. } = function;
    let (since, ran) = (local_time(since), count(*attempts, "attempt"));
    let mut text = format!("{BOLD}{}{BOLD:#}: {ran} since {since}", escape(name));
    if !active {
        text += "; no active manifest has this function";
    }
    if let Some(at) = unclean_end {
        let at = local_time(at);
        text += &format!(
            "\n{DIM}before the start at {at}, Evoke ended without a clean stop: the last uses may be missing{DIM:#}"
        );
    }
    if grants.is_empty() {
        text += "\nno grants";
    } else {
        let rows: Vec<_> = grants.iter().map(row).collect();
        text = text + "\n" + &table(&["grant", "last use=", "used for"], &rows, columns);
    }
    let bad = colour("dead");
    for RefusedUse { key, last, allow } in refused {
        let (key, line) = (key.to_string(), block(allow).join(" "));
        let (key, last, line) = (escape(&key), local_time(last), escape(line.trim()).into_owned());
        text += &format!("\n{bad}refused{bad:#} at {last}: {key}; to allow it, add to `allow`: {line}");
    }
    if !function.refusing_imports.is_empty() {
        let imports = function.refusing_imports.join(", ");
        let imports = escape(&imports);
        text += &format!("\n{DIM}imports that refuse every call, because a grant is missing: {imports}{DIM:#}");
    }
    text + &proposal(function)
}

fn proposal(function: &FunctionGrants) -> String {
    match &function.proposal {
        Some(Json(Value::Object(allow))) if allow.is_empty() => {
            "\nthe function used no grant: remove `allow`".to_owned()
        }
        Some(allow) => {
            let prefix = " ".repeat(INDENT);
            let lines = super::text::escape_lines(&block(allow).join("\n"));
            format!("\nthe smallest `allow` for all uses:\n{prefix}allow:\n{lines}")
        }
        None if function.attempts == 0 => "\nthe function has not run yet".to_owned(),
        None => String::new(),
    }
}

/// Returns the lines of a map below `allow:`.
fn block(allow: &Value) -> Vec<String> {
    let entries = allow.as_object().into_iter().flatten();
    yaml::block(entries.map(|(key, value)| (key.as_str(), value)), INDENT + 2)
}

fn row(grant: &Grant) -> Vec<String> {
    let last = match &grant.last {
        Some(last) => local_time(last),
        None if grant.used => "used".to_owned(),
        None => "never".to_owned(),
    };
    let seen = grant.seen.iter().filter(|value| **value != grant.key.name);
    let mut details: Vec<String> = seen.map(|value| describe(grant.key.kind, value)).collect();
    if grant.more {
        details.push("and more".to_owned());
    }
    if !grant.used {
        details.push(format!("{} since {}", count(grant.attempts, "attempt"), local_time(&grant.since)));
    }
    if !grant.headers.is_empty() {
        details.push(format!("adds {}", grant.headers.join(", ")));
    }
    if !grant.addresses.is_empty() {
        details.push(format!("addresses {}", grant.addresses.join(", ")));
    }
    vec![escape(&grant.key.to_string()).into_owned(), last, escape(&details.join(", ")).into_owned()]
}

fn describe(kind: GrantKind, value: &str) -> String {
    match (kind, value) {
        (GrantKind::Config | GrantKind::Secret, "get-all") => "read together with all other values".to_owned(),
        (GrantKind::Config | GrantKind::Secret, "environment") => "passed as an environment variable".to_owned(),
        (GrantKind::Secret, "header") => "in a header of requests".to_owned(),
        (_, value) => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_grant_has_its_use_and_the_proposal_can_be_pasted() {
        let json = r#"{"function":"shop/charge","active":true,"since":"a","attempts":3,"unclean_end":"z","grants":[
            {"kind":"publish","name":"payment.*","since":"a","attempts":3,"used":true,"last":"b","seen":["payment.taken"],"more":true},
            {"kind":"state","since":"a","attempts":3,"used":true,"last":"b","seen":["open","read"]},
            {"kind":"http","name":"https://a.example","since":"a","attempts":1,"used":false,"headers":["authorization"]},
            {"kind":"config","name":"CURRENCY","since":"a","attempts":3,"used":true,"last":"b","seen":["environment"]}],
            "refused":[{"kind":"publish","name":"order.gone","last":"c","allow":{"publish":["order.gone"]}}],
            "refusing_imports":["wasi:sockets"],
            "proposal":{"publish":["payment.taken"],"state":true}}"#;
        let shown = render(&parse(json).unwrap(), None);
        let expected = "\
shop/charge: 3 attempts since a
before the start at z, Evoke ended without a clean stop: the last uses may be missing
grant                   last use  used for
publish payment.*       b         payment.taken, and more
state                   b         open, read
http https://a.example  never     1 attempt since a, adds authorization
config CURRENCY         b         passed as an environment variable
refused at c: publish order.gone; to allow it, add to `allow`: publish: [order.gone]
imports that refuse every call, because a grant is missing: wasi:sockets
the smallest `allow` for all uses:
    allow:
      publish: [payment.taken]
      state: true";
        assert_eq!(anstream::adapter::strip_str(&shown).to_string(), expected);
    }

    #[test]
    fn a_function_that_used_nothing_needs_no_grants() {
        let none = r#"{"function":"a/b","active":false,"since":"a","attempts":1,"grants":[],"proposal":{}}"#;
        let shown = anstream::adapter::strip_str(&render(&parse(none).unwrap(), None)).to_string();
        assert_eq!(
            shown,
            "a/b: 1 attempt since a; no active manifest has this function\nno grants\n\
             the function used no grant: remove `allow`"
        );
    }
}

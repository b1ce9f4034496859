//! `token`: makes, lists and revokes tokens of the admin API.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::{Client, encode_segment, parse};
use super::table::table;
use super::text::{columns, escape, local_time, print, print_error, print_json_text};
use super::token_file::NewFile;
use super::{Common, Failure, WithCommon, parse_duration};
use crate::admin::view::{self, NewToken, Role, TokenRequest};
use evoke_model::Json;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token and print it. A token cannot be printed later
    #[command(after_help = "Example: evoke token create grafana --role viewer --expires 90d --out grafana.token")]
    Create(WithCommon<Create>),
    /// List tokens by name
    #[command(after_help = "Example: evoke token list")]
    List(Common),
    /// Revoke a token, immediately
    #[command(after_help = "Example: evoke token revoke grafana")]
    Revoke(WithCommon<Revoke>),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name of the token: letters, digits, `-`, `_` and `.`
    name: String,
    /// Rights of the token
    #[arg(long, value_enum, default_value = "viewer")]
    role: Role,
    /// How long the token is valid, such as 7d [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
    /// Write the token into this new file, which only you can read, and do not print it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// Name of the token
    name: String,
}

impl Token {
    pub(super) fn run(self, global: &Common) -> Result<(), Failure> {
        match self {
            Self::Create(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::List(common) => list(&common.with_defaults(global)),
            Self::Revoke(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
        }
    }
}

impl Create {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { name, role, expires, out } = self;
        // Rounds up, so that a token is valid for at least as long as requested.
        let seconds = |duration: Duration| duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
        let request = TokenRequest { name, role, expires_in_s: expires.map(seconds) };
        let client = Client::find(common)?;
        // The file is created first, so that no token is made that cannot be written.
        let file = out.as_deref().map(NewFile::create).transpose()?;
        let response = client.post("/api/v1/tokens", &request)?;
        let NewToken { name, token, expires, .. } = parse(&response)?;
        let shown = escape(&name);
        if let (Some(file), Some(path)) = (file, &out) {
            file.write(&token).map_err(|error| {
                let path = path.display();
                Failure::Failed(format!(
                    "cannot write {path}: {error}; run `evoke token revoke {shown}`, and try again"
                ))
            })?;
        }
        if common.client_args.json {
            return print_json_text(&if out.is_some() { without_token(&response)? } else { response });
        }
        let until = expires.map_or_else(|| "until it is revoked".to_owned(), |at| format!("until {}", local_time(&at)));
        let made = format!("token {shown} ({}), valid {until}", role_name(role));
        if let Some(path) = out {
            return print(&format!("{made}; it is in {}", escape(&path.display().to_string())));
        }
        print_error(&format!("{made}; it is not shown again\n"));
        print(&escape(&token))
    }
}

impl Revoke {
    fn run(&self, common: &Common) -> Result<(), Failure> {
        let response = Client::find(common)?.delete(&format!("/api/v1/tokens/{}", encode_segment(&self.name)))?;
        if common.client_args.json {
            return print_json_text(&response);
        }
        print(&format!("token {} revoked", escape(&self.name)))
    }
}

/// Removes the token from a JSON object.
fn without_token(json: &str) -> Result<String, Failure> {
    let Json(mut made) = parse(json)?;
    let object = made.as_object_mut().ok_or_else(|| Failure::Failed("the response is not a JSON object".to_owned()))?;
    object.remove("token");
    Ok(made.to_string())
}

fn list(common: &Common) -> Result<(), Failure> {
    let client = Client::find(common)?;
    if common.client_args.json {
        return client.lines("/api/v1/tokens", &[], print_json_text);
    }
    let mut rows = Vec::new();
    client.lines("/api/v1/tokens", &[], |line| {
        rows.push(row(&parse(line)?));
        Ok(())
    })?;
    print(&table(&["name", "role", "created", "expires"], &rows, columns()))
}

fn row(token: &view::Token) -> Vec<String> {
    let view::Token { name, role, created, expires, expired } = token;
    let expires = match expires {
        None => "never".to_owned(),
        Some(at) if *expired => format!("{} (expired)", local_time(at)),
        Some(at) => local_time(at),
    };
    vec![escape(name).into_owned(), role_name(*role).to_owned(), local_time(created), expires]
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_in_a_file_is_not_printed() {
        assert_eq!(without_token(r#"{"name":"ci","token":"evoke_x"}"#).unwrap(), r#"{"name":"ci"}"#);
    }

    #[test]
    fn a_row_shows_when_the_token_expires() {
        let token = |more: &str| {
            let json = format!(r#"{{"name":"ci","role":"viewer","created":"then"{more}}}"#);
            row(&parse(&json).unwrap())
        };
        assert_eq!(token(""), ["ci", "viewer", "then", "never"]);
        assert_eq!(token(r#","expires":"soon""#), ["ci", "viewer", "then", "soon"]);
        assert_eq!(token(r#","expires":"past","expired":true"#), ["ci", "viewer", "then", "past (expired)"]);
    }
}

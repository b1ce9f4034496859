//! `inspect`: shows the kind of a component, its imports and exports, and the grants it needs.

use std::io::ErrorKind;
use std::path::PathBuf;

use anstyle::Style;
use clap::Args;
use serde_json::{Value, json};

use super::compile::CompileOptions;
use super::text::{BOLD, DIM, colour, count, escape, format_bytes, print, print_json};
use super::{Common, Failure};
use crate::control::load::compile_help;
use evoke_sandbox::{self as sandbox, Availability, Compiler, Inspection, Interface, Kind, LoadError, Start};

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The component: a .wasm or .wat file; a core module for WASI 0.1 also works
    #[arg(value_name = "COMPONENT")]
    component: PathBuf,
    #[command(flatten)]
    compile: CompileOptions,
}

impl Inspect {
    /// Returns an error if Evoke cannot run the component, even with all grants.
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let compiler = Compiler::this_program(self.compile.limits());
        let inspected = sandbox::inspect(&self.component, compiler).map_err(|error| match &error {
            LoadError::Read { error: cause, .. } if cause.kind() == ErrorKind::NotFound => {
                Failure::NotFound(error.to_string())
            }
            _ => Failure::Failed(match compile_help(&error) {
                Some(help) => format!("{error}; {help}"),
                None => error.to_string(),
            }),
        })?;
        let path = self.component.display().to_string();
        match common.client_args.json {
            true => print_json(&to_json(&path, &inspected))?,
            false => print(render(&path, &inspected).trim_end())?,
        }
        let never = |supply| matches!(supply, Availability::Never(_));
        let can_run = inspected.kind.is_some() && !inspected.imports.iter().any(|import| never(import.availability));
        if can_run { Ok(()) } else { Err(Failure::Reported) }
    }
}

/// A grant that the component can use: an entry of the printed `allow:` block.
struct Grant {
    key: &'static str,
    yaml: &'static str,
    value: Value,
    /// True if the component cannot work without the grant; false if the grant may be useful.
    needed: bool,
    why: &'static str,
}

const fn grant(key: &'static str, yaml: &'static str, value: Value, needed: bool, why: &'static str) -> Grant {
    Grant { key, yaml, value, needed, why }
}

/// Returns the grants that the component can use, in the order of the manifest.
fn grants(inspected: &Inspection) -> Vec<Grant> {
    let imports = |prefix: &str| inspected.imports.iter().any(|import| import.interface.name.starts_with(prefix));
    let is_granted = |import: &&sandbox::Import| import.availability == Availability::IfGranted;
    let granted =
        |prefix| inspected.imports.iter().filter(is_granted).any(|import| import.interface.name.starts_with(prefix));
    let mut grants = Vec::new();
    match inspected.kind {
        Some(Kind::Handler) if imports("evoke:function/bus") => {
            let why = "the types of the events that it publishes, as narrow as possible";
            grants.push(grant("publish", r#"["*"]"#, json!(["*"]), true, why));
        }
        Some(Kind::Command) => {
            let why = "the types of the events that it writes to stdout; leave `publish` out if it writes none";
            grants.push(grant("publish", r#"["*"]"#, json!(["*"]), false, why));
        }
        _ => {}
    }
    if granted("wasi:keyvalue/") {
        grants.push(grant("state", "true", json!(true), true, "wasi:keyvalue"));
    }
    if granted("wasi:http/") {
        let why = "the origins to which it sends requests";
        grants.push(grant("http", r#"["https://HOST:443"]"#, json!(["https://HOST:443"]), true, why));
    }
    // Commands and HTTP components read their configuration from environment variables.
    let has_environment = matches!(inspected.kind, Some(Kind::Command | Kind::Http));
    if imports("wasi:config/") || has_environment && imports("wasi:cli/environment") {
        let why = if imports("wasi:config/") {
            "the settings that it reads through wasi:config"
        } else {
            "the environment variables that it reads"
        };
        grants.push(grant("config", "{ NAME: value }", json!({ "NAME": "value" }), false, why));
    }
    grants
}

fn kind_name(kind: Option<Kind>) -> Option<&'static str> {
    kind.map(|kind| match kind {
        Kind::Handler => "handler",
        Kind::Command => "command",
        Kind::Http => "http",
    })
}

fn to_json(path: &str, inspected: &Inspection) -> Value {
    let interface = |Interface { name, version }: &Interface| json!({ "name": name, "version": version });
    let import = |import: &sandbox::Import| {
        let Interface { name, version } = &import.interface;
        let (supply, reason) = match import.availability {
            Availability::Always => ("always", None),
            Availability::IfGranted => ("if_granted", None),
            Availability::Never(reason) => ("never", Some(reason)),
        };
        json!({ "name": name, "version": version, "supply": supply, "reason": reason })
    };
    let grant = |grant: &Grant| json!({ "key": grant.key, "value": grant.value, "needed": grant.needed });
    let (start, start_reason) = match &inspected.start {
        Start::Attempt => ("attempt", None),
        Start::Compilation => ("compilation", None),
        Start::Refused(reason) => ("attempt", Some(reason)),
    };
    json!({
        "component": path,
        "kind": kind_name(inspected.kind),
        "core_module": inspected.is_module,
        "sha256": inspected.sha256,
        "file_bytes": inspected.file_bytes,
        "compiled_bytes": inspected.compiled_bytes,
        "memory_bytes": inspected.memory_bytes,
        "functions": inspected.functions,
        "modules": inspected.modules,
        "producers": inspected.producers,
        "start": start,
        "start_reason": start_reason,
        "imports": inspected.imports.iter().map(import).collect::<Vec<_>>(),
        "exports": inspected.exports.iter().map(interface).collect::<Vec<_>>(),
        "allow": grants(inspected).iter().map(grant).collect::<Vec<_>>(),
    })
}

fn render(path: &str, inspected: &Inspection) -> String {
    let kind = match inspected.kind {
        Some(Kind::Handler) => "handles events",
        Some(Kind::Command) => "is a command, which reads its event from stdin",
        Some(Kind::Http) => "handles HTTP requests",
        None => "is not a function",
    };
    let style = colour(if inspected.kind.is_some() { "done" } else { "dead" });
    let form = if inspected.is_module { " (a core module; converted to a component when loaded)" } else { "" };
    let mut text = format!("{BOLD}{}{BOLD:#} {style}{kind}{style:#}{form}\n", escape(path));
    if inspected.kind.is_none() {
        text += &format!("  {}\n", sandbox::EXPECTED_EXPORTS);
    }
    let made_by: Vec<String> = inspected.producers.values().flatten().map(|text| escape(text).into_owned()).collect();
    let contains = format!("{} in {}", count(inspected.functions, "function"), count(inspected.modules, "core module"));
    let facts = [
        (
            "size",
            format!("{}, {} compiled", format_bytes(inspected.file_bytes), format_bytes(inspected.compiled_bytes)),
        ),
        ("memory", format!("{} at the start", format_bytes(inspected.memory_bytes))),
        ("contains", contains),
        ("made by", if made_by.is_empty() { "unknown".to_owned() } else { made_by.join(", ") }),
        ("sha256", inspected.sha256.clone()),
    ];
    let start = match &inspected.start {
        Start::Attempt => None,
        Start::Compilation => Some("once, when it is compiled; each attempt continues from there".to_owned()),
        Start::Refused(reason) => Some(format!("in each attempt, because it {}", escape(reason))),
    };
    for (name, fact) in facts.into_iter().chain(start.map(|start| ("starts", start))) {
        text += &format!("  {DIM}{name:<9}{DIM:#} {fact}\n");
    }
    text +=
        &interfaces("imports", inspected.imports.iter().map(|import| (&import.interface, Some(import.availability))));
    text += &interfaces("exports", inspected.exports.iter().map(|export| (export, None)));
    if inspected.kind.is_some() {
        text += &allow_block(&grants(inspected));
    }
    text
}

fn interfaces<'a>(heading: &str, all: impl Iterator<Item = (&'a Interface, Option<Availability>)> + Clone) -> String {
    let version_of = |interface: &'a Interface| interface.version.as_deref().unwrap_or_default();
    let width = |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max();
    let Some(name_width) = width(&mut all.clone().map(|(interface, _)| interface.name.as_str())) else {
        return format!("{BOLD}{heading}{BOLD:#}\n  nothing\n");
    };
    let version_width = width(&mut all.clone().map(|(interface, _)| version_of(interface))).unwrap_or_default();
    let mut text = format!("{BOLD}{heading}{BOLD:#}\n");
    for (interface, supply) in all {
        let (name, version) = (escape(&interface.name), escape(version_of(interface)));
        let line = match supply.map(supply_text) {
            None | Some(("", _)) => format!("  {name:<name_width$}  {DIM}{version}{DIM:#}"),
            Some((label, style)) => {
                format!("  {name:<name_width$}  {DIM}{version:<version_width$}{DIM:#}  {style}{label}{style:#}")
            }
        };
        text += &line;
        text.push('\n');
    }
    text
}

fn supply_text(supply: Availability) -> (&'static str, Style) {
    match supply {
        Availability::Always => ("", colour("done")),
        Availability::IfGranted => ("if granted", colour("ready")),
        Availability::Never(reason) => (reason, colour("dead")),
    }
}

/// Returns an `allow:` block to paste into the function in the manifest. Grants that are not needed are commented out.
fn allow_block(grants: &[Grant]) -> String {
    if grants.is_empty() {
        return format!("{BOLD}needs no grants{BOLD:#}\n");
    }
    // If no grant is needed, `allow:` is commented out, too: in YAML, `allow:` without entries would be null.
    let (heading, optional) = match grants.iter().any(|grant| grant.needed) {
        true => ("allow:", "  # "),
        false => ("# allow:", "#   "),
    };
    let mut text = format!("{heading}\n");
    for Grant { key, yaml, needed, why, .. } in grants {
        let entry = format!("{}{key}: {yaml}", if *needed { "  " } else { optional });
        text += &format!("{entry:<32} {DIM}# {why}{DIM:#}\n");
    }
    text
}

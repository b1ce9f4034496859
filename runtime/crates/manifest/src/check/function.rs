//! Reads functions: component, triggers, limits, retries and grants.

use super::grant_spans::grant_spans;
use super::secrets::{has_nonempty_key, secrets};
use super::{Context, deliver, http_grant, record, trigger, was};
use crate::component::ComponentRef;
use crate::diagnostics::excerpt;
use crate::grants::{StateLimits, TypeGlob};
use crate::model::{Allow, Build, Function, FunctionSpans, Retry, Trigger};
use crate::names::{ATTRIBUTES, KNOWN_EXTENSIONS, Name, OrderBy};
use crate::parser::{Entry, Node, Reader, Resolved, Table, Value, nearest};
use crate::paths::check_path;
use crate::secret::env_var_name;
use crate::source_text::Span;
use crate::units::{ByteSize, duration_text};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
const BACKOFF_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
const AGE_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(366 * 86_400);
/// Allowed values of `memory`. The minimum is one page of linear memory. The maximum is all the memory that 32-bit
/// addresses can reach.
const MEMORY_RANGE: RangeInclusive<ByteSize> = ByteSize(64 << 10)..=ByteSize(4 << 30);
const CONCURRENCY_RANGE: RangeInclusive<u32> = 1..=1024;
/// Largest `concurrency` of a function with `deliver`: the number of requests that it can have in progress at the same
/// time.
const DELIVER_CONCURRENCY_MAX: u32 = 128;
const ATTEMPTS_RANGE: RangeInclusive<u32> = 1..=100;
const STATE_KEYS_RANGE: RangeInclusive<u32> = 1..=10_000_000;
/// Allowed values of `max_value`. The maximum is half of the 8 MiB of state that one attempt can write.
const STATE_VALUE_RANGE: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize(4 << 20);
const STATE_TOTAL_RANGE: RangeInclusive<ByteSize> = ByteSize(1 << 10)..=ByteSize(64 << 30);

const TRIGGER_KEY_HINT: &str = "put it under `on` as a list entry that starts with `- `";

pub(super) fn function(reader: &mut Reader<'_>, context: &Context<'_>, entry: &Entry) -> Option<Function> {
    let name = reader.ok_or_report(entry.key_span, Name::parse(&entry.key));
    let what = format!("function `{}`", excerpt(&entry.key));
    let example = "`{ component: charge.wasm, on: [...] }`";
    let mut table = Table::read(reader, &entry.node, entry.key_span, "Function", what, example)?;

    let deliver_span = table.key_span("deliver");
    let deliver_node = table.optional(reader, "deliver");
    let component_node = match deliver_node {
        Some(_) => table.optional(reader, "component"),
        None => table.required(
            reader,
            "component",
            &["wasm", "module", "image", "file", "path", "deliver"],
            "`component: FILE.wasm`, or `deliver: { url: https://HOST/PATH }` to send the events to an endpoint",
        ),
    };
    if let (Some(_), Some(_)) = (deliver_node, component_node) {
        let message = format!("{} has both a component and `deliver`", table.what());
        let other = (table.key_span("component"), "the component");
        reader.error_with_related(deliver_span, message, "keep one of them, or make two functions", other);
    }
    let build_span = table.key_span("build");
    let build = table.optional(reader, "build").and_then(|node| build(reader, node, build_span));
    let has_build = table.has("build");
    let deliver = deliver_node.and_then(|node| deliver::deliver(reader, context, node, deliver_span));
    let component = component_node.and_then(|node| component(reader, context, node, has_build));
    let on = "`on:` with a trigger, such as `- events: { type: [order.placed] }`";
    let on = table.required(reader, "on", &["trigger", "triggers", "when", "events"], on);
    let triggers = on.map(|node| trigger::triggers(reader, context, node, &entry.key)).unwrap_or_default();
    let was = table.optional(reader, "was").map(|node| was::earlier_names(reader, context, node, &entry.key));
    let order_by = table.optional(reader, "order_by").and_then(|node| order_by(reader, node, &triggers));
    let concurrency = table.optional(reader, "concurrency");
    let concurrency = concurrency.and_then(|node| reader.integer(node, "`concurrency`", CONCURRENCY_RANGE));
    let timeout = table.optional(reader, "timeout").and_then(|node| reader.duration(node, "`timeout`", TIMEOUT_RANGE));
    let memory = table.optional(reader, "memory").and_then(|node| reader.size(node, "`memory`", MEMORY_RANGE));
    let retry_span = table.key_span("retry");
    let retry = table.optional(reader, "retry").and_then(|node| retry(reader, node, retry_span));
    let allow_span = table.key_span("allow");
    let allow_node = table.optional(reader, "allow");
    let allow = allow_node.and_then(|node| allow(reader, context, node, allow_span)).unwrap_or_default();
    let record_span = table.key_span("record");
    let record = table.optional(reader, "record").and_then(|node| record::record(reader, node, record_span));
    if deliver_node.is_some() {
        reject_keys_of_components(reader, &table, allow_node, concurrency);
    }
    if let Some(deliver) = &deliver {
        deliver::check_secrets(reader, deliver, &allow, deliver_span);
    }
    table.reject_unknown_keys(reader, |key| match key {
        "attempts" | "backoff" | "max_backoff" | "max_age" => Some("put it under `retry`"),
        "retries" | "max_retries" => Some("set the number of attempts with `retry: { attempts: 8 }`"),
        "publish" | "state" | "config" | "secrets" | "permissions" | "grants" | "capabilities" => {
            Some("put the grants of a function under `allow`")
        }
        "limits" | "descendants" | "descendants_bytes" => {
            Some("`limits` belongs to the app: write it beside `functions`")
        }
        "env" | "environment" => Some("put settings under `allow: { config: { KEY: VALUE } }`"),
        "events" | "source" => Some(TRIGGER_KEY_HINT),
        "trigger" | "triggers" | "when" => Some("put the triggers under `on`"),
        "wasm" | "module" | "image" | "path" | "file" => Some("write the component as `component: FILE.wasm`"),
        "previously" | "formerly" | "renamed" | "renamed_from" | "aliases" | "old_name" => {
            Some("write the earlier names of a function as `was: [NAME]`")
        }
        "recording" | "recordings" => Some("did you mean `record`?"),
        "url" | "endpoint" | "webhook" => Some("to send events to an endpoint, write `deliver: { url: URL }`"),
        key if context.kinds.keys().any(|kind| kind == key) => Some(TRIGGER_KEY_HINT),
        _ => None,
    });
    let spans = FunctionSpans {
        name: entry.key_span,
        component: match (component_node, deliver_node) {
            (Some(node), _) => node.span,
            (None, Some(_)) => deliver_span,
            (None, None) => entry.key_span,
        },
        allow: allow_span,
    };
    Some(Function {
        name: name?,
        was: was.unwrap_or_default(),
        component: if deliver_node.is_some() { None } else { Some(component.unwrap_or_default()) },
        deliver,
        build,
        triggers,
        order_by,
        concurrency: concurrency.unwrap_or_else(Function::default_concurrency),
        timeout: timeout.unwrap_or_else(Function::default_timeout),
        memory: memory.unwrap_or_else(Function::default_memory),
        retry: retry.unwrap_or_default(),
        allow,
        record,
        spans,
        grant_spans: grant_spans(allow_node, deliver_node),
    })
}

/// Reports the keys of a function with `deliver` that only a component could use.
fn reject_keys_of_components(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    allow: Option<&Node>,
    concurrency: Option<u32>,
) {
    for key in ["build", "memory", "record"].into_iter().filter(|key| table.has(key)) {
        let message = format!("`{key}` has no effect: {} has no component", table.what());
        reader.error(table.key_span(key), message, "remove it");
    }
    if let Some(Node { value: Value::Map(entries), .. }) = allow {
        for entry in entries.iter().filter(|entry| matches!(&*entry.key, "publish" | "state" | "http" | "config")) {
            let message = format!("`allow.{}` has no effect: {} has no component", entry.key, table.what());
            let help = match &*entry.key {
                "http" => "remove it: requests to `deliver.url` need no grant",
                _ => "remove it",
            };
            reader.error(entry.key_span, message, help);
        }
    }
    if let Some(concurrency) = concurrency.filter(|concurrency| *concurrency > DELIVER_CONCURRENCY_MAX) {
        let message =
            format!("`concurrency` of {} must be at most {DELIVER_CONCURRENCY_MAX}, found {concurrency}", table.what());
        reader.error(table.key_span("concurrency"), message, format!("write `concurrency: {DELIVER_CONCURRENCY_MAX}`"));
    }
}

fn component(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, has_build: bool) -> Option<ComponentRef> {
    let component = reader.parse_text(node, "`component`", ComponentRef::parse)?;
    let text = component.path.display().to_string();
    reader.ok_or_report(node.span, check_path(context.folder, &text))?;
    let path = excerpt(&text);
    let component = ComponentRef { path: context.folder.join(&component.path), ..component };
    if component.path.is_dir() {
        reader.error(node.span, format!("`{path}` is a folder"), "write the path of the `.wasm` file in it");
    } else if component.path.exists() && !component.path.is_file() {
        let message = format!("`{path}` is a pipe, a socket or a device, not a file");
        reader.error(node.span, message, "write the path of a `.wasm` or `.wat` file");
    } else if !has_build && !component.path.is_file() {
        let message = format!("the file `{path}` does not exist");
        let help =
            "build it first, or add `build: COMMAND` so that Evoke builds it; the path is relative to the manifest";
        reader.error(node.span, message, help);
    }
    Some(component)
}

/// Reads a command, or a map with the command and the names of environment variables.
fn build(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<Build> {
    let Value::Map(_) = node.value else {
        return Some(Build { run: reader.text(node, "`build`")?.to_owned(), env: Vec::new() });
    };
    let example = "`{ run: make charge.wasm, env: [CC] }`";
    let mut table = Table::read(reader, node, span, "Build", "`build`", example)?;
    let run = table.required(reader, "run", &["command", "cmd", "shell"], "`run: COMMAND`");
    let run = run.and_then(|node| reader.text(node, "`run`"));
    let env = table.optional(reader, "env").map(|node| reader.list(node, "`env`"));
    let env = env.unwrap_or_default().iter();
    let env = env.filter_map(|item| reader.parse_text(item, "the name of an environment variable", env_var_name));
    let env = env.collect();
    table.reject_unknown_keys(reader, |key| match key {
        "command" | "cmd" | "shell" => Some("did you mean `run`?"),
        "environment" | "pass" | "vars" => Some("name the variables with `env: [NAME]`"),
        "cwd" | "dir" | "folder" => {
            Some("remove it; to run the command in another folder, begin the command with `cd FOLDER &&`")
        }
        _ => None,
    });
    Some(Build { run: run?.to_owned(), env })
}

fn order_by(reader: &mut Reader<'_>, node: &Node, triggers: &[Trigger]) -> Option<OrderBy> {
    let order_by = reader.parse_text(node, "`order_by`", OrderBy::parse)?;
    if let OrderBy::Attribute(name) = &order_by {
        // If a pattern names the attribute, the user probably knows that events have it. So there is no warning.
        let is_in_pattern =
            |trigger: &Trigger| trigger.events.as_ref().is_some_and(|events| events.json.get(name.as_str()).is_some());
        let is_known = ATTRIBUTES.iter().chain(&KNOWN_EXTENSIONS).any(|known| known == name);
        if !is_known && !triggers.iter().any(is_in_pattern) {
            let message = format!("`{name}` is not a standard event attribute and is read as an extension attribute");
            let help = match nearest(name, ATTRIBUTES) {
                Some(similar) => format!("did you mean `{similar}`, or the field `data.{name}`?"),
                None => format!(
                    "to order by a field of the data, write `data.{name}`; events without the attribute are not ordered"
                ),
            };
            reader.warning(node.span, message, help);
        }
    }
    Some(order_by)
}

fn retry(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<Retry> {
    let mut table = Table::read(reader, node, span, "Retry", "`retry`", "`{ attempts: 8, backoff: 500ms }`")?;
    let default = Retry::default();
    let attempts =
        table.optional(reader, "attempts").and_then(|node| reader.integer(node, "`attempts`", ATTEMPTS_RANGE));
    let backoff = table.optional(reader, "backoff").and_then(|node| reader.duration(node, "`backoff`", BACKOFF_RANGE));
    let max_backoff = table.optional(reader, "max_backoff");
    let max_backoff = max_backoff.and_then(|node| reader.duration(node, "`max_backoff`", BACKOFF_RANGE));
    let max_age = table.optional(reader, "max_age").and_then(|node| reader.duration(node, "`max_age`", AGE_RANGE));
    let retry = Retry {
        attempts: attempts.unwrap_or(default.attempts),
        backoff: backoff.unwrap_or(default.backoff),
        max_backoff: max_backoff.unwrap_or(default.max_backoff),
        max_age: max_age.unwrap_or(default.max_age),
    };
    if retry.backoff > retry.max_backoff {
        let (backoff, max) = (duration_text(retry.backoff), duration_text(retry.max_backoff));
        let by_default = if table.has("max_backoff") { "" } else { ", the default" };
        let message = format!("`backoff` ({backoff}) is longer than `max_backoff` ({max}{by_default})");
        let help = format!("write `max_backoff: {backoff}` or more, or a shorter `backoff`");
        let span = if table.has("backoff") { table.key_span("backoff") } else { table.key_span("max_backoff") };
        reader.error(span, message, help);
    } else if table.has("max_age") && retry.max_age < retry.backoff {
        let (age, backoff) = (duration_text(retry.max_age), duration_text(retry.backoff));
        let message =
            format!("`max_age` ({age}) is shorter than `backoff` ({backoff}): few deliveries get a second attempt");
        reader.warning(table.key_span("max_age"), message, "write a longer `max_age`, or `attempts: 1` for no retries");
    }
    if retry.attempts == 1
        && let Some(key) = ["backoff", "max_backoff", "max_age"].into_iter().find(|key| table.has(key))
    {
        let message = format!("`{key}` has no effect: the first attempt is the only one");
        reader.warning(table.key_span(key), message, "remove it, or write more `attempts`");
    }
    table.reject_unknown_keys(reader, |key| match key {
        "max_attempts" | "retries" | "count" | "limit" => Some("did you mean `attempts`? The first attempt counts too"),
        "delay" | "initial_backoff" | "min_backoff" => Some("did you mean `backoff`?"),
        "jitter" => {
            Some("remove it: waits before retries have full jitter, except those that a function or an endpoint sets")
        }
        _ => None,
    });
    Some(retry)
}

fn allow(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, span: Span) -> Option<Allow> {
    let mut table = Table::read(reader, node, span, "Allow", "`allow`", "`{ publish: [\"payment.*\"] }`")?;
    let publish = table.optional(reader, "publish").map(|node| {
        let items = reader.list(node, "`publish`");
        let type_ =
            |item: &std::rc::Rc<Node>| reader.parse_advised(item, "an event type", TypeGlob::parse, TypeGlob::advice);
        items.iter().filter_map(type_).collect()
    });
    let state_span = table.key_span("state");
    let state = table.optional(reader, "state").and_then(|node| state(reader, node, state_span));
    let http = table
        .optional(reader, "http")
        .map(|node| http_grant::grants(reader, context.folder, node, &|reader, node| secrets(reader, context, node)));
    let config_node = table.optional(reader, "config");
    let config = config_node.map(|node| config(reader, node)).unwrap_or_default();
    let secrets_node = table.optional(reader, "secrets");
    let secrets = secrets_node.map(|node| secrets(reader, context, node)).unwrap_or_default();
    if let (Some(config), Some(secrets)) = (config_node, secrets_node) {
        reject_shared_keys(reader, config, secrets);
    }
    table.reject_unknown_keys(reader, |key| match key {
        "env" | "environment" | "settings" | "vars" => Some("write settings as `config: { KEY: VALUE }`"),
        "secret" => Some("did you mean `secrets`?"),
        "egress" | "network" | "hosts" | "outbound" => {
            Some("to allow HTTP requests, write `http: [\"https://HOST:443\"]`")
        }
        "keyvalue" | "kv" | "storage" | "store" => Some("to allow state, write `state: true`"),
        "events" | "emit" => Some("to allow publishing events, write `publish: [TYPE]`"),
        "files" | "fs" | "filesystem" => Some("remove it: functions have no file system"),
        _ => None,
    });
    Some(Allow { publish: publish.unwrap_or_default(), state, http: http.unwrap_or_default(), config, secrets })
}

/// Reads `true`, `false`, or a map with limits.
fn state(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<StateLimits> {
    if let Value::Scalar(_) = node.value {
        return reader.boolean(node, "`state`")?.then(StateLimits::default);
    }
    let mut table = Table::read(reader, node, span, "State", "`state`", "`true` or `{ max_total: 64MiB }`")?;
    let default = StateLimits::default();
    let shared = table.optional(reader, "shared").and_then(|node| reader.boolean(node, "`shared`"));
    let max_keys =
        table.optional(reader, "max_keys").and_then(|node| reader.integer(node, "`max_keys`", STATE_KEYS_RANGE));
    let max_value =
        table.optional(reader, "max_value").and_then(|node| reader.size(node, "`max_value`", STATE_VALUE_RANGE));
    let max_total =
        table.optional(reader, "max_total").and_then(|node| reader.size(node, "`max_total`", STATE_TOTAL_RANGE));
    table.reject_unknown_keys(reader, |key| match key {
        "app" | "share" => Some("did you mean `shared`?"),
        "keys" => Some("did you mean `max_keys`?"),
        "value" | "max_size" | "value_size" => Some("did you mean `max_value`?"),
        "total" | "size" | "max_bytes" | "quota" => Some("did you mean `max_total`?"),
        "ttl" | "expires" | "expire" => Some("remove it: stored values do not expire; the function must delete them"),
        _ => None,
    });
    Some(StateLimits {
        shared: shared.unwrap_or(default.shared),
        max_keys: max_keys.unwrap_or(default.max_keys),
        max_value: max_value.unwrap_or(default.max_value),
        max_total: max_total.unwrap_or(default.max_total),
    })
}

fn config(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut config = BTreeMap::new();
    for entry in reader.entries(node, "`config`", "`{ CURRENCY: EUR }`") {
        if !has_nonempty_key(reader, entry) {
            continue;
        }
        match &entry.node.value {
            Value::Scalar(scalar) if scalar.resolve() == Resolved::Null => {
                reader.error(
                    entry.key_span,
                    format!("`{}` has no value", excerpt(&entry.key)),
                    "for an empty string, write `\"\"`",
                );
            }
            Value::Scalar(scalar) => {
                config.insert(entry.key.clone(), scalar.text.clone());
            }
            _ => {
                let message = format!("a setting must be a single value, found {}", entry.node.describe());
                reader.error(
                    entry.node.span,
                    message,
                    "write a single value; to pass a list or a map, write it as JSON in quotes",
                );
            }
        }
    }
    config
}

/// Reports each name that a setting and a secret share, because a function reads settings and secrets in the same way,
/// by name.
fn reject_shared_keys(reader: &mut Reader<'_>, config: &Node, secrets: &Node) {
    let (Value::Map(config), Value::Map(secrets)) = (&config.value, &secrets.value) else {
        return;
    };
    for secret in secrets {
        if let Some(setting) = config.iter().find(|setting| setting.key == secret.key) {
            let message = format!("`{}` is both a setting and a secret", excerpt(&secret.key));
            let help = "rename or remove one: a function reads settings and secrets by name in the same way";
            reader.error_with_related(secret.key_span, message, help, (setting.key_span, "the setting"));
        }
    }
}

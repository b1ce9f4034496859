//! Functions: limits, retries and grants.

use super::{Context, trigger};
use crate::manifest::component::ComponentRef;
use crate::manifest::diagnostics::{Wrong, shown};
use crate::manifest::grants::{HttpOrigin, State, TypeGlob};
use crate::manifest::model::{Allow, Function, FunctionSpans, Retry, SecretRef};
use crate::manifest::names::{ATTRIBUTES, Name, OrderBy};
use crate::manifest::read::Reader;
use crate::manifest::source_text::Span;
use crate::manifest::suggest::nearest;
use crate::manifest::tree::{Entry, Node, Resolved, Value};
use crate::manifest::units::{ByteSize, duration_text};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
const BACKOFFS: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
const AGES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(366 * 86_400);
/// One page of linear memory, and all of it.
const MEMORIES: RangeInclusive<ByteSize> = ByteSize(64 << 10)..=ByteSize(4 << 30);
const CONCURRENCIES: RangeInclusive<u32> = 1..=1024;
const ATTEMPTS: RangeInclusive<u32> = 1..=100;
const KEYS: RangeInclusive<u32> = 1..=10_000_000;
/// An attempt writes 8 MiB at most.
const VALUES: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize(4 << 20);
const TOTALS: RangeInclusive<ByteSize> = ByteSize(1 << 10)..=ByteSize(64 << 30);

pub(super) fn function(reader: &mut Reader<'_>, context: &Context<'_>, entry: &Entry) -> Option<Function> {
    let name = reader.checked(entry.key_span, Name::parse(&entry.key));
    let what = format!("function `{}`", shown(&entry.key));
    let example = "`{ component: charge.wasm, on: [...] }`";
    let mut table = reader.table(&entry.node, entry.key_span, "Function", what, example)?;

    let component_node =
        table.required(reader, "component", &["wasm", "module", "image", "file", "path"], "`component: FILE.wasm`");
    let build = table.optional(reader, "build").and_then(|node| reader.text(node, "`build`")).map(str::to_owned);
    let built = table.has("build");
    let component = component_node.and_then(|node| component(reader, context, node, built));
    let on = "`on:` with a trigger, such as `- events: { type: [order.placed] }`";
    let on = table.required(reader, "on", &["trigger", "triggers", "when", "events"], on);
    let triggers = on.map(|node| trigger::triggers(reader, context, node, &entry.key)).unwrap_or_default();
    let order_by = table.optional(reader, "order_by").and_then(|node| order_by(reader, node));
    let concurrency = table.optional(reader, "concurrency");
    let concurrency = concurrency.and_then(|node| reader.integer(node, "`concurrency`", CONCURRENCIES));
    let timeout = table.optional(reader, "timeout").and_then(|node| reader.duration(node, "`timeout`", TIMEOUTS));
    let memory = table.optional(reader, "memory").and_then(|node| reader.size(node, "`memory`", MEMORIES));
    let retry_place = table.key_span("retry");
    let retry = table.optional(reader, "retry").and_then(|node| retry(reader, node, retry_place));
    let allow_place = table.key_span("allow");
    let allow = table.optional(reader, "allow").and_then(|node| allow(reader, context, node, allow_place));
    table.close(reader, |key| match key {
        "attempts" | "backoff" | "max_backoff" | "max_age" => Some("it goes under `retry`"),
        "retries" | "max_retries" => Some("how often it is tried is `retry: { attempts: 8 }`"),
        "publish" | "state" | "config" | "secrets" | "permissions" | "grants" | "capabilities" => {
            Some("what a function may touch goes under `allow`")
        }
        "env" | "environment" => Some("settings go under `allow: { config: { KEY: VALUE } }`"),
        "http" | "files" | "timer" | "events" | "source" => {
            Some("it goes under `on`, as an entry of the list: with `- ` before it")
        }
        "trigger" | "triggers" | "when" => Some("triggers are `on`"),
        "wasm" | "module" | "image" | "path" | "file" => Some("the component is `component: FILE.wasm`"),
        _ => None,
    });
    let spans = FunctionSpans {
        name: entry.key_span,
        component: component_node.map_or(entry.key_span, |node| node.span),
        allow: allow_place,
    };
    Some(Function {
        name: name?,
        component: component.unwrap_or_default(),
        build,
        triggers,
        order_by,
        concurrency: concurrency.unwrap_or_else(Function::default_concurrency),
        timeout: timeout.unwrap_or_else(Function::default_timeout),
        memory: memory.unwrap_or_else(Function::default_memory),
        retry: retry.unwrap_or_default(),
        allow: allow.unwrap_or_default(),
        spans,
    })
}

fn component(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, built: bool) -> Option<ComponentRef> {
    let written = reader.parsed(node, "`component`", ComponentRef::parse)?;
    let component = ComponentRef { path: context.folder.join(&written.path), ..written };
    let shown_path = shown(&written.path.display().to_string());
    if component.path.is_dir() {
        reader.error(node.span, format!("`{shown_path}` is a folder"), "name the `.wasm` file in it");
    } else if !built && !component.path.is_file() {
        let message = format!("there is no file `{shown_path}`");
        let help =
            "build it first, or add `build: COMMAND` so that Evoke builds it; the path is relative to the manifest";
        reader.error(node.span, message, help);
    }
    Some(component)
}

fn order_by(reader: &mut Reader<'_>, node: &Node) -> Option<OrderBy> {
    let order_by = reader.parsed(node, "`order_by`", OrderBy::parse)?;
    if let OrderBy::Attribute(name) = &order_by {
        let meant = nearest(name, ATTRIBUTES).filter(|meant| *meant != name);
        if let Some(meant) = meant {
            let message = format!("`{name}` is read as an extension attribute of the event");
            reader.warning(node.span, message, format!("did you mean `{meant}`, or the field `data.{name}`?"));
        }
    }
    Some(order_by)
}

fn retry(reader: &mut Reader<'_>, node: &Node, place: Span) -> Option<Retry> {
    let mut table = reader.table(node, place, "Retry", "`retry`", "`{ attempts: 8, backoff: 500ms }`")?;
    let default = Retry::default();
    let attempts = table.optional(reader, "attempts").and_then(|node| reader.integer(node, "`attempts`", ATTEMPTS));
    let backoff = table.optional(reader, "backoff").and_then(|node| reader.duration(node, "`backoff`", BACKOFFS));
    let max_backoff = table.optional(reader, "max_backoff");
    let max_backoff = max_backoff.and_then(|node| reader.duration(node, "`max_backoff`", BACKOFFS));
    let max_age = table.optional(reader, "max_age").and_then(|node| reader.duration(node, "`max_age`", AGES));
    let retry = Retry {
        attempts: attempts.unwrap_or(default.attempts),
        backoff: backoff.unwrap_or(default.backoff),
        max_backoff: max_backoff.unwrap_or(default.max_backoff),
        max_age: max_age.unwrap_or(default.max_age),
    };
    if retry.backoff > retry.max_backoff {
        let (backoff, most) = (duration_text(retry.backoff), duration_text(retry.max_backoff));
        let by_default = if table.has("max_backoff") { "" } else { ", its default" };
        let message = format!("`backoff` is {backoff}, but `max_backoff` is {most}{by_default}");
        let help = format!("write `max_backoff: {backoff}` or more, or a smaller `backoff`");
        let span = if table.has("backoff") { table.key_span("backoff") } else { table.key_span("max_backoff") };
        reader.error(span, message, help);
    }
    table.close(reader, |key| match key {
        "max_attempts" | "retries" | "count" | "limit" => Some("did you mean `attempts`? It counts the first one too"),
        "delay" | "initial_backoff" | "min_backoff" => Some("did you mean `backoff`?"),
        "jitter" => Some("remove it: waits always have full jitter"),
        _ => None,
    });
    Some(retry)
}

fn allow(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, place: Span) -> Option<Allow> {
    let mut table = reader.table(node, place, "Allow", "`allow`", "`{ publish: [\"payment.*\"] }`")?;
    let publish = table.optional(reader, "publish").map(|node| {
        let items = reader.list(node, "`publish`");
        items.iter().filter_map(|item| reader.parsed(item, "an event type", TypeGlob::parse)).collect()
    });
    let state_place = table.key_span("state");
    let state = table.optional(reader, "state").and_then(|node| state(reader, node, state_place));
    let http = table.optional(reader, "http").map(|node| {
        let items = reader.list(node, "`http`");
        items.iter().filter_map(|item| reader.parsed(item, "an origin", HttpOrigin::parse)).collect()
    });
    let config_node = table.optional(reader, "config");
    let config = config_node.map(|node| config(reader, node)).unwrap_or_default();
    let secrets_node = table.optional(reader, "secrets");
    let secrets = secrets_node.map(|node| secrets(reader, context, node)).unwrap_or_default();
    if let (Some(config), Some(secrets)) = (config_node, secrets_node) {
        shared_keys(reader, config, secrets);
    }
    table.close(reader, |key| match key {
        "env" | "environment" | "settings" | "vars" => Some("settings are `config: { KEY: VALUE }`"),
        "secret" => Some("did you mean `secrets`?"),
        "egress" | "network" | "hosts" | "outbound" => {
            Some("where it may send requests is `http: [\"https://HOST:443\"]`")
        }
        "keyvalue" | "kv" | "storage" | "store" => Some("keyed state is `state: true`"),
        "events" | "emit" => Some("the events it may publish are `publish: [TYPE]`"),
        "files" | "fs" | "filesystem" => Some("remove it: functions have no file system"),
        _ => None,
    });
    Some(Allow { publish: publish.unwrap_or_default(), state, http: http.unwrap_or_default(), config, secrets })
}

/// `true`, `false`, or how much.
fn state(reader: &mut Reader<'_>, node: &Node, place: Span) -> Option<State> {
    if let Value::Scalar(_) = node.value {
        return reader.boolean(node, "`state`")?.then(State::default);
    }
    let mut table = reader.table(node, place, "State", "`state`", "`true` or `{ max_total: 64MiB }`")?;
    let default = State::default();
    let shared = table.optional(reader, "shared").and_then(|node| reader.boolean(node, "`shared`"));
    let max_keys = table.optional(reader, "max_keys").and_then(|node| reader.integer(node, "`max_keys`", KEYS));
    let max_value = table.optional(reader, "max_value").and_then(|node| reader.size(node, "`max_value`", VALUES));
    let max_total = table.optional(reader, "max_total").and_then(|node| reader.size(node, "`max_total`", TOTALS));
    table.close(reader, |key| match key {
        "app" | "share" => Some("did you mean `shared`?"),
        "keys" => Some("did you mean `max_keys`?"),
        "value" | "max_size" | "value_size" => Some("did you mean `max_value`?"),
        "total" | "size" | "max_bytes" | "quota" => Some("did you mean `max_total`?"),
        "ttl" | "expires" | "expire" => Some("remove it: what a function keeps stays until it deletes it"),
        _ => None,
    });
    Some(State {
        shared: shared.unwrap_or(default.shared),
        max_keys: max_keys.unwrap_or(default.max_keys),
        max_value: max_value.unwrap_or(default.max_value),
        max_total: max_total.unwrap_or(default.max_total),
    })
}

fn config(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut config = BTreeMap::new();
    for entry in reader.entries(node, "settings", "`{ CURRENCY: EUR }`") {
        if !key_is_named(reader, entry) {
            continue;
        }
        match &entry.node.value {
            Value::Scalar(scalar) if scalar.resolve() == Resolved::Null => {
                reader.error(
                    entry.key_span,
                    format!("`{}` has no value", shown(&entry.key)),
                    "for an empty text write `\"\"`",
                );
            }
            Value::Scalar(scalar) => {
                config.insert(entry.key.clone(), scalar.text.clone());
            }
            _ => {
                let message = format!("a setting is one value, this is {}", entry.node.described());
                reader.error(entry.node.span, message, "write a text; JSON in quotes is one too");
            }
        }
    }
    config
}

fn secrets(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node) -> BTreeMap<String, SecretRef> {
    let mut secrets = BTreeMap::new();
    for entry in reader.entries(node, "secrets", "`{ API_KEY: { env: PAYMENT_KEY } }`") {
        if key_is_named(reader, entry)
            && let Some(secret) = secret(reader, context, entry)
        {
            secrets.insert(entry.key.clone(), secret);
        }
    }
    secrets
}

fn secret(reader: &mut Reader<'_>, context: &Context<'_>, entry: &Entry) -> Option<SecretRef> {
    if let Value::Scalar(_) = entry.node.value {
        let help = "say where it is: `{ env: VARIABLE }` or `{ file: PATH }`";
        reader.error(entry.key_span, "a secret itself does not belong into a manifest", help);
        return None;
    }
    let what = format!("secret `{}`", shown(&entry.key));
    let mut table = reader.table(&entry.node, entry.key_span, "SecretRef", what, "`{ env: VARIABLE }`")?;
    let env_node = table.optional(reader, "env");
    let env = env_node.and_then(|node| reader.parsed(node, "`env`", variable));
    let file = table.optional(reader, "file").and_then(|node| reader.text(node, "`file`"));
    match (table.has("env"), table.has("file")) {
        (true, true) => {
            let message = format!("{} is in two places", table.what());
            let span = table.key_span("file");
            reader.error_beside(span, message, "keep `env` or `file`", (table.key_span("env"), "the other place"));
        }
        (false, false) => {
            let message = format!("{} does not say where it is", table.what());
            reader.error(table.place(), message, "write `{ env: VARIABLE }` or `{ file: PATH }`");
        }
        _ => {}
    }
    table.close(reader, |key| match key {
        "value" => Some("a secret itself does not belong into a manifest; say where it is"),
        "path" => Some("did you mean `file`?"),
        _ => None,
    });
    env.map(SecretRef::Env).or_else(|| file.map(|path| SecretRef::File(context.folder.join(path))))
}

/// POSIX.1, section 8.1: letters, digits and underscores, no digit first.
fn variable(text: &str) -> Result<String, Wrong> {
    let bare = text.trim_start_matches('$').trim_start_matches('{').trim_end_matches('}');
    let legal = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|char: char| char.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if legal(text) {
        return Ok(text.to_owned());
    }
    let help = if legal(bare) {
        format!("write the name alone: `{bare}`")
    } else {
        "a name has letters, digits and underscores and does not start with a digit".to_owned()
    };
    Err(Wrong::new(format!("`{}` is not the name of an environment variable", shown(text)), help))
}

fn key_is_named(reader: &mut Reader<'_>, entry: &Entry) -> bool {
    let named = !entry.key.trim().is_empty();
    if !named {
        reader.error(entry.key_span, "this key is empty", "give it the name that the function asks for");
    }
    named
}

/// A function reads settings and secrets alike, by one name.
fn shared_keys(reader: &mut Reader<'_>, config: &Node, secrets: &Node) {
    let (Value::Map(config), Value::Map(secrets)) = (&config.value, &secrets.value) else {
        return;
    };
    for secret in secrets {
        if let Some(setting) = config.iter().find(|setting| setting.key == secret.key) {
            let message = format!("`{}` is a setting and a secret", shown(&secret.key));
            let help = "keep one: a function reads both by their name";
            reader.error_beside(secret.key_span, message, help, (setting.key_span, "the setting"));
        }
    }
}

//! The kind `monitor` in a manifest: its parser and its JSON schema.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use evoke_manifest::parser::{Node, Reader, Resolved, Span, Table, Value, ValueError, excerpt, join_with_or};
use evoke_manifest::units::{DurationText, parse_duration};
use evoke_manifest::{Place, Settings, SourceKind};
use evoke_threshold::Direction;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::quantity::{Quantity, Threshold, Unit};
use super::readings::{Check, KEYS};
use super::settings::{Deviates, FlapSettings, MonitorSource};

/// The kind `monitor`.
#[derive(Debug)]
pub struct MonitorKind;

const EVERY_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);
const HOLD_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 86_400);
const WINDOW_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
const KEEP_RANGE: RangeInclusive<Duration> = Duration::from_secs(3_600)..=Duration::from_secs(31 * 86_400);
const KEEP_DEFAULT: Duration = Duration::from_secs(86_400);
/// The allowed values of `changes` in `flap`. The maximum is small, because the times of up to `changes` changes are
/// stored with each event.
const FLAP_CHANGES: RangeInclusive<u32> = 2..=100;

impl SourceKind for MonitorKind {
    fn key(&self) -> &'static str {
        "monitor"
    }

    fn description(&self) -> &'static str {
        "Changes of the state of something on this machine or in its network become events."
    }

    fn private_description(&self) -> &'static str {
        "Private monitor: only this function receives its events."
    }

    fn example(&self) -> &'static str {
        "`monitor: { every: 5s, disk: { path: / }, warning: 80% }`"
    }

    fn hint(&self, key: &str) -> Option<&'static str> {
        match key {
            "monitors" | "check" | "watch_disk" => {
                Some("for a monitor, write `monitor: { every: 5s, disk: { path: / }, warning: 80% }`")
            }
            key if KEYS.contains(&key) => Some("write it in a monitor: `monitor: { every: 5s, … }`"),
            _ => None,
        }
    }

    fn parse(&self, reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Settings> {
        parse(reader, node, place).map(Settings::new)
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<MonitorSource>()
    }
}

fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<MonitorSource> {
    let example = "`{ every: 5s, disk: { path: / }, warning: 80% }`";
    let mut table = Table::read(reader, node, place.key_span, "Monitor", "a monitor", example)?;
    let every = table.required(reader, "every", &["interval", "period"], "`every: 5s`, the interval of readings");
    let every = every.and_then(|node| reader.duration(node, "`every`", EVERY_RANGE));
    let check = check(reader, &mut table, place);
    let jitter = table.optional(reader, "jitter");
    let jitter = jitter.and_then(|node| reader.duration(node, "`jitter`", Duration::ZERO..=*EVERY_RANGE.end()));
    if let (Some(every), Some(jitter)) = (every, jitter)
        && jitter >= every
    {
        let message = "`jitter` must be shorter than `every`";
        reader.error(table.key_span("jitter"), message, "write a shorter `jitter`, or a longer `every`");
    }
    let warning = quantity(reader, &mut table, "warning", Threshold::parse);
    let critical = quantity(reader, &mut table, "critical", Threshold::parse);
    let clear = quantity(reader, &mut table, "clear", Quantity::parse);
    let hold = table.optional(reader, "for").and_then(|node| reader.duration(node, "`for`", HOLD_RANGE));
    let flap = table.optional(reader, "flap").and_then(|node| flap(reader, node));
    let deviates = table.optional(reader, "deviates").and_then(|node| reader.parse_text(node, "`deviates`", deviates));
    let repeat = table.optional(reader, "repeat").and_then(|node| reader.duration(node, "`repeat`", WINDOW_RANGE));
    let keep = table.optional(reader, "keep").and_then(|node| reader.duration(node, "`keep`", KEEP_RANGE));
    table.reject_unknown_keys(reader, |key| match key {
        "interval" | "period" => Some("did you mean `every`?"),
        "warn" => Some("did you mean `warning`?"),
        "crit" | "error" => Some("did you mean `critical`?"),
        "hysteresis" | "margin" | "recover" => Some("did you mean `clear`?"),
        "hold" | "duration" | "delay" => Some("did you mean `for`?"),
        "remind" | "renotify" => Some("did you mean `repeat`?"),
        "flapping" => Some("did you mean `flap`?"),
        "retention" | "history" => Some("did you mean `keep`?"),
        "path" => Some("write `disk: { path: PATH }` or `file: { path: PATH }`"),
        "url" => Some("write `http: { url: URL }`"),
        _ => None,
    });
    let source = MonitorSource {
        check: check?,
        every: every?,
        jitter: jitter.unwrap_or_default(),
        warning,
        critical,
        clear,
        hold: hold.unwrap_or_default(),
        flap,
        deviates,
        repeat,
        keep: keep.unwrap_or(KEEP_DEFAULT),
    };
    let span = |key: &str| key_span(node, key, place);
    check_thresholds(reader, &source, [span("warning"), span("critical"), span("clear"), span(source.check.key())]);
    Some(source)
}

/// Returns the span of a key; if the key is missing, the span of the monitor.
fn key_span(node: &Node, key: &str, place: &Place<'_>) -> Span {
    let Value::Map(entries) = &node.value else { return place.key_span };
    entries.iter().find(|entry| entry.key == key).map_or(place.key_span, |entry| entry.key_span)
}

/// Reads the check of the monitor, such as `disk`. A monitor must have exactly one check.
fn check(reader: &mut Reader<'_>, table: &mut Table<'_>, place: &Place<'_>) -> Option<Check> {
    let mut first: Option<&'static str> = None;
    let mut found = None;
    for key in KEYS {
        let Some(node) = table.optional(reader, key) else { continue };
        if let Some(first) = first {
            let message = format!("a monitor can watch only one thing, but this one has `{first}` and `{key}`");
            let other = (table.key_span(first), "the other thing to watch");
            reader.error_with_related(table.key_span(key), message, "write a second monitor", other);
            continue;
        }
        first = Some(key);
        let inner = Place { key_span: table.key_span(key), folder: place.folder };
        found = Check::parse(reader, key, node, &inner);
    }
    if first.is_none() && !KEYS.iter().any(|key| table.has(key)) {
        let message = "the monitor watches nothing";
        let help = format!("add one of {}, as in `disk: {{ path: / }}`", join_with_or(KEYS));
        reader.error(table.span(), message, help);
    }
    found
}

/// Reads an optional key whose value is a number with a unit. The value may be a text or a number in the manifest.
fn quantity<T>(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    key: &'static str,
    parse: fn(&str) -> Result<T, ValueError>,
) -> Option<T> {
    let node = table.optional(reader, key)?;
    match &node.value {
        Value::Scalar(scalar) if !matches!(scalar.resolve(), Resolved::Bool(_) | Resolved::NotFinite) => {
            reader.ok_or_report(node.span, parse(&scalar.text))
        }
        _ => {
            let message = format!("`{key}` must be a value with a unit, found {}", node.describe());
            reader.error(node.span, message, "write a number and its unit, such as `80%`, `10GiB` or `5/s`");
            None
        }
    }
}

fn flap(reader: &mut Reader<'_>, node: &Node) -> Option<FlapSettings> {
    let example = "`flap: { changes: 5, within: 10m }`";
    let mut table = Table::read(reader, node, node.span, "Flap", "`flap`", example)?;
    let changes = table.required(reader, "changes", &["count", "times"], "`changes: 5`");
    let changes = changes.and_then(|node| reader.integer(node, "`changes`", FLAP_CHANGES));
    let within = table.required(reader, "within", &["in", "window", "over"], "`within: 10m`");
    let within = within.and_then(|node| reader.duration(node, "`within`", WINDOW_RANGE));
    table.reject_unknown_keys(reader, |_| None);
    Some(FlapSettings { changes: changes?, within: within? })
}

/// Parses `3σ over 1h`, also `3 sigma over 1h`.
fn deviates(text: &str) -> Result<Deviates, ValueError> {
    let malformed = || {
        let message = format!("`{}` is not a deviation", excerpt(text));
        ValueError::new(message, "write the number of standard deviations and a time, as in `3σ over 1h`")
    };
    let (sigmas, over) = text.split_once(" over ").ok_or_else(malformed)?;
    let sigmas = sigmas.trim();
    let sigmas = sigmas.strip_suffix('σ').or_else(|| sigmas.strip_suffix("sigma")).ok_or_else(malformed)?;
    let sigmas: f64 = sigmas.trim().parse().map_err(|_| malformed())?;
    let over = parse_duration(over.trim())?;
    if !(0.1..=100.0).contains(&sigmas) || !WINDOW_RANGE.contains(&over) {
        let message = format!("`{}` is out of range", excerpt(text));
        return Err(ValueError::new(message, "write 0.1 to 100 standard deviations over 1s to 30d"));
    }
    Ok(Deviates { sigmas, over })
}

/// Checks that the thresholds fit the reading and each other.
fn check_thresholds(reader: &mut Reader<'_>, source: &MonitorSource, spans: [Span; 4]) {
    let [warning_span, critical_span, clear_span, check_span] = spans;
    let measure = source.check.measure();
    let key = source.check.key();
    let thresholds = [("warning", source.warning, warning_span), ("critical", source.critical, critical_span)];
    let mut is_wrong = false;
    for (name, threshold, span) in thresholds {
        let Some(threshold) = threshold else { continue };
        let Quantity { unit, per_ms, .. } = threshold.quantity;
        let examples = measure.units.iter().map(|unit| unit.example());
        if measure.units.is_empty() {
            let message = format!("`{name}` has no effect: `{key}` reads a state, not a value");
            reader.error(span, message, "remove the threshold, or read the number of restarts with `of: restarts`");
            is_wrong = true;
        } else if !measure.units.contains(&unit) {
            let rate = if measure.is_counter { "/s" } else { "" };
            let message = format!("the unit of `{name}: {threshold}` does not fit `{key}`");
            let examples: Vec<String> = examples.map(|example| format!("{example}{rate}")).collect();
            reader.error(
                span,
                message,
                format!("write a value such as {}", join_with_or(examples.iter().map(String::as_str))),
            );
            is_wrong = true;
        } else if per_ms.is_some() && !measure.is_counter {
            let message = format!("`{name}: {threshold}` is a rate, but `{key}` is not a counter");
            reader.error(span, message, "write only the number and its unit, without a time such as `/s`");
            is_wrong = true;
        }
    }
    if let (Some(warning), Some(critical)) = (source.warning, source.critical)
        && !is_wrong
    {
        is_wrong = check_pair(reader, source.direction(), (warning, warning_span), (critical, critical_span));
    }
    if source.warning.is_none() && source.critical.is_none() && source.deviates.is_none() && !measure.has_own_levels {
        let message = format!("the monitor of `{key}` has no threshold: its state would never change");
        let help = match measure.units.first().map_or("80%", |unit| Unit::example(*unit)) {
            example if measure.is_counter => format!("add `warning: {example}/s` or `critical`"),
            example => format!("add `warning: {example}`, `critical` or `deviates`"),
        };
        reader.error(check_span, message, help);
    }
    if let Some(clear) = source.clear
        && !is_wrong
    {
        check_clear(reader, source, clear, clear_span);
    }
}

/// Checks that `critical` is worse than `warning`. Returns true if there is a mistake.
fn check_pair(
    reader: &mut Reader<'_>,
    direction: Direction,
    (warning, warning_span): (Threshold, Span),
    (critical, critical_span): (Threshold, Span),
) -> bool {
    let related = (warning_span, "the threshold of the warning");
    let (from, to) = (warning.quantity, critical.quantity);
    if (from.unit, from.per_ms) != (to.unit, to.per_ms) {
        let message = format!("`warning` and `critical` have different units: `{warning}` and `{critical}`");
        reader.error_with_related(critical_span, message, "write both thresholds in the same unit", related);
        return true;
    }
    if let (Some(one), Some(other)) = (warning.direction(), critical.direction())
        && one != other
    {
        let message = "`warning` and `critical` compare in opposite directions";
        reader.error_with_related(critical_span, message, "write `>` before both, or `<` before both", related);
        return true;
    }
    let (is_wrong, relation) = match direction {
        Direction::Above => (to.value <= from.value, "above"),
        Direction::Below => (to.value >= from.value, "below"),
    };
    if is_wrong {
        let message =
            format!("`critical` must be {relation} `warning`, found `critical: {critical}` and `warning: {warning}`");
        let help = match direction {
            Direction::Above => "exchange the two thresholds; if low values are bad, write `<` before both",
            Direction::Below => "exchange the two thresholds; if high values are bad, write `>` before both",
        };
        reader.error_with_related(critical_span, message, help, related);
    }
    is_wrong
}

/// Checks that a bad state can end. If `clear` is too large, no possible value is so good that the state is ok again.
fn check_clear(reader: &mut Reader<'_>, source: &MonitorSource, clear: Quantity, span: Span) {
    let thresholds = || [source.warning, source.critical].into_iter().flatten().map(|threshold| threshold.quantity);
    let Some(first) = thresholds().next() else {
        let help = "add a threshold, or remove `clear`";
        reader.error(span, "`clear` has no effect without `warning` or `critical`", help);
        return;
    };
    if (first.unit, first.per_ms) != (clear.unit, clear.per_ms) {
        let message = format!("`clear` must have the unit of the thresholds, found `{clear}` and `{first}`");
        reader.error(span, message, "write how far from the threshold a value must be for the state to be ok again");
        return;
    }
    if clear.value < 0.0 {
        let help = "write how far from the threshold a value must be for the state to be ok again, such as `5%`";
        reader.error(span, "`clear` must not be negative", help);
        return;
    }
    let best = match source.direction() {
        // Quantities other than temperatures and plain numbers have no values below zero.
        Direction::Above if !matches!(first.unit, Unit::Celsius | Unit::Count) => Some(0.0),
        Direction::Below if first.unit == Unit::Percent => Some(100.0),
        _ => None,
    };
    let room = |threshold: Quantity| best.map(|best: f64| (best - threshold.value).abs());
    let beyond = thresholds().find(|threshold| room(*threshold).is_some_and(|room| clear.value >= room));
    if let Some(threshold) = beyond {
        let message = format!(
            "`clear` is too large: with the threshold `{threshold}` and `clear: {clear}`, a bad state would never end"
        );
        let example = match source.direction() {
            Direction::Above => "with a threshold of `90%` and `clear: 5%`, the state is ok again below 85%",
            Direction::Below => "with a threshold of `10%` and `clear: 5%`, the state is ok again above 15%",
        };
        let help = format!("write a smaller value: `clear` is the distance from the threshold; {example}");
        reader.error(span, message, help);
    }
}

impl JsonSchema for MonitorSource {
    fn schema_name() -> Cow<'static, str> {
        "Monitor".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = serde_json::Map::new();
        let mut one_of = Vec::new();
        for key in KEYS {
            properties.insert(key.to_owned(), Check::schema(key, generator).to_value());
            one_of.push(serde_json::json!({ "required": [key] }));
        }
        let mut add = |key: &str, schema: Schema, description: &str, default: Option<&str>| {
            let mut schema = schema;
            schema.insert("description".to_owned(), description.into());
            if let Some(default) = default {
                schema.insert("default".to_owned(), default.into());
            }
            properties.insert(key.to_owned(), schema.to_value());
        };
        let every = generator.subschema_for::<DurationText>();
        let duration = || every.clone();
        let threshold = generator.subschema_for::<Threshold>();
        add("every", duration(), "Interval of readings, at least 100ms.", None);
        let description = "Maximum of the random delay of each reading. Must be shorter than `every`.";
        add("jitter", duration(), description, Some("0ms"));
        add("warning", threshold.clone(), "Threshold of the state `warning`, such as `80%`. See `critical`.", None);
        let description = "Threshold of the state `critical`, such as `90%`, `10GiB`, `14d`, `> 5/s`. Whether high or \
            low values are bad depends on the reading; write `>`, `>=`, `<` or `<=` before the number to choose.";
        add("critical", threshold.clone(), description, None);
        let description = "How far from the threshold a value must be for the state to improve, such as `5%`: with a \
            threshold of `90%`, the state improves below 85%.";
        add("clear", threshold, description, None);
        add("for", duration(), "How long all readings must be in a new state before the state changes.", Some("0ms"));
        let description =
            "A value is a warning if it is this far from its moving average: `3σ over 1h`, also `3 sigma over 1h`.";
        add("deviates", json_schema!({ "type": "string" }), description, None);
        add("repeat", duration(), "Interval of reminders while the state is not ok.", None);
        let description = "How long the per-minute averages of the readings are stored, 1h to 31d.";
        add("keep", duration(), description, Some("1d"));
        properties.insert("flap".to_owned(), generator.subschema_for::<FlapSchema>().to_value());
        json_schema!({
            "description": "Takes a reading at an interval, and creates an event when the state changes. The states \
                are ok, warning, critical, and unknown if the reading fails.",
            "type": "object",
            "properties": properties,
            "required": ["every"],
            "additionalProperties": false,
            "oneOf": one_of
        })
    }
}

/// The schema of [`FlapSettings`].
struct FlapSchema;

impl JsonSchema for FlapSchema {
    fn schema_name() -> Cow<'static, str> {
        "Flap".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Detects flapping: a state that changes too often. After `changes` changes within the time \
                `within`, one event reports that the state is flapping. Further changes are not reported until the \
                number of changes within this time is at most half of `changes`.",
            "type": "object",
            "properties": {
                "changes": { "type": "integer", "format": "uint32", "minimum": FLAP_CHANGES.start(), "maximum": FLAP_CHANGES.end() },
                "within": generator.subschema_for::<DurationText>()
            },
            "required": ["changes", "within"],
            "additionalProperties": false
        })
    }
}

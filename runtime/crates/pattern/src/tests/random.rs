//! Compares the matcher with a simple evaluator that has no index, over random patterns and events.

use serde_json::{Map, Value, json};

use super::super::{DataView, EventView, Matcher, Pattern};
use super::judge::{occurrences, simple_matches};

/// A random number generator (xorshift64*) with a fixed seed, so every run is the same.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Names of fields. Some of them look like syntax, for example like a path.
const NAMES: [&str; 8] = ["a", "b", "c", "data", "a.b", "", "$x", "\u{e9}"];
/// Most patterns and events use only this many of the names. With fewer names, patterns match more often.
const NAMES_COMMON: usize = 4;
const TEXTS: [&str; 20] = [
    "",
    "a",
    "ab",
    "AB",
    "abab",
    "xaby",
    "10.0.0.1",
    "10.1.0.1",
    "Ä",
    "ä",
    "a*b",
    "a\\b",
    "\u{212a}k",
    "ſS",
    "ßẞ",
    "İi",
    "ı",
    "σς",
    "::ffff:10.0.0.1",
    "2001:db8::1",
];
/// Numbers, some of them equal and written in different forms. The last ones differ only in their last digits, or are
/// close to the middle between two doubles.
const NUMBERS: [&str; 20] = [
    "0",
    "-0.0",
    "1",
    "10e-1",
    "-1.5",
    "2e0",
    "100",
    "0.5",
    "5E-1",
    "1e300",
    "-1e-300",
    "9007199254740992",
    "9007199254740993",
    "9007199254740993.00000000000000000000000000000000000000001",
    "-9007199254740993.00000000000000000000000000000000000000001",
    "-9007199254740993",
    "1.00000000000000011102230246251565404236316680908203125",
    "1.00000000000000011102230246251565404236316680908203126",
    "99999999999999999999",
    "100000000000000000000",
];
const WILDCARDS: [&str; 12] =
    ["*", "a*", "*b", "a*b", "*a*b*", "x*b*", "*10.0*", "ab", "a\\**", "*\\\\*", "\\*", "*\u{212a}*"];
const BLOCKS: [&str; 7] =
    ["10.0.0.0/8", "10.0.0.0/16", "10.1.0.1/32", "0.0.0.0/0", "::/0", "2001:db8::/33", "::ffff:0:0/96"];

#[derive(Clone, Copy)]
enum Shape {
    /// Every kind of value and operator.
    Mixed,
    /// Few values below many arrays in arrays, with many `$or` and absent fields.
    Arrays,
}

fn name(random: &mut Random) -> String {
    let count = if random.below(8) == 0 { NAMES.len() } else { NAMES_COMMON };
    random.pick(&NAMES[..count]).to_owned()
}

fn number(random: &mut Random) -> Value {
    serde_json::from_str(random.pick(&NUMBERS)).unwrap()
}

fn scalar(random: &mut Random, shape: Shape) -> Value {
    if let Shape::Arrays = shape {
        return json!(random.below(2));
    }
    match random.below(8) {
        0 => Value::Null,
        1 => Value::Bool(random.below(2) == 0),
        2..=4 => number(random),
        _ => json!(random.pick(&TEXTS)),
    }
}

fn value(random: &mut Random, depth: u32, shape: Shape) -> Value {
    let scalars = if let Shape::Arrays = shape { 2 } else { 5 };
    match random.below(if depth == 0 { scalars } else { 10 }) {
        kind if kind < scalars => scalar(random, shape),
        kind if kind < scalars + 3 => object(random, depth - 1, shape),
        _ => (0..random.below(4)).map(|_| value(random, depth - 1, shape)).collect(),
    }
}

fn object(random: &mut Random, depth: u32, shape: Shape) -> Value {
    let members = (0..random.below(4)).map(|_| (name(random), value(random, depth, shape)));
    Value::Object(members.collect())
}

fn text(random: &mut Random) -> Value {
    json!(random.pick(&TEXTS))
}

/// Returns a string, or a list of one or two strings.
fn texts(random: &mut Random, texts: &[&str]) -> Value {
    match random.below(3) {
        0 => json!(random.pick(texts)),
        count => json!((0..count).map(|_| random.pick(texts)).collect::<Vec<_>>()),
    }
}

/// A range between two numbers.
fn range(random: &mut Random) -> Value {
    let (above, below) = (random.pick(&[">", ">="]), random.pick(&["<", "<="]));
    let range = json!({ "numeric": [above, number(random), below, number(random)] });
    // The bounds can be in the wrong order.
    let is_valid = Pattern::parse(&json!({ "a": [range] })).is_ok();
    if is_valid { range } else { json!({ "numeric": [above, number(random)] }) }
}

fn entry(random: &mut Random, shape: Shape) -> Value {
    if let Shape::Arrays = shape {
        return match random.below(3) {
            0 => json!({ "exists": random.below(4) == 0 }),
            1 => json!({ "anything-but": random.below(2) }),
            _ => scalar(random, shape),
        };
    }
    match random.below(20) {
        0..=3 => scalar(random, shape),
        4 => json!({ "prefix": text(random) }),
        5 => json!({ "suffix": text(random) }),
        6 => json!({ "equals-ignore-case": text(random) }),
        7 => json!({ "prefix": { "equals-ignore-case": text(random) } }),
        8 => json!({ "suffix": { "equals-ignore-case": text(random) } }),
        9 => json!({ "wildcard": random.pick(&WILDCARDS) }),
        10 => json!({ "anything-but": texts(random, &TEXTS) }),
        11 => {
            json!({ "anything-but": { random.pick(&["prefix", "suffix", "equals-ignore-case"]): texts(random, &TEXTS) } })
        }
        12 => json!({ "anything-but": { "wildcard": texts(random, &WILDCARDS) } }),
        13 => json!({ "anything-but": [number(random), number(random)] }),
        14 => json!({ "anything-but": number(random) }),
        15 => json!({ "numeric": [random.pick(&["=", "<", "<=", ">", ">="]), number(random)] }),
        16 => range(random),
        17 => json!({ "cidr": random.pick(&BLOCKS) }),
        _ => json!({ "exists": random.below(2) == 0 }),
    }
}

fn fields(random: &mut Random, depth: u32, shape: Shape) -> Value {
    let ors = if let Shape::Arrays = shape { 3 } else { 6 };
    let mut fields = Map::new();
    for _ in 0..=random.below(2) {
        if depth > 0 && random.below(ors) == 0 {
            let or = (0..2 + random.below(2)).map(|_| self::fields(random, depth - 1, shape)).collect();
            fields.insert("$or".to_owned(), or);
        } else if depth > 0 && random.below(2) == 0 {
            fields.insert(name(random), self::fields(random, depth - 1, shape));
        } else {
            let list = (0..=random.below(2)).map(|_| entry(random, shape)).collect();
            fields.insert(name(random), list);
        }
    }
    Value::Object(fields)
}

/// Compares the matcher with the evaluator on the pairs of patterns and events of one seed. Returns the number of pairs
/// that match, and the number of all pairs.
fn compare(seed: u64, shape: Shape) -> (usize, usize) {
    let mut random = Random(seed);
    let (mut matched, mut compared) = (0, 0);
    for round in 0..24 {
        let mut matcher = Matcher::default();
        let mut sources = Vec::new();
        // Some rounds have few patterns; others have many patterns, which give the index many levels. Some patterns are
        // removed again.
        for _ in 0..[5, 50, 300][round % 3] {
            let source = fields(&mut random, 3, shape);
            let pattern = Pattern::parse(&source).unwrap_or_else(|errors| panic!("{source}: {errors:?}"));
            matcher.insert(sources.len(), &pattern);
            sources.push(Some(source));
        }
        for key in 0..sources.len() / (1 + round % 4) {
            if random.below(3) == 0 || round % 4 == 0 {
                matcher.remove(key);
                sources[key] = None;
            }
        }
        for _ in 0..40 {
            let event = object(&mut random, 4, shape);
            let values = occurrences(&event);
            let live = sources.iter().enumerate().filter_map(|(key, source)| Some((key, source.as_ref()?)));
            let wanted: Vec<usize> =
                live.filter(|(_, source)| simple_matches(source, &values)).map(|(key, _)| key).collect();
            let found = matcher.matches_json(event.to_string().as_bytes()).unwrap();
            if let Some(key) = (0..sources.len()).find(|key| wanted.contains(key) != found.contains(key)) {
                panic!(
                    "{} on {event}: the simple evaluator returns {}; seed {seed}",
                    sources[key].as_ref().unwrap(),
                    wanted.contains(&key)
                );
            }
            assert_eq!(found, wanted);
            let data = event.to_string();
            matcher.matches(&EventView::new([("a", "ab")], DataView::Json(data.as_bytes()))).unwrap();
            (matched, compared) = (matched + found.len(), compared + sources.len());
        }
    }
    (matched, compared)
}

/// Compares some hundred thousand pairs. With `EVOKE_CAMPAIGN=long`, compares a hundred times as many. `EVOKE_SEED`
/// selects other pairs.
#[test]
fn the_matcher_agrees_with_a_simple_evaluator() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("EVOKE_SEED").unwrap_or(0x1234_5678_9abc_def1).max(1);
    let count = if std::env::var("EVOKE_CAMPAIGN").is_ok_and(|form| form == "long") { 100 } else { 1 };
    for seed in (first..).take(count) {
        for shape in [Shape::Mixed, Shape::Arrays] {
            let (matched, compared) = compare(seed, shape);
            assert!(matched * 50 > compared, "only {matched} of {compared} pairs match, so the cases test too little");
        }
    }
}

#[test]
fn random_bytes_and_broken_events_never_panic() {
    let mut random = Random(99);
    let mut matcher = Matcher::default();
    for key in 0..200 {
        matcher.insert(key, &Pattern::parse(&fields(&mut random, 3, Shape::Mixed)).unwrap());
    }
    for _ in 0..20_000 {
        let mut bytes = object(&mut random, 4, Shape::Mixed).to_string().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes.insert(at, random.pick(b"{}[]\",:\\u0123e-.\xff")),
                _ => bytes.truncate(at + 1),
            }
        }
        let accepted = matcher.matches_json(&bytes).is_ok();
        let parsed = serde_json::from_slice::<Map<String, Value>>(&bytes);
        // serde_json also rejects numbers outside the range of doubles and lone surrogates.
        let only_serde_rejects = parsed.as_ref().is_err_and(|error| {
            let message = error.to_string();
            message.contains("out of range") || message.contains("surrogate") || message.contains("hex escape")
        });
        assert!(
            accepted == parsed.is_ok() || only_serde_rejects,
            "{:?}: {accepted} {parsed:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

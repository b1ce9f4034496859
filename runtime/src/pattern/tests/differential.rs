//! The matcher against an evaluator that knows nothing of it: the same answer for thousands of random patterns and
//! events, which are made so that they meet often.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::super::{DataView, EventView, Matcher, Pattern, explain};

/// Xorshift with a fixed seed: what fails once fails again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn text(&mut self) -> String {
        let length = self.below(5);
        let long = if self.below(6) == 0 { "a long beginning " } else { "" };
        let letters: String = (0..length).map(|_| self.pick(&['a', 'b', 'A', 'B', 'é', 'É', 'ß'])).collect();
        format!("{long}{letters}")
    }

    fn address(&mut self) -> String {
        match self.below(2) {
            0 => format!("10.{}.{}.1", self.below(3), self.below(256)),
            _ => format!("2001:db{}::{:x}", self.below(3), self.below(65_536)),
        }
    }

    fn number(&mut self) -> Value {
        let integer = self.below(9) as i64 - 4;
        match self.below(5) {
            0 => json!(integer as f64 / 4.0),
            1 => json!(integer as f64),
            2 => json!(9_007_199_254_740_992i64 + integer),
            3 => json!(integer as f64 * 1e300),
            _ => json!(integer),
        }
    }

    fn scalar(&mut self) -> Value {
        match self.below(10) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2..5 => self.number(),
            5 => json!(self.address()),
            _ => json!(self.text()),
        }
    }

    fn name(&mut self) -> String {
        self.pick(&["a", "b", "c", "d.e"]).to_owned()
    }

    fn event(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 4 } else { 10 }) {
            0..4 => self.scalar(),
            4..6 => (0..self.below(4)).map(|_| self.event(depth - 1)).collect(),
            _ => {
                let members = (0..self.below(5)).map(|_| (self.name(), self.event(depth - 1)));
                Value::Object(members.collect())
            }
        }
    }

    /// A string's operand that the parser takes in every place.
    fn wanted(&mut self) -> String {
        format!("{}{}", self.text(), self.pick(&["a", "b"]))
    }

    fn wildcard(&mut self) -> String {
        let (start, middle, end) = (self.text(), self.wanted(), self.text());
        self.pick(&["{s}*{e}", "*{m}*", "{s}*{m}*{e}", "*", "{m}", "*{m}", "{m}*"])
            .replace("{s}", &start)
            .replace("{m}", &middle)
            .replace("{e}", &end)
    }

    fn range(&mut self) -> Value {
        let (low, high) = (self.number(), self.number());
        let (above, below) = (self.pick(&[">", ">="]), self.pick(&["<", "<="]));
        match self.below(4) {
            0 => json!([above, low]),
            1 => json!([below, high]),
            2 => json!(["=", low]),
            _ => json!([above, low, below, high]),
        }
    }

    fn text_operator(&mut self) -> (&'static str, String) {
        match self.below(4) {
            0 => ("prefix", self.wanted()),
            1 => ("suffix", self.wanted()),
            2 => ("equals-ignore-case", self.text()),
            _ => ("wildcard", self.wildcard()),
        }
    }

    fn condition(&mut self) -> Value {
        match self.below(14) {
            0..4 => self.scalar(),
            4..7 => {
                let (name, text) = self.text_operator();
                json!({ name: text })
            }
            7 => {
                let name = self.pick(&["prefix", "suffix"]);
                json!({ name: { "equals-ignore-case": self.text() } })
            }
            8 => json!({ "numeric": self.range() }),
            9 => match self.below(2) {
                0 => json!({ "cidr": format!("10.{}.{}.0/{}", self.below(3), self.below(256), self.below(33)) }),
                _ => json!({ "cidr": format!("2001:db{}::/{}", self.below(3), self.below(129)) }),
            },
            10 => json!({ "exists": self.below(2) == 0 }),
            11 => {
                let (name, text) = self.text_operator();
                let (_, other) = (0, self.wanted());
                match self.below(2) {
                    0 => json!({ "anything-but": { name: text } }),
                    _ => json!({ "anything-but": { name: [text, other] } }),
                }
            }
            12 => json!({ "anything-but": [self.text(), self.text()] }),
            _ => json!({ "anything-but": self.number() }),
        }
    }

    fn group(&mut self, depth: usize) -> Value {
        let mut members = Map::new();
        for _ in 0..=self.below(3) {
            let value = match self.below(if depth == 0 { 5 } else { 9 }) {
                0..5 => (0..=self.below(2)).map(|_| self.condition()).collect(),
                _ => self.group(depth - 1),
            };
            members.insert(self.name(), value);
        }
        if depth > 0 && self.below(4) == 0 {
            members.insert("$or".into(), (0..2 + self.below(2)).map(|_| self.group(depth - 1)).collect());
        }
        Value::Object(members)
    }
}

/// The rules, in the plainest words there are.
struct Naive {
    /// Paths at which the event has a scalar.
    scalars: HashSet<String>,
}

impl Naive {
    fn matches(pattern: &Value, event: &Value) -> bool {
        let mut naive = Self { scalars: HashSet::new() };
        naive.collect(event, "");
        naive.group(pattern, Some(event), "")
    }

    fn collect(&mut self, value: &Value, path: &str) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(name, value)| self.collect(value, &format!("{path}/{name}")));
            }
            Value::Array(elements) => elements.iter().for_each(|element| self.collect(element, path)),
            _ => {
                self.scalars.insert(path.to_owned());
            }
        }
    }

    fn group(&self, group: &Value, at: Option<&Value>, path: &str) -> bool {
        if let Some(Value::Array(elements)) = at
            && elements.iter().any(|element| self.group(group, Some(element), path))
        {
            return true;
        }
        group.as_object().unwrap().iter().all(|(name, test)| {
            let path_of_field = format!("{path}/{name}");
            let member = at.and_then(|at| at.as_object()).and_then(|members| members.get(name));
            match test {
                Value::Array(groups) if name == "$or" => {
                    groups.iter().any(|group| self.group(group, at.filter(|at| at.is_object()), path))
                }
                Value::Array(list) => list.iter().any(|condition| match condition.get("exists") {
                    Some(Value::Bool(false)) => !self.scalars.contains(&path_of_field),
                    _ => member.is_some_and(|member| Self::any(member, &|scalar| Self::holds(condition, scalar))),
                }),
                group => self.group(group, member, &path_of_field),
            }
        })
    }

    fn any(value: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
        match value {
            Value::Array(elements) => elements.iter().any(|element| Self::any(element, test)),
            Value::Object(_) => false,
            scalar => test(scalar),
        }
    }

    fn order(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
        match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            // The random numbers that are no integers are too small or too large to meet an integer beyond 2^53.
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        }
    }

    fn fold(text: &str) -> String {
        text.replace('ß', "\u{1}").to_uppercase().to_lowercase()
    }

    fn holds(condition: &Value, scalar: &Value) -> bool {
        let Value::Object(operator) = condition else {
            return if condition.is_number() {
                Self::order(condition, scalar).is_some_and(|order| order.is_eq())
            } else {
                condition == scalar
            };
        };
        let (name, operand) = operator.iter().next().unwrap();
        let text = scalar.as_str();
        match name.as_str() {
            "exists" => true,
            "anything-but" => {
                let (wrap, operand) = match operand {
                    Value::Object(inner) => inner.iter().next().map(|(name, operand)| (Some(name), operand)).unwrap(),
                    operand => (None, operand),
                };
                let these = operand.as_array().cloned().unwrap_or_else(|| vec![operand.clone()]);
                !these.iter().any(|this| match wrap {
                    Some(name) => Self::holds(&json!({ name.as_str(): this }), scalar),
                    None => Self::holds(this, scalar),
                })
            }
            "numeric" => operand.as_array().unwrap().chunks(2).all(|pair| {
                let Some(order) = Self::order(scalar, &pair[1]) else { return false };
                match pair[0].as_str().unwrap() {
                    "=" => order.is_eq(),
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                }
            }),
            "cidr" => text.is_some_and(|text| {
                let bits = |address: &str| match address.parse() {
                    Ok(std::net::IpAddr::V4(address)) => {
                        address.octets().iter().map(|byte| format!("{byte:08b}")).collect::<String>()
                    }
                    Ok(std::net::IpAddr::V6(address)) => {
                        address.octets().iter().map(|byte| format!("{byte:08b}")).collect()
                    }
                    Err(_) => String::new(),
                };
                let (network, length) = operand.as_str().unwrap().split_once('/').unwrap();
                let (network, address) = (bits(network), bits(text));
                network.len() == address.len() && address.starts_with(&network[..length.parse::<usize>().unwrap()])
            }),
            name => text.is_some_and(|text| {
                let (operand, text) = match operand.get("equals-ignore-case") {
                    Some(operand) => (Self::fold(operand.as_str().unwrap()), Self::fold(text)),
                    None => (operand.as_str().unwrap().to_owned(), text.to_owned()),
                };
                match name {
                    "prefix" => text.starts_with(&operand),
                    "suffix" => text.ends_with(&operand),
                    "equals-ignore-case" => Self::fold(&text) == Self::fold(&operand),
                    _ => Self::wildcard(operand.as_bytes(), text.as_bytes()),
                }
            }),
        }
    }

    fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| Self::wildcard(rest, &text[skip..])),
            Some((byte, rest)) => {
                text.split_first().is_some_and(|(first, text)| first == byte && Self::wildcard(rest, text))
            }
        }
    }
}

#[test]
fn the_matcher_and_a_naive_evaluator_agree() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut found, mut asked) = (0, 0);
    for _ in 0..60 {
        let mut matcher = Matcher::default();
        let mut patterns = Vec::new();
        while patterns.len() < 200 {
            let source = random.group(2);
            // Ranges that can never match are refused.
            let Ok(pattern) = Pattern::parse(&source) else { continue };
            let key = patterns.len();
            matcher.insert(key, &pattern);
            patterns.push((key, source, pattern));
        }
        for _ in 0..random.below(120) {
            let key = random.below(200);
            matcher.remove(key);
            patterns.retain(|(other, ..)| *other != key);
            if random.below(2) == 0 {
                let source = random.group(1);
                let Ok(pattern) = Pattern::parse(&source) else { continue };
                matcher.insert(key, &pattern);
                patterns.push((key, source, pattern));
            }
        }
        assert_eq!(matcher.len(), patterns.len());
        for _ in 0..60 {
            let event = loop {
                let event = random.event(4);
                if event.is_object() {
                    break event;
                }
            };
            let expected: Vec<usize> =
                patterns.iter().filter(|(_, source, _)| Naive::matches(source, &event)).map(|(key, ..)| *key).collect();
            let text = event.to_string();
            let actual = matcher.matches_json(text.as_bytes()).unwrap();
            let differs = |(key, ..): &&(usize, Value, Pattern)| expected.contains(key) != actual.contains(key);
            assert_eq!(
                actual,
                expected,
                "{event}: {:?}",
                patterns.iter().find(differs).map(|(_, source, _)| source.to_string())
            );
            (found, asked) = (found + actual.len(), asked + patterns.len());
        }
    }
    let share = found as f64 / f64::from(u32::try_from(asked).unwrap());
    assert!((0.02..0.5).contains(&share), "patterns and events meet too rarely or too often to prove much: {share}");
}

#[test]
fn explain_agrees_with_the_matcher() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..3_000 {
        let source = json!({ "data": random.group(2) });
        let Ok(pattern) = Pattern::parse(&source) else { continue };
        let mut matcher = Matcher::default();
        matcher.insert((), &pattern);
        let data = random.event(4).to_string();
        let event = EventView::new([("id", "1")], DataView::Json(data.as_bytes()));
        let matches = !matcher.matches(&event).unwrap().is_empty();
        assert_eq!(explain(&pattern, &event).unwrap().matches, matches, "{source} on {data}");
    }
}

#[test]
fn no_bytes_make_the_matcher_panic() {
    let mut random = Random(0xdead_beef_cafe_f00d);
    let mut matcher = Matcher::default();
    for key in 0..50 {
        if let Ok(pattern) = Pattern::parse(&random.group(2)) {
            matcher.insert(key, &pattern);
        }
    }
    for _ in 0..5_000 {
        let mut bytes = random.event(3).to_string().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes.insert(at, random.pick(b"{}[]\",:\\u0e-. \xff")),
                _ => bytes.truncate(at.max(1)),
            }
        }
        // Whatever is taken is JSON for another reader too, but for lone surrogates and numbers beyond `f64`.
        let taken = matcher.matches_json(&bytes).is_ok();
        let other = serde_json::from_slice::<Box<serde_json::value::RawValue>>(&bytes);
        let is_object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        assert_eq!(taken, other.is_ok() && is_object, "{:?}", String::from_utf8_lossy(&bytes));
    }
}

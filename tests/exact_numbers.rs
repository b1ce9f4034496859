//! Numbers keep their exact value on every way: in the manifest, in events, in `--pattern` and in the output.

use crate::support::Evoke;

const MANIFEST: &str = r#"
evoke: 1
app: lab
functions:
  exact:
    component: $FUNCTIONS/fate-reject.wasm
    retry: { attempts: 1 }
    order_by: data.n
    on:
      - events: { type: [lab.in], data: { n: [99999999999999999999] } }
  ranged:
    component: $FUNCTIONS/echo.wasm
    allow: { publish: [echo] }
    on:
      - events: { type: [lab.in], data: { m: [{ numeric: [">", 1.00000000000000000001, "<", 1e999999999] }] } }
"#;

/// Events with these data are sent in this order.
const DATA: [&str; 4] = [
    r#"{"n":99999999999999999999}"#,
    r#"{"n":100000000000000000000}"#,
    r#"{"m":1.0000000000000000000100,"n":12345678901234567}"#,
    r#"{"m":1.000000000000000000011,"n":1e999999999}"#,
];

#[test]
fn numbers_stay_exact_from_the_event_to_patterns_and_output() {
    let evoke = Evoke::up_with(MANIFEST);
    for (id, data) in ["a", "b", "c", "d"].into_iter().zip(DATA) {
        evoke.stdout(&["emit", "--type", "lab.in", "--id", id, "--data", data]);
    }
    evoke.settle();

    let matches = |id: &str| -> Vec<String> {
        let explained = evoke.json(&["explain", id]);
        let triggers = explained.as_array().unwrap().iter().filter(|trigger| trigger["matched"] == true);
        triggers.map(|trigger| trigger["function"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(matches("a"), ["lab/exact"]);
    assert_eq!(matches("b"), [""; 0]);
    assert_eq!(matches("c"), [""; 0]);
    assert_eq!(matches("d"), ["lab/ranged"]);

    // Every output shows the numbers as the events have them.
    let lines = evoke.stdout(&["events", "--type", "lab.in"]);
    let json = evoke.stdout(&["events", "--type", "lab.in", "--json"]);
    for data in DATA {
        assert!(lines.contains(data), "{data} in {lines}");
        assert!(json.contains(data), "{data} in {json}");
    }
    let number = evoke.json_lines(&["dead", "list"])[0]["delivery"]["id"].to_string();
    let dead = evoke.stdout(&["dead", "show", &number]);
    assert!(dead.contains("\"n\": 99999999999999999999\n"), "{dead}");
    let explained = evoke.stdout(&["explain", "b", "--function", "lab/exact"]);
    assert!(
        explained.contains("100000000000000000000\n") && explained.contains("✗ 99999999999999999999"),
        "{explained}"
    );

    // A pattern from the command line and through the admin API selects the same events.
    for (pattern, events) in [
        (r#"{"data":{"n":[99999999999999999999]}}"#, 1),
        (r#"{"data":{"n":[99999999999999999998]}}"#, 0),
        (r#"{"data":{"n":[12345678901234567]}}"#, 0),
        (r#"{"data":{"n":[10e999999998]}}"#, 1),
        (r#"{"data":{"n":[{"numeric":[">",1e999999998]}]}}"#, 1),
        (r#"{"data":{"n":[{"anything-but":1e999999999}]}}"#, 1),
    ] {
        let plan = evoke.json(&["replay", "--dry-run", "--pattern", pattern]);
        assert_eq!(plan["events"], events, "{pattern}: {plan}");
    }
}

#[test]
fn suspicious_patterns_of_a_replay_give_warnings() {
    let evoke = Evoke::up_with(MANIFEST);
    for (pattern, warning) in [
        (r#"{"tpye":["lab.in"]}"#, "warning: --pattern: tpye: `tpye` is not an attribute of CloudEvents"),
        (r#"{"type":["lab.*"]}"#, r#"did you mean {"wildcard": "lab.*"}?"#),
        (r#"{"type":["${TYPE}"]}"#, "`${TYPE}` is not replaced"),
        (r#"{"detail":{"n":[1]}}"#, "a CloudEvent has no field `detail`"),
    ] {
        let output = evoke.run(&["replay", "--dry-run", "--pattern", pattern]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.contains(warning), "{pattern}: {stderr}");
    }
    let output = evoke.run(&["replay", "--dry-run", "--pattern", r#"{"type":["lab.in"]}"#]);
    assert!(output.status.success() && output.stderr.is_empty());
}

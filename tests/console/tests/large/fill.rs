//! Fills a store through `evoke emit`: mostly readings that no function takes, and deliveries in every state.

use std::io::{BufWriter, Write as _};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Evoke, POLL};

pub(super) const MANIFEST: &str = r#"
evoke: 1
app: shop
sources:
  checkout: { http: { path: /checkout, type: order.placed } }
functions:
  charge:                               # done, and some dead letters
    component: $FUNCTIONS/charge.wasm
    on: [{ events: { type: [order.placed] } }]
    allow: { publish: ["payment.*"], config: { CURRENCY: EUR } }
  receipt:
    component: $FUNCTIONS/receipt.wasm
    on: [{ events: { type: [payment.taken] } }]
    allow: { publish: ["receipt.*"] }
  notify:
    component: $FUNCTIONS/notify.wasm
    on: [{ events: { type: [receipt.issued] } }]
  refuse:                               # dead letters, each with a cause of its own
    component: $FUNCTIONS/fate-reject.wasm
    on: [{ events: { type: [order.refused] } }]
  ledger:                               # one dead letter, and many blocked behind it
    component: $FUNCTIONS/fate-reject.wasm
    on: [{ events: { type: [ledger.entry] } }]
    order_by: data.account
  gateway:                              # retrying
    component: $FUNCTIONS/fate-retry.wasm
    on: [{ events: { type: [gateway.call] } }]
    retry: { attempts: 100, max_age: 30d }
  audit:                                # paused: ready
    component: $FUNCTIONS/notify.wasm
    on: [{ events: { type: [audit.entry] } }]
  idle:                                 # no event matches
    component: $FUNCTIONS/notify.wasm
    on: [{ events: { type: [never.sent] } }]
"#;

/// The functions with pending deliveries, and the number of lines for each hundred.
const READY: u64 = 2;
const BLOCKED: u64 = 1;
const RETRYING: u64 = 1;
/// Filling ends when nothing has changed for so long: every attempt then has ended.
const QUIET: Duration = Duration::from_secs(2);
/// A backlog that does not get smaller for so long will not.
const STUCK: Duration = Duration::from_secs(120);

/// The contents of the store.
pub(super) struct Filled {
    /// The number of lines; functions have published more events.
    pub(super) lines: u64,
    /// All events.
    pub(super) events: u64,
    /// The accept time of the first line and of the last event, in milliseconds.
    pub(super) range_ms: (i64, i64),
    /// A dead letter.
    pub(super) dead: u64,
    /// The first event, as a row of a list.
    pub(super) first: Value,
}

impl Filled {
    pub(super) async fn fill(evoke: &Evoke, lines: u64) -> Self {
        evoke.stdout(&["pause", "shop/audit"]);
        let started = Instant::now();
        evoke.emit(|input| (0..lines).for_each(|n| line(input, n, lines)));
        let took = started.elapsed();
        let events = settle(evoke).await;
        let (emitted, settled) = (took.as_secs_f64(), started.elapsed().as_secs_f64());
        println!(
            "{lines} lines in {emitted:.0} s, {:.0} a second; {events} events, all attempts ended after {settled:.0} s",
            lines as f64 / emitted
        );
        println!("{}", evoke.stdout(&["status"]));
        let rows = |arguments: &[&str]| -> Vec<Value> {
            evoke.stdout(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let first = rows(&["events", "--json", "--envelope", "--after", "0", "-n", "1"]).remove(0);
        let last = rows(&["events", "--json", "--envelope", "-n", "1"]).remove(0);
        let dead = rows(&["dead", "list", "--json", "-n", "1"]).remove(0);
        let range_ms = (milliseconds(&first["accepted"]), milliseconds(&last["accepted"]));
        Self { lines, events, range_ms, dead: dead["delivery"]["id"].as_u64().unwrap(), first }
    }
}

/// Parses the time of an event: RFC 3339 in UTC with milliseconds.
fn milliseconds(time: &Value) -> i64 {
    let text = time.as_str().unwrap();
    let output = std::process::Command::new("date").args(["--date", text, "+%s%3N"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Writes the CloudEvent of a line.
fn line(input: &mut BufWriter<impl std::io::Write>, n: u64, lines: u64) {
    let plant = n % 7;
    let data = match n % 100 {
        // One of ten orders is a dead letter.
        0 | 1 => {
            let total = if n % 1_000 < 100 { 0 } else { n % 500 + 1 };
            let customer = n % 97;
            format!(
                r#"order.placed","source":"/web","data":{{"customer":"c-{customer}","total":{total},"items":["book"]}}"#
            )
        }
        2 => format!(r#"order.refused","source":"/web","data":{{"order":{n}}}"#),
        3 => format!(r#"ledger.entry","source":"/bank","data":{{"account":"main","n":{n}}}"#),
        4 => r#"gateway.call","source":"/bank","data":{"after_ms":43200000}"#.to_owned(),
        5 | 6 => format!(r#"audit.entry","source":"/bank","data":{{"n":{n}}}"#),
        _ if n == 7 || n == lines / 2 / 100 * 100 + 7 => {
            format!(r#"alarm.raised","source":"/plant/{plant}","subject":"boiler","data":{{"word":"needle","at":{n}}}"#)
        }
        kind => {
            let name = ["temperature", "pressure", "humidity", "vibration"][usize::try_from(kind % 4).unwrap()];
            let (sensor, value) = (n % 1_000, n % 40);
            format!(
                r#"sensor.{name}","source":"/plant/{plant}","subject":"s-{sensor}","data":{{"sensor":"s-{sensor}","value":{value}.5,"at":{n}}}"#
            )
        }
    };
    writeln!(input, r#"{{"specversion":"1.0","type":"{data}}}"#).unwrap();
}

/// Waits until every attempt has ended. Returns the number of events.
async fn settle(evoke: &Evoke) -> u64 {
    let (mut last, mut since) = (Value::Null, Instant::now());
    let (mut least, mut progress) = (u64::MAX, Instant::now());
    loop {
        let status: Value = serde_json::from_str(&evoke.stdout(&["status", "--json"])).unwrap();
        let functions = status["functions"].as_array().unwrap();
        let of = |name: &str| functions.iter().map(|one| one[name].as_u64().unwrap_or_default()).sum::<u64>();
        let ready = functions.iter().filter(|one| one["name"] != "shop/audit");
        let waiting = ready.map(|one| one["ready"].as_u64().unwrap()).sum::<u64>();
        let counts =
            serde_json::json!([status["events"], of("done"), of("dead"), of("retrying"), of("blocked"), waiting]);
        if counts != last {
            (last, since) = (counts, Instant::now());
        }
        if waiting < least {
            (least, progress) = (waiting, Instant::now());
        }
        if waiting == 0 && since.elapsed() > QUIET {
            return status["events"].as_u64().unwrap();
        }
        assert!(waiting == 0 || progress.elapsed() < STUCK, "{waiting} deliveries stay ready: {status}");
        tokio::time::sleep(POLL).await;
    }
}

/// The number of pending deliveries in the three states, from the number of lines.
pub(super) fn pending(lines: u64) -> u64 {
    (READY + BLOCKED + RETRYING) * (lines / 100)
}

//! The guest of the conformance suite in Rust. `how`, an extension or a member of the data, selects the action.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evoke::{Delivery, Draft, Event, Failure, config, http, log, publish, secret, state};
use serde_json::{Value, json};

fn look_up(table: &BTreeMap<&str, Vec<u32>>) -> u32 {
    table["missing"][3]
}

#[evoke::function]
fn handle(event: Event, delivery: Delivery) -> Result<(), Failure> {
    let how = match event.extension("how") {
        Some(how) => how.to_owned(),
        None => event.json::<Value>()?["how"].as_str().unwrap_or_default().to_owned(),
    };
    let put = |kind: &str, data: Value| publish(Draft::new(format!("c.{kind}")).json(&data)?).map_err(Failure::from);
    match how.as_str() {
        "echo" => {
            let mut draft = Draft::new("c.echo").data("application/json", event.data());
            draft.subject = event.subject.clone();
            draft.extensions = event.extensions.clone();
            publish(draft)?;
        }
        "bytes" => {
            publish(Draft::new("c.bytes").data("application/octet-stream", event.data()))?;
        }
        "order" => {
            for n in 0..5 {
                put("order", json!(n))?;
            }
        }
        "reject" => return Err(Failure::reject("not today: grün 😀")),
        "retry" => return Err(Failure::retry("later").retry_after(Duration::from_millis(1500))),
        "throw" => {
            look_up(&BTreeMap::from([("missing", Vec::new())]));
        }
        "undo" => {
            put("undo", json!(1))?;
            state::set("undo", &1)?;
            return Err(Failure::retry("undone"));
        }
        "refused" => {
            publish(Draft::new("other.type").json(&1)?)?;
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "state" => {
            state::set("text", "grün 😀")?;
            state::own()?.set_bytes("raw", &[0, 255])?;
            let count = state::increment("count", 3)?;
            state::update("list", |list: Option<Vec<u32>>| [list.unwrap_or_default(), vec![1]].concat())?;
            state::delete("gone")?;
            let mut keys = state::keys()?;
            keys.sort();
            let raw = state::own()?.bytes("raw")?;
            put(
                "state",
                json!({
                    "count": count, "text": state::get::<String>("text")?, "has": state::exists("gone")?, "keys": keys,
                    "before": state::get::<Value>("before")?, "raw": raw,
                }),
            )?;
        }
        "shared" => {
            let seen: u64 = state::shared()?.increment("seen", 1)?;
            put("shared", json!(seen))?;
        }
        "config" => {
            put(
                "config",
                json!({ "set": config::get("SET"), "unset": config::get("UNSET"), "secret": secret("SECRET") }),
            )?;
        }
        "http" => {
            let url = config::get("URL").unwrap_or_default();
            let sent = http::post(format!("{url}/echo?n=1")).json(&json!({ "text": "grün 😀" }))?.send()?.ok()?;
            let second = http::put(format!("{url}/echo")).body("x".repeat(10_000)).send()?.ok()?;
            let missing = http::get(format!("{url}/missing")).send()?.status();
            let (sent, second): (Value, Value) = (sent.json()?, second.json()?);
            put("http", json!([sent, second["size"], second["key"], missing]))?;
        }
        "http status" => {
            let data: Value = event.json()?;
            let url = config::get("URL").unwrap_or_default() + data["path"].as_str().unwrap_or_default();
            http::get(url).send()?.ok()?;
        }
        "outside" => {
            let random = [0, 1].map(|n: u64| RandomState::new().hash_one(n));
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            put("outside", json!({ "wall": wall, "random": random }))?;
        }
        "http origin" => {
            http::get("http://elsewhere.example/").send()?.ok()?;
        }
        "big" => {
            put("big", json!("ü".repeat(300_000)))?;
        }
        "log" => {
            log::log(log::Level::Info, "", "grün 😀");
            log::log(log::Level::Warn, "", "careful");
            log::log(log::Level::Error, "", "wrong");
        }
        "delivery" => {
            let Delivery { id, attempt, replay, trigger, .. } = delivery;
            put("delivery", json!({ "id": id, "attempt": attempt, "replay": replay, "trigger": trigger }))?;
        }
        _ => {}
    }
    Ok(())
}

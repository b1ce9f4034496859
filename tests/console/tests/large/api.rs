//! The requests that the console and the command line send, with the time until their parts arrive.

use std::time::Duration;

use serde_json::{Value, json};

use super::fill::{Filled, pending};
use super::{Memory, Report, Timer, Timing};
use crate::support::{Evoke, eventually};

/// A search of the console ends here; it takes one request for each fifth of a second.
const REQUESTS_MAX: usize = 600;
/// Searches that clients begin and leave.
const LEFT: usize = 40;
/// The processor time of a second in which nothing is asked for: the status, sampled rates, retention.
const IDLE_MAX: Duration = Duration::from_millis(500);

struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    fn new(evoke: &Evoke) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, base: format!("http://{}", evoke.admin), token: evoke.token() }
    }

    fn request(&self, path: &str, body: Option<&Value>) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.base);
        let request = match body {
            None => self.http.get(url),
            Some(body) => self.http.post(url).header("content-type", "application/json").body(body.to_string()),
        };
        request.bearer_auth(&self.token)
    }

    /// Sends a request and reads the response as it arrives. Returns its body.
    async fn read(&self, path: &str, body: Option<&Value>) -> (Timing, String) {
        let mut timer = Timer::start();
        let mut response = self.request(path, body).send().await.unwrap();
        let (status, mut bytes) = (response.status(), Vec::new());
        while let Some(chunk) = response.chunk().await.unwrap() {
            timer.part();
            bytes.extend(chunk);
        }
        let text = String::from_utf8(bytes).unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        (timer.end(), text)
    }

    /// Follows the pages of a search as the console does, until it has `wanted` rows. Returns the number of rows and of
    /// searched events. A page is news, also one without rows: the console shows how far the search has come.
    async fn pages(
        &self,
        send: impl Fn(Option<&Value>) -> (String, Option<Value>),
        wanted: usize,
    ) -> (Timing, u64, u64) {
        let (mut timing, mut rows, mut searched, mut next) = (Timing::default(), 0, 0, None::<Value>);
        for request in 0..REQUESTS_MAX {
            let (path, body) = send(next.as_ref());
            let (one, text) = self.read(&path, body.as_ref()).await;
            let page: Value = serde_json::from_str(&text).unwrap();
            rows += page["rows"].as_array().unwrap().len();
            searched += page["scanned"].as_u64().unwrap();
            match request {
                0 => timing.first = one.all,
                _ => timing.pause = timing.pause.max(one.all),
            }
            timing.all += one.all;
            next = page.get("next").cloned();
            if next.is_none() || rows >= wanted {
                break;
            }
        }
        (timing, rows as u64, searched)
    }
}

/// The pages of the console that are searches: a name, the query, and the least number of rows.
fn searches(filled: &Filled) -> Vec<(&'static str, String, u64)> {
    let (from, to) = filled.range_ms;
    let (third, two_thirds) = (from + (to - from) / 3, from + (to - from) / 3 * 2);
    vec![
        ("events", String::new(), 50),
        ("events of a common type", "type=sensor.temperature".into(), 50),
        ("events by a star", "type=sensor.*".into(), 50),
        ("events of a rare type", "type=alarm.raised".into(), 2),
        ("events of a type that does not exist", "type=nothing".into(), 0),
        ("events of a source", "source=/plant/3".into(), 50),
        ("events of a source that does not exist", "source=/nowhere".into(), 0),
        ("events of a function", "function=shop/receipt".into(), 50),
        ("events of a function that received none", "function=shop/idle".into(), 0),
        ("events that failed", "state=failed".into(), 50),
        ("events that failed at a function that received none", "state=failed&function=shop/idle".into(), 0),
        ("events that are pending", "state=pending".into(), 50),
        ("events with a common text", "text=s-17".into(), 50),
        ("events with a text that is nowhere", "text=zebra".into(), 0),
        ("events of a past time", format!("since_ms={third}&until_ms={two_thirds}"), 0),
        ("a rare type in a past time", format!("type=alarm.raised&since_ms={third}&until_ms={two_thirds}"), 0),
    ]
}

pub(super) async fn measure(evoke: &Evoke, filled: &Filled, report: &mut Report) {
    let client = Client::new(evoke);
    report.head("requests of the console");
    let (_, live) = live(&client).await;
    report.row("the first status of the live stream", live, 1);
    for (name, query, least) in searches(filled) {
        let send = |before: Option<&Value>| {
            let before = before.map(|seq| format!("&before={seq}")).unwrap_or_default();
            (format!("/api/v1/console/events?limit=50&{query}{before}"), None)
        };
        let (timing, rows, searched) = client.pages(send, 50).await;
        assert!(rows >= least.min(filled.lines / 100), "{name}: {rows} rows");
        assert!(least > 0 || rows > 0 || searched > 0, "{name}: nothing was searched");
        report.row(name, timing, rows);
    }
    let (from, to) = filled.range_ms;
    for (name, pattern, wanted) in [
        ("a pattern that matches many", "type: [{ prefix: sensor. }]\ndata: { value: [{ numeric: ['>', 30] }] }", 100),
        ("a pattern that matches few", "type: [alarm.raised]\ndata: { word: [needle] }", usize::MAX),
    ] {
        let send = |before: Option<&Value>| {
            let range = json!({ "since_ms": from, "until_ms": to + 1, "limit": 100, "before": before });
            let mut body = json!({ "pattern": pattern });
            let given = range.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
            body.as_object_mut().unwrap().extend(given.map(|(name, value)| (name.clone(), value.clone())));
            ("/api/v1/console/pattern".to_owned(), Some(body))
        };
        let (timing, rows, searched) = client.pages(send, wanted).await;
        assert!(rows > 0 && searched > 0, "{name}");
        report.row(name, timing, rows);
    }
    lists(&client, filled, report).await;
}

/// The requests that are answered by one response.
async fn lists(client: &Client, filled: &Filled, report: &mut Report) {
    let (middle, id) = (filled.events / 2, filled.first["event"]["id"].as_str().unwrap());
    let dead = filled.dead;
    let waiting = pending(filled.lines);
    // With the least number of lines.
    for (path, least) in [
        ("/api/v1/status".to_owned(), 1),
        ("/metrics".to_owned(), 1),
        ("/api/v1/console/session".to_owned(), 1),
        ("/api/v1/console/flow".to_owned(), 1),
        ("/api/v1/console/rates?range=86400".to_owned(), 1),
        (format!("/api/v1/events/{middle}"), 1),
        (format!("/api/v1/events/{id}"), 1),
        (format!("/api/v1/events/{middle}/deliveries"), 0),
        (format!("/api/v1/trace/{middle}"), 1),
        ("/api/v1/trace/1".to_owned(), 1),
        (format!("/api/v1/explain/{middle}"), 1),
        ("/api/v1/events?limit=20&envelope=true".to_owned(), 20),
        ("/api/v1/events?limit=20&type=alarm.raised&progress=true".to_owned(), 2),
        ("/api/v1/events?limit=20&order=newest&text=zebra&progress=true".to_owned(), 0),
        ("/api/v1/dead?limit=10000".to_owned(), 100),
        ("/api/v1/dead?limit=10000&function=shop/refuse".to_owned(), 100),
        ("/api/v1/dead?limit=100&function=shop/idle".to_owned(), 0),
        ("/api/v1/dead?limit=100&cause=total&progress=true".to_owned(), 20),
        ("/api/v1/dead?limit=100&cause=nothing&progress=true".to_owned(), 0),
        ("/api/v1/dead?limit=100&type=order.refused&progress=true".to_owned(), 100),
        ("/api/v1/dead/groups?progress=true".to_owned(), 2),
        (format!("/api/v1/dead/{dead}"), 1),
        ("/api/v1/pending?limit=500".to_owned(), 500.min(waiting)),
        ("/api/v1/pending?limit=500&state=ready".to_owned(), 100),
        ("/api/v1/pending?limit=500&state=retrying".to_owned(), 100),
        ("/api/v1/pending?limit=500&state=blocked".to_owned(), 100),
        ("/api/v1/pending?limit=500&function=shop/audit".to_owned(), 100),
        ("/api/v1/pending?limit=500&function=shop/gateway".to_owned(), 100),
        ("/api/v1/pending?limit=500&function=shop/ledger".to_owned(), 100),
        ("/api/v1/pending?limit=500&function=shop/idle".to_owned(), 0),
        ("/api/v1/pending?limit=500&root=1".to_owned(), 0),
        ("/api/v1/logs?limit=100".to_owned(), 100),
        ("/api/v1/logs?limit=50&function=shop/charge".to_owned(), 50),
        (format!("/api/v1/logs?delivery={dead}"), 0),
        ("/api/v1/scheduled?limit=100".to_owned(), 0),
        ("/api/v1/replays".to_owned(), 0),
        ("/api/v1/state".to_owned(), 0),
        ("/api/v1/timers".to_owned(), 0),
        ("/api/v1/monitors".to_owned(), 0),
        ("/api/v1/grants".to_owned(), 0),
        ("/api/v1/recordings?function=shop/charge".to_owned(), 0),
    ] {
        let (timing, text) = client.read(&path, None).await;
        let rows = text.lines().filter(|line| !line.starts_with(r#"{"searched":"#)).count() as u64;
        assert!(rows >= least, "{path}: {rows} lines");
        report.row(&path, timing, rows);
    }
    report.head("requests before an act");
    for (path, body) in [
        ("/api/v1/replays/plan?progress=true", json!({})),
        ("/api/v1/replays/plan?progress=true", json!({ "type": "alarm.raised" })),
        ("/api/v1/dead/redrive", json!({ "all": true, "dry_run": true })),
        ("/api/v1/dead/redrive", json!({ "function": "shop/refuse", "dry_run": true })),
        ("/api/v1/pending/cancel", json!({ "all": true, "dry_run": true })),
        ("/api/v1/pending/retry", json!({ "function": "shop/gateway", "dry_run": true })),
        ("/api/v1/pending/cancel", json!({ "root": 1, "dry_run": true })),
    ] {
        let (timing, text) = client.read(path, Some(&body)).await;
        report.row(&format!("{path} {body}"), timing, text.lines().count() as u64);
    }
}

/// Reads the live stream until its first status.
async fn live(client: &Client) -> (String, Timing) {
    let mut timer = Timer::start();
    let mut response = client.request("/api/v1/console/live?events=true", None).send().await.unwrap();
    let mut text = String::new();
    while !text.contains("\n\n") {
        let chunk = response.chunk().await.unwrap().expect("the stream goes on");
        text += std::str::from_utf8(&chunk).unwrap();
    }
    timer.part();
    assert!(text.contains("event: status"), "{text}");
    (text, timer.end())
}

/// Searches whose clients have left must end: the process then uses no processor time.
pub(super) async fn leave(evoke: &Evoke, memory: &Memory) {
    let client = Client::new(evoke);
    let paths = [
        "/api/v1/console/events?text=zebra",
        "/api/v1/events?text=zebra&limit=10&order=newest",
        "/api/v1/events?type=nothing&after=0",
        "/api/v1/dead?cause=nothing",
        "/api/v1/dead/groups",
        "/api/v1/pending?limit=10000",
    ];
    for path in paths.into_iter().cycle().take(LEFT) {
        let request = client.request(path, None).send();
        let _ = tokio::time::timeout(Duration::from_millis(20), request).await;
    }
    drop(client);
    let mut last = memory.processor_time();
    eventually("searches without a client end", async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = memory.processor_time();
        let used = now.saturating_sub(std::mem::replace(&mut last, now));
        (used < IDLE_MAX).then_some(())
    })
    .await;
    println!("\n{LEFT} searches whose clients left have ended");
}

//! Tests of the limits on the bytes of requests and responses.

use super::*;
use crate::admin::routes::PATTERN_BODY_MAX;

#[tokio::test]
async fn a_body_with_a_pattern_is_small_and_has_room_for_the_longest_pattern() {
    let api = Api::new().await;
    let post = async |path: &str, body: String| {
        read_response(api.send("POST", path, "application/json", body.into_bytes()).await).await
    };
    let many_values = format!(r#"{{"pattern":[{}0]}}"#, "0,".repeat(PATTERN_BODY_MAX / 2));
    // A pattern of almost 64 KiB, in which each byte of the text is an escape.
    let long_text = format!(r#"{{"pattern":{{"type":["{}"]}}}}"#, r"\u0061".repeat(65_000));
    for path in ["/api/v1/replays/plan", "/api/v1/replays", "/api/v1/scheduled/cancel"] {
        let (status, text) = post(path, many_values.clone()).await;
        assert_eq!(status, 413, "{path}: {text}");
        assert!(text.contains("length limit"), "{path}: {text}");
        let (status, text) = post(path, long_text.clone()).await;
        assert!(status.is_success(), "{path}: {status}: {text}");
    }
    let (path, body) = ("/api/v1/console/pattern", format!(r#"{{"pattern":"{}"}}"#, " ".repeat(PATTERN_BODY_MAX)));
    assert_eq!(post(path, body).await.0, 413, "{path}");
}

/// Stores events with long attributes. Returns the number of events.
async fn store_long_events(api: &Api) -> i64 {
    const COUNT: i64 = 180;
    for n in 1..=COUNT {
        let mut event = event(&format!("{n:0>1000}"), &"t".repeat(1_000));
        event["source"] = "s".repeat(2_000).into();
        event["subject"] = "u".repeat(20_000).into();
        let new = api.new_event(&event, Lineage::default(), n % 2 == 0);
        api.store.accept(vec![new], Vec::new()).await.unwrap();
    }
    COUNT
}

#[tokio::test(start_paused = true)]
async fn a_page_of_the_console_ends_at_its_size_and_the_next_one_continues() {
    let api = Api::new().await;
    let count = store_long_events(&api).await;
    let (mut seqs, mut before, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (status, page) = api.get(&format!("/api/v1/console/events?limit=200{before}")).await;
        assert_eq!(status, 200, "{page}");
        let bytes = page.to_string().len();
        assert!(bytes < 192 * 1024, "{bytes} bytes");
        seqs.extend(numbers(page["rows"].as_array().unwrap()));
        pages += 1;
        let Some(next) = page["next"].as_i64() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(seqs, (1..=count).rev().collect::<Vec<_>>());
    assert!(pages > 1);
    let body = json!({ "pattern": "source: [{ prefix: s }]", "limit": 200 });
    let (_, found) = api.post("/api/v1/console/pattern", &body).await;
    let bytes = found.to_string().len();
    assert!(bytes < 192 * 1024, "{bytes} bytes");
    assert_eq!((found["matched"].as_i64(), found["diagnostics"].as_array().unwrap().len()), (Some(count), 0));
}

#[tokio::test(start_paused = true)]
async fn the_graph_of_the_console_has_no_long_attributes() {
    let api = Api::new().await;
    store_long_events(&api).await;
    let (_, flow) = api.get("/api/v1/console/flow").await;
    let edges = flow["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 2, "{edges:?}");
    assert!(edges.iter().all(|edge| edge.to_string().len() < 1_000), "{edges:?}");
}

#[tokio::test]
async fn scheduled_events_with_long_attributes_are_listed_once_each_in_order() {
    let api = Api::new().await;
    for n in 1..=20 {
        let mut event = event(&n.to_string(), "t");
        event["subject"] = "u".repeat(20_000).into();
        event["notbefore"] = "1970-01-02T00:00:00Z".into();
        assert_eq!(api.post("/api/v1/events", &event).await.0, 202);
    }
    let listed = async |limit| {
        let lines = api.lines(&format!("/api/v1/scheduled?limit={limit}")).await;
        lines.iter().map(|line| line["event"]["seq"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(listed(100).await, (1..=20).collect::<Vec<_>>());
    assert_eq!(listed(7).await, (1..=7).collect::<Vec<_>>());
}

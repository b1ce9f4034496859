//! Tests of tokens, roles and limits.

use std::io;
use std::time::Duration;

use futures_util::{FutureExt as _, stream};

use super::*;
use crate::admin::pace;
use crate::admin::routes::routes;
use crate::admin::tokens::Role;

/// Returns the path of a route with values in place of its variable segments.
fn concrete(path: &str) -> String {
    path.replace("{ref}", "1").replace("{delivery}", "1").replace("{id}", "1").replace("{action}", "pause")
}

#[tokio::test]
async fn every_route_needs_a_token_and_every_change_needs_an_operator() {
    let api = Api::new().await;
    let viewer = api.tokens.create("v", Role::Viewer, None).unwrap().token;
    for (method, path, role, _) in routes() {
        let path = concrete(path);
        let status = async |headers: &[(&str, &str)]| {
            let response = api.send_with(method.as_str(), &path, headers, Vec::new()).await;
            (response.status().as_u16(), response.headers().get("www-authenticate").cloned())
        };
        for headers in [
            [].as_slice(),
            &[("authorization", "Bearer evoke_x")],
            &[("authorization", "Bearer ")],
            &[("authorization", &api.owner)],
            &[("authorization", &format!("Basic {}", api.owner))],
            &[("authorization", &format!("Bearer {viewer}")), ("authorization", &format!("Bearer {}", api.owner))],
        ] {
            let (status, challenge) = status(headers).await;
            assert_eq!((status, challenge.as_ref().map(|c| c.as_bytes())), (401, Some(&b"Bearer"[..])), "{path}");
        }
        let of_viewer = status(&[("authorization", &format!("Bearer {viewer}"))]).await.0;
        assert_eq!(of_viewer == 403, role == Role::Operator, "{method} {path}: {of_viewer}");
        // These requests of viewers use POST, but they change nothing stored.
        let is_harmless = path == "/api/v1/replays/plan" || path.starts_with("/api/v1/console/");
        assert!(role == Role::Operator || method.is_safe() || is_harmless, "{method} {path}");
        let of_owner = status(&[("authorization", &format!("bearer {}", api.owner))]).await.0;
        assert!(![401, 403, 405].contains(&of_owner), "{method} {path}: {of_owner}");
    }
    // Without a token, a request for an unknown path or method gets the same response.
    for (method, path) in
        [("GET", "/api/v2"), ("OPTIONS", "/api/v1/status"), ("POST", "/healthz"), ("GET", "//healthz")]
    {
        assert_eq!(api.send_with(method, path, &[], Vec::new()).await.status(), 401, "{method} {path}");
    }
}

/// Without TLS, another user of the machine can have the name `localhost`.
#[tokio::test]
async fn neither_the_page_nor_a_session_of_the_console_has_the_name_localhost() {
    const SESSION: &str = "/api/v1/console/session";
    let api = Api::new().await;
    let (by_name, json_type) = (("host", "localhost:8081"), ("content-type", "application/json"));
    let code = async || {
        let (status, made) = api.post("/api/v1/console/codes", &json!({})).await;
        assert_eq!((status.as_u16(), &made["address"]), (201, &json!(ADDRESS)));
        json!({ "code": made["code"] }).to_string().into_bytes()
    };
    let page = api.send_with("GET", "/", &[by_name], Vec::new()).await;
    assert_eq!(page.status(), 307);
    assert_eq!(page.headers()["location"], "http://127.0.0.1:8081/");
    assert_eq!(api.send_with("GET", "/", &[], Vec::new()).await.status(), 200);
    assert_eq!(api.send_with("POST", SESSION, &[by_name, json_type], code().await).await.status(), 403);
    let opened = api.send_with("POST", SESSION, &[json_type], code().await).await;
    let cookie = opened.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let opened: Value = serde_json::from_str(&read_response(opened).await.1).unwrap();
    let session = [("cookie", cookie.as_str()), ("x-evoke-console", opened["key"].as_str().unwrap())];
    assert_eq!(api.send_with("GET", SESSION, &session, Vec::new()).await.status(), 200);
    let named = [session[0], session[1], by_name];
    assert_eq!(api.send_with("GET", SESSION, &named, Vec::new()).await.status(), 401);
    let token = format!("Bearer {}", api.owner);
    let status = api.send_with("GET", "/api/v1/status", &[by_name, ("authorization", &token)], Vec::new()).await;
    assert_eq!(status.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn requests_that_open_a_session_are_limited_and_their_bodies_must_arrive_at_once() {
    let api = Api::new().await;
    let open = |body: Body| {
        let request = Request::builder().method("POST").uri("/api/v1/console/session").header("host", ADDRESS);
        let request = request.header("content-type", "application/json").body(body).unwrap();
        Box::pin(api.service.call(request))
    };
    let endless = || Body::from_stream(stream::pending::<io::Result<Bytes>>());
    let start = tokio::time::Instant::now();
    let mut waiting: Vec<_> = (0..8).map(|_| open(endless())).collect();
    for request in &mut waiting {
        assert!(request.as_mut().now_or_never().is_none(), "the request waits for its body");
    }
    let refused = open(endless()).now_or_never().expect("a ninth request is refused before its body is read").unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    let (_, text) = read_response(refused).await;
    assert!(text.contains("too many requests that open a session of the console: the maximum of 8"), "{text}");
    for path in ["/healthz", "/readyz", "/api/v1/status"] {
        assert_eq!(api.get(path).await.0, 200, "{path}");
    }
    for request in waiting {
        let (status, text) = read_response(request.await.unwrap()).await;
        assert_eq!(status, 408, "{text}");
        assert!(text.contains("the body did not arrive within 1 s"), "{text}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let unknown_code = open(Body::from(r#"{"code":"x"}"#)).await.unwrap();
    assert_eq!(unknown_code.status(), 401);
}

#[tokio::test]
async fn a_revoked_token_ends_its_responses_in_progress() {
    let api = Api::new().await;
    let token = format!("Bearer {}", api.tokens.create("v", Role::Viewer, None).unwrap().token);
    let follow = api.send_with("GET", "/api/v1/events?follow=true", &[("authorization", &token)], Vec::new()).await;
    assert_eq!(follow.status(), 200);
    let (status, count) = read_response(api.send("DELETE", "/api/v1/tokens/v", "", Vec::new()).await).await;
    assert_eq!((status.as_u16(), count.as_str()), (200, "{\"count\":1}\n"));
    assert!(follow.into_body().collect().await.is_err(), "the response is cut off");
    let after = api.send_with("GET", "/api/v1/status", &[("authorization", &token)], Vec::new()).await;
    assert_eq!(after.status(), 401);
}

#[tokio::test]
async fn the_number_of_followers_is_limited_and_other_requests_continue() {
    let api = Api::new().await;
    let mut followers = Vec::new();
    let refused = loop {
        let path = if followers.len() % 2 == 0 { "/api/v1/events?follow=true" } else { "/api/v1/logs?follow=true" };
        let response = api.send("GET", path, "", Vec::new()).await;
        if response.status() != 200 {
            break response;
        }
        followers.push(response);
    };
    assert_eq!((followers.len(), refused.status().as_u16()), (32, 503));
    let viewer = format!("Bearer {}", api.tokens.create("v", Role::Viewer, None).unwrap().token);
    assert_eq!(refused.headers()["retry-after"], "1");
    let (_, text) = read_response(refused).await;
    assert!(text.contains("too many followed lists: the maximum of 32"), "{text}");
    assert_eq!(api.get("/api/v1/status").await.0, 200);
    assert!(api.lines("/api/v1/events").await.is_empty());
    // Viewers can have only 24 of the 32 permits, so that some are left for operators.
    followers.truncate(7);
    let follow = async || {
        let headers = [("authorization", viewer.as_str())];
        api.send_with("GET", "/api/v1/logs?follow=true", &headers, Vec::new()).await
    };
    loop {
        let response = follow().await;
        match response.status().as_u16() {
            200 => followers.push(response),
            // The permits of dropped responses are free when their tasks have ended.
            _ if followers.len() < 31 => tokio::task::yield_now().await,
            _ => break,
        }
    }
    assert_eq!(followers.len(), 31);
    // The permit is free when the task of the dropped response has ended.
    while api.send("GET", "/api/v1/logs?follow=true", "", Vec::new()).await.status() != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let api = Api::new().await;
    let data = "x".repeat(100_000);
    for n in 0..4 {
        let event = json!({ "id": n.to_string(), "source": "/test", "type": "t", "data": data });
        assert_eq!(api.post("/api/v1/events", &event).await.0, 202);
    }
    let mut slow = api.send("GET", "/api/v1/events", "", Vec::new()).await.into_body();
    assert!(slow.frame().await.unwrap().unwrap().into_data().unwrap().len() <= pace::PART_BYTES_MAX);
    tokio::time::sleep(pace::PART_TIME_MAX + Duration::from_secs(3)).await;
    assert!(slow.frame().await.unwrap().is_err());
    // A client that has read everything and waits for new events is not cut off.
    let mut follow = api.send("GET", "/api/v1/events?follow=true&limit=0", "", Vec::new()).await.into_body();
    tokio::select! {
        frame = follow.frame() => panic!("{frame:?}"),
        () = tokio::time::sleep(10 * pace::PART_TIME_MAX) => {}
    }
    api.post("/api/v1/events", &event("new", "t")).await;
    assert!(follow.frame().await.unwrap().is_ok());
}

#[tokio::test]
async fn following_after_a_position_limits_the_stored_events_and_not_the_new_ones() {
    let api = Api::new().await;
    for id in ["1", "2", "3", "4"] {
        api.post("/api/v1/events", &event(id, "t")).await;
    }
    let path = "/api/v1/events?follow=true&after=1&limit=2&envelope=true";
    let mut body = api.send("GET", path, "", Vec::new()).await.into_body();
    let mut next = async || {
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let text = String::from_utf8(data.into()).unwrap();
        numbers(&text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(next().await, [2, 3]);
    api.post("/api/v1/events", &event("5", "t")).await;
    assert_eq!(next().await, [5]);
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let api = Api::new().await;
    let (status, made) =
        api.post("/api/v1/tokens", &json!({ "name": "ci", "role": "operator", "expires_in_s": 60 })).await;
    assert_eq!((status.as_u16(), &made["expires"]), (201, &json!("1970-01-01T00:01:01.000Z")));
    assert!(made["token"].as_str().unwrap().starts_with("evoke_"), "{made}");
    let names: Vec<_> = api.lines("/api/v1/tokens").await.into_iter().map(|token| token["name"].clone()).collect();
    assert_eq!(names, ["owner", "ci"]);
    for (body, status) in [
        (json!({ "name": "ci", "role": "viewer" }), 409),
        (json!({ "name": "a b", "role": "viewer" }), 400),
        (json!({ "name": "a", "role": "admin" }), 400),
        (json!({ "name": "a" }), 400),
    ] {
        assert_eq!(api.post("/api/v1/tokens", &body).await.0.as_u16(), status, "{body}");
    }
    for (name, status) in [("owner", 409), ("nobody", 404), ("ci", 200), ("ci", 404), ("%ff", 400)] {
        let response = api.send("DELETE", &format!("/api/v1/tokens/{name}"), "", Vec::new()).await;
        assert_eq!(response.status().as_u16(), status, "{name}");
    }
}

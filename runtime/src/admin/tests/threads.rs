//! Tests that requests parse large bodies, and parse, check and match patterns, on threads for blocking work. The
//! threads of the runtime also serve the public listeners, so a request must not compute for long on them.

use std::sync::mpsc;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::*;
use crate::admin::permits::INLINE_BODY_MAX;

/// Occupies the only thread for blocking work until it is dropped.
struct Gate {
    _open: mpsc::Sender<()>,
    reached: oneshot::Receiver<()>,
}

impl Gate {
    fn close() -> Self {
        let ((open, opened), (reach, reached)) = (mpsc::channel::<()>(), oneshot::channel());
        tokio::task::spawn_blocking(move || {
            let _ = reach.send(());
            let _ = opened.recv();
        });
        Self { _open: open, reached }
    }
}

/// Sends a request. Returns its response, and the number of times that it waited for the thread for blocking work.
async fn count_jobs(api: &Api, method: &str, path: &str, body: &str) -> ((StatusCode, String), usize) {
    let media_type = if body.is_empty() { "" } else { "application/json" };
    let request = async { read_response(api.send(method, path, media_type, body.into()).await).await };
    let (mut request, mut jobs, mut gate) = (Box::pin(request), 0, Gate::close());
    (&mut gate.reached).await.unwrap();
    loop {
        // The memory store needs no other thread. So after these turns, the request has ended or waits for a job.
        for _ in 0..1_000 {
            if let Some(response) = request.as_mut().now_or_never() {
                return (response, jobs);
            }
            tokio::task::yield_now().await;
        }
        jobs += 1;
        assert!(jobs < 10, "{path} waits for something else");
        // The next gate is behind the job of the request, so it is reached after this job.
        let mut next = Gate::close();
        drop(gate);
        (&mut next.reached).await.unwrap();
        gate = next;
    }
}

#[test]
fn large_bodies_are_parsed_on_threads_for_blocking_work_or_refused() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(1).build().unwrap().block_on(async {
        let api = Api::new().await;
        let (_, delivery) = api.event_with_delivery(event("1", "t")).await;
        api.make_dead(delivery).await;
        let spaces = " ".repeat(INLINE_BODY_MAX);
        for (method, path, body, expected) in [
            ("POST", "/api/v1/events".to_owned(), r#"{"type":"t"}"#, (202, 0, 202, 1)),
            ("POST", "/api/v1/events".into(), r#"[{"type":"t"}]"#, (202, 0, 202, 1)),
            // No function is active, so an edit ends here with 409, and a change of the state with 404.
            ("POST", format!("/api/v1/dead/{delivery}/edit"), r#"{"data":1}"#, (409, 0, 409, 1)),
            ("PUT", "/api/v1/state/a%2Fb/k".into(), r#"{"value":"x"}"#, (404, 0, 404, 1)),
            // The check of the pattern and the search for it are two jobs.
            ("POST", "/api/v1/console/pattern".into(), r#"{"pattern":"type: [t]"}"#, (200, 2, 200, 3)),
            ("POST", "/api/v1/dead/redrive".into(), r#"{"all":true,"dry_run":true}"#, (200, 0, 413, 0)),
            ("POST", "/api/v1/pending/retry".into(), r#"{"all":true,"dry_run":true}"#, (200, 0, 413, 0)),
            ("POST", "/api/v1/pause".into(), r#"{"name":"a/b"}"#, (404, 0, 413, 0)),
        ] {
            let ((small, text), small_jobs) = count_jobs(&api, method, &path, body).await;
            let ((large, _), large_jobs) = count_jobs(&api, method, &path, &format!("{body}{spaces}")).await;
            let actual = (small.as_u16(), small_jobs, large.as_u16(), large_jobs);
            assert_eq!(actual, expected, "{method} {path}: {text}");
        }
    });
}

#[test]
fn patterns_are_parsed_checked_and_matched_on_threads_for_blocking_work() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(1).build().unwrap().block_on(async {
        let api = Api::new().await;
        let mut scheduled = event("2", "t");
        scheduled["notbefore"] = "1970-01-02T00:00:00Z".into();
        assert_eq!(api.post("/api/v1/events", &json!([event("1", "t"), scheduled])).await.0, 202);
        let pattern = r#"{"pattern":{"type":["t"]}}"#;
        let query = "pattern=%7B%22type%22:%5B%22t%22%5D%7D";
        for (method, path, body, expected) in [
            ("GET", "/api/v1/events".to_owned(), "", 0),
            ("GET", "/api/v1/events?text=t&after=0".into(), "", 1),
            ("GET", "/api/v1/events?text=t&order=newest".into(), "", 1),
            ("GET", format!("/api/v1/events?{query}&after=0"), "", 2),
            ("GET", "/api/v1/explain/1".into(), "", 1),
            ("GET", "/api/v1/scheduled".into(), "", 1),
            ("GET", format!("/api/v1/scheduled?{query}"), "", 2),
            ("POST", "/api/v1/scheduled/cancel".into(), r#"{"pattern":{"type":["t"]},"dry_run":true}"#, 2),
            ("POST", "/api/v1/replays/plan".into(), pattern, 3),
            ("POST", "/api/v1/replays/plan?progress=true".into(), pattern, 3),
            ("POST", "/api/v1/replays".into(), pattern, 2),
            ("GET", "/api/v1/replays".into(), "", 1),
            ("GET", "/api/v1/replays/1".into(), "", 1),
            ("POST", "/api/v1/console/pattern".into(), r#"{"pattern":"type: [t]"}"#, 2),
            ("GET", "/api/v1/console/events?text=t".into(), "", 1),
            ("GET", "/api/v1/console/flow".into(), "", 1),
        ] {
            let ((status, text), jobs) = count_jobs(&api, method, &path, body).await;
            assert!(status.is_success(), "{method} {path}: {text}");
            assert_eq!(jobs, expected, "{method} {path}");
        }
    });
}

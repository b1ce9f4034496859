use std::path::Path;

use super::*;
use evoke_model::DeliveryId;
use evoke_sandbox::Level;

fn line(function: &str, delivery: i64, text: &str) -> LogLine {
    LogLine {
        level: Level::Info,
        function: function.into(),
        delivery_id: format!("0a1b2c-{delivery}").into(),
        attempt: 1,
        text: text.into(),
        at_ms: 0,
    }
}

/// Returns the texts of the last `limit` selected lines. Reads them in small pages.
async fn last(logs: &FunctionLogs, filter: &Filter, limit: usize) -> Vec<String> {
    let mut reader = logs.snapshot(filter.clone()).await.unwrap().stored.reader(Some(limit)).unwrap();
    let pages = std::iter::from_fn(|| Some(reader.page(200).unwrap()).filter(|page| !page.is_empty()));
    pages.flatten().map(|line| serde_json::from_str::<Line>(&line).unwrap().text).collect()
}

fn of(function: &str) -> Filter {
    Filter { function: Some(function.into()), ..Filter::default() }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("logs")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn bytes(folder: &Path) -> u64 {
    std::fs::read_dir(folder.join("logs")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn lines_are_read_back_by_function_and_delivery_in_order_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let logs = FunctionLogs::open(folder.path()).unwrap();
    let sink = logs.sink();
    for (function, delivery, text) in [("a/f", 1, "one"), ("a/g", 2, "two"), ("a/f", 3, "three")] {
        sink(line(function, delivery, text));
    }
    assert_eq!(last(&logs, &of("a/f"), 10).await, ["one", "three"]);
    assert_eq!(last(&logs, &of("a/f"), 1).await, ["three"]);
    assert_eq!(last(&logs, &of("a/f"), 0).await, [""; 0]);
    let of_2 = Filter { delivery: Some(DeliveryId(2)), ..Filter::default() };
    assert_eq!(last(&logs, &of_2, 10).await, ["two"]);
    drop((logs, sink));
    let logs = FunctionLogs::open(folder.path()).unwrap();
    logs.sink()(line("a/g", 4, "four"));
    assert_eq!(last(&logs, &Filter::default(), 10).await, ["one", "two", "three", "four"]);
    assert_eq!(last(&logs, &Filter::default(), 2).await, ["three", "four"]);
    let files = names(folder.path());
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files[0].starts_with("a.f.") && files[1].starts_with("a.g."), "{files:?}");
}

#[tokio::test]
async fn a_flood_of_one_function_leaves_the_lines_of_others_and_the_total_is_bounded() {
    const TOTAL: u64 = 40_000;
    let folder = tempfile::tempdir().unwrap();
    let logs = FunctionLogs::open_with(folder.path(), TOTAL).unwrap();
    let sink = logs.sink();
    // 40 lines have some 5,000 bytes: less than a third of the total.
    for n in 0..40 {
        sink(line("a/quiet", n, &format!("quiet {n}")));
    }
    logs.flush().await;
    for function in ["a/flood", "b/flood"] {
        for n in 0..2_000 {
            sink(line(function, n, &format!("{n} {}", "x".repeat(100))));
        }
        logs.flush().await;
        assert!(bytes(folder.path()) <= TOTAL, "{}", bytes(folder.path()));
    }
    let quiet: Vec<String> = (0..40).map(|n| format!("quiet {n}")).collect();
    assert_eq!(last(&logs, &of("a/quiet"), 100).await, quiet);
    for function in ["a/flood", "b/flood"] {
        let found = last(&logs, &of(function), 10_000).await;
        assert!(found.len() > 30 && found.last().unwrap().starts_with("1999 "), "{function}: {}", found.len());
    }
    let all = last(&logs, &Filter::default(), 100_000).await;
    assert_eq!(all[..40], quiet);
    assert_eq!(last(&logs, &Filter::default(), 7).await, all[all.len() - 7..]);
    drop((logs, sink));
    let logs = FunctionLogs::open_with(folder.path(), TOTAL).unwrap();
    assert_eq!(last(&logs, &Filter::default(), 100_000).await, all);
}

#[tokio::test]
async fn many_functions_share_the_files_that_are_open_and_all_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let logs = FunctionLogs::open(folder.path()).unwrap();
    let sink = logs.sink();
    for n in 0..300 {
        sink(line(&format!("a/f{}", n % 100), n, &n.to_string()));
    }
    let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(last(&logs, &Filter::default(), 1_000).await, expected);
    assert_eq!(last(&logs, &of("a/f7"), 1_000).await, ["7", "107", "207"]);
    assert_eq!(names(folder.path()).len(), 100);
}

#[tokio::test]
async fn files_of_earlier_versions_are_read_and_are_deleted_when_room_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    let earlier = |function: &str, ms: u32, text: &str| {
        format!(
            "{{\"at\":\"2026-01-01T00:00:00.{ms:03}Z\",\"level\":\"info\",\"function\":\"{function}\",\"text\":\"{text}\"}}\n"
        )
    };
    let path = |name: &str| folder.path().join("logs").join(name);
    std::fs::write(path("evoke.jsonl.2"), earlier("a/f", 1, "one").repeat(200)).unwrap();
    std::fs::write(path("evoke.jsonl.1"), earlier("a/g", 1, "two") + &earlier("a/f", 2, "three")).unwrap();
    std::fs::write(path("evoke.jsonl"), earlier("a/f", 3, "four") + "{\"at\":\"2026").unwrap();
    std::fs::write(path("notes.txt"), "not a log").unwrap();
    let logs = FunctionLogs::open_with(folder.path(), 20_000).unwrap();
    logs.sink()(line("a/f", 1, "five"));
    assert_eq!(last(&logs, &Filter::default(), 4).await, ["two", "three", "four", "five"]);
    assert_eq!(last(&logs, &of("a/g"), 4).await, ["two"]);
    assert_eq!(last(&logs, &of("a/f"), 1_000).await.len(), 203);
    for n in 0..200 {
        logs.sink()(line("a/h", n, &"x".repeat(100)));
    }
    assert_eq!(last(&logs, &of("a/f"), 1_000).await, ["three", "four", "five"]);
    assert!(names(folder.path()).contains(&"notes.txt".to_owned()));
}

#[tokio::test]
async fn a_follower_gets_every_later_line_of_its_function_once_whatever_others_log() {
    let folder = tempfile::tempdir().unwrap();
    let logs = FunctionLogs::open(folder.path()).unwrap();
    let sink = logs.sink();
    sink(line("a/f", 1, "before"));
    let mut snapshot = logs.snapshot(of("a/f")).await.unwrap();
    let mut of_flood = logs.snapshot(of("a/flood")).await.unwrap().new_lines;
    for _ in 0..3 {
        (0..1_000).for_each(|n| sink(line("a/flood", n, "flood")));
        logs.flush().await;
    }
    sink(line("a/f", 2, "after"));
    let Some(Followed::Line(after)) = snapshot.new_lines.next().await else { panic!("no line") };
    assert_eq!(after.text, "after");
    assert!(snapshot.new_lines.is_empty());
    let mut reader = snapshot.stored.reader(Some(10)).unwrap();
    assert!(reader.page(1_000).unwrap().concat().contains("before"));
    // The follower of `a/flood` has not read its lines. It gets the first ones, and the number of the dropped ones.
    let (mut lines, mut missed) = (0, 0);
    while lines + missed < 3_000 {
        match of_flood.next().await {
            Some(Followed::Line(line)) => lines += u64::from(line.text == "flood"),
            Some(Followed::Missed(count)) => missed += count,
            None => panic!("the log is closed"),
        }
    }
    assert_eq!((lines + missed, missed > 0), (3_000, true));
    drop((logs, sink));
    assert_eq!(of_flood.next().await, None);
}

#[tokio::test]
async fn the_number_of_dropped_lines_is_logged_for_their_function() {
    let folder = tempfile::tempdir().unwrap();
    let logs = FunctionLogs::open(folder.path()).unwrap();
    (0..7).for_each(|_| logs.queue.send(&"a/f".into(), || false));
    logs.sink()(line("a/g", 1, "kept"));
    logs.sink()(line("a/f", 1, "kept"));
    let found = last(&logs, &of("a/f"), 10).await;
    assert!(
        found[0].starts_with("7 lines of this function were dropped: more arrived than could be written"),
        "{found:?}"
    );
    assert_eq!(found[1], "kept");
    assert_eq!(last(&logs, &of("a/g"), 10).await, ["kept"]);
}

#[tokio::test]
async fn a_line_that_a_crash_cut_in_half_is_skipped_and_the_next_one_is_complete() {
    // The second cut is within the two bytes of `ü`.
    for cut in [r#"{"seq":7,"at":"2026"#.as_bytes(), b"{\"text\":\"\xc3"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        std::fs::write(folder.path().join("logs/a.f.7.jsonl"), cut).unwrap();
        let logs = FunctionLogs::open(folder.path()).unwrap();
        logs.sink()(line("a/f", 1, "whole"));
        assert_eq!(last(&logs, &Filter::default(), 10).await, ["whole"]);
        assert_eq!(names(folder.path()), ["a.f.7.jsonl"]);
    }
}

#[tokio::test]
async fn logging_continues_after_the_folder_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let logs = FunctionLogs::open_with(folder.path(), 2_000).unwrap();
    let sink = logs.sink();
    sink(line("a/f", 1, "before"));
    logs.flush().await;
    std::fs::remove_dir_all(folder.path().join("logs")).unwrap();
    for n in 0..20 {
        sink(line("a/f", n, &n.to_string()));
    }
    let found = last(&logs, &Filter::default(), 100).await;
    assert_eq!(found.last().unwrap(), "19");
    assert!(!found.contains(&"before".to_owned()));
}

#[tokio::test]
async fn all_lines_are_read_in_order_with_the_positions_of_few_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    // Lines with the same time are in the order of the files and of their places in a file.
    let count = reader::FOUND_MAX + 10;
    let stored = |n: usize| format!("{{\"at\":\"2026-01-01T00:00:00.000Z\",\"level\":\"info\",\"text\":\"{n}\"}}\n");
    let text: String = (0..count).map(stored).collect();
    std::fs::write(folder.path().join("logs/evoke.jsonl"), text).unwrap();
    let logs = FunctionLogs::open(folder.path()).unwrap();
    logs.sink()(line("a/f", 1, &count.to_string()));
    let mut reader = logs.snapshot(Filter::default()).await.unwrap().stored.reader(None).unwrap();
    let (mut read, mut scans) = (Vec::new(), 0);
    loop {
        let before = read.len();
        loop {
            let page = reader.page(10_000).unwrap();
            if page.is_empty() {
                break;
            }
            read.extend(page.iter().map(|line| serde_json::from_str::<Line>(line).unwrap().text));
        }
        scans += 1;
        assert!(read.len() - before <= reader::FOUND_MAX, "{} lines of one scan", read.len() - before);
        if !reader.needs_scan() {
            break;
        }
        reader.scan().unwrap();
    }
    assert_eq!(scans, 2);
    assert_eq!(read, (0..=count).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_line_of_an_http_request_belongs_to_no_delivery() {
    let of = |id: &str| Line::from(LogLine { delivery_id: id.into(), ..line("a/f", 1, "text") }).delivery;
    assert_eq!(of("0a1b2c-7"), Some(DeliveryId(7)));
    assert_eq!(of("request-0a1b2c-7"), None);
}

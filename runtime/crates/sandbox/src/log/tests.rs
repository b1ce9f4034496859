use std::sync::{Arc, Mutex};

use super::buffer::{BYTES_MAX, LINE_BYTES_MAX};
use super::*;
use crate::secrets::Secrets;
use evoke_model::clock::Clock;

/// The values that a log borrows, and the lines that reached its sink.
struct Harness {
    function: Arc<str>,
    delivery_id: Arc<str>,
    clock: Clock,
    buffer: Mutex<LogBuffer>,
    sink: LogSink,
    lines: Arc<Mutex<Vec<LogLine>>>,
    secrets: Secrets,
}

impl Harness {
    fn new() -> Self {
        let lines: Arc<Mutex<Vec<LogLine>>> = Arc::default();
        let sink = lines.clone();
        Self {
            function: "shop/charge".into(),
            delivery_id: "d-1".into(),
            clock: Clock::system(),
            buffer: Mutex::default(),
            sink: Arc::new(move |line| sink.lock().unwrap().push(line)),
            lines,
            secrets: Secrets::default(),
        }
    }

    fn with_secret(value: &str) -> Self {
        let values = [("KEY".to_owned(), value.to_owned().into())].into();
        Self { secrets: Secrets::new(values).unwrap(), ..Self::new() }
    }

    fn log(&self) -> AttemptLog<'_> {
        let Self { function, delivery_id, clock, buffer, sink, .. } = self;
        AttemptLog { function, delivery_id, attempt: 2, clock, sink, buffer, redactor: self.secrets.redactor() }
    }

    fn texts(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|l| l.text.clone()).collect()
    }
}

#[test]
fn lines_are_joined_from_pieces_and_the_last_one_needs_no_newline() {
    let harness = Harness::new();
    let log = harness.log();
    log.write(Stream::Stdout, b"on");
    log.write(Stream::Stderr, b"other\r\n");
    log.write(Stream::Stdout, b"e\ntwo\n\nthr");
    log.finish();
    assert_eq!(harness.texts(), ["other", "one", "two", "", "thr"]);
    let first = harness.lines.lock().unwrap()[0].clone();
    assert_eq!(
        (first.level, &*first.function, &*first.delivery_id, first.attempt),
        (Level::Warn, "shop/charge", "d-1", 2)
    );
}

#[test]
fn a_line_on_stderr_may_begin_with_its_level() {
    let harness = Harness::new();
    let log = harness.log();
    log.write(Stream::Stderr, b"<6>info\n<3>error\n<7>debug\n<4>warn\n<8>text\nplain\n<5>\n<6>last");
    log.finish();
    let lines: Vec<_> =
        harness.lines.lock().unwrap().iter().map(|line| (line.level.name(), line.text.clone())).collect();
    let expected = [
        ("info", "info"),
        ("error", "error"),
        ("debug", "debug"),
        ("warn", "warn"),
        ("warn", "<8>text"),
        ("warn", "plain"),
        ("info", ""),
        ("info", "last"),
    ];
    assert_eq!(lines, expected.map(|(level, text)| (level, text.to_owned())));
    assert_eq!(log.last_on_stderr().as_deref(), Some("last"));
}

#[test]
fn control_characters_and_bidirectional_overrides_are_escaped() {
    let harness = Harness::new();
    let log = harness.log();
    log.message(Level::Info, "ctx", "\u{1b}[2Jgone\u{202e}\u{9b}\ta\n\u{7f}");
    assert_eq!(harness.texts(), ["ctx: \\u{1b}[2Jgone\\u{202e}\\u{9b}\ta", "ctx: \\u{7f}"]);
}

#[test]
fn a_log_flood_ends_at_the_limit_and_reports_the_dropped_lines() {
    let harness = Harness::new();
    let log = harness.log();
    for _ in 0..1_200 {
        log.write(Stream::Stdout, b"x\n");
    }
    log.finish();
    let texts = harness.texts();
    assert_eq!(texts.len(), 1_001);
    assert_eq!(texts[1_000], "200 more lines were dropped: an attempt may log 1000 lines and 64 KiB");
}

#[test]
fn a_line_without_newline_is_split_between_characters_and_never_held_in_full() {
    let harness = Harness::new();
    let log = harness.log();
    for _ in 0..100 {
        log.write(Stream::Stdout, "aé€".repeat(1_000).as_bytes());
    }
    assert!(log.lock().stdout_len() <= LINE_BYTES_MAX);
    log.finish();
    let texts = harness.texts();
    assert!(texts.iter().all(|t| t.len() <= LINE_BYTES_MAX + 80 && !t.contains('\u{fffd}')));
    assert!(texts.iter().map(String::len).sum::<usize>() <= BYTES_MAX + 200);
}

#[test]
fn one_call_with_a_long_context_and_many_lines_takes_linear_time_and_is_counted() {
    let harness = Harness::new();
    let log = harness.log();
    let started = std::time::Instant::now();
    log.message(Level::Error, &"\u{1b}c".repeat(500_000), &"\n".repeat(1_000_000));
    log.message(Level::Info, "", &"x\n".repeat(1_000_000));
    log.message(Level::Info, "", &"x".repeat(2_000_000));
    log.finish();
    // Work in linear time takes much less than this, even on a busy machine; work in quadratic time takes minutes.
    assert!(started.elapsed() < std::time::Duration::from_secs(1), "{:?}", started.elapsed());
    let texts = harness.texts();
    let (last, lines) = texts.split_last().unwrap();
    assert!(lines.len() < 1_000 && lines.iter().map(String::len).sum::<usize>() <= BYTES_MAX);
    let dropped = 2_000_001 - lines.len();
    assert_eq!(*last, format!("{dropped} more lines were dropped: an attempt may log 1000 lines and 64 KiB"));
}

#[test]
fn a_log_of_control_characters_is_bounded_after_escaping() {
    let harness = Harness::new();
    let log = harness.log();
    for _ in 0..1_000 {
        log.write(Stream::Stderr, &[b"\x1b".repeat(60), b"\n".to_vec()].concat());
        log.message(Level::Info, "", &"\u{202e}".repeat(60));
    }
    log.finish();
    assert!(harness.texts().iter().map(String::len).sum::<usize>() <= BYTES_MAX + 100);
}

#[test]
fn the_panic_message_of_a_guest_is_recorded() {
    let expected = Some("panicked at src/lib.rs:7:5: no such item");
    let harness = Harness::new();
    let log = harness.log();
    log.write(Stream::Stderr, b"\nthread 'main' (1) panicked at src/lib.rs:7:5:\nno such item\nnote: run with\n");
    assert_eq!(log.panic().as_deref(), expected);
    let harness = Harness::new();
    let log = harness.log();
    log.message(Level::Error, "panic", "panicked at src/lib.rs:7:5: no such item");
    assert_eq!(log.panic().as_deref(), expected);
    for message in ["panic: no such item", "fatal error: all goroutines are asleep - deadlock!"] {
        let harness = Harness::new();
        let log = harness.log();
        log.write(Stream::Stderr, format!("started\n{message}\n\ngoroutine 1 [running]:\nmain.main()\n").as_bytes());
        assert_eq!(log.panic().as_deref(), Some(message));
    }
}

#[test]
fn the_panic_message_of_a_guest_is_bounded() {
    for byte in [0xff, b'x'] {
        let harness = Harness::new();
        let log = harness.log();
        let line = [&[byte].repeat(65_000)[..], b"\n"].concat();
        log.write(Stream::Stderr, &[b"panicked at ", &line[..]].concat());
        log.write(Stream::Stderr, &line);
        let panic = log.panic().unwrap();
        assert!(panic.starts_with("panicked at ") && panic.len() <= 2 * LINE_BYTES_MAX + 1, "{}", panic.len());
    }
}

const SECRET: &str = "sk-live-0123456789";

#[test]
fn a_secret_is_replaced_in_messages_contexts_and_assembled_lines() {
    let harness = Harness::with_secret(SECRET);
    let log = harness.log();
    log.message(Level::Info, SECRET, &format!("a {SECRET} b\n{SECRET}{SECRET}"));
    log.message(Level::Info, &format!("{}{SECRET}", "c".repeat(CONTEXT_BYTES)), "cut");
    let (first, second) = SECRET.split_at(7);
    log.write(Stream::Stdout, first.as_bytes());
    log.write(Stream::Stderr, first.as_bytes());
    log.write(Stream::Stdout, format!("{second}\r\n").as_bytes());
    log.write(Stream::Stderr, second.as_bytes());
    log.finish();
    let texts = harness.texts();
    assert_eq!(texts[0], "[secret KEY]: a [secret KEY] b");
    assert_eq!(texts[1], "[secret KEY]: [secret KEY]");
    assert!(texts[2].ends_with("[secr: cut"), "{}", texts[2]);
    assert_eq!(texts[3..], ["[secret KEY]", "[secret KEY]"]);
    assert_eq!(log.last_on_stderr().as_deref(), Some("[secret KEY]"));
}

/// Length of a context that leaves room for only five bytes of the replacement of the secret after it.
const CONTEXT_BYTES: usize = 256 - 5;

#[test]
fn a_secret_that_begins_in_the_context_and_ends_in_the_message_is_replaced() {
    let harness = Harness::with_secret("user: password");
    harness.log().message(Level::Info, "my user", "password!");
    assert_eq!(harness.texts(), ["my [secret KEY]!"]);
}

#[test]
fn a_secret_at_any_place_of_a_long_line_is_never_cut_in_half() {
    for before in [0, 1, 4_000, LINE_BYTES_MAX - 9, LINE_BYTES_MAX, 2 * LINE_BYTES_MAX - 3] {
        for chunk in [1, 7, 4096, 60_000] {
            let harness = Harness::with_secret(SECRET);
            let log = harness.log();
            let line = format!("{}{SECRET}{}", "x".repeat(before), "y".repeat(9_000));
            line.as_bytes().chunks(chunk).for_each(|bytes| log.write(Stream::Stdout, bytes));
            log.finish();
            let text = harness.texts().concat();
            let expected = format!("{}[secret KEY]{}", "x".repeat(before), "y".repeat(9_000));
            assert!(text == expected, "{before} {chunk}: {text}");
            assert!(harness.texts().iter().all(|text| text.len() <= LINE_BYTES_MAX));
        }
    }
}

#[test]
fn a_secret_of_several_lines_is_replaced_as_a_whole_and_line_by_line() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhki\nG9w0BAQEFAASCBKcw\n-----END KEY-----\n";
    let harness = Harness::with_secret(key);
    let log = harness.log();
    log.message(Level::Info, "", &format!("key:\n{key}end"));
    log.write(Stream::Stdout, key.as_bytes());
    log.finish();
    assert_eq!(
        harness.texts(),
        ["key:", "[secret KEY]", "end", "-----BEGIN KEY-----", "[secret KEY]", "[secret KEY]", "-----END KEY-----"]
    );
}

#[test]
fn a_panic_message_has_no_secret() {
    let harness = Harness::with_secret(SECRET);
    let log = harness.log();
    log.write(Stream::Stderr, format!("thread 'main' panicked at src/lib.rs:7:5:\nbad {SECRET}\n").as_bytes());
    assert_eq!(log.panic().as_deref(), Some("panicked at src/lib.rs:7:5: bad [secret KEY]"));
    let harness = Harness::with_secret(SECRET);
    harness.log().message(Level::Error, "panic", &format!("panicked at src/lib.rs:7:5: bad {SECRET}"));
    assert_eq!(harness.log().panic().as_deref(), Some("panicked at src/lib.rs:7:5: bad [secret KEY]"));
}

#[test]
fn a_flood_of_secrets_takes_linear_time_and_is_bounded() {
    let harness = Harness::with_secret("aaaa");
    let log = harness.log();
    let started = std::time::Instant::now();
    log.message(Level::Error, &"aaaa ".repeat(400_000), &"aaaa\n".repeat(400_000));
    (0..20).for_each(|_| log.message(Level::Info, "", &"aaaa,".repeat(400_000)));
    (0..32).for_each(|_| log.write(Stream::Stderr, &b"aaaa.".repeat(13_000)));
    log.finish();
    // Work in linear time takes much less than this, even on a busy machine; work in quadratic time takes minutes.
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
    let texts = harness.texts();
    let (last, lines) = texts.split_last().unwrap();
    assert!(lines.iter().map(String::len).sum::<usize>() <= BYTES_MAX);
    assert!(last.contains("more lines were dropped"), "{last}");
}

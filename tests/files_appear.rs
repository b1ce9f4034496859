//! The files source: a complete file becomes an event after the settle time, in whatever way it appeared, and a file that
//! a program is about to write waits.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};

use crate::assert_eventually;
use crate::support::{Evoke, shell};

const WATCH: &str = r#"
evoke: 1
app: files
sources:
  inbox:
    files: { path: ./inbox, settle: 100ms }
"#;

/// Far more than the settle time, and less than the five seconds for which an empty file may wait for its content.
const PROMPT: Duration = Duration::from_millis(4_500);

fn watching() -> Evoke {
    let mut evoke = Evoke::with(WATCH);
    for folder in ["inbox", "inbox/folder", "outside"] {
        std::fs::create_dir(evoke.path(folder)).unwrap();
    }
    evoke.up();
    evoke
}

/// The data of the event that reports the creation of a file; `None` if there is none yet. Panics if there are several
/// events about the file.
fn created(evoke: &Evoke, name: &str) -> Option<serde_json::Value> {
    let events = evoke.json_lines(&["events", "--source", "/files/inbox", "--after", "0"]);
    let mut events: Vec<_> = events.into_iter().filter(|event| event["subject"] == name).collect();
    assert!(events.len() <= 1, "{events:?}");
    let event = events.pop()?;
    assert_eq!(event["type"], "evoke.file.created");
    Some(event["data"].clone())
}

/// Makes a file appear under `name`, and checks that its event arrives promptly and has this size.
fn assert_prompt(evoke: &Evoke, name: &str, size: u64, appear: impl FnOnce()) {
    let start = Instant::now();
    appear();
    assert_eventually!(created(evoke, name).is_some(), "no event for {name}: {}", evoke.log());
    let waited = start.elapsed();
    assert!(waited < PROMPT, "the event for {name} came after {waited:?}");
    assert_eq!(created(evoke, name).unwrap()["size"], size, "{name}");
}

#[test]
fn a_complete_file_becomes_an_event_after_the_settle_time_however_it_appears() {
    let evoke = watching();
    let folder = evoke.path("");
    for (content, size) in [("", 0), ("a,b", 3)] {
        let scripts = [
            ("redirected", "printf '%s' \"$CONTENT\" > inbox/$NAME"),
            ("hard-linked", "printf '%s' \"$CONTENT\" > outside/$NAME; ln outside/$NAME inbox/$NAME"),
            // As an SFTP server renames a file.
            (
                "linked-and-unlinked",
                "printf '%s' \"$CONTENT\" > outside/$NAME; ln outside/$NAME inbox/$NAME; rm outside/$NAME",
            ),
            (
                "linked-in-place",
                "printf '%s' \"$CONTENT\" > inbox/.$NAME; ln inbox/.$NAME inbox/$NAME; rm inbox/.$NAME",
            ),
            ("moved", "printf '%s' \"$CONTENT\" > outside/$NAME; mv outside/$NAME inbox/$NAME"),
            // As rsync and editors write a file.
            (
                "renamed",
                "printf '%s' \"$CONTENT\" > inbox/.$NAME.Xa1; chmod 600 inbox/.$NAME.Xa1; mv inbox/.$NAME.Xa1 inbox/$NAME",
            ),
            ("copied", "printf '%s' \"$CONTENT\" > outside/$NAME; cp outside/$NAME inbox/$NAME"),
            ("copied-with-attributes", "printf '%s' \"$CONTENT\" > outside/$NAME; cp -p outside/$NAME inbox/$NAME"),
            ("cloned", "printf '%s' \"$CONTENT\" > outside/$NAME; cp --reflink=auto outside/$NAME inbox/$NAME"),
            ("linked-by-cp", "printf '%s' \"$CONTENT\" > outside/$NAME; cp -l outside/$NAME inbox/$NAME"),
            ("installed", "printf '%s' \"$CONTENT\" > outside/$NAME; install -m 600 outside/$NAME inbox/$NAME"),
            ("teed", "printf '%s' \"$CONTENT\" | tee inbox/$NAME > outside/$NAME.tee"),
        ];
        for (way, script) in scripts {
            let name = format!("{way}-{size}");
            let script = format!("NAME={name}; CONTENT='{content}'; {script}");
            assert_prompt(&evoke, &name, size, || shell(&folder, &script));
        }

        let name = format!("folder/from-a-file-without-a-name-{size}");
        assert_prompt(&evoke, &name, size, || {
            let flags = OFlags::TMPFILE | OFlags::RDWR;
            let file = open(evoke.path("inbox/folder"), flags, Mode::from_raw_mode(0o600)).unwrap();
            rustix::io::write(&file, content.as_bytes()).unwrap();
            let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            linkat(CWD, from, CWD, evoke.path("inbox").join(&name), AtFlags::SYMLINK_FOLLOW).unwrap();
        });

        let script =
            format!("mkdir outside/d{size}; printf '%s' '{content}' > outside/d{size}/f; mv outside/d{size} inbox/");
        assert_prompt(&evoke, &format!("d{size}/f"), size, || shell(&folder, &script));
    }
    assert_prompt(&evoke, "touched", 0, || shell(&folder, "touch inbox/touched"));
    assert_prompt(&evoke, "sparse", 4096, || shell(&folder, "truncate -s 4096 inbox/sparse"));
    // A link to a file that others still read: the readers are no writers.
    assert_prompt(&evoke, "read", 0, || {
        shell(&folder, ": > outside/read");
        let _reader = File::open(evoke.path("outside/read")).unwrap();
        shell(&folder, "ln outside/read inbox/read");
    });
}

#[test]
fn a_file_that_a_program_has_created_and_not_written_yet_waits_for_its_content() {
    let evoke = watching();
    let folder = evoke.path("");
    let mut slow = File::create(evoke.path("inbox/slow")).unwrap();
    // The file stays incomplete although links to complete files appear and settle times pass.
    for n in 0..5 {
        let name = format!("linked-{n}");
        assert_prompt(&evoke, &name, 0, || shell(&folder, &format!(": > outside/{name}; ln outside/{name} inbox/")));
        assert_eq!(created(&evoke, "slow"), None);
    }
    assert_prompt(&evoke, "slow", 3, || {
        std::io::Write::write_all(&mut slow, b"a,b").unwrap();
        drop(slow);
    });
}

use super::*;

fn open(folder: &Path) -> Spool {
    Spool::open(folder, 1 << 20).unwrap()
}

fn append(spool: &Spool, numbers: std::ops::Range<u32>) {
    let events: Vec<_> = numbers.map(|n| format!("{{\"n\":{n}}}")).collect();
    spool.append(&events).unwrap();
}

/// Returns all events that are not confirmed, and confirms them. Without `confirm`, returns only the first batch, and
/// confirms nothing.
fn take(spool: &Spool, confirm: bool) -> Vec<String> {
    spool.close();
    let mut all = Vec::new();
    while let Some(batch) = spool.next_batch().unwrap() {
        all.extend(batch.events.iter().map(|event| String::from_utf8(event.clone()).unwrap()));
        if !confirm {
            break;
        }
        spool.confirm(&batch, batch.events.len()).unwrap();
    }
    all
}

fn numbers(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| format!("{{\"n\":{n}}}")).collect()
}

#[test]
fn events_are_kept_in_order_until_they_are_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    append(&spool, 0..3);
    append(&spool, 3..5);
    let batch = spool.next_batch().unwrap().unwrap();
    assert_eq!(batch.events.len(), 5);
    spool.confirm(&batch, 2).unwrap();
    drop(spool);
    // The next command continues after the confirmed events.
    assert_eq!(take(&open(folder.path()), false), numbers(2..5));
    let spool = open(folder.path());
    append(&spool, 5..7);
    assert_eq!(take(&spool, true), numbers(2..7));
    drop(spool);
    assert_eq!(take(&open(folder.path()), true), numbers(0..0));
    // Without a position, the events of the last file are sent again; their ids make them duplicates.
    std::fs::remove_file(folder.path().join(POSITION)).unwrap();
    assert_eq!(take(&open(folder.path()), true), numbers(0..7));
}

#[test]
fn a_line_without_its_end_was_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    append(&open(folder.path()), 0..2);
    let path = folder.path().join(file_name(1));
    let mut text = std::fs::read(&path).unwrap();
    let length = text.len();
    text.extend(vec![b'x'; 100_000]);
    std::fs::write(&path, text).unwrap();
    let spool = open(folder.path());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length as u64);
    append(&spool, 2..3);
    assert_eq!(take(&spool, true), numbers(0..3));
}

#[test]
fn a_damaged_position_sends_events_again_and_leaves_none_out() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    append(&spool, 0..9);
    let batch = spool.next_batch().unwrap().unwrap();
    spool.confirm(&batch, 9).unwrap();
    append(&spool, 9..12);
    drop(spool);
    for damaged in ["", "00000001", "00000001 73", "00000001 9999\n", "00000001 3\n", "00000007 8\n", "x y\n"] {
        std::fs::write(folder.path().join(POSITION), damaged).unwrap();
        assert_eq!(take(&open(folder.path()), false), numbers(0..12), "{damaged:?}");
    }
}

#[test]
fn a_full_spool_takes_no_event_and_a_file_that_was_stored_frees_its_space() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), FILE_BYTES_MAX + 1000).unwrap();
    let large = |n: u64| n.to_string().repeat(usize::try_from(FILE_BYTES_MAX).unwrap() - 1);
    spool.append(&[large(1)]).unwrap();
    let error = spool.append(&[large(2)]).unwrap_err().to_string();
    assert!(error.contains("it is full: it has 16777216 of at most 16778216 bytes"), "{error}");
    append(&spool, 0..2);
    // An event that is longer than a batch is a batch of its own.
    let batch = spool.next_batch().unwrap().unwrap();
    assert_eq!((batch.events.len(), batch.events[0].len() as u64), (1, FILE_BYTES_MAX - 1));
    spool.confirm(&batch, 1).unwrap();
    assert!(!folder.path().join(file_name(1)).exists());
    append(&spool, 2..4);
    drop(spool);
    let spool = Spool::open(folder.path(), FILE_BYTES_MAX + 1000).unwrap();
    assert_eq!(take(&spool, true), numbers(0..4));
}

#[test]
fn two_commands_cannot_use_one_spool() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let error = Spool::open(folder.path(), 1).map(drop).unwrap_err().to_string();
    assert!(error.contains("another `evoke emit` uses it"), "{error}");
    drop(first);
    open(folder.path());
}

/// The path of the spool leads to another folder, as after a rename by a user who may write to the parent folder.
#[test]
fn no_event_comes_from_another_folder_that_got_the_path() {
    let parent = tempfile::tempdir().unwrap();
    let (path, moved, foreign) =
        (parent.path().join("spool"), parent.path().join("moved"), parent.path().join("foreign"));
    let spool = open(&path);
    append(&spool, 0..2);
    let batch = spool.next_batch().unwrap().unwrap();
    append(&open(&foreign), 90..95);
    std::fs::rename(&path, &moved).unwrap();
    std::fs::rename(&foreign, &path).unwrap();
    let text = || std::fs::read(path.join(file_name(1))).unwrap();
    let before = text();
    let error = spool.next_batch().map(drop).unwrap_err().to_string();
    assert!(error.contains("another folder got this path"), "{error}");
    spool.set_aside(b"{}", "reason").unwrap_err();
    // The position belongs to the events of the batch. So it is stored in their folder.
    spool.confirm(&batch, 1).unwrap();
    assert!(!path.join(POSITION).exists() && text() == before);
    std::fs::rename(&path, &foreign).unwrap();
    std::fs::rename(&moved, &path).unwrap();
    append(&spool, 2..3);
    assert_eq!(take(&spool, true), numbers(1..3));
}

#[test]
fn an_append_after_a_failed_one_removes_the_part_that_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    append(&spool, 0..2);
    let path = folder.path().join(file_name(1));
    // A file that is open for reading can neither be written nor cut.
    spool.lock().last = Some(File::open(&path).unwrap());
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"n\":2}\n{\"n\"").unwrap();
    spool.append(&["{\"n\":2}".to_owned()]).unwrap_err();
    append(&spool, 3..5);
    let expected = [numbers(0..2), numbers(3..5)].concat();
    assert_eq!(take(&spool, false), expected);
    drop(spool);
    assert_eq!(take(&open(folder.path()), false), expected);
}

#[test]
fn a_refused_event_is_kept_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 100).unwrap();
    let path = spool.set_aside(br#"{"n":1}"#, "too hot").unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "{\"event\":{\"n\":1},\"reason\":\"too hot\"}\n");
    let error = spool.append(&["7".repeat(70)]).unwrap_err().to_string();
    assert!(error.contains("move the file refused.jsonl (37 bytes) away"), "{error}");
}

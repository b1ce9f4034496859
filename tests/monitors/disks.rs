//! Small file systems that are filled and emptied. They are mounted in a mount namespace of the Evoke under test, so that
//! nothing stays behind.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::{await_states, changes, read_again};
use crate::assert_eventually;
use crate::support::Evoke;

/// Mounts two file systems of 8 MiB, and runs a command that sees them.
const MOUNT: &str =
    "mkdir -p mnt/a mnt/b; for m in a b; do mount -t tmpfs -o size=8m none mnt/$m; done; exec \"$0\" \"$@\"";
static AS_ROOT: [&str; 5] = ["unshare", "--mount", "sh", "-ec", MOUNT];
static AS_USER: [&str; 7] = ["unshare", "--mount", "--user", "--map-root-user", "sh", "-ec", MOUNT];

/// Starts Evoke with the file systems `mnt/a` and `mnt/b`. Returns `None`, and prints why, on a machine without
/// the right to mount.
fn up(manifest: &str) -> Option<Evoke> {
    let launcher: &'static [&'static str] = if rustix::process::geteuid().is_root() { &AS_ROOT } else { &AS_USER };
    let mut evoke = Evoke::with(manifest);
    let mut test = Command::new(launcher[0]);
    let tested = test.args(&launcher[1..]).arg("true").current_dir(evoke.path("")).output().unwrap();
    if !tested.status.success() {
        println!("skipped: no file system can be mounted here: {}", String::from_utf8_lossy(&tested.stderr));
        return None;
    }
    evoke.set_launcher(launcher);
    evoke.up();
    evoke.set_launcher(&[]);
    Some(evoke)
}

/// Returns the path of a file system as seen from outside of the namespace.
fn mounted(evoke: &Evoke, name: &str) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", evoke.pid()));
    let inside = evoke.path("mnt").canonicalize().unwrap().join(name);
    root.join(inside.strip_prefix("/").unwrap())
}

/// Makes the file on a file system grow or shrink to this size; the use of the file system changes in one direction.
fn fill(evoke: &Evoke, name: &str, mebibytes: u64) {
    let path = mounted(evoke, name).join("file");
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    let (before, after) = (file.metadata().unwrap().len(), mebibytes << 20);
    match after.checked_sub(before) {
        Some(more) => file.write_all(&vec![1; usize::try_from(more).unwrap()]).unwrap(),
        None => file.set_len(after).unwrap(),
    }
}

#[test]
fn a_disk_that_is_filled_and_emptied_is_reported_once_for_each_state() {
    let manifest = "evoke: 1\napp: host\nsources:
  disks:
    monitor: { every: 100ms, disk: { path: \"./mnt/*\" }, warning: 50%, critical: 80%, clear: 20% }
";
    let Some(evoke) = up(manifest) else { return };
    let subject = |name: &str| evoke.path("mnt").join(name).display().to_string();
    let (a, b) = (subject("a"), subject("b"));
    let state = |wanted: &str| evoke.json_lines(&["monitors"]).iter().filter(|one| one["state"] == wanted).count();
    assert_eventually!(state("ok") == 2, "{:?}", evoke.json_lines(&["monitors"]));
    fill(&evoke, "a", 5);
    await_states(&evoke, &a, &["warning"]);
    fill(&evoke, "a", 7);
    await_states(&evoke, &a, &["warning", "critical"]);
    // 5 of 8 MiB are 62.5 %: within the margin of 20 % below 80 %.
    fill(&evoke, "a", 5);
    read_again(&evoke);
    await_states(&evoke, &a, &["warning", "critical"]);
    fill(&evoke, "b", 7);
    // A reading may find the file while it grows.
    let last = |subject: &str| changes(&evoke, subject).pop().map(|(_, state)| state);
    assert_eventually!(last(&b).as_deref() == Some("critical"), "{:?}", changes(&evoke, &b));
    fill(&evoke, "a", 1);
    await_states(&evoke, &a, &["warning", "critical", "ok"]);
    let event =
        evoke.events("evoke.monitor.changed").into_iter().rfind(|event| event["subject"] == b.as_str()).unwrap();
    let data = &event["data"];
    assert_eq!((&data["unit"], &data["threshold"], &data["monitor"]), (&json!("%"), &json!("80%"), &json!("disk")));
    assert!(data["value"].as_f64().unwrap() > 80.0 && !data["readings"].as_array().unwrap().is_empty(), "{data}");
}

#[test]
fn a_state_that_lasts_too_short_is_not_reported() {
    let manifest = "evoke: 1\napp: host\nsources:
  disk:
    monitor: { every: 100ms, disk: { path: ./mnt/a }, critical: 80%, for: 2s }
";
    let Some(evoke) = up(manifest) else { return };
    let a = evoke.path("mnt/a").display().to_string();
    assert_eventually!(evoke.json_lines(&["monitors"])[0]["value"].is_number(), "no reading");
    fill(&evoke, "a", 7);
    read_again(&evoke);
    fill(&evoke, "a", 0);
    read_again(&evoke);
    fill(&evoke, "a", 7);
    await_states(&evoke, &a, &["critical"]);
    let event = &evoke.events("evoke.monitor.changed")[0];
    let at = |name: &serde_json::Value| name.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let held = at(&event["time"]) - at(&event["data"]["since"]);
    assert!(held >= 2_000, "reported after {held} ms: {event}");
}

//! Tests in which files and folders of an open store appear under other names in the watched folder.

use super::*;
use evoke_fs::{FileId, reserve};

impl Fixture {
    async fn marks(&self) -> Vec<String> {
        self.store.marks("/shop/invoices".into()).await.unwrap().into_keys().collect()
    }
}

#[tokio::test]
async fn known_files_that_belong_to_a_store_are_forgotten_without_events() {
    let mut fixture = Fixture::new();
    for name in ["database", "data/log", "kept"] {
        put(&fixture.inbox(name), "1");
    }
    let created = ["created database", "created data/log", "created kept"];
    fixture.start();
    fixture.expect(&created).await;
    fixture.stop().await;
    let of_store = ["database", "data"].map(|name| FileId::of_path(&fixture.inbox(name)).unwrap());
    let _reserved = reserve(of_store.to_vec());
    put(&fixture.inbox("data/log"), "2");
    fs::hard_link(fixture.inbox("database"), fixture.inbox("other")).unwrap();
    fixture.start();
    // The first scan finds the files of the store. The source gets notifications about the changes after that.
    fixture.expect(&created).await;
    put(&fixture.inbox("data/log"), "3");
    fs::hard_link(fixture.inbox("database"), fixture.inbox("another")).unwrap();
    fixture.expect(&created).await;
    let marks = fixture.marks().await;
    assert!(marks.contains(&"kept".to_owned()), "{marks:?}");
    for name in ["database", "data/log", "other", "another"] {
        assert!(!marks.contains(&name.to_owned()), "{marks:?}");
    }
    assert_eq!(fixture.health.trouble(), None);
    fixture.stop().await;
}

/// While a file is read by its name, another thread repeatedly gives this name to a file of a store.
#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_swapped_for_a_file_of_a_store_never_opens_that_file() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

    use crate::files::access::Access;
    use crate::files::confined::Found;
    use crate::files::read::{Reading, Rules, read};

    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let path = move |name: &str| folder.join(name);
    put(&path("store"), "public");
    put(&path("kit/plain"), "public");
    fs::create_dir(path("inbox")).unwrap();
    fs::hard_link(path("store"), path("kit/store")).unwrap();
    let _reserved = reserve(vec![FileId::of_path(&path("store")).unwrap()]);
    // inotify reports each opening of the file, under any of its names, except an opening with `O_PATH`.
    let opened = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    add_watch(&opened, path("store"), WatchFlags::OPEN).unwrap();
    let is_opened = || rustix::io::read(&opened, &mut [0u8; 4096]).is_ok();

    let (done, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rules = Rules { keep_max: Some(1000), size_max: 1000, hard_links: true };
    let (access, root) = (Access::default(), Root::open(&path("inbox")).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for kind in ["kit/store", "kit/plain"] {
                    fs::rename(path(kind), path("inbox/file")).unwrap();
                    std::thread::yield_now();
                    fs::rename(path("inbox/file"), path(kind)).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let (mut expected, mut whole, mut reads) = (None, 0, 0);
        while reads < 20_000 || whole < 10 || swaps.load(Ordering::Relaxed) < 1_000 {
            reads += 1;
            // Open the file directly too, without the checks that `read` makes before it opens a file.
            drop(root.file(Path::new("file")));
            if let Ok(Found::File(info)) = root.stat(Path::new("file")) {
                expected = Some(info.stamp);
            }
            if let Reading::Whole(..) = read(&root, "file", expected, None, &rules, &access) {
                whole += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(!is_opened(), "the file of the store was opened");
    drop(fs::File::open(path("store")).unwrap());
    assert!(is_opened());
}

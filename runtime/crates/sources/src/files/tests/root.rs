//! Tests in which the folder itself is replaced while the source runs.

use super::*;

impl Fixture {
    async fn await_trouble(&self, text: &str) {
        let is_reported = async |fixture: &Self| fixture.health.trouble().is_some_and(|trouble| trouble.contains(text));
        self.eventually(&format!("waiting for the trouble `{text}`"), is_reported).await;
    }

    async fn await_recovery(&self) {
        self.eventually("the recovery", async |fixture| fixture.health.trouble().is_none()).await;
    }
}

#[tokio::test]
async fn a_replaced_folder_is_not_read_until_the_original_is_back() {
    let mut fixture = Fixture::new();
    put(&fixture.inbox("a"), "1");
    put(&fixture.outside("secret/key"), "secret");
    fixture.start();
    fixture.expect(&["created a"]).await;
    let path = fixture.config.path.clone();
    fs::rename(&path, fixture.outside("original")).unwrap();

    symlink(fixture.outside("secret"), &path).unwrap();
    fixture.await_trouble("a link to another folder").await;
    assert!(fixture.health.needs_reload());
    fs::remove_file(&path).unwrap();

    fixture.await_trouble("cannot open the folder").await;
    assert!(!fixture.health.needs_reload());

    // The new folder gets the inode number of the first folder, if that number is free.
    fs::create_dir(&path).unwrap();
    put(&path.join("key"), "other");
    fixture.await_trouble("replaced by another folder").await;
    fs::remove_dir_all(&path).unwrap();

    put(&fixture.outside("original/b"), "2");
    fs::rename(fixture.outside("original"), &path).unwrap();
    fixture.await_recovery().await;
    assert!(!fixture.health.needs_reload());
    fixture.expect(&["created a", "created b"]).await;
    // After the recovery, the source finds changes again.
    put(&fixture.inbox("a"), "3");
    fixture.expect(&["created a", "created b", "modified a"]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_folder_that_was_removed_and_made_again_is_accepted_at_the_next_start() {
    let mut fixture = Fixture::new();
    put(&fixture.inbox("a"), "1");
    fixture.start();
    fixture.expect(&["created a"]).await;
    let path = fixture.config.path.clone();
    fs::rename(&path, fixture.outside("original")).unwrap();
    fs::create_dir(&path).unwrap();
    put(&path.join("b"), "2");
    fixture.await_trouble("reload or restart").await;
    assert_eq!(fixture.lines().await.iter().filter(|line| !line.contains("marker")).count(), 1);
    fixture.stop().await;
    fixture.start();
    fixture.eventually("the new folder", async |fixture| fixture.lines().await.contains(&"created b".into())).await;
    fixture.eventually("the old files", async |fixture| fixture.lines().await.contains(&"removed a".into())).await;
    assert_eq!(fixture.health.trouble(), None);
    fixture.stop().await;
}

#[tokio::test]
async fn the_path_of_the_folder_may_be_a_link_that_stays() {
    let mut fixture = Fixture::new();
    let real = fixture.config.path.clone();
    put(&fixture.outside("secret/key"), "secret");
    let link = fixture.outside("current");
    symlink(&real, &link).unwrap();
    fixture.config.path = link.clone();
    put(&real.join("a"), "1");
    fixture.start();
    fixture.expect(&["created a"]).await;
    // Set the link to another folder, atomically.
    symlink(fixture.outside("secret"), fixture.outside("next")).unwrap();
    fs::rename(fixture.outside("next"), &link).unwrap();
    fixture.await_trouble("a link to another folder").await;
    symlink(&real, fixture.outside("next")).unwrap();
    fs::rename(fixture.outside("next"), &link).unwrap();
    fixture.await_recovery().await;
    fixture.expect(&["created a"]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_file_in_place_of_the_folder_is_not_read() {
    let mut fixture = Fixture::new();
    put(&fixture.inbox("a"), "1");
    fixture.start();
    fixture.expect(&["created a"]).await;
    fs::rename(&fixture.config.path, fixture.outside("original")).unwrap();
    fs::write(&fixture.config.path, "secret").unwrap();
    fixture.await_trouble("cannot open the folder").await;
    fs::remove_file(&fixture.config.path).unwrap();
    fs::rename(fixture.outside("original"), &fixture.config.path).unwrap();
    fixture.await_recovery().await;
    fixture.expect(&["created a"]).await;
    fixture.stop().await;
}

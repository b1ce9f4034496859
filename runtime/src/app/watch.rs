//! Reloads when a file that the apps depend on changes.

use std::time::Duration;

use crate::control::{Control, Host, Progress};

/// The time between two checks of the files for changes. After a change, a reload starts when the files are the same in
/// two checks in a row.
const INTERVAL: Duration = Duration::from_millis(500);

/// Waits until the files differ from `before` and have not changed between two checks.
pub(super) async fn changed<T: PartialEq>(fingerprint: impl Fn() -> T, before: T) {
    let mut previous = fingerprint();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = fingerprint();
        if now == previous && now != before {
            return;
        }
        previous = now;
    }
}

/// Reloads on every change, and never returns. If a reload fails, the previous manifests stay active.
pub(super) async fn run(control: &Control, host: &dyn Host) {
    let mut active = control.fingerprint();
    let mut previous = active.clone();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = control.fingerprint();
        if now != previous || now == active {
            previous = now;
            continue;
        }
        reload(control, host, "files have changed").await;
        active = control.fingerprint();
        // The reload may have built components. Their change must not cause another reload. Any other file that changed
        // during the reload may have been read before its change, so it causes another reload.
        let built = control.built_files();
        for (path, state) in now {
            if let Some(active) = active.get_mut(&path).filter(|_| !built.contains(&path)) {
                *active = state;
            }
        }
        previous.clone_from(&active);
    }
}

/// Reloads all manifests, and reports the reason and the result. If the reload fails, the previous manifests stay
/// active.
pub(super) async fn reload(control: &Control, host: &dyn Host, reason: &str) {
    host.report(Progress::Reloading { reason });
    match control.reload().await {
        Ok(()) => host.report(Progress::Reloaded),
        Err(error) => host.report(Progress::Unchanged(&error)),
    }
}

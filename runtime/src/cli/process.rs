//! Settings of the whole process, made once at its start.

use std::sync::OnceLock;

use rustix::fs::Mode;

/// The umask that the process was started with.
static INHERITED_UMASK: OnceLock<u32> = OnceLock::new();

/// Makes new files private to the user, keeps inherited descriptors from the programs that this process starts, and
/// uses small pages of memory: huge ones made the resident memory of an idle Evoke 40 % larger.
pub fn protect() {
    let inherited = rustix::process::umask(Mode::from_raw_mode(0o077));
    let _ = INHERITED_UMASK.set(inherited.bits() & 0o777);
    if let Err(error) = evoke_fs::close_inherited_on_exec() {
        tracing::debug!("`build:` commands may inherit open files: {error}");
    }
    if let Err(error) = evoke_fs::disable_huge_pages() {
        tracing::debug!("the memory is in huge pages where the system has them: {error}");
    }
}

/// Returns the umask that the process was started with.
pub(super) fn inherited_umask() -> u32 {
    INHERITED_UMASK.get().copied().unwrap_or(0o022)
}

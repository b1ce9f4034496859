//! Finds out whether the system can move memory of this process to swap space.
//!
//! wasmtime finds the written pages of an instance with `PAGEMAP_SCAN`, and resets them. It does not find pages that
//! are in swap space, so the next instance in the slot could read these. So pages are only reset in place if no page
//! can be in swap space.

use std::path::Path;

/// Returns true if the system has swap space and no control group of this process forbids its use (`memory.swap.max`,
/// in systemd `MemorySwapMax=0`).
pub(super) fn is_possible() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    has_swap_space(&read("/proc/swaps")) && !is_forbidden(&read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
}

/// `swaps` is the content of `/proc/swaps`: a heading, and a line for each swap space.
fn has_swap_space(swaps: &str) -> bool {
    swaps.lines().count() > 1
}

/// `groups` is the content of `/proc/self/cgroup`. `root` is the folder of the control groups (version 2).
fn is_forbidden(groups: &str, root: &Path) -> bool {
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let folder = root.join(group);
    let mut folders = folder.ancestors().take_while(|folder| folder.starts_with(root));
    folders.any(|folder| std::fs::read_to_string(folder.join("memory.swap.max")).is_ok_and(|max| max.trim() == "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_space_is_a_line_after_the_heading() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_swap_space("") && !has_swap_space(heading));
        assert!(has_swap_space(&format!("{heading}/dev/dm-1 partition 8388604 0 -2\n")));
    }

    #[test]
    fn a_control_group_or_one_above_it_can_forbid_swap_space() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path().join("system.slice/evoke.service");
        std::fs::create_dir_all(&service).unwrap();
        let is_forbidden = |groups: &str| is_forbidden(groups, root.path());
        let own = "1:name=systemd:/x\n0::/system.slice/evoke.service\n";
        assert!(!is_forbidden(own) && !is_forbidden(""));
        std::fs::write(service.join("memory.swap.max"), "max\n").unwrap();
        assert!(!is_forbidden(own));
        std::fs::write(service.join("memory.swap.max"), "0\n").unwrap();
        assert!(is_forbidden(own) && !is_forbidden("0::/user.slice\n"));
        std::fs::remove_file(service.join("memory.swap.max")).unwrap();
        std::fs::write(root.path().join("memory.swap.max"), "0\n").unwrap();
        assert!(is_forbidden(own) && is_forbidden("0::/\n"));
    }
}

//! The free and the total space of the disk that has the data folder.

use std::path::Path;

use evoke_core::runtime_events::storage::DiskSpace;

/// Reads the free and the total space, on a blocking thread, because a network disk may respond slowly.
pub(crate) async fn disk_space(data: &Path) -> std::io::Result<DiskSpace> {
    let data = data.to_owned();
    let disk =
        tokio::task::spawn_blocking(move || rustix::fs::statvfs(&data)).await.map_err(std::io::Error::other)??;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(DiskSpace { free: bytes(disk.f_bavail), total: bytes(disk.f_blocks) })
}

//! The file `running` in the data folder. It records the work that is running, so that the next start knows which work
//! was running when a process ended without a clean stop.
//!
//! Records are written into a memory mapping of the file. If the file system does not support mappings, each record is
//! written with one `pwrite`. Records are not synced: the page cache of the kernel holds them, so they survive the end
//! of the process, but not a power cut. A mapping is faster, because a `pwrite` also changes the modification time of
//! the file: for this change, ext4 waits for its journal while a commit is synced, which costs a quarter of the
//! throughput. All numbers are little-endian.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 16 | `evoke running 1\n` |
//! | 16 | 8 | the number of the process, random |
//! | 24 | 36 | the kernel's boot id: after another boot the records are not valid |
//! | 60 | 1 | 1 after a clean stop, else 0 |
//! | 124 | 4 | CRC-32 of the bytes before |
//! | 128 | 128 each | one record per slot |
//!
//! | offset in a record | bytes | content |
//! |---|---|---|
//! | 0 | 8 | the number of the process that wrote the record |
//! | 8 | 1 | the kind of work: 0 none, 1 delivery, 2 HTTP request, 3 a component that is compiled or loaded |
//! | 9 | 1 | length of the name |
//! | 12 | 4 | number of the attempt |
//! | 16 | 8 | id of the delivery |
//! | 24 | 96 | full name of the function, cut after 96 bytes |
//! | 124 | 4 | CRC-32 of the bytes before |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::store_time::boot_id;
use evoke_fs::MappedFile;
use evoke_model::DeliveryId;
use evoke_store::running::{RunningLog, Slot, UncleanExit, Work};

const MAGIC: &[u8; 16] = b"evoke running 1\n";
const BLOCK: usize = 128;
const CRC_AT: usize = BLOCK - 4;
const NAME_AT: usize = 24;
const NAME_MAX: usize = CRC_AT - NAME_AT - 4;
/// Maximum number of slots: more than the deliveries and requests that run at the same time. Further work is not
/// recorded.
const SLOTS_MAX: u32 = 16 * 1024;

/// The work that was running when the previous process ended without a clean stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interrupted {
    /// The number of the process.
    pub run: u64,
    /// Each delivery, with the number of its attempt and the name of its function.
    pub deliveries: Vec<(DeliveryId, u32, String)>,
    /// The functions that handled HTTP requests, each once.
    pub requests: Vec<String>,
    /// The functions whose components were compiled or loaded.
    pub loads: Vec<String>,
}

impl Interrupted {
    /// Returns the part that [`evoke_store::DeliveryStore::record_exit`] needs.
    pub fn exit(&self) -> UncleanExit {
        let attempts = self.deliveries.iter().map(|(id, attempt, _)| (*id, *attempt)).collect();
        UncleanExit { run: self.run, attempts }
    }
}

/// The open file. The lock of the data folder ensures that only one process has it open.
#[derive(Debug)]
pub struct RunningFile {
    file: File,
    /// The memory mapping of the slots with reserved disk space; not set if the file system does not support mappings.
    mapped: OnceLock<MappedFile>,
    run: u64,
    slots: Mutex<Slots>,
    /// True while nothing is recorded: before [`RunningFile::begin`], after a failed write and after
    /// [`RunningFile::close`].
    off: AtomicBool,
}

#[derive(Debug, Default)]
struct Slots {
    free: Vec<u32>,
    used: u32,
}

impl RunningFile {
    /// Opens the file in `folder`, and creates it if it does not exist. Returns the work that was running if the
    /// previous process ended without a clean stop. Records nothing before [`RunningFile::begin`].
    pub fn open(folder: &Path) -> io::Result<(Self, Option<Interrupted>)> {
        let path = folder.join("running");
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let interrupted = read(&file)?;
        // The tail of a version 7 UUID is random.
        let run = u64::try_from(uuid::Uuid::now_v7().as_u128() & u128::from(u64::MAX)).unwrap_or_default();
        let (mapped, slots, off) = (OnceLock::new(), Mutex::default(), AtomicBool::new(true));
        Ok((Self { file, mapped, run, slots, off }, interrupted))
    }

    /// Discards the records of the previous process, and starts to record. Reserves disk space for this many slots.
    pub fn begin(&self, slots: u32) -> io::Result<()> {
        // The space is reserved now, so that a full disk cannot prevent records later.
        let length = u64::from(slots.min(SLOTS_MAX) + 1) * BLOCK as u64;
        let mut at = self.file.metadata()?.len();
        while at < length {
            let part = (length - at).min(64 * 1024);
            self.file.write_all_at(&vec![0; usize::try_from(part).unwrap_or(BLOCK)], at)?;
            at += part;
        }
        match MappedFile::map(&self.file, usize::try_from(length).unwrap_or_default()) {
            Ok(Some(mapped)) => drop(self.mapped.set(mapped)),
            Ok(None) => {}
            Err(error) => tracing::debug!(
                "cannot map the file `running` into memory, so each record is written with `pwrite`: {error}"
            ),
        }
        self.write_header(false)?;
        self.off.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Records a clean stop. Later work is not recorded.
    pub fn close(&self) -> io::Result<()> {
        self.off.store(true, Ordering::Relaxed);
        self.write_header(true)
    }

    fn write_header(&self, is_closed: bool) -> io::Result<()> {
        let mut block = [0; BLOCK];
        put(&mut block, 0, MAGIC);
        put(&mut block, 16, &self.run.to_le_bytes());
        put(&mut block, 24, boot_id().as_bytes());
        put(&mut block, 60, &[u8::from(is_closed)]);
        seal(&mut block);
        self.file.write_all_at(&block, 0)
    }

    fn write(&self, slot: u32, block: &[u8; BLOCK]) {
        let at = (slot as usize + 1) * BLOCK;
        if self.mapped.get().is_some_and(|mapped| mapped.write(block, at)) {
            return;
        }
        let written = self.file.write_all_at(block, at as u64);
        if let Err(error) = written
            && !self.off.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                "cannot write the file `running` in the data folder: {error}; until the next start, Evoke records no \
                 running work. If a delivery crashes Evoke before then, the next start cannot recognise this delivery"
            );
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let slot = self.used;
            self.used += u32::from(slot < SLOTS_MAX);
            (slot < SLOTS_MAX).then_some(slot)
        })
    }
}

impl RunningLog for RunningFile {
    fn start(&self, work: &Work<'_>) -> Option<Slot> {
        if self.off.load(Ordering::Relaxed) {
            return None;
        }
        let slot = self.slots().take()?;
        let mut block = [0; BLOCK];
        let (kind, name) = match *work {
            Work::Delivery { id, attempt, function, .. } => {
                put(&mut block, 12, &attempt.to_le_bytes());
                put(&mut block, 16, &id.0.to_le_bytes());
                (1, function)
            }
            Work::Request(function) => (2, function),
            Work::Load(function) => (3, function),
        };
        let name = name.get(..name.floor_char_boundary(NAME_MAX)).unwrap_or_default().as_bytes();
        put(&mut block, 0, &self.run.to_le_bytes());
        put(&mut block, 8, &[kind, u8::try_from(name.len()).unwrap_or_default()]);
        put(&mut block, NAME_AT, name);
        seal(&mut block);
        self.write(slot, &block);
        Some(Slot(slot))
    }

    fn end(&self, Slot(slot): Slot, remove: bool) {
        if remove && !self.off.load(Ordering::Relaxed) {
            self.write(slot, &[0; BLOCK]);
        }
        self.slots().free.push(slot);
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    let place = block.get_mut(at..).unwrap_or_default();
    place.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
}

fn seal(block: &mut [u8; BLOCK]) {
    let crc = crc32fast::hash(block.get(..CRC_AT).unwrap_or_default());
    put(block, CRC_AT, &crc.to_le_bytes());
}

fn is_sealed(block: &[u8]) -> bool {
    block.get(..CRC_AT).is_some_and(|content| bytes(block, CRC_AT) == crc32fast::hash(content).to_le_bytes())
}

/// Returns the bytes at an offset; zeros beyond the end.
fn bytes<const LENGTH: usize>(block: &[u8], at: usize) -> [u8; LENGTH] {
    block.get(at..at + LENGTH).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; LENGTH])
}

/// Returns the work that was running when the process that wrote the file ended; `None` after a clean stop, after
/// another boot, and if the file has no intact header.
fn read(file: &File) -> io::Result<Option<Interrupted>> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut content = vec![0; length.min((SLOTS_MAX as usize + 1) * BLOCK)];
    file.read_exact_at(&mut content, 0)?;
    let mut blocks = content.chunks_exact(BLOCK);
    let Some(header) = blocks.next().filter(|block| is_sealed(block) && block.starts_with(MAGIC)) else {
        return Ok(None);
    };
    let [is_closed] = bytes(header, 60);
    if is_closed != 0 || bytes::<36>(header, 24) != padded(&boot_id()) {
        return Ok(None);
    }
    let mut found = Interrupted { run: u64::from_le_bytes(bytes(header, 16)), ..Interrupted::default() };
    for block in blocks.filter(|block| is_sealed(block) && u64::from_le_bytes(bytes(block, 0)) == found.run) {
        let [kind, length] = bytes(block, 8);
        let name = block.get(NAME_AT..NAME_AT + usize::from(length)).unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        match kind {
            1 => {
                let id = DeliveryId(i64::from_le_bytes(bytes(block, 16)));
                found.deliveries.push((id, u32::from_le_bytes(bytes(block, 12)), name));
            }
            2 if !found.requests.contains(&name) => found.requests.push(name),
            3 if !found.loads.contains(&name) => found.loads.push(name),
            _ => {}
        }
    }
    Ok(Some(found))
}

fn padded(text: &str) -> [u8; 36] {
    let mut padded = [0; 36];
    padded.iter_mut().zip(text.as_bytes()).for_each(|(place, byte)| *place = *byte);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "shop/charge";

    fn delivery(id: i64, suspect: bool) -> Work<'static> {
        Work::Delivery { id: DeliveryId(id), attempt: 3, function: NAME, suspect }
    }

    fn started(folder: &Path) -> (RunningFile, Option<Interrupted>) {
        let (file, interrupted) = RunningFile::open(folder).unwrap();
        file.begin(8).unwrap();
        (file, interrupted)
    }

    #[test]
    fn running_work_is_found_after_an_unclean_end_and_not_after_a_clean_stop() {
        let folder = tempfile::tempdir().unwrap();
        let (file, before) = started(folder.path());
        assert_eq!(before, None);
        file.start(&delivery(7, false)).unwrap();
        let ended = file.start(&Work::Request("shop/page")).unwrap();
        file.start(&Work::Request("shop/form")).unwrap();
        file.start(&Work::Load("shop/new")).unwrap();
        file.end(ended, true);
        drop(file);

        let (file, found) = started(folder.path());
        let found = found.unwrap();
        assert_eq!(found.deliveries, [(DeliveryId(7), 3, NAME.to_owned())]);
        assert_eq!((found.requests, found.loads), (vec!["shop/form".to_owned()], vec!["shop/new".to_owned()]));
        // A start discards the records of the process before, so the next start does not return them again.
        drop(file);
        let (file, found) = started(folder.path());
        assert_eq!(found.unwrap().deliveries, []);
        file.start(&delivery(8, true)).unwrap();
        file.close().unwrap();
        drop(file);
        assert_eq!(started(folder.path()).1, None);
    }

    #[test]
    fn a_record_that_is_not_removed_stays_until_its_slot_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = started(folder.path());
        let slot = file.start(&delivery(1, false)).unwrap();
        file.end(slot, false);
        assert_eq!(read(&file.file).unwrap().unwrap().deliveries.len(), 1);
        assert_eq!(file.start(&delivery(2, true)), Some(slot));
        assert_eq!(read(&file.file).unwrap().unwrap().deliveries, [(DeliveryId(2), 3, NAME.to_owned())]);
        file.end(slot, true);
        assert_eq!(read(&file.file).unwrap().unwrap().deliveries, []);
    }

    #[test]
    fn a_damaged_file_and_another_boot_leave_no_records() {
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = started(folder.path());
        file.start(&delivery(1, false)).unwrap();
        drop(file);
        let path = folder.path().join("running");
        let intact = std::fs::read(&path).unwrap();
        for at in [3, 20, 30, 60, 125] {
            let mut damaged = intact.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(RunningFile::open(folder.path()).unwrap().1, None, "byte {at}");
        }
        let mut damaged = intact.clone();
        damaged[BLOCK + 16] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(RunningFile::open(folder.path()).unwrap().1.unwrap().deliveries, []);
        let mut other_boot: [u8; BLOCK] = intact[..BLOCK].try_into().unwrap();
        other_boot[24] ^= 1;
        seal(&mut other_boot);
        std::fs::write(&path, [&other_boot[..], &intact[BLOCK..]].concat()).unwrap();
        assert_eq!(RunningFile::open(folder.path()).unwrap().1, None);
        for length in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK - 1] {
            std::fs::write(&path, &intact[..length]).unwrap();
            let found = RunningFile::open(folder.path()).unwrap().1.unwrap_or_default();
            assert_eq!(found.deliveries, [], "{length} bytes");
        }
    }
}

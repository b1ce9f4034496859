//! The order in which settled files are read. Small files are read in the order of their arrival. Large files are read
//! slice by slice in between, so a large file delays other files by at most one slice.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::read::{Progress, SLICE_BYTES};
use super::version::Stamp;

/// Maximum number of small files in one batch. The events of a batch are one commit.
const BATCH_MAX: usize = 64;
/// If the content for the events of a batch reaches this number of bytes, the batch gets no further small file.
const BATCH_CONTENT_MAX: u64 = 1024 * 1024;

/// A file to read.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) name: String,
    /// The last observed metadata; `None` if the file is gone.
    pub(super) expected: Option<Stamp>,
    /// The result of the slices that were read before; `None` before the first slice.
    pub(super) progress: Option<Progress>,
    /// The job's place in the order of arrival.
    arrival: u64,
}

/// The settled files of a source that are not read yet. The tracker limits their number.
#[derive(Default)]
pub(super) struct ReadQueue {
    small: VecDeque<Job>,
    /// The files larger than one slice ([`SLICE_BYTES`]). The key is the number of unread bytes and the place in the
    /// order of arrival.
    large: BTreeMap<(u64, u64), Job>,
    /// The names of the files in `large`, and of the large file that is being read.
    large_names: HashSet<String>,
    arrivals: u64,
    /// True if the next slice is read from the large file that arrived first; false if it is read from the large file
    /// with the fewest unread bytes.
    oldest_is_next: bool,
}

impl ReadQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Returns true if no small file is left, so that more settled files should be added.
    pub(super) fn needs_more(&self) -> bool {
        self.small.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Appends settled files. A large file that is already in the queue keeps its place.
    pub(super) fn extend(&mut self, settled: Vec<(String, Option<Stamp>)>, size_max: u64) {
        for (name, expected) in settled {
            if self.large_names.contains(&name) {
                continue;
            }
            self.arrivals += 1;
            let job = Job { name, expected, progress: None, arrival: self.arrivals };
            // A file larger than `size_max` will not be read. The file takes no time, so it counts as small.
            match job.size() {
                size if size > SLICE_BYTES && size <= size_max => self.insert_large(job),
                _ => self.small.push_back(job),
            }
        }
    }

    /// Removes and returns the files to read next: small files up to the limits of one commit and one slice, and at
    /// most one large file, of which one slice is read. Two rules select the large file, in turn. Rule 1: the file with
    /// the fewest unread bytes, so that only few files are partly read at a time. Rule 2: the file that arrived first,
    /// so that no file waits forever.
    pub(super) fn next_batch(&mut self, keep_max: Option<u64>) -> Vec<Job> {
        let (mut batch, mut bytes, mut content) = (Vec::new(), 0, 0);
        while batch.len() < BATCH_MAX && bytes < SLICE_BYTES && content < BATCH_CONTENT_MAX {
            let Some(job) = self.small.pop_front() else { break };
            bytes += job.size().min(SLICE_BYTES);
            if keep_max.is_some_and(|max| job.size() <= max) {
                content += job.size();
            }
            batch.push(job);
        }
        let first = self.large.keys().next().copied();
        let oldest = self.large.keys().min_by_key(|(_, arrival)| *arrival).copied();
        if let Some(key) = if self.oldest_is_next { oldest } else { first } {
            self.oldest_is_next = !self.oldest_is_next;
            batch.extend(self.large.remove(&key));
        }
        batch
    }

    /// Puts a large file back after a slice was read. After the last slice, the caller calls [`Self::finished`]
    /// instead.
    pub(super) fn resume(&mut self, mut job: Job, progress: Progress) {
        job.progress = Some(progress);
        self.insert_large(job);
    }

    /// Records that a file was read as a whole, or cannot be read.
    pub(super) fn finished(&mut self, name: &str) {
        self.large_names.remove(name);
    }

    fn insert_large(&mut self, job: Job) {
        self.large_names.insert(job.name.clone());
        let read = job.progress.as_ref().map_or(0, |progress| progress.bytes);
        self.large.insert((job.size().saturating_sub(read), job.arrival), job);
    }
}

impl Job {
    fn size(&self) -> u64 {
        self.expected.map_or(0, |stamp| stamp.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE_MAX: u64 = 1000 * SLICE_BYTES;

    fn file(name: &str, size: u64) -> (String, Option<Stamp>) {
        (name.to_owned(), Some(Stamp { size, mtime_ns: 1, ctime_ns: 1, inode: 1 }))
    }

    /// Takes one batch and reports one slice of each file as read, as the worker does. Returns the names in the batch.
    fn read_batch(queue: &mut ReadQueue) -> Vec<String> {
        let mut names = Vec::new();
        for job in queue.next_batch(None) {
            names.push(job.name.clone());
            let bytes = job.progress.as_ref().map_or(0, |progress| progress.bytes) + SLICE_BYTES;
            if bytes < job.size() {
                let mut progress = Progress::default();
                progress.bytes = bytes;
                queue.resume(job, progress);
            } else {
                queue.finished(&job.name);
            }
        }
        names
    }

    #[test]
    fn a_small_file_waits_for_at_most_one_slice_of_a_large_file() {
        let mut queue = ReadQueue::default();
        queue.extend(vec![file("huge", SIZE_MAX), file("a", 1)], SIZE_MAX);
        assert_eq!(read_batch(&mut queue), ["a", "huge"]);
        assert_eq!(read_batch(&mut queue), ["huge"]);
        queue.extend(vec![file("huge", SIZE_MAX), file("b", 1)], SIZE_MAX);
        assert_eq!(read_batch(&mut queue), ["b", "huge"]);
    }

    #[test]
    fn the_shortest_large_file_is_finished_first_and_the_oldest_does_not_starve() {
        let mut queue = ReadQueue::default();
        let files = [("old", 4), ("long", 90), ("short", 2)];
        queue.extend(files.iter().map(|(name, slices)| file(name, slices * SLICE_BYTES)).collect(), SIZE_MAX);
        let mut order = Vec::new();
        for late in 0..8 {
            // Before each slice, another large file arrives that is shorter than all others.
            queue.extend(vec![file(&format!("late-{late}"), SLICE_BYTES + 1)], SIZE_MAX);
            order.extend(read_batch(&mut queue));
        }
        let slices = |order: &[String], name: &str| order.iter().filter(|read| *read == name).count();
        assert_eq!(["old", "long", "late-0"].map(|name| slices(&order, name)), [4, 0, 2], "{order:?}");
        while !queue.is_empty() {
            order.extend(read_batch(&mut queue));
        }
        assert_eq!(["long", "short"].map(|name| slices(&order, name)), [90, 2], "{order:?}");
    }

    #[test]
    fn a_batch_is_bounded_in_files_bytes_and_content() {
        let mut queue = ReadQueue::default();
        queue.extend((0..200).map(|n| file(&n.to_string(), 1)).collect(), SIZE_MAX);
        assert_eq!(read_batch(&mut queue).len(), BATCH_MAX);
        queue.clear();
        queue.extend((0..200).map(|n| file(&n.to_string(), SLICE_BYTES / 4)).collect(), SIZE_MAX);
        assert_eq!(read_batch(&mut queue).len(), 4);
        queue.clear();
        queue.extend((0..200).map(|n| file(&n.to_string(), BATCH_CONTENT_MAX / 2)).collect(), SIZE_MAX);
        assert_eq!(queue.next_batch(Some(BATCH_CONTENT_MAX)).len(), 2);
    }

    #[test]
    fn a_file_that_is_too_large_does_not_wait_for_other_large_files() {
        let mut queue = ReadQueue::default();
        queue.extend(vec![file("large", SIZE_MAX), file("too large", SIZE_MAX + 1)], SIZE_MAX);
        assert_eq!(read_batch(&mut queue), ["too large", "large"]);
    }
}

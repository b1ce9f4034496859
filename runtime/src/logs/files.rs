//! The files of the log: the current file and the two before it.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The number of rotated files.
const ROTATED_FILES: usize = 2;

pub(super) struct Files {
    /// The path of the current file.
    path: PathBuf,
    writer: BufWriter<File>,
    /// The length of the current file, in bytes.
    length: u64,
    length_max: u64,
    /// Whether the last write failed: a failure is logged once and not for every line.
    failing: bool,
}

impl Files {
    pub(super) fn open(folder: &Path, length_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("evoke.jsonl");
        let (writer, length) = open_to_append(&path)?;
        Ok(Self { path, writer, length, length_max, failing: false })
    }

    /// Writes a line. When the write fails the line is lost, and functions continue.
    pub(super) fn write_line(&mut self, line: &str) {
        let written = self.try_write(line);
        self.report(&written);
    }

    pub(super) fn flush(&mut self) {
        let flushed = self.writer.flush();
        self.report(&flushed);
    }

    fn try_write(&mut self, line: &str) -> io::Result<()> {
        if self.length >= self.length_max {
            self.rotate()?;
        }
        self.writer.write_all(line.as_bytes())?;
        self.writer.write_all(b"\n")?;
        self.length += line.len() as u64 + 1;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        for n in (1..=ROTATED_FILES).rev() {
            let newer = if n == 1 { self.path.clone() } else { self.numbered(n - 1) };
            match std::fs::rename(newer, self.numbered(n)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        (self.writer, self.length) = open_to_append(&self.path)?;
        Ok(())
    }

    /// Opens the readable files, oldest first, each with its length.
    pub(super) fn readers(&mut self) -> Vec<(File, u64)> {
        self.flush();
        let older = (1..=ROTATED_FILES).rev().map(|n| self.numbered(n));
        let all = older.chain([self.path.clone()]);
        // A missing file has no lines.
        all.filter_map(|path| File::open(path).and_then(|file| Ok((file.metadata()?.len(), file))).ok())
            .map(|(length, file)| (file, length))
            .collect()
    }

    fn numbered(&self, n: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }

    fn report(&mut self, written: &io::Result<()>) {
        match written {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!("cannot write {}, the log lines of functions are lost: {error}", self.path.display());
            }
            Err(_) => {}
        }
    }
}

/// Opens a file for appending. If a crash cut off the last line, the first write ends that line, so that the next line
/// stands alone. Writes nothing yet: a full disk must not prevent the start.
fn open_to_append(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let mut file = File::options().create(true).read(true).append(true).open(path)?;
    let mut length = file.metadata()?.len();
    let mut is_cut = false;
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        is_cut = last != *b"\n";
    }
    let mut writer = BufWriter::new(file);
    if is_cut {
        writer.write_all(b"\n")?;
        length += 1;
    }
    Ok((writer, length))
}

//! Standard output and the environment, without WASI.
//!
//! Every Rust program contains the code that prints a panic, and the C library that this code uses. So even a function
//! that does nothing would import 14 WASI interfaces, on some toolchains also those for files. Each import costs time
//! in every fresh instance, and the imports that the function really needs are hard to see among them. Therefore this
//! module defines the C functions that are used, such as `write` and `getenv`, in place of the C library. Printed text
//! becomes log lines: level info for `println!`, and level error for `eprintln!` and panics. The environment is empty.
//! The feature `wasi` omits these definitions, for a function that needs those of the C library.
#![allow(unsafe_code, reason = "the C library's interface is made of raw pointers")]

use crate::log::{Level, log};
use std::ffi::{c_char, c_int};
use std::panic::PanicHookInfo;
use std::sync::Mutex;

/// The text of an unfinished log line. The buffer has a fixed size, because it is also used to report that memory has
/// run out; longer text becomes several lines.
struct Pending {
    bytes: [u8; 1024],
    len: usize,
}

impl Pending {
    const fn new() -> Self {
        Self { bytes: [0; 1024], len: 0 }
    }

    fn add(&mut self, mut text: &[u8], level: Level, context: &str) {
        while !text.is_empty() {
            let (_, free) = self.bytes.split_at_mut(self.len);
            let (now, later) = text.split_at(text.len().min(free.len()));
            let (target, _) = free.split_at_mut(now.len());
            target.copy_from_slice(now);
            self.len += now.len();
            text = later;
            if now.ends_with(b"\n") || self.len == self.bytes.len() {
                let (message, _) = self.bytes.split_at(self.len);
                // std adds a note about RUST_BACKTRACE, which cannot be set: a function has no environment.
                if !message.starts_with(b"note: run with `RUST_BACKTRACE") {
                    log(level, context, String::from_utf8_lossy(message).trim_end_matches('\n'));
                }
                self.len = 0;
            }
        }
    }
}

static STDOUT: Mutex<Pending> = Mutex::new(Pending::new());
static STDERR: Mutex<Pending> = Mutex::new(Pending::new());

/// Adds printed text to the unfinished log line of stdout or stderr. Returns the number of bytes, or -1 for any other
/// file.
fn print(fd: c_int, text: &[u8]) -> isize {
    let (pending, level, context) = match fd {
        1 => (&STDOUT, Level::Info, "stdout"),
        2 => (&STDERR, Level::Error, "stderr"),
        _ => return -1,
    };
    match pending.try_lock() {
        Ok(mut pending) => pending.add(text, level, context),
        Err(_) => return -1,
    }
    text.len().cast_signed()
}

/// Logs one line with the location and the message of a panic.
pub(crate) fn panicked(info: &PanicHookInfo<'_>) {
    let why = info.payload_as_str().unwrap_or("no message");
    match info.location() {
        Some(at) => log(Level::Error, "panic", &format!("panicked at {at}: {why}")),
        None => log(Level::Error, "panic", &format!("panicked: {why}")),
    }
}

/// `struct iovec` of C (POSIX `<sys/uio.h>`).
#[repr(C)]
struct IoVec {
    base: *const u8,
    len: usize,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, base: *const u8, len: usize) -> isize {
    if len == 0 {
        return 0;
    }
    // SAFETY: POSIX requires the caller of `write` to pass `len` readable bytes.
    print(fd, unsafe { std::slice::from_raw_parts(base, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, parts: *const IoVec, count: c_int) -> isize {
    let mut written = 0;
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: POSIX requires the caller of `writev` to pass `count` parts, each with readable bytes.
        let taken = unsafe {
            let part = &*parts.add(index);
            write(fd, part.base, part.len)
        };
        if taken < 0 {
            return taken;
        }
        written += taken;
    }
    written
}

#[unsafe(no_mangle)]
extern "C" fn getenv(_name: *const c_char) -> *const c_char {
    std::ptr::null()
}

#[unsafe(no_mangle)]
extern "C" fn getcwd(_buffer: *mut c_char, _len: usize) -> *const c_char {
    std::ptr::null()
}

#[unsafe(no_mangle)]
extern "C" fn abort() -> ! {
    core::arch::wasm32::unreachable()
}

//! What the daemon's allocator keeps, and the allocator of monitors' workers.
//!
//! glibc gives each thread that finds the others busy an arena of its own, up to eight a processor, and gives little of what was freed
//! back to the kernel: after a burst of requests that is several times what is in use. Owns no state; a crash leaves nothing.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Has the whole process share two arenas. To be called before the first thread is made.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number in the allocator, under the allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives what was freed back to the kernel. Takes about a millisecond: for moments with nothing to do.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The allocator of a process with one thread that forks workers (`crisp-monitor`): the system's, until [`Workers::never_free`] is called.
/// From then on memory is only taken: a worker lives for milliseconds, and giving memory back costs it more (a system
/// call and a page fault each time, and copies of the pages it shares with its parent) than it has to gain.
#[derive(Debug)]
pub struct Workers {
    /// The next free byte of the present piece; 0: memory is the system allocator's.
    next: AtomicUsize,
    end: AtomicUsize,
}

/// Bytes that are taken from the kernel at once, with their pages.
const PIECE: usize = 128 << 10;

/// What every `malloc` gives, whatever is asked for. Libraries count on it: buffers of bytes are used for the kernel's structures.
const LEAST_ALIGNMENT: usize = 16;

impl Workers {
    /// For a `#[global_allocator]`.
    pub const fn new() -> Self {
        Self { next: AtomicUsize::new(0), end: AtomicUsize::new(0) }
    }

    /// To be called in a forked child, before it has a second thread.
    pub fn never_free(&self) {
        if self.next.load(Relaxed) == 0 {
            // An empty piece.
            self.next.store(1, Relaxed);
            self.end.store(1, Relaxed);
        }
    }

    fn take(&self, layout: Layout) -> *mut u8 {
        let align = layout.align().max(LEAST_ALIGNMENT);
        let fits = |from: usize| {
            let start = from.checked_next_multiple_of(align)?;
            Some((start, start.checked_add(layout.size())?))
        };
        let found = fits(self.next.load(Relaxed)).filter(|(_, end)| *end <= self.end.load(Relaxed));
        let (start, end) = match found.or_else(|| {
            let size = layout.size().checked_add(align)?.max(PIECE);
            // SAFETY: a new mapping, which nobody else knows.
            let piece = unsafe {
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
                libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0)
            };
            if piece == libc::MAP_FAILED {
                return None;
            }
            let start = piece.expose_provenance();
            self.end.store(start + size, Relaxed);
            fits(start)
        }) {
            Some(found) => found,
            None => return std::ptr::null_mut(),
        };
        self.next.store(end, Relaxed);
        std::ptr::with_exposed_provenance_mut(start)
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: what `take` returns lies in a mapping of its own, aligned, and is given to nobody else (one thread takes at a time: see
// `never_free`); it stays valid for as long as the process lives. Everything else is the system allocator's.
unsafe impl GlobalAlloc for Workers {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.next.load(Relaxed) == 0 {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        self.take(layout)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.next.load(Relaxed) {
            // SAFETY: the caller's promise; it was allocated by the system's, as everything before `never_free`.
            0 => unsafe { System.dealloc(pointer, layout) },
            // The last that was taken can be taken again.
            next if pointer.addr() + layout.size() == next => self.next.store(pointer.addr(), Relaxed),
            _ => {}
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let next = self.next.load(Relaxed);
        if next == 0 {
            // SAFETY: as in `dealloc`.
            return unsafe { System.realloc(pointer, layout, size) };
        }
        let grown = pointer.addr().checked_add(size);
        if pointer.addr() + layout.size() == next && grown.is_some_and(|end| end <= self.end.load(Relaxed)) {
            self.next.store(pointer.addr() + size, Relaxed);
            return pointer;
        }
        if size <= layout.size() {
            return pointer;
        }
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return std::ptr::null_mut() };
        let new = self.take(wanted);
        if !new.is_null() {
            // SAFETY: both are as long as the old one at least, and do not overlap, since the old one is in use.
            unsafe { std::ptr::copy_nonoverlapping(pointer, new, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not the test's own allocator: one beside it.
    #[test]
    fn memory_is_taken_aligned_apart_and_the_last_again() {
        let workers = Workers::new();
        workers.never_free();
        let layout = |size, align| Layout::from_size_align(size, align).expect("a layout");
        // SAFETY: what is allocated here is used within its size, and freed with its layout.
        unsafe {
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (size, align) in [(1, 1), (24, 8), (4096, 4096), (PIECE * 2, 16), (3, 1), (64, 64)] {
                let pointer = workers.alloc_zeroed(layout(size, align));
                assert!(!pointer.is_null() && pointer.addr().is_multiple_of(align.max(16)), "{size} {align}");
                assert!((0..size).all(|i| *pointer.add(i) == 0));
                pointer.write_bytes(0xa5, size);
                let (from, to) = (pointer.addr(), pointer.addr() + size);
                assert!(taken.iter().all(|(a, b)| to <= *a || *b <= from), "{size} {align}");
                taken.push((from, to));
            }
            let last = workers.alloc(layout(32, 8));
            last.write_bytes(7, 32);
            assert_eq!(workers.realloc(last, layout(32, 8), 64), last);
            let other = workers.alloc(layout(8, 8));
            let moved = workers.realloc(last, layout(64, 8), 128);
            assert!(moved != last && (0..32).all(|i| *moved.add(i) == 7));
            workers.dealloc(other, layout(8, 8));
            workers.dealloc(moved, layout(128, 8));
            let again = workers.alloc_zeroed(layout(128, 8));
            assert!(again == moved && (0..128).all(|i| *again.add(i) == 0));
        }
    }
}

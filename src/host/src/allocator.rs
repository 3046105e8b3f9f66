//! What the daemon's allocator keeps.
//!
//! glibc gives each thread that finds the others busy an arena of its own, up to eight a processor, and gives little of what was freed
//! back to the kernel: after a burst of requests that is several times what is in use. Owns no state; a crash leaves nothing.
#![allow(unsafe_code)]

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

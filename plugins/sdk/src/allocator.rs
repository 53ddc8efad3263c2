//! The memory of a plugin in WebAssembly.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::Cell;
use core::ptr::null_mut;

/// Bytes of a page of WebAssembly's memory.
const PAGE: usize = 64 * 1024;

unsafe extern "C" {
    /// The end of the program's data, set by the linker.
    static __heap_base: u8;
}

/// Hands out memory from one end to the other and takes back only what it handed out last.
///
/// An instance lives for one call, so there is nothing to use again: a general allocator took a
/// third of the call (`make bench`).
#[derive(Debug)]
pub struct OneCallAllocator {
    next: Cell<usize>,
    end: Cell<usize>,
}

impl OneCallAllocator {
    #[expect(
        clippy::new_without_default,
        reason = "it is made in a static, where no default can be called"
    )]
    pub const fn new() -> Self {
        Self {
            next: Cell::new(0),
            end: Cell::new(0),
        }
    }

    /// Memory from `start` on, or null where the host gives no more.
    fn reserve(&self, start: usize, size: usize) -> *mut u8 {
        let Some(end) = start.checked_add(size) else {
            return null_mut();
        };
        if end > self.end.get() {
            let pages = (end - self.end.get()).div_ceil(PAGE);
            if memory_grow::<0>(pages) == usize::MAX {
                return null_mut();
            }
            self.end.set(memory_size::<0>() * PAGE);
        }
        self.next.set(end);
        start as *mut u8
    }

    fn is_last(&self, memory: *mut u8, size: usize) -> bool {
        memory as usize + size == self.next.get()
    }
}

// SAFETY: a plugin has no threads: the component has no shared memory and imports nothing.
unsafe impl Sync for OneCallAllocator {}

// SAFETY: each block starts where the one before it ended or later, aligned as asked, below the end
// of the memory; only the last block is ever taken back or made longer in its place.
unsafe impl GlobalAlloc for OneCallAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.end.get() == 0 {
            self.next.set(&raw const __heap_base as usize);
            self.end.set(memory_size::<0>() * PAGE);
        }
        self.reserve(
            self.next.get().next_multiple_of(layout.align()),
            layout.size(),
        )
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if self.is_last(memory, layout.size()) {
            self.next.set(memory as usize);
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.is_last(memory, layout.size()) {
            return self.reserve(memory as usize, size);
        }
        // SAFETY: the caller gives a layout that is valid with this size.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the new block is apart from the old one, and both hold what is copied.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(memory, layout.size().min(size));
            }
            moved
        }
    }
}

//! What the fuzz targets share: how much memory was asked for, and the public vectors as a place to begin.

pub mod seeds;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

/// All octets this thread ever asked for; what was given back is not taken off.
pub fn allocated() -> usize {
    ALLOCATED.with(Cell::get)
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(octets: usize) {
    // A thread that is ending has no counter any more, and needs none.
    let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + octets));
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

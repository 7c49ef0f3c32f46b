//! Reading what SQLite no longer reads: single pages, and the rows on them. It only ever reads.

pub mod pages;
pub mod tree;

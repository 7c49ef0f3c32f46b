//! One file a command.

pub mod decode;

//! What is wrong with a profile: where, what, and what to write instead.

use std::fmt;

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProfileError {
    pub file: String,
    /// From 1; absent where the file as a whole is meant.
    pub line: Option<usize>,
    /// `frame 2, field 1 (spo2)`; empty at the top.
    pub place: String,
    pub message: String,
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.place.is_empty() {
            write!(f, ": {}", self.place)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Everything wrong with one file, in the order of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProfileErrors(pub Vec<ProfileError>);

impl fmt::Display for ProfileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ProfileError::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ProfileErrors {}

//! Patient data in a box that does not print.

/// Whatever names a patient. Its `Debug` prints `<phi>`; it has no `Display` and no `Serialize`, so it reaches a log, a
/// topic or an error only through an explicit [`Phi::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Phi<T>(T);

impl<T> Phi<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> std::fmt::Debug for Phi<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<phi>")
    }
}

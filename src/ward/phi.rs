//! A patient's identity in memory. It cannot be printed or serialised by accident: whoever needs the value asks for it by
//! name, and that name is easy to search for.

use std::fmt;

/// Something that identifies a patient. `Debug` prints `<phi>`; there is no `Display` and no `Serialize`.
///
/// ```compile_fail,E0277
/// let name = bedrail::ward::Phi::new("Åsa Lind");
/// println!("{name}");
/// ```
///
/// ```compile_fail,E0277
/// let name = bedrail::ward::Phi::new("Åsa Lind");
/// let _ = serde_json::to_string(&name);
/// ```
///
/// ```
/// let name = bedrail::ward::Phi::new("Åsa Lind");
/// assert_eq!(format!("{name:?}"), "<phi>");
/// assert_eq!(*name.expose(), "Åsa Lind");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Phi<T>(T);

impl<T> Phi<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, on its way into an encrypted store or a message to the patient's own chart.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Phi<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<phi>")
    }
}

//! User Data Service (181C), as far as reading needs it: which user slot is active.

use super::{Cursor, Decode, DecodeError, Field, Fields};
use crate::reading::UserIndex;

/// The octet that means "unknown user". 0 is a real user.
const UNKNOWN_USER: u8 = 255;

pub const fn known_user(octet: u8) -> Option<UserIndex> {
    match octet {
        UNKNOWN_USER => None,
        user => Some(user),
    }
}

pub fn user_field(octet: u8) -> Field {
    known_user(octet).map_or(Field::Null, |user| Field::Integer(user.into()))
}

/// User Index (2A9A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserIndexValue {
    pub user: Option<UserIndex>,
}

impl Decode for UserIndexValue {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.u8("user_index").map(|octet| Self { user: known_user(octet) })
    }

    fn fields(&self) -> Fields {
        Fields::new().with("user_index", self.user.map_or(Field::Null, |user| Field::Integer(user.into())))
    }
}

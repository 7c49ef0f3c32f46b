//! User Data Service (181C): which user slot is active, what the device knows of that user, and how a slot is opened. Names and
//! addresses, which the service has too, are never read.

use super::fields::{Names, is_named};
use super::scaled::{HUNDREDTH, Measures};
use super::segment::Segment;
use super::{Cursor, Decode, DecodeError, Field, Fields, Number, Warning};
use crate::reading::{Unit, UserIndex};

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

/// Database Change Increment (2A99): a higher number than last time means that the user's data changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseChangeIncrement(pub u32);

impl Decode for DatabaseChangeIncrement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.u32("increment").map(Self)
    }

    fn fields(&self) -> Fields {
        Fields::new().with("increment", Field::Integer(self.0.into()))
    }
}

/// Age (2A80), in years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(u8);

impl Decode for Age {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.u8("age").map(Self)
    }

    fn fields(&self) -> Fields {
        Fields::new().with("age", Field::Quantity(Number::whole(self.0), "a"))
    }
}

const GENDER: Names = &[(0, "male"), (1, "female"), (2, "unspecified")];

/// Gender (2A8C).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gender(u8);

impl Decode for Gender {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.code("gender", GENDER).map(Self)
    }

    fn fields(&self) -> Fields {
        Fields::new().with("gender", Field::Code(self.0, GENDER))
    }
}

/// Height (2A8E) as the user told it, in hundredths of a metre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Height(u16);

impl Decode for Height {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.u16("height").map(Self)
    }

    fn fields(&self) -> Fields {
        Fields::new().with("height", Field::quantity(HUNDREDTH.of(self.0), Unit::Metre))
    }
}

/// Weight (2A98) as the user told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(u16);

impl Decode for Weight {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        cursor.u16("weight").map(Self)
    }

    fn fields(&self) -> Fields {
        let (step, unit) = Measures::Metric.mass();
        Fields::new().with("weight", Field::quantity(step.of(self.0), unit))
    }
}

/// Date of Birth (2A85); any part may be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateOfBirth {
    year: u16,
    month: u8,
    day: u8,
}

impl Decode for DateOfBirth {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let date = Self { year: cursor.u16("year")?, month: cursor.u8("month")?, day: cursor.u8("day")? };
        if !(matches!(date.year, 0 | 1582..=9999) && date.month <= 12 && date.day <= 31) {
            cursor.warn(Warning::InvalidDateTime);
        }
        Ok(date)
    }

    fn fields(&self) -> Fields {
        let part = |value: u16| if value == 0 { Field::Null } else { Field::Integer(value.into()) };
        Fields::new().with("year", part(self.year)).with("month", part(self.month.into())).with("day", part(self.day.into()))
    }
}

/// One piece of Registered User (2B37): the list of users, one or more pieces each. What is in a piece beyond the user's index
/// could not be checked against the service's text, so it is kept as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredUser {
    first: bool,
    last: bool,
    counter: u8,
    pub user: UserIndex,
    rest: Vec<u8>,
}

impl Decode for RegisteredUser {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let Segment { first, last, counter } = Segment::of_header(cursor.u8("segment")?);
        Ok(Self { first, last, counter, user: cursor.u8("user_index")?, rest: cursor.rest().to_vec() })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("first", Field::Bool(self.first))
            .with("last", Field::Bool(self.last))
            .with("counter", Field::Integer(self.counter.into()))
            .with("user_index", Field::Integer(self.user.into()))
            .with("unparsed", Field::Octets(self.rest.clone()))
    }
}

const REGISTER: u8 = 0x01;
const CONSENT: u8 = 0x02;
const DELETE_DATA: u8 = 0x03;
const LIST_USERS: u8 = 0x04;
const DELETE_USER: u8 = 0x05;
const RESPONSE: u8 = 0x20;

const OP: Names = &[
    (REGISTER, "register_new_user"),
    (CONSENT, "consent"),
    (DELETE_DATA, "delete_user_data"),
    (LIST_USERS, "list_all_users"),
    (DELETE_USER, "delete_user"),
    (RESPONSE, "response"),
];

const RESULT: Names = &[
    (1, "success"),
    (2, "op_code_not_supported"),
    (3, "invalid_parameter"),
    (4, "operation_failed"),
    (5, "user_not_authorized"),
];
const SUCCESS: u8 = 1;
const NOT_AUTHORIZED: u8 = 5;

/// User Control Point (2A9F): a request or an answer. Users and their data are never deleted, so there is no way to write that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum UserControlPoint {
    Register(ConsentCode),
    Consent(UserIndex, ConsentCode),
    ListUsers,
    /// A request that is read and never written.
    Other(u8),
    Response {
        request: u8,
        code: u8,
        /// The new user's index, or how many users are listed.
        parameter: Option<u8>,
    },
}

/// The number with which a user's slot is opened; it is a secret and prints as none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConsentCode(pub u16);

impl std::fmt::Debug for UserControlPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserControlPoint({:?})", self.fields())
    }
}

impl UserControlPoint {
    /// The octets to write; `None` for what is not written.
    pub fn encode(self) -> Option<Vec<u8>> {
        match self {
            Self::Register(code) => Some([&[REGISTER][..], &code.0.to_le_bytes()].concat()),
            Self::Consent(user, code) => Some([&[CONSENT, user][..], &code.0.to_le_bytes()].concat()),
            Self::ListUsers => Some(vec![LIST_USERS]),
            Self::Other(_) | Self::Response { .. } => None,
        }
    }

    /// The device does not take the consent code: trying again may lock the slot.
    pub const fn is_refused_consent(self) -> bool {
        matches!(self, Self::Response { request: CONSENT, code: NOT_AUTHORIZED, .. })
    }

    pub const fn is_granted_consent(self) -> bool {
        matches!(self, Self::Response { request: CONSENT, code: SUCCESS, .. })
    }

    /// An answer to a consent, whatever it says.
    pub const fn is_consent(self) -> bool {
        matches!(self, Self::Response { request: CONSENT, .. })
    }
}

impl Decode for UserControlPoint {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(match cursor.u8("op_code")? {
            REGISTER => Self::Register(ConsentCode(cursor.u16("consent")?)),
            CONSENT => Self::Consent(cursor.u8("user_index")?, ConsentCode(cursor.u16("consent")?)),
            LIST_USERS => Self::ListUsers,
            op @ DELETE_DATA => Self::Other(op),
            op @ DELETE_USER => {
                cursor.u8("user_index")?;
                Self::Other(op)
            }
            RESPONSE => {
                let (request, code) = (cursor.u8("request")?, cursor.code("result", RESULT)?);
                if !is_named(request, OP) {
                    cursor.warn(Warning::ReservedValue);
                }
                let has_parameter = code == SUCCESS && matches!(request, REGISTER | LIST_USERS);
                Self::Response { request, code, parameter: has_parameter.then(|| cursor.u8("parameter")).transpose()? }
            }
            opcode => return Err(DecodeError::UnknownOpcode { opcode }),
        })
    }

    fn fields(&self) -> Fields {
        let op = |op| Fields::new().with("op", Field::Code(op, OP));
        match *self {
            Self::Register(_) => op(REGISTER),
            Self::Consent(user, _) => op(CONSENT).with("user_index", user_field(user)),
            Self::ListUsers => op(LIST_USERS),
            Self::Other(other) => op(other),
            Self::Response { request, code, parameter } => {
                let name = if request == LIST_USERS { "users" } else { "user_index" };
                Fields::new()
                    .with("request", Field::Code(request, OP))
                    .with("result", Field::Code(code, RESULT))
                    .with_sent(name, parameter.map(|value| Field::Integer(value.into())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    #[test]
    fn a_request_reads_back_and_its_code_is_never_printed() {
        let request = UserControlPoint::Consent(2, ConsentCode(4711));
        assert_eq!(request.encode().as_deref(), Some(&[2, 2, 0x67, 0x12][..]));
        for request in [request, UserControlPoint::Register(ConsentCode(4711)), UserControlPoint::ListUsers] {
            let octets = request.encode().expect("a request that is written");
            assert_eq!(read::<UserControlPoint>(&octets), Ok((request, vec![])));
            assert!(!format!("{request:?}").contains("4711"));
        }
    }

    #[test]
    fn nothing_that_deletes_can_be_written() {
        for octets in [&[3][..], &[5, 1]] {
            assert_eq!(read::<UserControlPoint>(octets).expect("a request").0.encode(), None);
        }
    }

    #[test]
    fn a_refused_consent_is_told_from_a_failure() {
        let refused = |octets: &[u8]| read::<UserControlPoint>(octets).expect("an answer").0.is_refused_consent();
        assert!(refused(&[0x20, 2, 5]));
        assert!(!refused(&[0x20, 2, 4]) && !refused(&[0x20, 2, 1]));
    }
}

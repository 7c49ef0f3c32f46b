//! GHS Control Point (2BF4), as published encoders have it: a device sends observations only after it was asked to.

use super::fields::Names;
use super::{Cursor, Decode, DecodeError, Field, Fields};

const START: u8 = 0x01;
const STOP: u8 = 0x02;
const OP: Names = &[(START, "start_live"), (STOP, "stop_live"), (0x80, "success"), (0x81, "busy"), (0x82, "error")];

/// A request or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GhsControlPoint(u8);

impl GhsControlPoint {
    pub const START_LIVE: Self = Self(START);
    pub const STOP_LIVE: Self = Self(STOP);

    /// The octet to write; `None` for an answer.
    pub fn encode(self) -> Option<[u8; 1]> {
        matches!(self, Self::START_LIVE | Self::STOP_LIVE).then_some([self.0])
    }
}

impl Decode for GhsControlPoint {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let op = cursor.u8("op_code")?;
        if OP.iter().any(|(known, _)| *known == op) { Ok(Self(op)) } else { Err(DecodeError::UnknownOpcode { opcode: op }) }
    }

    fn fields(&self) -> Fields {
        Fields::new().with("op", Field::Code(self.0, OP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    #[test]
    fn a_request_reads_back_and_an_answer_is_never_written() {
        for request in [GhsControlPoint::START_LIVE, GhsControlPoint::STOP_LIVE] {
            let octets = request.encode().expect("a request");
            assert_eq!(read::<GhsControlPoint>(&octets), Ok((request, vec![])));
        }
        assert_eq!(read::<GhsControlPoint>(&[0x81]).map(|(answer, _)| answer.encode()), Ok(None));
        assert_eq!(read::<GhsControlPoint>(&[0x03]).map_err(|error| error.name()), Err("unknown_opcode"));
    }
}

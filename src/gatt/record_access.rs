//! Record Access Control Point (GSS, 2A52): how a client asks a device for the records it has stored, and what it answers. Only
//! the octets; the procedure around them is the session's.

use super::fields::Names;
use super::{Cursor, DateTime, Decode, DecodeError, Field, Fields, Warning};

const REPORT: u8 = 1;
const DELETE: u8 = 2;
const ABORT: u8 = 3;
const COUNT: u8 = 4;
const COUNT_RESPONSE: u8 = 5;
const RESPONSE: u8 = 6;
const COMBINED: u8 = 7;
const COMBINED_RESPONSE: u8 = 8;

const OP: Names = &[
    (REPORT, "report"),
    (DELETE, "delete"),
    (ABORT, "abort"),
    (COUNT, "report_count"),
    (COUNT_RESPONSE, "count_response"),
    (RESPONSE, "response"),
    (COMBINED, "combined_report"),
    (COMBINED_RESPONSE, "combined_response"),
];

const NULL: u8 = 0;
const ALL: u8 = 1;
const LE: u8 = 2;
const GE: u8 = 3;
const RANGE: u8 = 4;
const FIRST: u8 = 5;
const LAST: u8 = 6;
const OPERATOR: Names =
    &[(NULL, "null"), (ALL, "all"), (LE, "le"), (GE, "ge"), (RANGE, "range"), (FIRST, "first"), (LAST, "last")];

const SEQUENCE: u8 = 1;
const TIME: u8 = 2;
const FILTER: Names = &[(SEQUENCE, "sequence"), (TIME, "time")];

const RESULT: Names = &[
    (1, "success"),
    (2, "op_code_not_supported"),
    (3, "invalid_operator"),
    (4, "operator_not_supported"),
    (5, "invalid_operand"),
    (6, "no_records_found"),
    (7, "abort_unsuccessful"),
    (8, "procedure_not_completed"),
    (9, "operand_not_supported"),
    (10, "server_busy"),
];

/// What came back for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordAccessResult {
    Success,
    NoRecordsFound,
    /// The device can't do what was asked; `ge` and the like are then tried as `all`.
    NotSupported,
    Busy,
    /// Refused or broken off, with the code.
    Failed(u8),
}

/// One value of the control point, a request or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordAccessControlPoint {
    Report(StoredRecords),
    Delete(StoredRecords),
    Abort,
    Count(StoredRecords),
    Combined(StoredRecords),
    CountResponse(u32),
    CombinedResponse(u32),
    /// The opcode asked, and the code of the result.
    Response {
        request: u8,
        code: u8,
    },
}

/// Which records are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredRecords {
    All,
    First,
    Last,
    UpTo(Bound),
    From(Bound),
    Between(Bound, Bound),
}

/// How wide the sequence numbers of the service are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Glucose, CGM, pulse oximetry.
    U16,
    /// Generic health sensors.
    U32,
}

/// An end of a span of records. Sequence numbers have the width of their service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Sequence16(u16),
    Sequence32(u32),
    Time(DateTime),
}

impl RecordAccessControlPoint {
    /// The octets to write.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Report(records) => records.encode(REPORT),
            Self::Delete(records) => records.encode(DELETE),
            Self::Count(records) => records.encode(COUNT),
            Self::Combined(records) => records.encode(COMBINED),
            Self::Abort => vec![ABORT, NULL],
            Self::CountResponse(count) => count_response(COUNT_RESPONSE, count),
            Self::CombinedResponse(count) => count_response(COMBINED_RESPONSE, count),
            Self::Response { request, code } => vec![RESPONSE, NULL, request, code],
        }
    }

    /// What a response means; `None` for anything else.
    pub const fn result(self) -> Option<RecordAccessResult> {
        let Self::Response { code, .. } = self else { return None };
        Some(match code {
            1 => RecordAccessResult::Success,
            6 => RecordAccessResult::NoRecordsFound,
            2 | 4 | 9 => RecordAccessResult::NotSupported,
            10 => RecordAccessResult::Busy,
            code => RecordAccessResult::Failed(code),
        })
    }

    const fn op(self) -> u8 {
        match self {
            Self::Report(_) => REPORT,
            Self::Delete(_) => DELETE,
            Self::Abort => ABORT,
            Self::Count(_) => COUNT,
            Self::Combined(_) => COMBINED,
            Self::CountResponse(_) => COUNT_RESPONSE,
            Self::CombinedResponse(_) => COMBINED_RESPONSE,
            Self::Response { .. } => RESPONSE,
        }
    }
}

fn count_response(op: u8, count: u32) -> Vec<u8> {
    [&[op, NULL][..], &count.to_le_bytes()].concat()
}

impl StoredRecords {
    fn encode(self, op: u8) -> Vec<u8> {
        let mut octets = vec![op, self.operator()];
        let (a, b) = self.bounds();
        if let Some(bound) = a.or(b) {
            octets.push(bound.filter());
        }
        a.into_iter().chain(b).for_each(|bound| bound.encode(&mut octets));
        octets
    }

    const fn operator(self) -> u8 {
        match self {
            StoredRecords::All => ALL,
            StoredRecords::First => FIRST,
            StoredRecords::Last => LAST,
            StoredRecords::UpTo(_) => LE,
            StoredRecords::From(_) => GE,
            StoredRecords::Between(..) => RANGE,
        }
    }

    /// The lower and the upper end.
    const fn bounds(self) -> (Option<Bound>, Option<Bound>) {
        match self {
            StoredRecords::All | StoredRecords::First | StoredRecords::Last => (None, None),
            StoredRecords::UpTo(max) => (None, Some(max)),
            StoredRecords::From(min) => (Some(min), None),
            StoredRecords::Between(min, max) => (Some(min), Some(max)),
        }
    }

    fn decode(cursor: &mut Cursor<'_>, operator: u8) -> Result<Self, DecodeError> {
        Ok(match operator {
            ALL => StoredRecords::All,
            FIRST => StoredRecords::First,
            LAST => StoredRecords::Last,
            LE => StoredRecords::UpTo(Bound::decode_all::<1>(cursor)?[0]),
            GE => StoredRecords::From(Bound::decode_all::<1>(cursor)?[0]),
            RANGE => {
                let [min, max] = Bound::decode_all::<2>(cursor)?;
                StoredRecords::Between(min, max)
            }
            other => return Err(DecodeError::InvalidField { field: "operator", value: other.into() }),
        })
    }
}

impl Bound {
    const fn filter(self) -> u8 {
        match self {
            Bound::Sequence16(_) | Bound::Sequence32(_) => SEQUENCE,
            Bound::Time(_) => TIME,
        }
    }

    fn encode(self, octets: &mut Vec<u8>) {
        match self {
            Bound::Sequence16(number) => octets.extend(number.to_le_bytes()),
            Bound::Sequence32(number) => octets.extend(number.to_le_bytes()),
            Bound::Time(time) => octets.extend(time.octets),
        }
    }

    /// `N` ends of one kind; the octets left tell how wide a sequence number is.
    fn decode_all<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[Bound; N], DecodeError> {
        let filter = cursor.u8("filter")?;
        let wide = cursor.left() >= 4 * N;
        let mut bounds = [Bound::Sequence16(0); N];
        for bound in &mut bounds {
            *bound = match filter {
                SEQUENCE if wide => Bound::Sequence32(cursor.u32("sequence")?),
                SEQUENCE => Bound::Sequence16(cursor.u16("sequence")?),
                TIME => Bound::Time(cursor.date_time("time")?),
                other => return Err(DecodeError::InvalidField { field: "filter", value: other.into() }),
            };
        }
        Ok(bounds)
    }

    fn field(self) -> Field {
        match self {
            Bound::Sequence16(number) => Field::Integer(number.into()),
            Bound::Sequence32(number) => Field::Integer(number.into()),
            Bound::Time(time) => time.field(),
        }
    }
}

impl Decode for RecordAccessControlPoint {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let op = cursor.u8("op_code")?;
        if !matches!(op, REPORT..=COMBINED_RESPONSE) {
            return Err(DecodeError::UnknownOpcode { opcode: op });
        }
        let operator = cursor.u8("operator")?;
        if matches!(op, ABORT | COUNT_RESPONSE | RESPONSE | COMBINED_RESPONSE) && operator != NULL {
            return Err(DecodeError::InvalidField { field: "operator", value: operator.into() });
        }
        Ok(match op {
            REPORT => Self::Report(StoredRecords::decode(cursor, operator)?),
            DELETE => Self::Delete(StoredRecords::decode(cursor, operator)?),
            COUNT => Self::Count(StoredRecords::decode(cursor, operator)?),
            COMBINED => Self::Combined(StoredRecords::decode(cursor, operator)?),
            ABORT => Self::Abort,
            COUNT_RESPONSE => Self::CountResponse(count(cursor)?),
            COMBINED_RESPONSE => Self::CombinedResponse(count(cursor)?),
            _ => {
                let (request, code) = (cursor.u8("request")?, cursor.u8("result")?);
                if !(OP.iter().any(|(op, _)| *op == request) && RESULT.iter().any(|(known, _)| *known == code)) {
                    cursor.warn(Warning::ReservedValue);
                }
                Self::Response { request, code }
            }
        })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new().with("op", Field::Code(self.op(), OP));
        match *self {
            Self::Abort => fields.with("operator", Field::Code(NULL, OPERATOR)),
            Self::CountResponse(count) | Self::CombinedResponse(count) => fields.with("count", Field::Integer(count.into())),
            Self::Response { request, code } => {
                fields.with("request", Field::Code(request, OP)).with("result", Field::Code(code, RESULT))
            }
            Self::Report(records) | Self::Delete(records) | Self::Count(records) | Self::Combined(records) => {
                let (min, max) = records.bounds();
                fields
                    .with("operator", Field::Code(records.operator(), OPERATOR))
                    .with_sent("filter", min.or(max).map(|bound| Field::Code(bound.filter(), FILTER)))
                    .with_sent("min", min.map(Bound::field))
                    .with_sent("max", max.map(Bound::field))
            }
        }
    }
}

/// Services count in one, two or four octets.
fn count(cursor: &mut Cursor<'_>) -> Result<u32, DecodeError> {
    match cursor.left() {
        0 | 1 => cursor.u8("count").map(u32::from),
        2 => cursor.u16("count").map(u32::from),
        3 => Err(DecodeError::InvalidLength { field: "count", octets: 3 }),
        _ => cursor.u32("count"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::read;

    #[test]
    fn what_is_written_is_what_the_specification_has_and_reads_back() {
        let time: DateTime = read(&[0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0]).expect("a time").0;
        let report = RecordAccessControlPoint::Report;
        for (request, octets) in [
            (report(StoredRecords::All), &[1, 1][..]),
            (report(StoredRecords::From(Bound::Sequence16(0x0102))), &[1, 3, 1, 2, 1]),
            (report(StoredRecords::UpTo(Bound::Sequence16(9))), &[1, 2, 1, 9, 0]),
            (report(StoredRecords::Between(Bound::Sequence16(1), Bound::Sequence16(2))), &[1, 4, 1, 1, 0, 2, 0]),
            (report(StoredRecords::From(Bound::Time(time))), &[1, 3, 2, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0]),
            (RecordAccessControlPoint::Combined(StoredRecords::From(Bound::Sequence32(7))), &[7, 3, 1, 7, 0, 0, 0]),
            (RecordAccessControlPoint::Count(StoredRecords::Last), &[4, 6]),
            (RecordAccessControlPoint::Delete(StoredRecords::First), &[2, 5]),
            (RecordAccessControlPoint::Abort, &[3, 0]),
            (RecordAccessControlPoint::CombinedResponse(42), &[8, 0, 42, 0, 0, 0]),
        ] {
            assert_eq!(request.encode(), octets);
            assert_eq!(read::<RecordAccessControlPoint>(octets), Ok((request, vec![])));
        }
    }

    #[test]
    fn what_a_device_cant_do_is_told_from_what_went_wrong() {
        let result = |code| RecordAccessControlPoint::Response { request: REPORT, code }.result();
        assert_eq!(result(1), Some(RecordAccessResult::Success));
        assert_eq!([2, 4, 9].map(result), [Some(RecordAccessResult::NotSupported); 3]);
        assert_eq!(result(6), Some(RecordAccessResult::NoRecordsFound));
        assert_eq!(result(10), Some(RecordAccessResult::Busy));
        assert_eq!(result(8), Some(RecordAccessResult::Failed(8)));
        assert_eq!(RecordAccessControlPoint::Abort.result(), None);
    }
}

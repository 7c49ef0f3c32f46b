//! CGM Specific Ops Control Point (GSS, 2AAC). Everything it can say is read; only questions can be written, because a gateway
//! calibrates no sensor and starts, stops and alarms nothing.

use super::crc::{Checked, crc16};
use super::fields::{Names, named_bits};
use super::glucose::Sample;
use super::{Cursor, Decode, DecodeError, Field, Fields, Number};
use crate::reading::Unit;

const INTERVAL: u8 = 0x03;
const CALIBRATION: u8 = 0x06;
const RESPONSE: u8 = 0x1C;

const OP: Names = &[
    (0x01, "set_communication_interval"),
    (0x02, "get_communication_interval"),
    (INTERVAL, "communication_interval"),
    (0x04, "set_calibration"),
    (0x05, "get_calibration"),
    (CALIBRATION, "calibration"),
    (0x07, "set_patient_high"),
    (0x08, "get_patient_high"),
    (0x09, "patient_high"),
    (0x0A, "set_patient_low"),
    (0x0B, "get_patient_low"),
    (0x0C, "patient_low"),
    (0x0D, "set_hypo"),
    (0x0E, "get_hypo"),
    (0x0F, "hypo"),
    (0x10, "set_hyper"),
    (0x11, "get_hyper"),
    (0x12, "hyper"),
    (0x13, "set_rate_decrease"),
    (0x14, "get_rate_decrease"),
    (0x15, "rate_decrease"),
    (0x16, "set_rate_increase"),
    (0x17, "get_rate_increase"),
    (0x18, "rate_increase"),
    (0x19, "reset_device_alert"),
    (0x1A, "start_session"),
    (0x1B, "stop_session"),
    (RESPONSE, "response"),
];

const RESULT: Names = &[
    (1, "success"),
    (2, "op_code_not_supported"),
    (3, "invalid_operand"),
    (4, "procedure_not_completed"),
    (5, "parameter_out_of_range"),
];

/// What may be written: a question that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgmQuestion {
    CommunicationInterval,
    /// The calibration record of that number; 0xFFFF is the last.
    Calibration(u16),
    PatientHigh,
    PatientLow,
    Hypo,
    Hyper,
    RateOfDecrease,
    RateOfIncrease,
}

impl CgmQuestion {
    pub fn encode(self, e2e_crc: bool) -> Vec<u8> {
        let mut octets = match self {
            CgmQuestion::CommunicationInterval => vec![0x02],
            CgmQuestion::Calibration(record) => [&[0x05][..], &record.to_le_bytes()].concat(),
            CgmQuestion::PatientHigh => vec![0x08],
            CgmQuestion::PatientLow => vec![0x0B],
            CgmQuestion::Hypo => vec![0x0E],
            CgmQuestion::Hyper => vec![0x11],
            CgmQuestion::RateOfDecrease => vec![0x14],
            CgmQuestion::RateOfIncrease => vec![0x17],
        };
        if e2e_crc {
            octets.extend(crc16(&octets).to_le_bytes());
        }
        octets
    }
}

/// One value of the control point, a request or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgmSpecificOpsControlPoint {
    pub op: u8,
    pub operand: Operand,
    checked: Checked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    None,
    /// Minutes between notifications.
    Interval(u16),
    Record(u16),
    Level(Number, Unit),
    Calibration {
        glucose: Number,
        at_min: u16,
        sample: Sample,
        next_min: u16,
        record: u16,
        status: u32,
    },
    Response {
        request: u8,
        code: u8,
    },
}

impl Decode for CgmSpecificOpsControlPoint {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octets = cursor.ahead();
        let op = cursor.u8("op_code")?;
        let operand = Operand::decode(cursor, op)?;
        let checked = cursor.crc_at_end(&octets[..octets.len() - cursor.left()])?;
        Ok(Self { op, operand, checked })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new().with("op", Field::Code(self.op, OP));
        let fields = match self.operand {
            Operand::None => fields,
            Operand::Interval(minutes) => fields.with("interval", Field::Quantity(Number::whole(minutes), "min")),
            Operand::Record(record) => fields.with("record", Field::Integer(record.into())),
            Operand::Level(level, unit) => fields.with("level", Field::quantity(level, unit)),
            Operand::Calibration { glucose, at_min, sample, next_min, record, status } => {
                let fields = fields
                    .with("glucose", Field::quantity(glucose, Unit::MilligramPerDecilitre))
                    .with("calibration_time_min", Field::Integer(at_min.into()));
                sample
                    .add_to(fields)
                    .with("next_calibration_time_min", Field::Integer(next_min.into()))
                    .with("record", Field::Integer(record.into()))
                    .with("status", Field::Bits(status, CALIBRATION_STATUS))
            }
            Operand::Response { request, code } => {
                fields.with("request", Field::Integer(request.into())).with("result", Field::Code(code, RESULT))
            }
        };
        self.checked.add_to(fields)
    }
}

const CALIBRATION_STATUS: Names = &[(0, "rejected"), (1, "out_of_range"), (2, "pending")];

impl Operand {
    fn decode(cursor: &mut Cursor<'_>, op: u8) -> Result<Self, DecodeError> {
        Ok(match op {
            0x02 | 0x08 | 0x0B | 0x0E | 0x11 | 0x14 | 0x17 | 0x19..=0x1B => Operand::None,
            0x01 => Operand::Interval(cursor.u8("interval")?.into()),
            // GSS has two octets here, devices send one: what is left tells, with or without a checksum.
            INTERVAL if cursor.left().is_multiple_of(2) => Operand::Interval(cursor.u16("interval")?),
            INTERVAL => Operand::Interval(cursor.u8("interval")?.into()),
            0x05 => Operand::Record(cursor.u16("record")?),
            0x04 | CALIBRATION => Operand::calibration(cursor)?,
            0x07 | 0x09 | 0x0A | 0x0C | 0x0D | 0x0F | 0x10 | 0x12 => {
                Operand::Level(cursor.sfloat("level")?, Unit::MilligramPerDecilitre)
            }
            0x13 | 0x15 | 0x16 | 0x18 => Operand::Level(cursor.sfloat("level")?, Unit::MilligramPerDecilitrePerMinute),
            RESPONSE => Operand::Response { request: cursor.u8("request")?, code: cursor.code("result", RESULT)? },
            opcode => return Err(DecodeError::UnknownOpcode { opcode }),
        })
    }

    fn calibration(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let glucose = cursor.sfloat("glucose")?;
        let at_min = cursor.u16("calibration_time")?;
        let sample = Sample::decode(cursor)?;
        let (next_min, record) = (cursor.u16("next_calibration_time")?, cursor.u16("record")?);
        let status = cursor.u8("status")?;
        let status = cursor.known_bits(status.into(), named_bits(CALIBRATION_STATUS));
        Ok(Operand::Calibration { glucose, at_min, sample, next_min, record, status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{Context, read_with};

    #[test]
    fn a_question_reads_back_as_a_question_and_never_as_an_order() {
        use CgmQuestion::*;
        let all = [CommunicationInterval, Calibration(3), PatientHigh, PatientLow, Hypo, Hyper, RateOfDecrease, RateOfIncrease];
        for question in all {
            for e2e_crc in [false, true] {
                let context = Context { e2e_crc, ..Context::default() };
                let octets = question.encode(e2e_crc);
                let (value, warnings) = read_with::<CgmSpecificOpsControlPoint>(&octets, &context).expect("what was written");
                let name = OP.iter().find(|(op, _)| *op == value.op).map(|(_, name)| *name).expect("a name");
                assert!(name.starts_with("get_") && warnings.is_empty(), "{name}");
            }
        }
    }
}

//! `bedrail decode`: octets of a characteristic, as a sniffer shows them, to one JSON object. It needs no config and no radio.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::gatt::{self, Context};

#[derive(Args, Clone, Debug)]
pub struct DecodeArgs {
    /// Name or UUID (16 or 128 bits) of the characteristic, such as heart_rate_measurement or 2A37.
    pub characteristic: String,
    /// The value in hexadecimal, one argument a segment; spaces and colons between octets are ignored.
    #[arg(required = true)]
    pub hex: Vec<String>,
    /// What the octets do not say about themselves, as key=value; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub context: Vec<String>,
    /// Take the first warning as an error.
    #[arg(long)]
    pub strict: bool,
}

/// What to print and how to exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Exit 0, on standard output.
    Decoded(String),
    /// The value can't be decoded: exit 1, on standard output, since it is an answer about the value.
    Refused(String),
    /// The question can't be understood: exit 2, on standard error.
    Misuse(String),
}

pub fn run(args: DecodeArgs) -> ExitCode {
    match answer(&args) {
        Answer::Decoded(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Answer::Refused(json) => {
            println!("{json}");
            ExitCode::from(1)
        }
        Answer::Misuse(message) => {
            eprintln!("bedrail decode: {message}");
            ExitCode::from(2)
        }
    }
}

pub fn answer(args: &DecodeArgs) -> Answer {
    let question = || -> Result<_, String> {
        let decoder = gatt::find(&args.characteristic).map_err(|error| error.to_string())?;
        let segments = args.hex.iter().map(|text| octets(text)).collect::<Result<Vec<_>, _>>()?;
        Ok((decoder, segments, context(&args.context)?))
    };
    let (decoder, segments, context) = match question() {
        Ok(question) => question,
        Err(message) => return Answer::Misuse(message),
    };
    let segments: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
    match decoder.decode(&segments, &context, args.strict) {
        Ok(decoded) => Answer::Decoded(serde_json::to_string(&decoded).expect("keys are text and numbers are integers")),
        Err(error) => Answer::Refused(json!({ "error": error.name(), "message": error.to_string() }).to_string()),
    }
}

fn octets(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    if let Some(bad) = digits.iter().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("`{}` is not a hexadecimal digit; give octets such as 0055 or 00:55", bad.escape_default()));
    }
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{} hexadecimal digits are no whole octets; give two for each", digits.len()));
    }
    let nibble = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or_default();
    Ok(digits.chunks_exact(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect())
}

fn context(pairs: &[String]) -> Result<Context, String> {
    let mut context = Context::default();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(format!("--context `{}` has no value; write key=value", pair.escape_default()));
        };
        context.set(key, value).map_err(|error| error.to_string())?;
    }
    Ok(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn ask(characteristic: &str, hex: &[&str], context: &[&str], strict: bool) -> Answer {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        answer(&DecodeArgs { characteristic: characteristic.to_owned(), hex: owned(hex), context: owned(context), strict })
    }

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        decode: DecodeArgs,
    }

    #[test]
    fn options_may_stand_after_the_octets_and_a_value_may_be_empty() {
        let words = ["bedrail", "2A37", "", "0055", "--strict", "--context", "e2e=1", "--context", "mac=2"];
        let args = CommandLine::try_parse_from(words).expect("a good command line").decode;
        assert_eq!((args.hex.len(), args.context.len(), args.strict), (2, 2, true));
        assert!(CommandLine::try_parse_from(["bedrail", "2A37"]).is_err(), "a value is needed");
    }

    #[test]
    fn one_object_is_printed_and_its_fields_keep_their_order() {
        let Answer::Decoded(json) = ask("2A1C", &["06 B0:0e 00FE dc070c050b321b04"], &[], false) else { panic!("refused") };
        assert_eq!(
            json,
            r#"{"fields":{"temperature":{"v":"37.60","u":"Cel"},"time":"2012-12-05T11:50:27","type":"finger"},"warnings":[]}"#
        );
    }

    #[test]
    fn a_value_that_cannot_be_decoded_is_an_answer_and_a_bad_question_is_not() {
        let Answer::Refused(json) = ask("heart_rate_measurement", &[""], &[], false) else { panic!("not refused") };
        assert!(json.starts_with(r#"{"error":"truncated","message":""#), "{json}");
        let Answer::Refused(json) = ask("battery_level", &["65"], &[], true) else { panic!("not refused") };
        assert!(json.contains(r#""error":"reserved_value""#), "{json}");
        for (characteristic, hex, context, remedy) in [
            ("batery_level", "33", "", "did you mean `battery_level`?"),
            ("battery_level", "3", "", "two for each"),
            ("battery_level", "3x", "", "`x` is not a hexadecimal digit"),
            ("battery_level", "+3", "", "`+` is not a hexadecimal digit"),
            ("battery_level", "33", "crc", "write key=value"),
            ("battery_level", "33", "crc=1", "known are e2e_crc"),
        ] {
            let context: &[&str] = if context.is_empty() { &[] } else { &[context] };
            let Answer::Misuse(message) = ask(characteristic, &[hex], context, false) else { panic!("not misuse: {hex}") };
            assert!(message.contains(remedy), "{message}");
        }
    }
}

use proptest::prelude::*;

use super::*;

const OXIMETER: &str = include_str!("../../config/profiles/jumper-jpd500.toml");
const SCALE: &str = include_str!("../../config/profiles/and-uc352ble.toml");

/// What is said of this text; it must be refused.
fn refused(text: &str) -> String {
    Profile::read(text, "p.toml").expect_err(text).to_string()
}

fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_to_write_instead() {
    for (profile, from, to, at, says) in [
        (OXIMETER, "at = 3\n", "at = 4\n", "code = \"pulse_amplitude_index\"", "ends at octet 5 and the frame may have only 4"),
        (
            OXIMETER,
            "unit = \"/min\"",
            "unit = \"bpm\"",
            "code = \"pulse_rate.oximeter\"",
            "`bpm` is no unit of this metric; write one of \"/min\"",
        ),
        (
            OXIMETER,
            "code = \"spo2\"",
            "code = \"sp02\"",
            "code = \"sp02\"",
            "`sp02` is no metric bedrail knows; did you mean `spo2`?",
        ),
        (
            OXIMETER,
            "type = \"u8\"\nat = 1",
            "type = \"byte\"\nat = 1",
            "code = \"pulse_rate.oximeter\"",
            "`byte` is no type; write u8",
        ),
        (OXIMETER, "spo2 = \"98\"", "spo2 = \"97\"", "hex = \"81486223\"", "spo2 is \"98\", expected was \"97\""),
        (OXIMETER, "spo2 = \"98\", ", "", "hex = \"81486223\"", "it also says spo2 = \"98\""),
        (OXIMETER, "eq = \"81\"", "mask = \"0f\", eq = \"81\"", "length = 4", "`eq` may have no bit that `mask` takes away"),
        (
            OXIMETER,
            "[[init]]\nsubscribe = \"cdeacb81",
            "[[init]]\nread = \"+12a\"\n[[init]]\nsubscribe = \"cdeacb81",
            "read = \"+12a\"",
            "`+12a` is no UUID",
        ),
        (
            OXIMETER,
            "service_uuid = \"cdeacb80-5235-4c07-8846-93a37ee6b86d\"",
            "service_uuid = \" 180\"",
            "[match]",
            "` 180` is no UUID",
        ),
        (OXIMETER, "[[init]]\nsubscribe = \"cdeacb81", "[[init]]\nread = \"00001234", "length = 4", "add an [[init]] step"),
        (SCALE, "error = \"truncated\"", "error = \"crc_mismatch\"", "hex = \"02bc\"", "it ends in the error `truncated`"),
        (
            SCALE,
            "subscribe = \"23434101-1fe4-1eff-80cb-00ff78297d8b\"",
            "subscribe = \"2a9d\"",
            "subscribe = \"2a9d\"",
            "bedrail reads",
        ),
        (SCALE, "version = 1", "version = 1\ncolour = 2", "colour = 2", "unknown field `colour`"),
    ] {
        let text = with(profile, from, to);
        // An entry begins with its header, a line or two before.
        let line = text.lines().position(|line| line.contains(at)).unwrap() + 1;
        let said = refused(&text);
        let told = said.lines().find(|line| line.contains(says)).unwrap_or_else(|| panic!("{said}"));
        let named: usize = told.strip_prefix("p.toml:").and_then(|rest| rest.split(':').next()).unwrap().parse().unwrap();
        assert!(named <= line && line <= named + 2, "line {line}: {told}");
    }
}

#[test]
fn nothing_is_written_that_is_not_on_the_list() {
    // The control point of an insulin pump, a defibrillator of nobody's, a record that would be deleted, a clock elsewhere.
    for step in [
        "write = \"2b25\"\nwith = { hex = \"3c0f\" }",
        "write = \"12345678-1234-5678-1234-56789abcdef0\"\nwith = { hex = \"01\" }",
        "write = \"ff01\"\nwith = { hex = \"997f18\" }",
        "write = \"ff01\"\nwith = { hex = \"9b011c00\" }",
        "write = \"54c21001-a720-4b4f-11e4-9fe20002a5d5\"\nwith = { hex = \"77020715\" }",
        "write = \"2a52\"\nwith = { hex = \"0201\" }",
        "write = \"2a52\"\nwith = { now = \"date_time\" }",
    ] {
        let said = refused(&OXIMETER.replacen("[[init]]", &format!("[[init]]\n{step}\n[[init]]"), 1));
        assert!(said.contains("bedrail does not write that to"), "{said}");
    }
    let clock = OXIMETER.replacen("[[init]]", "[[init]]\nwrite = \"2a2b\"\nwith = { now = \"current_time\" }\n[[init]]", 1);
    assert!(matches!(Profile::read(&clock, "p").unwrap().init[0].what, What::Clock(_)));
}

const MIGHTYSAT: &str = include_str!("../../config/profiles/masimo-mightysat.toml");
const RING: &str = include_str!("../../config/profiles/viatom-o2ring.toml");
const YONKER: &str = include_str!("../../config/profiles/yonker-ykbpa1.toml");
const MISCALE: &str = include_str!("../../config/profiles/xiaomi-miscale.toml");

#[test]
fn what_can_not_be_done_is_refused_and_never_passed_over() {
    let answer = "timeout_s = 10 }";
    let told = "reassemble = { begins = [{ at = 0, eq = \"77\" }], length_at = 1, add = 2 }";
    let headed = |keys: &str| format!("reassemble = {{ {keys} }}");
    for (profile, from, to, says) in [
        (MIGHTYSAT, answer, "timeout_s = 21 }", "all `timeout_s` together are 21 s; they may be 20 s at most"),
        (MIGHTYSAT, answer, "timeout_s = 0 }", "`timeout_s` must be 1 to 20"),
        (MIGHTYSAT, "expect = { source = \"54c21002", "expect = { source = \"54c21003", "subscribe to it in a step before"),
        (MIGHTYSAT, "expect = { source = \"54c2", "every_s = 2\nexpect = { source = \"54c2", "write the step under [[poll]]"),
        (MIGHTYSAT, "[[init]]\nwrite", "[[end]]\nwrite", "no answer is waited for"),
        (MIGHTYSAT, "checksum = { kind = \"crc8\", from = 2 }\n", "", "a packet that was lost would not be noticed"),
        (MIGHTYSAT, "begins = [{ at = 0, eq = \"77\" }], ", "", "it needs `begins`"),
        (MIGHTYSAT, told, "reassemble = { length_at = 1, first_mask = \"01\" }", "`reassemble` is { length_at = 1"),
        (MIGHTYSAT, told, &headed("first_mask = \"01\", last_mask = \"01\""), "must be different ones"),
        (MIGHTYSAT, told, &headed("first_mask = \"01\", last_mask = \"02\", counter_shift = 1"), "must be different ones"),
        (MIGHTYSAT, told, &headed("first_mask = \"0101\", last_mask = \"02\""), "are one octet each"),
        (MIGHTYSAT, "length_at = 1", "length_at = 1, length_type = \"u32le\"", "`length_type` is u8, u16le or u16be"),
        (
            RING,
            "length_type = \"u16le\", add = 8 }\nchecksum",
            "length_type = \"u16be\", add = 8 }\nchecksum",
            "write the same `reassemble`",
        ),
        (RING, "every_s = 2", "every_s = 0", "a poll is `every_s` (1 to 3600)"),
        (RING, "every_s = 2", "every_s = 2\noptional = true", "a poll is `every_s`"),
        (RING, "every_s = 2\nwrite", "every_s = 2\nsubscribe = \"fff1\"\n[[poll]]\nevery_s = 2\nwrite", "a poll is `every_s`"),
        (YONKER, "order = \"dMyhm\"", "order = \"dMyh\"", "`order` says what each octet is"),
        (YONKER, "order = \"dMyhm\"", "order = \"dMyhmm\"", "`order` says what each octet is"),
        (YONKER, "order = \"dMyhm\"", "order = \"dMyhmsx\"", "`order` says what each octet is"),
        (YONKER, "type = \"date_time\"", "type = \"u8\"", "`order` is for a date_time"),
        (YONKER, "hex = \"81", "segments = []\nhex = \"81", "a test has either `hex`"),
        (MISCALE, "mode = \"advert\"", "mode = \"advert\"\nbond = \"required\"", "bonds with nobody"),
        (MISCALE, "[[frame]]", "[[init]]\nread = \"2a19\"\n[[frame]]", "mode = \"advert\" is never connected to"),
        (
            MISCALE,
            "length = 10",
            "length = 10\nreassemble = { first_mask = \"01\", last_mask = \"02\", counter_shift = 2 }",
            "an advertisement is one packet",
        ),
        (SCALE, "now = \"date_time\"", "now = \"current_time\"", "2a08 takes \"date_time\", 2a2b \"current_time\""),
    ] {
        assert!(profile.contains(from), "{from}");
        let said = refused(&profile.replacen(from, to, 1));
        assert!(said.contains(says), "{to}: {said}");
        let told = said.lines().find(|line| line.contains(says)).unwrap();
        assert!(
            told.strip_prefix("p.toml:").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())),
            "no line: {told}"
        );
    }
}

#[test]
fn a_profile_that_was_never_tried_is_none() {
    let untried = OXIMETER.split("[[test]]").next().unwrap();
    assert!(refused(untried).contains("missing field `test`"), "{}", refused(untried));
    let only_errors = format!(
        "{untried}[[test]]\nsource = \"cdeacb81-5235-4c07-8846-93a37ee6b86d\"\nhex = \"81\"\nerror = \"invalid_length\"\n"
    );
    assert!(refused(&only_errors).contains("frame 1 has no [[test]] with `expect`"));
    assert!(refused(&" ".repeat(70_000)).contains("at most 64 KiB"));
}

#[test]
fn what_is_out_of_the_range_of_a_profile_is_flagged_and_kept() {
    let profile = Profile::read(OXIMETER, "p").unwrap();
    let source = profile.frames[0].source.clone();
    let (said, _) = profile.observe(&source, &[0x81, 72, 120, 35]).unwrap().unwrap();
    let spo2 = proof::shown(&said).into_iter().find(|shown| shown.code == "spo2").unwrap();
    assert_eq!((spo2.value.as_str(), spo2.flags), ("120", vec!["implausible"]));
    assert!(profile.observe(&Source::Manufacturer(1), &[1]).is_none());
}

/// A cuff of nobody's: parts, decimal digits, a checksum, a user, a sum and a unit that depends on a bit.
const CUFF: &str = r#"
[profile]
id = "cuff"
version = 1
name = "A cuff"
source = "made up for this test"
[match]
any = [{ model_number = "none" }]
[[init]]
subscribe = "fff1"
[[frame]]
source = "fff1"
length = 8
checksum = { kind = "sum8" }
[[frame.bit]]
at = 0
bit = 7
code = "irregular_pulse"
[[frame.field]]
code = "blood_pressure.systolic"
type = "bcd16"
at = 1
unit = "mm[Hg]"
[[frame.field]]
code = "blood_pressure.diastolic"
type = "u8"
at = 3
add = "10"
unit = "mm[Hg]"
[[frame.field]]
code = "sequence"
type = "u16be"
at = 4
mask = 0xFFF0
shift = 4
[[frame.field]]
code = "user"
type = "u8"
at = 6
[[test]]
source = "fff1"
hex = "8101204600100200"
error = "crc_mismatch"
[[test]]
source = "fff1"
hex = "81012046001002fa"
expect = { "blood_pressure.systolic" = "120", "blood_pressure.diastolic" = "80", sequence = "1", user = "2" }
[[test]]
source = "fff1"
hex = "010aa0460010ff00"
expect = { "blood_pressure.systolic" = "none", "blood_pressure.diastolic" = "80", sequence = "1" }
[[test]]
source = "fff1"
hex = "010aa0460010ff00ff"
error = "invalid_length"
"#;

#[test]
fn parts_of_one_value_are_one_value_and_a_remark_is_of_all() {
    let profile = Profile::read(CUFF, "p").unwrap_or_else(|errors| panic!("{errors}"));
    let (records, _) = profile.observe(&profile.frames[0].source, &profile.trials[1].packets[0]).unwrap().unwrap();
    assert_eq!((records.len(), records[0].values.len(), records[0].user), (1, 1, Some(2)));
    assert_eq!(records[0].values[0].status, vec![crate::gatt::Status::Flag(crate::reading::Flag::IrregularPulse)]);
    let whole = with(CUFF, "blood_pressure.diastolic\"\ntype", "blood_pressure\"\ntype");
    assert!(refused(&whole).contains("`blood_pressure` has parts; write blood_pressure.systolic"));
    let twice = with(CUFF, "code = \"blood_pressure.diastolic\"", "code = \"blood_pressure.systolic\"");
    assert!(refused(&twice).contains("there twice"), "{}", refused(&twice));
}

proptest! {
    #[test]
    fn no_octets_make_a_profile_panic_or_say_more_than_its_fields(octets in prop::collection::vec(any::<u8>(), 0..600)) {
        for text in [OXIMETER, SCALE] {
            let profile = Profile::read(text, "p").unwrap();
            let source = profile.frames[0].source.clone();
            if let Some(Ok((records, _))) = profile.observe(&source, &octets) {
                prop_assert!(records.iter().map(|record| record.values.len()).sum::<usize>() <= profile.frames[0].fields.len());
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(
        cut in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(), put in "[\\PC\n]{0,12}", raw in "[\\PC\n]{0,200}"
    ) {
        let mut text: Vec<char> = SCALE.chars().collect();
        let at = from.index(text.len());
        let end = (at + cut.index(20)).min(text.len());
        text.splice(at..end, put.chars());
        let _ = Profile::read(&text.into_iter().collect::<String>(), "p");
        let _ = Profile::read(&raw, "p");
    }
}

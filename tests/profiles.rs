//! A device without a standard service, from a file alone: its values arrive like anybody else's, and what is wrong with a
//! profile is said before anything runs.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bedrail::cli::profile::{ListArgs, TestArgs, list, test};
use bedrail::config;
use serde_json::Value;
use support::bluez::{Behaviour, CharacteristicSpec, DeviceSpec, ServiceSpec, uuid16};
use support::devices::{Kind, VirtualDevice};
use support::process::wait_until;
use support::rig::{Rig, Shape};

const SOON: Duration = Duration::from_secs(40);

#[test]
fn a_device_with_only_a_profile_is_heard_at_the_broker_to_the_digit() {
    let device = VirtualDevice::new(Kind::OximeterVendor, "00:1C:05:00:00:07", "nonin").with_config("profile = \"nonin-3230\"");
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[device], "carry = [\"readings\"]", "");
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    for _ in 0..20 {
        rig.measure(|_| true);
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(1_500)); // the commit window
    let report = rig.settle(SOON);
    report.assert_sound();
    assert_eq!((report.arrived, report.resolution_changed), (60, 0), "{:?}", report.missing);
    let status = rig.ask_json(&["status"]);
    assert!(status["collect"]["devices"][0].get("rejected").is_none(), "{status:#}");
    rig.stop();
}

/// The page's blocks of one language, in its section on one device.
fn walk_through(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string("docs/devices.md").unwrap();
    let section = page.split("## A device of a maker without").nth(1).unwrap().split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// A device of a maker's own, in range and advertising.
fn place(rig: &Rig, address: &str, name: &str, characteristics: Vec<CharacteristicSpec>) {
    let services = vec![ServiceSpec { uuid: uuid16(0xfff0), characteristics }];
    rig.bluez.add_device(
        "hci0",
        DeviceSpec {
            address: address.to_owned(),
            random_address: false,
            privacy: false,
            name: name.to_owned(),
            advertised: vec![],
            services,
            battery: None,
            behaviour: Behaviour { handle_base: 0x10, ..Default::default() },
        },
    );
    rig.bluez.advertise(address, -50);
}

/// Adds a section to the config, and a directory of profiles.
fn configure(rig: &Rig, directory: &Path, section: &str) {
    let file = rig.site.config_file();
    let text = std::fs::read_to_string(&file).unwrap().replace("[radio]\n", &format!("[radio]\nprofiles = {directory:?}\n"));
    std::fs::write(file, format!("{text}\n{section}")).unwrap();
}

fn values(rig: &Rig, metric: &str) -> Vec<String> {
    let of = |payload: &Value| (payload["metric"] == metric).then(|| payload["value"].to_string().replace('"', ""));
    rig.records().iter().filter_map(|message| of(&message.payload)).collect()
}

#[test]
fn a_device_of_a_maker_without_a_standard_service_gets_from_a_file_to_the_broker_as_the_docs_walk_through_it() {
    let (toml, console) = (walk_through("toml"), walk_through("console"));
    let [profile, section] = &toml[..] else { panic!("{toml:?}") };
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[], "carry = [\"readings\"]", "");
    let directory = rig.site.path("profiles.d");
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("ft-20.toml");
    std::fs::write(&file, profile).unwrap();

    let program = |arguments: &[&str]| support::daemon::run_with_input(&rig.binary, arguments, &[], b"", SOON);
    let tested = program(&["profile", "test", file.to_str().unwrap()]);
    let (typed, shown) = console[0].split_once('\n').unwrap();
    assert_eq!(typed, "$ bedrail profile test /etc/bedrail/profiles.d/ft-20.toml");
    let printed = tested.stdout.replace(directory.to_str().unwrap(), "/etc/bedrail/profiles.d");
    assert_eq!((tested.status, printed.as_str()), (Some(0), shown), "{tested:?}");

    configure(&rig, &directory, section);
    rig.ask(&["check"]);
    let address = "C0:26:DA:00:12:34";
    place(&rig, address, "FT-20", vec![CharacteristicSpec::new(0xfff4, &["notify"], &[])]);
    rig.start(Shape::TwoProcesses);
    let heard = || rig.bluez.is_listening(address, uuid16(0xfff4));
    assert!(wait_until(SOON, heard), "it is not connected:\n{}", rig.logs());
    let shown = || rig.ask(&["devices"]);
    assert!(wait_until(SOON, || shown().contains("connected")), "{}", shown());

    // Measured, held against a wall, measured again; what is damaged is counted.
    let learned = std::thread::scope(|scope| {
        let tests = rig.site.path("ft-20-tests.toml");
        let learn = scope.spawn(|| {
            let out = rig.site.path("ft-20-tests.toml");
            rig.bedrail(&["profile", "learn", "ft-20-1", "--seconds", "3", "--out", out.to_str().unwrap()])
        });
        let begun = wait_until(SOON, || rig.logs().contains("its octets are told to who asked"));
        assert!(begun, "{}", rig.logs());
        for octets in
            [[0x5a, 0x66, 0x0e, 0, 0xce], [0x5a, 0x10, 0x08, 1, 0x73], [0x5a, 0x70, 0x0e, 0, 0xd8], [0x5a, 0, 0x0e, 0, 0]]
        {
            assert!(rig.bluez.notify(address, uuid16(0xfff4), &octets));
        }
        let ran = learn.join().unwrap();
        assert!(ran.status == Some(0) && ran.stdout.is_empty() && ran.stderr.contains("4 tests; compare"), "{ran:?}");
        assert_eq!(std::fs::metadata(&tests).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::read_to_string(tests).unwrap()
    });
    assert!(wait_until(SOON, || values(&rig, "body_temperature").len() >= 2), "{}", rig.logs());
    assert_eq!(values(&rig, "body_temperature"), ["36.86", "36.96"]);
    let record = rig.records().into_iter().find(|message| message.payload["metric"] == "body_temperature").unwrap();
    assert_eq!(record.topic, "bedrail/gw-test/ft-20-1/body_temperature");
    assert_eq!((&record.payload["unit"], &record.payload["loinc"][0]), (&"Cel".into(), &"8310-5".into()));
    assert_eq!(rig.ask_json(&["status"])["collect"]["devices"][0]["rejected"]["crc_mismatch"], 1);
    assert!(rig.audit_trail().contains(&("profile learn".to_owned(), "ft-20-1".to_owned())), "{:?}", rig.audit_trail());
    assert!(!rig.logs().contains("5a660e00ce"), "octets of a person are in no log");

    std::fs::write(&file, format!("{profile}\n{learned}")).unwrap();
    let tested = support::daemon::run_with_input(&rig.binary, &["profile", "test", file.to_str().unwrap()], &[], b"", SOON);
    assert!(tested.status == Some(0) && tested.stdout.contains("5 tests pass"), "{tested:?}");
    let again = rig.site.path("ft-20-tests.toml");
    let refused = rig.refused(&["profile", "learn", "ft-20-1", "--seconds", "1", "--out", again.to_str().unwrap()], 1);
    assert!(refused.contains("File exists"), "nothing is written over: {refused}");
    rig.stop();
}

#[test]
fn a_ring_that_is_asked_every_other_second_and_answers_in_two_packets_is_heard_at_the_broker() {
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[], "carry = [\"readings\"]", "");
    let (commands, answers) = (RING.0.parse().unwrap(), RING.1.parse().unwrap());
    let own = |uuid, flags: &[&'static str]| CharacteristicSpec { uuid, ..CharacteristicSpec::new(0, flags, &[]) };
    let address = "D0:01:02:03:04:05";
    place(&rig, address, "O2Ring 1234", vec![own(commands, &["write-without-response"]), own(answers, &["notify"])]);
    let first = vec![0x55, 0, 0xff, 0, 0, 0x0d, 0, 97, 63, 0, 0, 0, 0, 0, 88, 0, 3, 0, 0, 0];
    let answer = move |_: &[u8]| vec![(answers, first.clone()), (answers, vec![0x32])];
    rig.bluez.set_answering(address, commands, std::sync::Arc::new(answer));
    let section =
        format!("[[device]]\nname = \"ring\"\nkind = \"pulse-oximeter\"\naddress = {address:?}\nprofile = \"viatom-o2ring\"\n");
    configure(&rig, Path::new("/nowhere"), &section);
    rig.start(Shape::OneProcess);
    assert!(wait_until(SOON, || values(&rig, "spo2").len() >= 2), "{}", rig.logs());
    assert!(
        values(&rig, "spo2").iter().all(|value| value == "97")
            && values(&rig, "pulse_rate.oximeter").iter().all(|value| value == "63")
    );
    let device = &rig.ask_json(&["status"])["collect"]["devices"][0];
    assert!(device.get("rejected").is_none() && device.get("warnings").is_none(), "{device:#}");
    let written: Vec<String> =
        rig.bluez.calls().into_iter().filter(|call| call.member == "WriteValue").map(|call| call.detail).collect();
    assert!(written.len() >= 2 && written.iter().all(|octets| octets == "aa17e8000000001b"), "{written:?}");
    rig.stop();
}

#[test]
fn a_profile_that_is_wrong_is_named_with_file_and_line_and_everything_else_goes_on() {
    let right = walk_through("toml").remove(0);
    let device = VirtualDevice::new(Kind::OximeterVendor, "00:1C:05:00:00:07", "nonin").with_config("profile = \"nonin-3230\"");
    let mut rig = Rig::new(env!("CARGO_BIN_EXE_bedrail"), &[device], "carry = [\"readings\"]", "");
    let directory = rig.site.path("profiles.d");
    std::fs::create_dir(&directory).unwrap();
    let named = |n: u8, profile: &str| {
        format!(
            "[[device]]\nname = \"t-{n}\"\nkind = \"thermometer\"\naddress = \"C0:26:DA:00:12:0{n}\"\nprofile = \"{profile}\"\n"
        )
    };
    configure(&rig, &directory, &[named(1, "ft-20"), named(2, "ft-21")].concat());

    let file = directory.join("ft-20.toml");
    for (from, to, line, says) in [
        ("at = 1\n", "at = 4\n", "[[frame.field]]", "it ends at octet 6 and the frame may have only 5"),
        ("unit = \"Cel\"", "unit = \"C\"", "[[frame.field]]", "`C` is no unit of this metric; write one of \"Cel\""),
        ("\"body_temperature\"\n", "\"temperature\"\n", "[[frame.field]]", "`temperature` is no metric bedrail knows"),
        ("\"36.86\"", "\"36.87\"", "[[test]]", "body_temperature is \"36.86\", expected was \"36.87\""),
        ("[match]", "[match", "[match", "mend this line"),
    ] {
        assert!(right.contains(from), "{from}");
        let wrong = right.replace(from, to);
        std::fs::write(&file, &wrong).unwrap();
        let line = wrong.lines().position(|text| text == line).unwrap() + 1;
        let said = rig.refused(&["check"], 2);
        assert!(said.contains(&format!("{}:{line}: ", file.display())) && said.contains(says), "{says}: {said}");
        assert!(said.contains("device \"t-1\": profile: the file of profile \"ft-20\" is wrong; mend it"), "{said}");
        assert!(said.contains("device \"t-2\": profile: there is no profile \"ft-21\"; known are"), "{said}");
    }

    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    rig.measure(|_| true);
    assert!(wait_until(SOON, || values(&rig, "spo2").len() == 1), "{}", rig.logs());
    let devices = rig.ask_json(&["status"])["collect"]["devices"].clone();
    for (at, says) in [(1, "not read: the file of profile \"ft-20\" is wrong"), (2, "not read: there is no profile \"ft-21\"")] {
        assert!(devices[at]["detail"].as_str().unwrap().starts_with(says), "{devices:#}");
    }
    rig.stop();
}

/// What the ring is asked through, and what it answers through.
const RING: (&str, &str) = ("8b00ace7-eb0b-49b0-bbe9-9aee0a26e1a3", "0734594a-a8e7-4b1a-a6b1-cd5243059a57");

#[test]
fn a_device_names_a_profile_that_is_there_and_right() {
    let site = tempfile::tempdir().unwrap();
    let directory = site.path().join("profiles.d");
    let check = |profile: &str| {
        let text = format!(
            "[gateway]\nid = \"gw\"\n[radio]\nprofiles = {directory:?}\n\
             [[device]]\nname = \"o\"\nkind = \"pulse-oximeter\"\naddress = \"A4:C1:38:00:00:01\"\nprofile = \"{profile}\"\n"
        );
        let path = site.path().join("bedrail.toml");
        std::fs::write(&path, text).unwrap();
        config::load(&path).and_then(config::Loaded::sound)
    };
    let said = |profile: &str| check(profile).map(drop).unwrap_err().to_string().replace(&site.path().display().to_string(), "");
    // Without a directory of the site's own there is what bedrail brings.
    assert!(check("nonin-3230").unwrap().settings.devices[0].profile.is_some());
    let unknown = said("nonin-3320");
    assert!(
        unknown.starts_with("/bedrail.toml:9: device \"o\": profile: there is no profile \"nonin-3320\"; known are"),
        "{unknown}"
    );
    let unbonded = said("and-uc352ble");
    assert!(unbonded.contains("answers only after bonding; write bond = "), "{unbonded}");
    assert!(check("xiaomi-mibcs").is_ok());
    for (key, remedy) in [
        ("bond = \"just-works\"", "it is never connected to; remove `bond`"),
        ("serial = \"1\"", "it is never asked what it is; remove `serial` and `model`"),
        ("model = \"1\"", "it is never asked what it is; remove `serial` and `model`"),
    ] {
        let refused = said(&format!("xiaomi-mibcs\"\n{key} #"));
        assert!(
            refused.contains("profile \"xiaomi-mibcs\" reads what the device advertises") && refused.contains(remedy),
            "{refused}"
        );
    }

    std::fs::create_dir(&directory).unwrap();
    let shipped = bedrail::profile::SHIPPED.iter().find(|(file, _)| *file == "jumper-jpd500.toml").unwrap().1;
    std::fs::write(directory.join("ours.toml"), shipped.replace("jumper-jpd500", "ours")).unwrap();
    assert_eq!(check("ours").unwrap().settings.devices[0].profile.as_ref().unwrap().id, "ours");
    std::fs::write(directory.join("bad.toml"), shipped.replace("spo2 = \"98\"", "spo2 = \"89\"")).unwrap();
    let failing = said("ours");
    assert!(failing.starts_with("/profiles.d/bad.toml:") && failing.contains("spo2 is \"98\", expected was \"89\""), "{failing}");
    // It would take the place of bedrail's own: what that reads is not what the site means.
    assert!(said("jumper-jpd500").contains("the file of profile \"jumper-jpd500\" is wrong"));
}

#[test]
fn profile_test_shows_what_each_of_its_tests_reads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/profiles/jumper-jpd500.toml");
    let ran = |json, file: &Path| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = test(&TestArgs { file: file.to_owned(), json }, &mut out, &mut err).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let (code, out, _) = ran(false, &path);
    assert_eq!(code, 0);
    assert!(out.contains("jumper-jpd500 1, Jumper JPD-500 oximeter (service cdeacb80): 3 tests pass"), "{out}");
    assert!(out.contains("  spo2                             98 %\n") && out.contains("says nothing that is kept"), "{out}");
    let (_, out, _) = ran(true, &path);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["tests"][0]["values"][1], serde_json::json!({ "code": "spo2", "value": "98", "unit": "%" }));

    let missing = Path::new("/nowhere/p.toml");
    assert_eq!(
        ran(false, missing),
        (2, String::new(), "/nowhere/p.toml: it can't be read: No such file or directory (os error 2)\n".into())
    );
    assert_eq!(serde_json::from_str::<Value>(&ran(true, missing).1).unwrap()["ok"], false);
}

#[test]
fn profile_list_names_what_a_device_can_name() {
    let ran = |json| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = list(&ListArgs { profiles: "/nowhere".into(), json }, &mut out, &mut err).unwrap();
        (code, String::from_utf8(out).unwrap())
    };
    let (code, out) = ran(false);
    assert_eq!(code, 0);
    let page = std::fs::read_to_string("docs/profiles.md").unwrap();
    assert!(page.contains(&format!("$ bedrail profile list\n{out}```")), "docs/profiles.md shows another list than\n{out}");
    let rows: Value = serde_json::from_str(&ran(true).1).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), bedrail::profile::SHIPPED.len());
}

#[test]
fn what_a_profile_may_write_is_what_the_docs_list() {
    let page = std::fs::read_to_string("docs/profiles.md").unwrap();
    let section = page.split("## What a profile may write").nth(1).unwrap().split("\n## ").next().unwrap();
    for row in bedrail::profile::WRITABLE {
        let short = format!("{:04X}", row.characteristic.as_u128() >> 96);
        assert!(section.contains(&short), "{short}: {}", row.what);
        for value in row.values {
            let octets: Vec<String> = value.iter().map(|octet| format!("{octet:02x}")).collect();
            assert!(section.contains(&format!("`{}`", octets.join(" "))), "{octets:?}: {}", row.what);
        }
    }
}

//! A device without a standard service, from a file alone: its values arrive like anybody else's, and what is wrong with a
//! profile is said before anything runs.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use bedrail::cli::profile::{ListArgs, TestArgs, list, test};
use bedrail::config;
use serde_json::Value;
use support::devices::{Kind, VirtualDevice};
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
        config::load(&path)
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
    assert!(said("xiaomi-mibcs").contains("reads advertisements, which this version does not do"));

    std::fs::create_dir(&directory).unwrap();
    let shipped = bedrail::profile::SHIPPED.iter().find(|(file, _)| *file == "jumper-jpd500.toml").unwrap().1;
    std::fs::write(directory.join("ours.toml"), shipped.replace("jumper-jpd500", "ours")).unwrap();
    assert_eq!(check("ours").unwrap().settings.devices[0].profile.as_ref().unwrap().id, "ours");
    std::fs::write(directory.join("bad.toml"), shipped.replace("spo2 = \"98\"", "spo2 = \"89\"")).unwrap();
    let failing = said("ours");
    assert!(failing.starts_with("/profiles.d/bad.toml:") && failing.contains("spo2 is \"98\", expected was \"89\""), "{failing}");
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

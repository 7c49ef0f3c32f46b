//! Who the patient is: put in by every door, as it is, in other notations and where it does not belong, with everything logged
//! that can be. It is found nowhere but in the encrypted file it belongs in.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bedrail::reading::Seq;
use bedrail::store::{LOG_FILE, key};
use bedrail::ward::Phi;
use serde_json::{Value, json};
use support::chart::*;
use support::rig::{Rig, Shape};

const NAME: &str = "Zébulon Quastenflößer";
const NUMBER: &str = "4711081519";
const BORN: &str = "1947-11-03";
/// What it may be broken into.
const PARTS: [&str; 5] = ["Zébulon", "Quastenflößer", "Zebulon", "Quastenfloesser", "19471103"];

/// Every way it may be written down.
fn notations() -> Vec<(String, Vec<u8>)> {
    let whole = [NAME, NUMBER, BORN].into_iter().chain(PARTS);
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for text in whole {
        let mut add = |how: &str, octets: Vec<u8>| all.push((format!("{text} {how}"), octets));
        add("in UTF-8", text.into());
        add("in UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        let hex: String = text.bytes().map(|octet| format!("{octet:02x}")).collect();
        add("in hex", hex.to_uppercase().into());
        add("in hex", hex.into());
        add("in JSON", escaped(text, |unit| format!("\\u{unit:04x}"), false).into());
        add("in JSON throughout", escaped(text, |unit| format!("\\u{unit:04x}"), true).into());
        add("in XML", text.chars().map(|c| format!("&#{};", u32::from(c))).collect::<String>().into());
        add("in XML", text.chars().map(|c| format!("&#x{:x};", u32::from(c))).collect::<String>().into());
        add("percent", text.bytes().map(|octet| format!("%{octet:02X}")).collect::<String>().into());
        add("percent", percent(text).into());
        // Wherever in a longer text it begins and ends: the characters of its base64 that hold nothing else.
        for before in 0..3 {
            let encoded = BASE64_STANDARD.encode(format!("{}{text}", "x".repeat(before)));
            let whole = (before * 8).div_ceil(6)..(before + text.len()) * 8 / 6;
            add("in base64", encoded[whole].into());
        }
    }
    all
}

fn escaped(text: &str, escape: impl Fn(u16) -> String, throughout: bool) -> String {
    let one = |c: char| {
        if c.is_ascii() && !throughout {
            return c.to_string();
        }
        c.encode_utf16(&mut [0; 2]).iter().map(|unit| escape(*unit)).collect()
    };
    text.chars().map(one).collect()
}

fn percent(text: &str) -> String {
    let one = |octet: u8| if octet.is_ascii_alphanumeric() { char::from(octet).to_string() } else { format!("%{octet:02X}") };
    text.bytes().map(one).collect()
}

#[test]
fn who_the_patient_is_leaves_no_trace_by_whatever_door_it_came() {
    let mut rig = with_a_chart(env!("CARGO_BIN_EXE_bedrail"), &[strap(), cuff()], PATIENTS);
    let mut said = Vec::new();
    by_a_config(&rig, &mut said);
    rig.configure(&both_routes(&rig), PATIENTS);
    rig.log_filter = "trace";
    rig.start(Shape::TwoProcesses);
    rig.wait_until_heard(SOON);
    by_identifiers(&rig, &mut said);
    rig.ask(&["assign", "--device", "strap", "p-anna"]);
    std::thread::sleep(CLEAR_OF_THE_EDGE);
    let annas = measure(&mut rig, "strap", 3);
    rig.wait_for_records(CHART, SOON, |chart| chart.len() == annas);
    by_commands(&rig, &mut said);
    by_requests(&rig, &mut said);
    said.extend([&["patient", "list", "--json"][..], &["status", "--json"], &["status"], &["ward"]].map(|of| rig.ask(of)));
    said.extend([&["route", "list", "--json"][..], &["held", "list"], &["devices"]].map(|of| rig.ask(of)));
    assert_no_trace(&rig, &said);

    let listed = rig.ask_json(&["patient", "list"]);
    let row = |listed: &Value| listed.as_array().unwrap().iter().find(|row| row["key"] == "p-anna").cloned().unwrap();
    assert_eq!((&row(&listed)["identified"], &row(&listed)["forgotten"]), (&json!(true), &json!(false)));
    assert!(decrypted(&rig, "ward.db", "ward-key").contains(NAME), "it is where it belongs, so the search can find it");
    for key in ["p-anna", "p-bert"] {
        rig.ask(&["patient", "forget", key, "--yes", "0"]);
    }
    let listed = row(&rig.ask_json(&["patient", "list"]));
    assert_eq!((&listed["identified"], &listed["forgotten"]), (&json!(false), &json!(true)));
    assert_none_in("the ward's file, forgotten", decrypted(&rig, "ward.db", "ward-key").as_bytes());
    rig.stop();
    let trail = rig.audit_trail();
    for row in [("patient set", "p-anna"), ("patient forget", "p-anna"), ("assign", "device strap")] {
        assert!(trail.contains(&(row.0.to_owned(), row.1.to_owned())), "{row:?} is not in {trail:?}");
    }
    assert_no_trace(&rig, &said);
}

/// Where the config asks for a key, people write what they know.
fn by_a_config(rig: &Rig, said: &mut Vec<String>) {
    for wrong in [
        format!("[[patient]]\nkey = \"p-1\"\nname = \"{NAME}\"\n"),
        format!("[[patient]]\nkey = \"p-1\"\nbirth_date = {BORN}\nmrn = {NUMBER}\n"),
        format!("[[patient]]\nkey = \"{NUMBER}\"\n[[patient]]\nkey = \"{NAME}\"\n"),
        format!("[[patient]]\nkey = \"{BORN}\"\n"),
        format!("[[patient]]\n\"{NAME}\" = \"{NUMBER}\"\n"),
    ] {
        rig.configure(&both_routes(rig), &wrong);
        for arguments in [&["check"][..], &["check", "--explain"], &["run"], &["status"]] {
            let ran = rig.bedrail(arguments);
            assert_eq!(ran.status, Some(2), "{ran:?}");
            assert_none_in("what a refused config is told", format!("{}{}", ran.stdout, ran.stderr).as_bytes());
        }
    }
    // The config is the user's own file: what is written there is taken out again.
    rig.configure(&both_routes(rig), PATIENTS);
    said.push(rig.ask(&["check"]));
}

fn by_identifiers(rig: &Rig, said: &mut Vec<String>) {
    let long = format!("{{\"family\":\"{NAME}\",\"more\":\"{}\"}}", "x".repeat(70_000));
    let latin = [b"{\"family\":\"Z\xe9bulon ", NUMBER.as_bytes(), b"\"}"].concat();
    let broken = [
        format!("{NAME} is no JSON").into_bytes(),
        format!("{{\"family\":\"{NAME}\"").into_bytes(),
        format!("[\"{NAME}\",{NUMBER}]").into_bytes(),
        format!("{{\"mrn\":{NUMBER}}}").into_bytes(),
        format!("{{\"family\":\"{NAME}\",\"birth_date\":\"on {BORN}\"}}").into_bytes(),
        long.into_bytes(),
        latin,
    ];
    let whole = [
        json!({ "family": NAME, "mrn": NUMBER, "birth_date": BORN }).to_string(),
        format!("{{\"family\":\"{}\",\"given\":\"{}\"}}", escaped(NAME, |unit| format!("\\u{unit:04x}"), true), percent(NAME)),
        json!({ "family": BASE64_STANDARD.encode(NAME), "given": "Zébulon", "mrn": NUMBER, "birth_date": BORN }).to_string(),
        json!({ "family": NAME, "given": "Z&#233;bulon", "mrn": NUMBER, "birth_date": BORN }).to_string(),
    ];
    let documents = broken.iter().map(|document| (&document[..], 1)).chain(whole.iter().map(|text| (text.as_bytes(), 0)));
    for (document, code) in documents {
        let ran = rig.bedrail_with_input(&["patient", "set", "p-anna", "--identifiers-file", "-"], document);
        assert_eq!(ran.status, Some(code), "{ran:?}");
        said.extend([ran.stdout, ran.stderr]);
    }
    let file = rig.site.path("who");
    std::fs::write(&file, &whole[0]).unwrap();
    said.push(rig.ask(&["patient", "set", "p-bert", "--identifiers-file", &file.display().to_string()]));
    std::fs::remove_file(file).unwrap();
}

/// In the place of every name and key a command takes.
fn by_commands(rig: &Rig, said: &mut Vec<String>) {
    for who in [NAME, NUMBER, BORN, &BASE64_STANDARD.encode(NAME), &percent(NAME)] {
        for arguments in [
            &["assign", "--device", "strap", who][..],
            &["assign", "--device", who, "p-bert"],
            &["assign", "--bed", who, "p-bert"],
            &["assign", "--device", "strap", "p-bert", "--from", who],
            &["assign", "--device", "strap", "p-bert", who],
            &["unassign", "--device", who],
            &["ward", "--at", who],
            &["patient", "set", who, "--identifiers-file", "/dev/null"],
            &["patient", "forget", who],
            &["held", "assign", "chart", "1", who],
            &["held", "assign", who, "1", "p-bert"],
            &["held", "discard", who, "1"],
            &["decide", "accept", who, "1"],
            &["devices", "replace", who, "strap"],
            &["devices", "clean", who],
            &["route", "resume", who],
            &["route", "drop", who],
            &["dead-letters", "list", "--route", who],
            &["dead-letters", "show", who, "1"],
        ] {
            let ran = rig.bedrail(arguments);
            assert_ne!(ran.status, Some(0), "{arguments:?}: {ran:?}");
            said.extend([ran.stdout, ran.stderr]);
        }
    }
}

/// What no command would send: wrong in path, query, header and body, whole and in pieces.
fn by_requests(rig: &Rig, said: &mut Vec<String>) {
    let document = json!({ "device": "strap", "patient": NAME, NAME: NUMBER, "at": BORN }).to_string();
    let wrong = [
        ("POST", "/v1/assignments".to_owned(), document),
        ("POST", "/v1/assignments".to_owned(), format!("{{\"device\":\"strap\",\"patient\":\"{NUMBER}\"}}")),
        ("POST", "/v1/assignments".to_owned(), format!("{{\"device\":\"{}\",\"patient\":\"p-anna\"}}", "\\u005a\\u00e9bulon")),
        ("POST", "/v1/assignments".to_owned(), format!("{{\"user\":\"{NAME}\"}}")),
        ("POST", "/v1/assignments".to_owned(), format!("{NAME} {NUMBER} {BORN}")),
        ("GET", format!("/v1/assignments?at={}", percent(NAME)), String::new()),
        ("GET", format!("/v1/dead-letters?{}={NUMBER}", percent(NAME)), String::new()),
        ("PUT", format!("/v1/patients/{}", percent(NAME)), "{}".to_owned()),
        ("PUT", format!("/v1/patients/{NUMBER}"), "{}".to_owned()),
        ("DELETE", format!("/v1/patients/p-anna?yes={}", percent(NAME)), String::new()),
        ("POST", format!("/v1/held/chart/{}", percent(NAME)), "{}".to_owned()),
        ("POST", "/v1/held/chart/1".to_owned(), format!("{{\"patient\":\"{NAME}\"}}")),
        ("GET", format!("/{}/{NUMBER}", percent(NAME)), String::new()),
        (NAME, "/v1/patients".to_owned(), String::new()),
        ("POST", NAME.to_owned(), String::new()),
        ("PUT", "/v1/patients/p-anna".to_owned(), format!("{NAME}{}", "x".repeat(200_000))),
    ];
    for socket in ["deliver.sock", "collect.sock"] {
        let path = rig.site.path("run").join(socket);
        for (method, target, body) in &wrong {
            let length = body.len();
            let head = format!("{method} {target} HTTP/1.1\r\nhost: bedrail\r\ncontent-type: application/json\r\n");
            let whole = format!("{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
            let (status, answer) = exchange(&path, &[whole.as_bytes()]);
            assert!((400..500).contains(&status), "{socket} {method} {target}: {answer}");
            said.push(answer);
        }
        let half = NAME.len() / 2;
        let promised = format!("PUT /v1/patients/p-anna HTTP/1.1\r\nhost: bedrail\r\ncontent-length: {}\r\n\r\n", NAME.len());
        let (first, rest) = NAME.as_bytes().split_at(half);
        said.push(exchange(&path, &[promised.as_bytes(), first, rest]).1);
        said.push(exchange(&path, &[promised.as_bytes(), first]).1);
        said.push(exchange(&path, &[NAME.as_bytes(), b"\r\n\r\n", NUMBER.as_bytes()]).1);
        let header = format!("GET /v1/status HTTP/1.1\r\nhost: {NAME}\r\nx-{NUMBER}: {NAME}\r\nconnection: close\r\n\r\n");
        said.push(exchange(&path, &[header.as_bytes()]).1);
    }
}

/// Sends in pieces, hangs up, and reads what comes: its status and all of it.
fn exchange(socket: &Path, pieces: &[&[u8]]) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for piece in pieces {
        // A server that has heard enough hangs up in the middle.
        let _ = stream.write_all(piece);
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text)
}

/// In nothing that was printed, answered or sent, in no octet of any file of the gateway, and not in the log as it is read.
fn assert_no_trace(rig: &Rig, said: &[String]) {
    for text in said {
        assert_none_in("an answer", text.as_bytes());
    }
    for message in rig.subscriber.messages() {
        assert_none_in("a topic", message.topic.as_bytes());
        assert_none_in("a payload", message.raw.as_bytes());
    }
    assert_none_in("the broker's log", rig.broker.log().as_bytes());
    assert_none_in("the log, decrypted", decrypted(rig, LOG_FILE, "store-key").as_bytes());
    let store = rig.store();
    let records = format!("{:?}", store.read(Seq(1), store.head().unwrap(), usize::MAX).unwrap());
    assert!(records.contains("HeartRate"), "there are records to be searched");
    assert_none_in("the records", records.as_bytes());
    let mut files = 0;
    search(&rig.site.path(""), &mut files);
    assert!(files >= 8, "only {files} files were searched: databases, envelopes, keys, logs and config are more");
}

fn search(directory: &Path, files: &mut usize) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            search(&entry.path(), files);
        } else if kind.is_file() {
            assert_none_in(&entry.path().display().to_string(), &std::fs::read(entry.path()).unwrap());
            *files += 1;
        }
    }
}

fn assert_none_in(place: &str, octets: &[u8]) {
    let found = found(octets);
    assert!(found.is_none(), "in {place}: {found:?}");
}

/// The first notation of it that stands there, and what is around it.
fn found(octets: &[u8]) -> Option<(&'static str, String)> {
    let Wanted { all, begins } = wanted();
    octets.windows(2).enumerate().find_map(|(at, pair)| {
        let begun = &begins[usize::from(pair[0]) << 8 | usize::from(pair[1])];
        let (notation, _) = begun.iter().map(|n| &all[*n]).find(|(_, wanted)| octets[at..].starts_with(wanted))?;
        let around = &octets[at.saturating_sub(80)..(at + 80).min(octets.len())];
        Some((notation.as_str(), String::from_utf8_lossy(around).into_owned()))
    })
}

/// All notations, and by their first two octets which begin so: a file is gone through once.
struct Wanted {
    all: Vec<(String, Vec<u8>)>,
    begins: Vec<Vec<usize>>,
}

fn wanted() -> &'static Wanted {
    static WANTED: OnceLock<Wanted> = OnceLock::new();
    WANTED.get_or_init(|| {
        let all = notations();
        let mut begins = vec![Vec::new(); 1 << 16];
        for (n, (_, octets)) in all.iter().enumerate() {
            begins[usize::from(octets[0]) << 8 | usize::from(octets[1])].push(n);
        }
        Wanted { all, begins }
    })
}

/// Every value of every table of a database, as text.
fn decrypted(rig: &Rig, file: &str, credential: &str) -> String {
    let path = rig.site.path("state").join(file);
    let secret = std::fs::read(rig.site.path("credentials").join(credential)).unwrap();
    let data_key = key::data_key(&path, credential, &secret).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    let hex: String = data_key.iter().map(|octet| format!("{octet:02x}")).collect();
    connection.execute_batch(&format!("PRAGMA key = \"x'{hex}'\"; PRAGMA cipher_page_size = 1024;")).unwrap();
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(names.len() >= 4, "{names:?}");
    let mut text = String::new();
    for name in names {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                match row.get_ref(column).unwrap() {
                    rusqlite::types::ValueRef::Text(octets) | rusqlite::types::ValueRef::Blob(octets) => {
                        text += &String::from_utf8_lossy(octets);
                    }
                    other => text += &format!("{other:?}"),
                }
                text.push('\n');
            }
        }
    }
    text
}

#[test]
fn the_search_finds_every_notation_wherever_it_stands() {
    for text in [NAME, NUMBER, BORN].into_iter().chain(PARTS) {
        for before in ["", "a", "ab", "abc: "] {
            let sentence = format!("{before}{text}, and more");
            let hex: String = sentence.bytes().map(|octet| format!("{octet:02X}")).collect();
            let json = escaped(&sentence, |unit| format!("\\u{unit:04x}"), true);
            let xml: String = sentence.chars().map(|c| format!("&#{};", u32::from(c))).collect();
            for written in [sentence.clone(), hex, json, xml, percent(&sentence), BASE64_STANDARD.encode(&sentence)] {
                assert!(found(written.as_bytes()).is_some(), "{text} is not found in {written}");
            }
        }
    }
    assert_eq!(found(b"p-anna, heart_rate 72, 2026-11-25T11:22:09Z"), None);
}

#[test]
fn a_panic_over_a_patient_names_nobody() {
    let found = |who: &str| -> Result<(), Phi<String>> { Err(Phi::new(who.to_owned())) };
    let said = std::panic::catch_unwind(|| found(NAME).expect("somebody"));
    let message = said.expect_err("it panics").downcast::<String>().unwrap();
    assert!(message.contains("<phi>"), "{message}");
    assert_none_in("a panic", message.as_bytes());
}

//! hazards.toml is no paper: every hazard has a control that is shown by tests which exist and run, or says what is open.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hazards {
    requirement: std::collections::BTreeMap<String, String>,
    hazard: Vec<Hazard>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hazard {
    id: String,
    harm: String,
    cause: String,
    control: String,
    requirement: String,
    #[serde(default)]
    tests: Vec<String>,
    /// What is not shown or not built yet.
    open: Option<String>,
}

#[test]
fn every_hazard_has_a_control_that_a_test_shows_or_says_what_is_open() {
    let Hazards { requirement, hazard: hazards } = hazards();
    let tests = tests_that_run();
    let mut faults = Vec::new();
    let (mut ids, mut used) = (BTreeSet::new(), BTreeSet::new());
    for hazard in &hazards {
        let id = &hazard.id;
        used.insert(&hazard.requirement);
        if !ids.insert(id) {
            faults.push(format!("{id}: there are two"));
        }
        if [id, &hazard.harm, &hazard.cause, &hazard.control].iter().any(|text| text.trim().is_empty()) {
            faults.push(format!("{id}: harm, cause or control is empty"));
        }
        if !requirement.contains_key(&hazard.requirement) {
            faults.push(format!("{id}: there is no requirement {}", hazard.requirement));
        }
        if hazard.tests.is_empty() && hazard.open.as_deref().is_none_or(|open| open.trim().is_empty()) {
            faults.push(format!("{id}: neither a test nor what is open"));
        }
        faults.extend(hazard.tests.iter().filter(|name| !tests.contains(*name)).map(|name| format!("{id}: no test {name} runs")));
    }
    faults.extend(requirement.keys().filter(|name| !used.contains(name)).map(|name| format!("{name}: no hazard needs it")));
    // Shown with --nocapture: what somebody who decides about a use has to know.
    for hazard in &hazards {
        hazard.open.iter().for_each(|open| println!("open: {}: {open}", hazard.id));
    }
    assert!(faults.is_empty(), "hazards.toml:\n{}", faults.join("\n"));
}

#[test]
fn the_safety_text_speaks_of_every_requirement() {
    let text = std::fs::read_to_string(root().join("docs/safety.md")).expect("docs/safety.md");
    for name in hazards().requirement.keys() {
        assert!(text.contains(&format!("({name}")) || text.contains(&format!(", {name}")), "docs/safety.md does not name {name}");
    }
}

#[test]
fn only_tests_that_run_are_found() {
    let source = "#[test]\nfn a() {}\n\n    #[tokio::test(flavor = \"multi_thread\")]\n    async fn b() {}\n\
                  #[test]\n#[ignore]\nfn c() {}\n fn d() {}\n    #[test]\n    // why\n    fn e(x in 0..3) {}\n#[cfg(test)]\nfn f() {}\n";
    assert_eq!(tests_in(source), ["a", "b", "e"]);
}

fn hazards() -> Hazards {
    let text = std::fs::read_to_string(root().join("hazards.toml")).expect("hazards.toml");
    toml::from_str(&text).unwrap_or_else(|error| panic!("hazards.toml: {error}"))
}

fn tests_that_run() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open = vec![root().join("src"), root().join("tests")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(tests_in(&std::fs::read_to_string(&path).expect("a source file")));
        }
    }
    names
}

/// Names of the functions under a test attribute, those of proptest included, without ignored ones.
fn tests_in(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut lines = source.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if !line.starts_with("#[test]") && !line.starts_with("#[tokio::test") {
            continue;
        }
        let (mut ignored, mut below) = (false, lines.next());
        while let Some(line) = below.filter(|line| line.starts_with("#[") || line.starts_with("//")) {
            ignored |= line.starts_with("#[ignore");
            below = lines.next();
        }
        let function = below.map(|line| line.trim_start_matches("async ")).and_then(|line| line.strip_prefix("fn "));
        let name = function.and_then(|rest| rest.split(['(', '<']).next());
        names.extend(name.filter(|_| !ignored).map(str::to_owned));
    }
    names
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

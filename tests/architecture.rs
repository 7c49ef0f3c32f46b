//! ARCHITECTURE.md tells the truth about the tests it names and the rooms it lists.

use std::path::Path;

#[test]
fn every_test_that_architecture_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("the file");
    let mut sources = String::new();
    collect(&root.join("src"), &mut sources);
    collect(&root.join("tests"), &mut sources);
    let table = text.split("## Invariants").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the section");
    let named: Vec<&str> =
        table.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.rsplit('|').nth(1)).collect();
    let tests: Vec<&str> = named.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let tests: Vec<&str> = tests.into_iter().filter(|name| name.contains('_') && !name.contains([':', '/', '…'])).collect();
    assert!(tests.len() > 15, "the table of invariants was not found: {tests:?}");
    for test in tests {
        assert!(sources.contains(&format!("fn {test}(")), "ARCHITECTURE.md names a test that does not exist: {test}");
    }
}

#[test]
fn every_room_is_on_the_map() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("the file");
    for entry in std::fs::read_dir(root.join("src")).expect("the source").filter_map(Result::ok).filter(|e| e.path().is_dir()) {
        let room = entry.file_name().to_string_lossy().into_owned();
        assert!(text.contains(&format!("| `{room}/` |")), "src/{room} is not in ARCHITECTURE.md's map");
    }
}

fn collect(directory: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(directory).expect("a directory").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}

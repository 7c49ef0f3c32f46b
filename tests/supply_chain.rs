//! What bedrail is made of is what deny.toml allows: licences, banned crates, and the reasons why advisories do not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn every_crate_has_a_licence_of_the_list() {
    let (tree, policy) = (Tree::read(&["normal", "build", "dev"]), policy());
    let allowed = names(&policy["licenses"]["allow"]);
    let refused: Vec<&Package> = tree.packages.values().filter(|p| !is_allowed(&p.licence, &allowed)).collect();
    assert!(refused.is_empty(), "licences that deny.toml does not allow: {refused:#?}");
}

#[test]
fn a_licence_outside_the_list_is_refused() {
    let allowed = ["MIT", "Apache-2.0", "ISC"].map(str::to_owned).into();
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(GPL-2.0 OR ISC) AND MIT", "Apache-2.0 WITH LLVM-exception OR ISC"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0 WITH LLVM-exception", "(MIT OR ISC) AND BSL-1.0", "MIT OR"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn no_banned_crate_is_in_the_shipped_tree() {
    let (tree, policy) = (Tree::read(&["normal", "build"]), policy());
    for ban in policy["bans"]["deny"].as_array().expect("a list of bans") {
        let banned = ban["crate"].as_str().expect("a name");
        let wrappers = ban.get("wrappers").map(names).unwrap_or_default();
        let others: Vec<String> = tree.parents(banned, "").into_iter().filter(|parent| !wrappers.contains(parent)).collect();
        assert!(others.is_empty(), "{banned} comes in by {others:?}, and deny.toml says {:?}", ban["reason"]);
    }
    // Only the feature vendored-openssl brings an OpenSSL of our own.
    assert!(!tree.packages.values().any(|package| package.name == "openssl-sys"));
}

#[test]
fn certificates_are_checked_by_one_crate_for_one_other() {
    let tree = Tree::read(&["normal", "build", "dev"]);
    // rumqttc's own TLS brings an old checker, with advisories; only its packets are used.
    let checkers: Vec<&Package> = tree.packages.values().filter(|package| package.name == "rustls-webpki").collect();
    assert!(matches!(checkers[..], [checker] if checker.version.starts_with("0.103.")), "{checkers:?}");
    assert_eq!(tree.parents("rustls-webpki", ""), ["rustls"].map(str::to_owned).into());
    assert!(!tree.packages.values().any(|package| package.name == "rustls-pemfile"));
    for (path, text) in sources(&root().join("src")) {
        assert!(!text.contains("ClientConfig::builder") || path.ends_with("net/tls.rs"), "{path}: a way past src/net");
    }
}

#[test]
fn every_ignored_advisory_says_why() {
    for entry in policy()["advisories"]["ignore"].as_array().expect("a list") {
        let (id, reason) = (entry["id"].as_str().expect("an id"), entry["reason"].as_str().expect("a reason"));
        assert!(id.starts_with("RUSTSEC-") && reason.len() > 40, "{id}: {reason}");
    }
}

#[derive(Debug)]
struct Package {
    name: String,
    version: String,
    licence: String,
}

/// What the package itself needs for these kinds of dependency, on Linux.
struct Tree {
    packages: BTreeMap<String, Package>,
    /// From a package to who depends on it.
    parents: BTreeMap<String, BTreeSet<String>>,
}

impl Tree {
    fn read(kinds: &[&str]) -> Self {
        let metadata = metadata();
        let resolve = &metadata["resolve"];
        let nodes: BTreeMap<&str, &Value> =
            resolve["nodes"].as_array().expect("nodes").iter().map(|node| (text(node, "id"), node)).collect();
        let root = text(resolve, "root");
        let (mut open, mut seen) = (vec![root], BTreeSet::from([root]));
        let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        while let Some(id) = open.pop() {
            for dependency in nodes[id]["deps"].as_array().expect("dependencies") {
                let wanted = dependency["dep_kinds"].as_array().expect("kinds").iter().any(|kind| {
                    let kind = kind["kind"].as_str().unwrap_or("normal");
                    // Of what others develop with, nothing is built here.
                    kinds.contains(&kind) && (kind != "dev" || id == root)
                });
                if wanted {
                    let child = text(dependency, "pkg");
                    parents.entry(child.to_owned()).or_default().insert(id.to_owned());
                    if seen.insert(child) {
                        open.push(child);
                    }
                }
            }
        }
        let packages =
            metadata["packages"].as_array().expect("packages").iter().filter(|package| seen.contains(text(package, "id")));
        let packages = packages.map(|package| {
            let licence = package["license"].as_str().unwrap_or_default().to_owned();
            let (name, version) = (text(package, "name").to_owned(), text(package, "version").to_owned());
            (text(package, "id").to_owned(), Package { name, version, licence })
        });
        Self { packages: packages.collect(), parents }
    }

    /// Names of what depends directly on any such version of a crate.
    fn parents(&self, name: &str, version: &str) -> BTreeSet<String> {
        let matches = self.packages.iter().filter(|(_, p)| p.name == name && p.version.starts_with(version));
        let parents = matches.filter_map(|(id, _)| self.parents.get(id)).flatten();
        parents.map(|id| self.packages[id].name.clone()).collect()
    }
}

/// Of this platform, whose crates are here since they were compiled for this very test.
fn metadata() -> Value {
    let platform = match std::env::consts::ARCH {
        "arm" => "armv7-unknown-linux-gnueabihf".to_owned(),
        arch => format!("{arch}-unknown-linux-gnu"),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform])
        .current_dir(root());
    let output = cargo.output().expect("cargo starts");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn policy() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml").parse().expect("deny.toml is TOML")
}

fn names(list: &toml::Value) -> BTreeSet<String> {
    list.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

fn sources(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push((entry.display().to_string(), std::fs::read_to_string(&entry).expect("a source file")));
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().expect("text in cargo's metadata")
}

/// Whether an SPDX expression can be met by allowed licences alone. `/` is how older crates write OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    any_of(&mut words, allowed) == Some(true) && words.is_empty()
}

/// `None`: not an expression. AND binds more tightly than OR.
fn any_of(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = all_of(words, allowed)?;
    while words.pop_if(|word| *word == "OR").is_some() {
        met |= all_of(words, allowed)?;
    }
    Some(met)
}

fn all_of(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while words.pop_if(|word| *word == "AND").is_some() {
        met &= one(words, allowed)?;
    }
    Some(met)
}

fn one(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> Option<bool> {
    let word = words.pop()?;
    if word == "(" {
        let met = any_of(words, allowed)?;
        return words.pop_if(|word| *word == ")").map(|_| met);
    }
    if words.pop_if(|word| *word == "WITH").is_some() {
        let exception = words.pop()?;
        return Some(allowed.contains(&format!("{word} WITH {exception}")));
    }
    Some(allowed.contains(word))
}

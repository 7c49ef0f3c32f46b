//! A config is refused whole, with every error named, or it means what it says.

use bedrail::config::{self, Env};

#[test]
fn the_examples_parse_and_wait_for_later_work() {
    for name in ["ward", "home", "cart"] {
        let path = format!("config/examples/{name}.toml");
        let text = std::fs::read_to_string(&path).expect("the example");
        match config::parse(&text, &path, &Env::default()) {
            Ok(loaded) => {
                for l in &loaded.later {
                    println!("{l}");
                }
                for e in &loaded.explain {
                    println!("{}: {} = {} ({})", e.section, e.key, e.value, e.origin);
                }
            }
            Err(errors) => panic!("{errors}"),
        }
    }
}

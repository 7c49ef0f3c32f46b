//! bedrail.toml to typed settings; every error names file, line, key and remedy.

//! What every command that talks to a running half shares.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::ConfigArg;
use crate::api::{self, ClientError};
use crate::config;
use crate::daemon::{EXIT_CONFIG, EXIT_RUNTIME};

/// Which half owns the answer.
#[derive(Clone, Copy)]
pub enum Owner {
    Collect,
    Deliver,
}

/// Asks, and prints the answer with `print`; errors go to stderr with the right exit code.
pub fn ask(config: &ConfigArg, owner: Owner, method: &str, path: &str, body: Vec<u8>, print: impl FnOnce(&Value)) -> ExitCode {
    let socket = match socket(config, owner) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    match call(&socket, method, path, body) {
        Ok(answer) => {
            print(&answer);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bedrail: {error}");
            ExitCode::from(EXIT_RUNTIME)
        }
    }
}

pub fn socket(config: &ConfigArg, owner: Owner) -> Result<PathBuf, ExitCode> {
    let loaded = config::load(&config.config).map_err(|errors| {
        eprintln!("{errors}");
        ExitCode::from(EXIT_CONFIG)
    })?;
    let name = match owner {
        Owner::Collect => api::COLLECT_SOCKET,
        Owner::Deliver => api::DELIVER_SOCKET,
    };
    Ok(loaded.settings.gateway.runtime_dir.join(name))
}

pub fn call(socket: &std::path::Path, method: &str, path: &str, body: Vec<u8>) -> Result<Value, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one thread's runtime");
    runtime.block_on(api::call(socket, method, path, body))
}

/// The text of a field, or a dash.
pub fn text<'a>(value: &'a Value, field: &str) -> std::borrow::Cow<'a, str> {
    match &value[field] {
        Value::Null => "-".into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

/// Prints rows with columns as wide as their widest cell.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", padded.join("  ").trim_end());
    };
    line(head.to_vec());
    rows.iter().for_each(|row| line(row.iter().map(String::as_str).collect()));
}

/// A path segment; names of routes and keys hold nothing else, whatever somebody types.
pub fn segment(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

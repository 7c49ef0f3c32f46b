//! Logs: to the journal when systemd runs us, as text to a terminal otherwise. `RUST_LOG` sets what is shown.
//!
//! Fields become journal fields of their own under the prefix `BEDRAIL_`, because names such as `UNIT` are systemd's.

use std::io::IsTerminal as _;

use systemd_journal_logger::JournalLog;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

const PREFIX: &str = "BEDRAIL_";

/// Called once, by the daemon; a command line tool prints what it has to say itself.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,rumqttc=warn,zbus=warn"));
    let journal = systemd_journal_logger::connected_to_journal().then(JournalLog::new).and_then(Result::ok);
    let registry = tracing_subscriber::registry().with(filter);
    match journal {
        Some(journal) => registry.with(JournalLayer(journal)).init(),
        None => {
            let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
            registry.with(text.with_ansi(std::io::stderr().is_terminal())).init();
        }
    }
}

struct JournalLayer(JournalLog);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let pairs: Vec<(&str, &str)> = fields.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let meta = event.metadata();
        // A journal that is gone is nowhere to say so.
        let _ = self.0.journal_send(
            &log::Record::builder()
                .args(format_args!("{}", fields.message))
                .level(level(*meta.level()))
                .target(meta.target())
                .module_path(meta.module_path())
                .file(meta.file())
                .line(meta.line())
                .key_values(&pairs.as_slice())
                .build(),
        );
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(String, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.pairs.push((format!("{PREFIX}{}", name.to_ascii_uppercase()), value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

const fn level(level: tracing::Level) -> log::Level {
    match level {
        tracing::Level::ERROR => log::Level::Error,
        tracing::Level::WARN => log::Level::Warn,
        tracing::Level::INFO => log::Level::Info,
        tracing::Level::DEBUG => log::Level::Debug,
        tracing::Level::TRACE => log::Level::Trace,
    }
}

//! The topic of a record, from a template. There is no placeholder for a patient, on purpose: a broker's topic list, its
//! logs and its access rules are read by people who have no business with who lies where.

use std::str::FromStr;

use percent_encoding::utf8_percent_encode;

use crate::deliver::Item;
use crate::net::UNRESERVED;
use crate::reading::DeviceId;

/// Room for any sensible tree, far from the 65,535 octets MQTT allows once names are filled in.
const MAX_TEMPLATE: usize = 512;

/// For example `bedrail/{gateway}/{device}/{metric}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field, Level),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Gateway,
    Device,
    Metric,
}

/// Where in a topic something is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Plain,
    /// A level with `=` in it is a list of properties, `name=value&name=value`, as Azure IoT Hub wants them: percent-encoded.
    Properties,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("topic is empty; write for example bedrail/{{gateway}}/{{device}}/{{metric}}")]
    Empty,
    #[error("topic is longer than {MAX_TEMPLATE} characters; shorten it")]
    TooLong,
    #[error(
        "topic: unknown placeholder {{{0}}}; there are {{gateway}}, {{device}} and {{metric}} (and none for patients, on purpose)"
    )]
    UnknownPlaceholder(String),
    #[error("topic: a {{ or }} without its partner; write a placeholder as {{device}}")]
    UnpairedBrace,
    #[error("topic: `{0}` is a wildcard and cannot be published to; leave it out")]
    Wildcard(char),
    #[error("topic: a control character; leave it out")]
    ControlCharacter,
    #[error("topic: an empty level (a / at the start, at the end, or two in a row); leave the / out")]
    EmptyLevel,
}

impl FromStr for TopicTemplate {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > MAX_TEMPLATE {
            return Err(TopicError::TooLong);
        }
        if let Some(wildcard) = text.chars().find(|c| matches!(c, '+' | '#')) {
            return Err(TopicError::Wildcard(wildcard));
        }
        if text.chars().any(char::is_control) {
            return Err(TopicError::ControlCharacter);
        }
        if text.split('/').any(str::is_empty) {
            return Err(TopicError::EmptyLevel);
        }
        let mut pieces = Vec::new();
        for (n, level) in text.split('/').enumerate() {
            if n > 0 {
                pieces.push(Piece::Text("/".to_owned()));
            }
            pieces.extend(level_pieces(level)?);
        }
        Ok(Self { pieces })
    }
}

fn level_pieces(mut rest: &str) -> Result<Vec<Piece>, TopicError> {
    let mut pieces = Vec::new();
    let level = if rest.contains('=') { Level::Properties } else { Level::Plain };
    while let Some(brace) = rest.find(['{', '}']) {
        if brace > 0 {
            pieces.push(Piece::Text(rest[..brace].to_owned()));
        }
        let Some(inside) = rest[brace..].strip_prefix('{') else { return Err(TopicError::UnpairedBrace) };
        let Some((name, after)) = inside.split_once('}') else { return Err(TopicError::UnpairedBrace) };
        let field = match name {
            "gateway" => Field::Gateway,
            "device" => Field::Device,
            "metric" => Field::Metric,
            other => return Err(TopicError::UnknownPlaceholder(other.to_owned())),
        };
        pieces.push(Piece::Field(field, level));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

impl TopicTemplate {
    /// A device goes by its configured name, else by its address without colons; a record of no metric by its kind.
    pub fn topic(&self, item: &Item) -> String {
        let mut topic = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => topic.push_str(text),
                Piece::Field(Field::Gateway, level) => fill_in(&mut topic, *level, &item.gateway),
                Piece::Field(Field::Device, level) => fill_in(&mut topic, *level, &device(item)),
                Piece::Field(Field::Metric, level) => fill_in(&mut topic, *level, metric(item)),
            }
        }
        topic
    }
}

fn device(item: &Item) -> String {
    match &item.device {
        Some(label) => label.name.clone(),
        None if item.record.device == DeviceId::GATEWAY => "gateway".to_owned(),
        None => item.record.device.to_string().replace(':', ""),
    }
}

fn metric(item: &Item) -> &'static str {
    item.record.stream.map_or(item.record.body.kind(), |stream| stream.metric.name())
}

fn fill_in(topic: &mut String, level: Level, text: &str) {
    match level {
        Level::Plain => push_level(topic, text),
        Level::Properties => topic.extend(utf8_percent_encode(text, &UNRESERVED)),
    }
}

/// What is filled in stays within its level, whatever it holds, and never makes an empty one.
pub(super) fn push_level(topic: &mut String, text: &str) {
    if text.is_empty() {
        topic.push('_');
    }
    topic.extend(text.chars().map(|c| if matches!(c, '/' | '+' | '#') || c.is_control() { '_' } else { c }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> TopicError {
        text.parse::<TopicTemplate>().expect_err(text)
    }

    #[test]
    fn a_topic_that_cannot_be_published_to_is_refused_with_the_remedy() {
        assert_eq!(error(""), TopicError::Empty);
        assert_eq!(error("a/+/b"), TopicError::Wildcard('+'));
        assert_eq!(error("a/#"), TopicError::Wildcard('#'));
        for text in ["/a", "a/", "a//b", "/"] {
            assert_eq!(error(text), TopicError::EmptyLevel, "{text}");
        }
        for text in ["a/{device", "a/device}", "a/{dev{ice}}"] {
            assert!(matches!(error(text), TopicError::UnpairedBrace | TopicError::UnknownPlaceholder(_)), "{text}");
        }
        assert_eq!(error("a\u{0}b"), TopicError::ControlCharacter);
        assert_eq!(error(&"a".repeat(513)), TopicError::TooLong);
    }

    #[test]
    fn no_placeholder_leads_to_a_patient() {
        for name in ["subject", "patient", "mrn", "bed", "name", ""] {
            let error = error(&format!("ward/{{{name}}}"));
            assert_eq!(error, TopicError::UnknownPlaceholder(name.to_owned()));
            assert!(error.to_string().contains("none for patients, on purpose"), "{error}");
        }
    }
}

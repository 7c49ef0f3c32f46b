//! What people write, in messages about it: shown short and on one line, beside the word that was probably meant.

/// Long enough for any word of a config or a profile; a message stays on one line.
const SHOWN_CHARS: usize = 40;

pub fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}

pub fn did_you_mean<'a>(text: &str, among: impl IntoIterator<Item = &'a str>) -> String {
    nearest(text, among).map(|word| format!("; did you mean `{word}`?")).unwrap_or_default()
}

/// The word nearest to what was written, if any is near.
pub fn nearest<'a>(text: &str, among: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_lowercase();
    let scored = among.into_iter().map(|word| (strsim::damerau_levenshtein(&text, word), word));
    let (distance, word) = scored.min()?;
    (distance <= 1.max(word.chars().count() / 3)).then_some(word)
}

//! What identifies a patient, out of the document that is kept under the opaque key, and whether somebody a destination found
//! is that patient. One number is mistyped too easily: a second thing that people know has to agree.

use serde::Deserialize;

use super::{HoldReason, Phi};

/// What is known of a person, on file or at a destination. A document may hold more; these are understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The number of the patient's record at the site.
    pub mrn: Option<Phi<String>>,
    pub visit: Option<Phi<String>>,
    pub family: Option<Phi<String>>,
    pub given: Option<Phi<String>>,
    pub birth_date: Option<Phi<jiff::civil::Date>>,
}

/// What has to agree besides the number by which somebody was found. The words are those of the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondIdentifier {
    BirthDate,
    Family,
    Visit,
}

impl SecondIdentifier {
    pub const WORDS: &'static [&'static str] = &["birth-date", "family", "visit"];

    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "birth-date" => Some(SecondIdentifier::BirthDate),
            "family" => Some(SecondIdentifier::Family),
            "visit" => Some(SecondIdentifier::Visit),
            _ => None,
        }
    }
}

/// It says what is wrong with a document, and never what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the identifiers are not a JSON object")]
    NotAnObject,
    #[error("`mrn`, `visit`, `family`, `given` and `birth_date` are texts in quotes; correct the one that is not")]
    NotText,
    #[error("`birth_date` is not a date; write it as YYYY-MM-DD")]
    NotADate,
}

impl Identity {
    pub fn parse(document: &Phi<Vec<u8>>) -> Result<Self, IdentityError> {
        #[derive(Deserialize)]
        struct Document {
            mrn: Option<String>,
            visit: Option<String>,
            family: Option<String>,
            given: Option<String>,
            birth_date: Option<String>,
        }
        // The parser's own messages would quote the document.
        let value: serde_json::Value = serde_json::from_slice(document.expose()).map_err(|_| IdentityError::NotAnObject)?;
        if !value.is_object() {
            return Err(IdentityError::NotAnObject);
        }
        let Document { mrn, visit, family, given, birth_date } =
            serde_json::from_value(value).map_err(|_| IdentityError::NotText)?;
        let date = birth_date.map(|text| text.parse::<jiff::civil::Date>()).transpose();
        Ok(Self {
            mrn: mrn.map(Phi::new),
            visit: visit.map(Phi::new),
            family: family.map(Phi::new),
            given: given.map(Phi::new),
            birth_date: date.map_err(|_| IdentityError::NotADate)?.map(Phi::new),
        })
    }

    /// Whether `found` is this person. What either side does not know does not agree.
    pub fn agrees(&self, found: &Identity, second: SecondIdentifier) -> Result<(), HoldReason> {
        let agrees = match second {
            SecondIdentifier::BirthDate => both(&self.birth_date, &found.birth_date, |a, b| a == b),
            SecondIdentifier::Family => both(&self.family, &found.family, |a, b| letters(a) == letters(b)),
            SecondIdentifier::Visit => both(&self.visit, &found.visit, |a, b| a.trim() == b.trim()),
        };
        if agrees { Ok(()) } else { Err(HoldReason::IdentityMismatch) }
    }
}

fn both<T>(ours: &Option<Phi<T>>, theirs: &Option<Phi<T>>, agree: impl Fn(&T, &T) -> bool) -> bool {
    matches!((ours, theirs), (Some(ours), Some(theirs)) if agree(ours.expose(), theirs.expose()))
}

/// Capitals, blanks, hyphens and apostrophes are written now so and now so; a letter is a letter.
fn letters(name: &str) -> Option<String> {
    let letters: String = name.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    // A name in signs this knows no letters of agrees with nothing.
    (!letters.is_empty()).then_some(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(document: &str) -> Identity {
        Identity::parse(&Phi::new(document.as_bytes().to_vec())).expect("a document in a test")
    }

    #[test]
    fn a_patient_who_was_found_is_the_one_only_if_the_second_identifier_agrees() {
        let ours = identity(r#"{"mrn":"17","family":"O'Brien-Lind","birth_date":"1947-11-03","visit":"V1","ward":"3W"}"#);
        let mismatch = Err(HoldReason::IdentityMismatch);
        for (found, second, agrees) in [
            (r#"{"birth_date":"1947-11-03"}"#, SecondIdentifier::BirthDate, Ok(())),
            (r#"{"birth_date":"1947-03-11"}"#, SecondIdentifier::BirthDate, mismatch),
            (r#"{"mrn":"17","family":"O'Brien-Lind"}"#, SecondIdentifier::BirthDate, mismatch),
            (r#"{"family":"OBRIEN LIND"}"#, SecondIdentifier::Family, Ok(())),
            (r#"{"family":"Lind"}"#, SecondIdentifier::Family, mismatch),
            (r#"{"family":"-"}"#, SecondIdentifier::Family, mismatch),
            (r#"{"visit":" V1 "}"#, SecondIdentifier::Visit, Ok(())),
            (r#"{"visit":"V10"}"#, SecondIdentifier::Visit, mismatch),
        ] {
            assert_eq!(ours.agrees(&identity(found), second), agrees, "{found}");
            assert_eq!(identity(found).agrees(&ours, second), agrees, "the other way round: {found}");
        }
        let unknown = identity("{}");
        for second in SecondIdentifier::WORDS.iter().filter_map(|word| SecondIdentifier::from_name(word)) {
            assert_eq!(unknown.agrees(&unknown, second), mismatch, "what nobody knows agrees with nothing");
        }
    }

    #[test]
    fn a_document_that_is_refused_is_never_quoted() {
        let refused = |document: &str| {
            let error = Identity::parse(&Phi::new(document.as_bytes().to_vec())).expect_err(document);
            assert!(!format!("{error} {error:?}").contains("Zebulon"), "{error}");
            error
        };
        assert_eq!(refused(r#"{"family":"Zebulon""#), IdentityError::NotAnObject);
        assert_eq!(refused(r#"["Zebulon"]"#), IdentityError::NotAnObject);
        assert_eq!(refused(r#"{"family":["Zebulon"]}"#), IdentityError::NotText);
        assert_eq!(refused(r#"{"family":"Zebulon","birth_date":"3.11.1947"}"#), IdentityError::NotADate);
        assert_eq!(format!("{:?}", identity(r#"{"family":"Zebulon","birth_date":"1947-11-03"}"#)).matches("<phi>").count(), 2);
    }
}

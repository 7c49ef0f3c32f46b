//! What a step that returned `Ok` promised, as a line: the tests read them from the output of a program that may have been
//! killed in the middle of one.

use std::fmt;
use std::str::FromStr;

use bedrail::reading::{Record, Seq};
use ring::digest;

use super::{Script, Step};

/// The step stands, and so do these records, to the last octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    pub step: Step,
    pub first: Seq,
    pub last: Seq,
    pub digest: String,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DONE {:?} {}..={} {}", self.step, self.first, self.last, self.digest)
    }
}

impl FromStr for Promise {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let bad = || format!("not a promise: {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let &["DONE", step, run, digest] = words.as_slice() else { return Err(bad()) };
        let known = Script::ALL.into_iter().flat_map(Script::steps);
        let step = *known.into_iter().find(|known| format!("{known:?}") == step).ok_or_else(bad)?;
        let (first, last) = run.split_once("..=").ok_or_else(bad)?;
        let number = |text: &str| text.parse().map(Seq).map_err(|_| bad());
        Ok(Self { step, first: number(first)?, last: number(last)?, digest: digest.to_owned() })
    }
}

/// The promises in what a program printed; a last line that a kill cut short is none.
pub fn promises(output: &str) -> Vec<Promise> {
    output.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(|line| line.parse().ok()).collect()
}

pub fn digest_of<'a>(records: impl Iterator<Item = &'a Record>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    records.for_each(|record| context.update(&postcard::to_stdvec(record).expect("a record is plain data")));
    bedrail::hex::encode(&context.finish().as_ref()[..16])
}

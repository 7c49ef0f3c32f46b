//! What an answer means for what was sent: pure, one case a line. docs/fhir.md has the same table.

use super::answer::{Answer, Content};
use crate::deliver::FaultClass;

/// What was asked of the server.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Records in it.
    pub records: usize,
    /// The server keeps an idempotency key: a conflict is what was sent before.
    pub keyed: bool,
    /// It was to replace a version that was read just before.
    pub replaces: bool,
    /// What the records refer to: `Patient/17`, `Device/9`.
    pub references: &'a [&'a str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the chart.
    Sent,
    /// Later, the same again.
    Retry(Pace),
    /// With a new token, once.
    NewToken,
    /// Nothing goes until a person changes something; nothing is lost.
    Stop(FaultClass),
    /// Somebody else changed it: read it and try again.
    ReadAgain,
    /// Several have our identifier: look what is there.
    Search,
    /// In smaller bundles.
    Split,
    /// One of them is refused for good: find out which.
    Bisect,
    /// This one is refused for good.
    Poison(&'static str),
    /// A patient or device is no longer where it was: find it again.
    Stale,
}

/// Whom a retry holds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The server is there and has trouble with this.
    This,
    /// The server wants to be left alone.
    All,
}

/// Issue codes that pass by themselves, whatever the status (FHIR R4, issue-type).
const PASSING: &[&str] = &["transient", "timeout", "lock-error", "throttled", "incomplete", "no-store"];

pub fn outcome(answer: &Answer, asked: &Asked<'_>) -> Outcome {
    if answer.is_success() {
        return if answer.content == Content::Other { Outcome::Stop(FaultClass::Broken) } else { Outcome::Sent };
    }
    let alone = asked.records <= 1;
    match answer.status {
        401 => Outcome::NewToken,
        429 | 503 => Outcome::Retry(Pace::All),
        _ if answer.has_code(PASSING) => Outcome::Retry(Pace::This),
        408 | 425 | 500 | 502 | 504 | 507 => Outcome::Retry(Pace::This),
        300..=399 => Outcome::Stop(FaultClass::Moved),
        403 => Outcome::Stop(FaultClass::NotAuthorized),
        409 if asked.keyed => Outcome::Sent,
        409 => Outcome::ReadAgain,
        412 if asked.replaces => Outcome::ReadAgain,
        412 => Outcome::Search,
        413 if alone => Outcome::Poison("too_large"),
        413 => Outcome::Split,
        400 | 422 if !alone && is_too_many(answer) => Outcome::Split,
        // Before what is no longer there is looked for by name: any of the records may mean it.
        400 | 404 | 410 | 422 if is_missing(answer, asked) && alone => Outcome::Stale,
        400 | 410 | 422 if !alone => Outcome::Bisect,
        404 if !alone && answer.content == Content::Fhir => Outcome::Bisect,
        410 => Outcome::Stale,
        400 | 422 => Outcome::Poison("refused"),
        // What an address without a FHIR server behind it says, or one that doesn't know the method.
        404..=407 | 415 | 501 | 505 | 511 => Outcome::Stop(FaultClass::Refused),
        400..=499 => Outcome::Poison("refused"),
        _ => Outcome::Retry(Pace::This),
    }
}

/// Servers have no code of their own for it: `too-costly`, or a sentence.
fn is_too_many(answer: &Answer) -> bool {
    let sentences = ["too many entries", "too many resources", "maximum number of entries", "exceeds the maximum", "bundle size"];
    answer.has_code(&["too-costly", "too-long"]) || sentences.iter().any(|sentence| answer.says(sentence))
}

fn is_missing(answer: &Answer, asked: &Asked<'_>) -> bool {
    let missing = answer.has_code(&["not-found", "deleted"]) || answer.says("not found") || answer.says("does not exist");
    let at = |issue: &super::answer::Issue, element: &str| {
        issue.expression.iter().chain(&issue.location).any(|path| path.ends_with(element)) || issue.diagnostics.contains(element)
    };
    let of_reference = |issue| ["subject", "device", "encounter"].iter().any(|element| at(issue, element));
    missing && (answer.issues.iter().any(of_reference) || asked.references.iter().any(|reference| answer.says(reference)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::fhir::answer::Issue;

    const ONE: Asked<'_> = Asked { records: 1, keyed: false, replaces: false, references: &["Patient/17", "Device/9"] };
    const EIGHT: Asked<'_> = Asked { records: 8, ..ONE };

    fn status(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    fn issue(status: u16, code: &str, diagnostics: &str) -> Answer {
        let issue = Issue { code: code.to_owned(), diagnostics: diagnostics.to_owned(), ..Issue::default() };
        Answer { status, content: Content::Fhir, issues: vec![issue], ..Answer::default() }
    }

    #[test]
    fn what_was_taken_is_sent_also_with_warnings_and_also_without_a_body() {
        for code in [200, 201, 202, 204] {
            assert_eq!(outcome(&status(code), &ONE), Outcome::Sent, "{code}");
        }
        assert_eq!(outcome(&issue(201, "informational", "a warning"), &ONE), Outcome::Sent);
    }

    #[test]
    fn a_page_that_is_no_fhir_is_not_believed_to_be_a_chart() {
        let page = Answer { content: Content::Other, ..status(200) };
        assert_eq!(outcome(&page, &ONE), Outcome::Stop(FaultClass::Broken));
    }

    #[test]
    fn what_passes_is_tried_again_and_two_answers_speak_for_the_whole_server() {
        for code in [408, 425, 500, 502, 504, 507, 599] {
            assert_eq!(outcome(&status(code), &EIGHT), Outcome::Retry(Pace::This), "{code}");
        }
        for code in [429, 503] {
            assert_eq!(outcome(&status(code), &EIGHT), Outcome::Retry(Pace::All), "{code}");
        }
        for code in PASSING {
            assert_eq!(outcome(&issue(400, code, ""), &ONE), Outcome::Retry(Pace::This), "{code}");
        }
    }

    #[test]
    fn a_token_that_is_no_longer_good_is_renewed_and_says_nothing_about_a_record() {
        assert_eq!(outcome(&status(401), &ONE), Outcome::NewToken);
        assert_eq!(outcome(&issue(401, "invalid", "token"), &EIGHT), Outcome::NewToken);
    }

    #[test]
    fn what_only_a_person_can_change_stops_all_and_buries_nothing() {
        for (code, class) in [
            (301, FaultClass::Moved),
            (302, FaultClass::Moved),
            (307, FaultClass::Moved),
            (403, FaultClass::NotAuthorized),
            (404, FaultClass::Refused),
            (405, FaultClass::Refused),
            (406, FaultClass::Refused),
            (415, FaultClass::Refused),
            (501, FaultClass::Refused),
        ] {
            assert_eq!(outcome(&status(code), &ONE), Outcome::Stop(class), "{code}");
            assert_eq!(outcome(&status(code), &EIGHT), Outcome::Stop(class), "{code}");
        }
    }

    #[test]
    fn a_conflict_is_read_again_or_where_the_server_keeps_keys_was_sent_before() {
        assert_eq!(outcome(&status(409), &ONE), Outcome::ReadAgain);
        assert_eq!(outcome(&status(409), &Asked { keyed: true, ..ONE }), Outcome::Sent);
        assert_eq!(outcome(&status(412), &Asked { replaces: true, ..ONE }), Outcome::ReadAgain);
    }

    #[test]
    fn several_matches_are_looked_at() {
        assert_eq!(outcome(&status(412), &ONE), Outcome::Search);
        assert_eq!(outcome(&issue(412, "multiple-matches", ""), &EIGHT), Outcome::Search);
    }

    #[test]
    fn what_is_too_large_is_split_and_alone_refused() {
        assert_eq!(outcome(&status(413), &EIGHT), Outcome::Split);
        assert_eq!(outcome(&status(413), &ONE), Outcome::Poison("too_large"));
        let medplum = "Transaction requires strict isolation but has too many entries (9, max 8)";
        assert_eq!(outcome(&issue(400, "invalid", medplum), &EIGHT), Outcome::Split);
        assert_eq!(outcome(&issue(422, "too-costly", ""), &EIGHT), Outcome::Split);
        assert_eq!(outcome(&issue(400, "too-costly", ""), &ONE), Outcome::Poison("refused"));
    }

    #[test]
    fn what_is_refused_is_found_among_others_and_buried_alone() {
        for code in ["structure", "required", "value", "invariant", "code-invalid", "business-rule", "not-supported", "extension"]
        {
            for status in [400, 422] {
                assert_eq!(outcome(&issue(status, code, "bad"), &EIGHT), Outcome::Bisect, "{status} {code}");
                assert_eq!(outcome(&issue(status, code, "bad"), &ONE), Outcome::Poison("refused"), "{status} {code}");
            }
        }
        assert_eq!(outcome(&status(400), &EIGHT), Outcome::Bisect);
        assert_eq!(outcome(&status(451), &ONE), Outcome::Poison("refused"));
    }

    #[test]
    fn a_patient_or_device_that_is_gone_is_found_again() {
        let hapi = "HAPI-1094: Resource Patient/17 not found, specified in path: Observation.subject";
        for answer in [
            issue(400, "processing", hapi),
            issue(422, "not-found", "Device/9"),
            issue(404, "not-found", "no such subject"),
            issue(410, "deleted", "subject"),
            status(410),
        ] {
            assert_eq!(outcome(&answer, &ONE), Outcome::Stale, "{answer:?}");
        }
        assert_eq!(outcome(&issue(400, "processing", hapi), &EIGHT), Outcome::Bisect, "of eight it is not known which");
        assert_eq!(outcome(&issue(404, "not-found", hapi), &EIGHT), Outcome::Bisect);
        // Something else is not found, as a code in a code system: looking for the patient again would go on for ever.
        assert_eq!(outcome(&issue(422, "code-invalid", "code not found in value set"), &ONE), Outcome::Poison("refused"));
    }

    #[test]
    fn every_status_means_something_and_none_is_a_success_by_accident() {
        for code in 100..=999 {
            for asked in [ONE, EIGHT, Asked { keyed: true, ..ONE }, Asked { replaces: true, ..ONE }] {
                let sent = outcome(&status(code), &asked) == Outcome::Sent;
                assert_eq!(sent, (200..300).contains(&code) || (code == 409 && asked.keyed), "{code}");
            }
        }
    }
}

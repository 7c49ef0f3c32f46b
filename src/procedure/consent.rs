//! Opening users' slots of a shared device (User Data Service): one after the other, each once. A code that is not taken is
//! not tried again, because a device may lock the slot.

use std::time::{Duration, Instant};

use crate::gatt::{ConsentCode, UserControlPoint, read};
use crate::reading::UserIndex;

/// A device answers within a connection interval or two; the attribute protocol's own limit.
const ANSWER: Duration = Duration::from_secs(30);
/// A slot that was opened tells what waits in it; after so long without a value it has.
const QUIET: Duration = Duration::from_secs(2);
/// And a device that never stops telling does not keep the others' slots shut.
const LETTING_MOST: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsentEvent<'a> {
    /// The control point is subscribed to.
    Begin,
    /// The device took what was written, or refused it.
    Written(bool),
    /// A value of the control point.
    Answer(&'a [u8]),
    /// A measurement came.
    Value,
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsentAction {
    /// To the control point, with response; it holds a secret.
    Write(Vec<u8>),
    Answered(UserIndex, ConsentAnswer),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsentAnswer {
    Granted,
    /// The code is not that of the user.
    Refused,
    /// It did not work for another reason: no such user, not supported.
    Failed,
    NoAnswer,
}

impl ConsentAnswer {
    pub const fn name(self) -> &'static str {
        match self {
            ConsentAnswer::Granted => "granted",
            ConsentAnswer::Refused => "refused",
            ConsentAnswer::Failed => "failed",
            ConsentAnswer::NoAnswer => "no_answer",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Asking { since: Instant },
    Letting { since: Instant, began: Instant },
    Ended,
}

pub struct Consent {
    users: Vec<(UserIndex, ConsentCode)>,
    /// Whose turn it is.
    at: usize,
    state: State,
}

impl Consent {
    pub const fn new(users: Vec<(UserIndex, ConsentCode)>) -> Self {
        Self { users, at: 0, state: State::Idle }
    }

    pub fn poll(&mut self, now: Instant, event: ConsentEvent<'_>) -> Vec<ConsentAction> {
        match (self.state, event) {
            (State::Idle, ConsentEvent::Begin) => self.ask(now),
            (State::Asking { .. }, ConsentEvent::Written(false)) => self.answered(now, ConsentAnswer::NoAnswer),
            (State::Asking { .. }, ConsentEvent::Answer(octets)) => match read::<UserControlPoint>(octets) {
                Ok((answer, _)) if answer.is_granted_consent() => self.answered(now, ConsentAnswer::Granted),
                Ok((answer, _)) if answer.is_refused_consent() => self.answered(now, ConsentAnswer::Refused),
                Ok((answer, _)) if answer.is_consent() => self.answered(now, ConsentAnswer::Failed),
                // It speaks of something else.
                _ => vec![],
            },
            (State::Asking { since }, ConsentEvent::Tick) if now >= since + ANSWER => self.answered(now, ConsentAnswer::NoAnswer),
            (State::Letting { began, .. }, ConsentEvent::Value) => {
                self.state = State::Letting { since: now, began };
                vec![]
            }
            (State::Letting { .. }, ConsentEvent::Tick) if self.timeout().is_some_and(|due| now >= due) => self.ask(now),
            _ => vec![],
        }
    }

    /// When the next `Tick` is due.
    pub fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle | State::Ended => None,
            State::Asking { since } => Some(since + ANSWER),
            State::Letting { since, began } => Some((since + QUIET).min(began + LETTING_MOST)),
        }
    }

    fn ask(&mut self, now: Instant) -> Vec<ConsentAction> {
        let Some((user, code)) = self.users.get(self.at) else {
            self.state = State::Ended;
            return vec![ConsentAction::Done];
        };
        self.state = State::Asking { since: now };
        UserControlPoint::Consent(*user, *code).encode().map(ConsentAction::Write).into_iter().collect()
    }

    fn answered(&mut self, now: Instant, answer: ConsentAnswer) -> Vec<ConsentAction> {
        let told = self.users.get(self.at).map(|(user, _)| ConsentAction::Answered(*user, answer));
        self.at += 1;
        let last = self.at == self.users.len();
        let mut actions: Vec<_> = told.into_iter().collect();
        if answer == ConsentAnswer::Granted && !last {
            self.state = State::Letting { since: now, began: now };
        } else {
            actions.extend(self.ask(now));
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procedure::writable;

    const POINT: uuid::Uuid = crate::gatt::sig_uuid(0x2A9F);

    fn consent() -> Consent {
        Consent::new(vec![(1, ConsentCode(1234)), (2, ConsentCode(4711))])
    }

    fn wrote(octets: &[u8]) -> ConsentAction {
        assert!(writable::passes(POINT, octets));
        ConsentAction::Write(octets.to_vec())
    }

    #[test]
    fn each_slot_is_opened_once_and_gets_time_to_tell_what_waits_in_it() {
        let (mut consent, start) = (consent(), Instant::now());
        assert_eq!(consent.poll(start, ConsentEvent::Begin), [wrote(&[2, 1, 0xD2, 0x04])]);
        assert_eq!(consent.poll(start, ConsentEvent::Written(true)), []);
        let granted = ConsentAction::Answered(1, ConsentAnswer::Granted);
        assert_eq!(consent.poll(start, ConsentEvent::Answer(&[0x20, 2, 1])), [granted]);
        let later = start + Duration::from_secs(1);
        consent.poll(later, ConsentEvent::Value);
        assert_eq!(consent.timeout(), Some(later + QUIET));
        assert_eq!(consent.poll(later + QUIET, ConsentEvent::Tick), [wrote(&[2, 2, 0x67, 0x12])]);
        let granted = ConsentAction::Answered(2, ConsentAnswer::Granted);
        assert_eq!(consent.poll(later + QUIET, ConsentEvent::Answer(&[0x20, 2, 1])), [granted, ConsentAction::Done]);
        assert_eq!((consent.timeout(), consent.poll(later, ConsentEvent::Begin)), (None, vec![]));
    }

    #[test]
    fn a_wrong_code_is_told_and_not_tried_again_and_the_next_user_is_asked() {
        let (mut consent, start) = (consent(), Instant::now());
        consent.poll(start, ConsentEvent::Begin);
        let refused = ConsentAction::Answered(1, ConsentAnswer::Refused);
        assert_eq!(consent.poll(start, ConsentEvent::Answer(&[0x20, 2, 5])), [refused, wrote(&[2, 2, 0x67, 0x12])]);
        let failed = ConsentAction::Answered(2, ConsentAnswer::Failed);
        assert_eq!(consent.poll(start, ConsentEvent::Answer(&[0x20, 2, 4])), [failed, ConsentAction::Done]);
    }

    #[test]
    fn a_device_that_does_not_answer_or_takes_no_writes_ends_it() {
        let (mut consent, start) = (consent(), Instant::now());
        consent.poll(start, ConsentEvent::Begin);
        assert_eq!(consent.poll(start, ConsentEvent::Answer(&[0x20, 4, 1, 2])), [], "an answer to another question");
        let none = |user| ConsentAction::Answered(user, ConsentAnswer::NoAnswer);
        assert_eq!(consent.poll(start + ANSWER, ConsentEvent::Tick)[0], none(1));
        assert_eq!(consent.poll(start + ANSWER, ConsentEvent::Written(false)), [none(2), ConsentAction::Done]);
    }

    #[test]
    fn a_device_that_never_stops_telling_does_not_keep_the_others_slots_shut() {
        let (mut consent, start) = (consent(), Instant::now());
        consent.poll(start, ConsentEvent::Begin);
        consent.poll(start, ConsentEvent::Answer(&[0x20, 2, 1]));
        for second in 0..=30 {
            consent.poll(start + Duration::from_secs(second), ConsentEvent::Value);
        }
        assert_eq!(consent.poll(start + LETTING_MOST, ConsentEvent::Tick), [wrote(&[2, 2, 0x67, 0x12])]);
    }
}

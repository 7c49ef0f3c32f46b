//! Carries out what the profile of a device says beside listening: the steps before it is ready, what is asked again and
//! again, and what is said before its link is ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, warn};
use uuid::Uuid;

use super::central::{CentralError, Found, Handle};
use super::event::RadioEvent;
use super::settings::RadioDevice;
use super::values::Facts;
use crate::profile::{Expect, Poll, Profile, Step, What, Write};

/// What is said before a link is ended holds up its end, and whoever waits for the slot.
const END: Duration = Duration::from_secs(2);

/// A device in a connection.
#[derive(Clone)]
pub struct Link {
    pub handle: Handle,
    pub device: Arc<RadioDevice>,
    pub found: Vec<Found>,
    pub facts: Facts,
    pub events: mpsc::Sender<RadioEvent>,
}

impl Link {
    /// Everything before it is ready, in the order of the profile.
    pub async fn begin(&self, profile: &Profile) -> Result<(), CentralError> {
        for Step { what, optional } in &profile.init {
            match self.carry_out(what).await {
                Ok(()) => {}
                Err(error) if *optional => debug!(device = %self.device.id, %error, "an optional step is left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// For as long as the link lasts; ends by being dropped.
    pub async fn poll(&self, polls: &[Poll]) {
        let mut rounds = Rounds::new(Instant::now(), polls.iter().map(|poll| poll.every));
        let mut told = false;
        while let Some((due, at)) = rounds.next() {
            tokio::time::sleep_until(due.into()).await;
            if let Err(error) = self.carry_out(&polls[at].what).await
                && !std::mem::replace(&mut told, true)
            {
                warn!(device = %self.device.id, %error, "what its profile asks again and again is not answered");
            }
            rounds.done(at, Instant::now());
        }
    }

    /// What is left to be said. Nobody waits for an answer.
    pub async fn end(&self, steps: &[Step]) {
        let said = async {
            for Step { what, .. } in steps {
                if let Err(error) = self.carry_out(what).await {
                    debug!(device = %self.device.id, %error, "not said before the end of the link");
                }
            }
        };
        if tokio::time::timeout(END, said).await.is_err() {
            debug!(device = %self.device.id, "the device takes too long before the end of its link");
        }
    }

    async fn carry_out(&self, what: &What) -> Result<(), CentralError> {
        match what {
            What::Subscribe(uuid) => {
                let found = self.find(*uuid, |found| found.tells, "subscribed to")?;
                self.handle.subscribe(found).await
            }
            What::Read(uuid) => self.read(*uuid).await,
            What::Write(write) => self.write(write).await,
            What::Clock(_) => Ok(()),
        }
    }

    async fn read(&self, uuid: Uuid) -> Result<(), CentralError> {
        let octets = self.handle.read(self.find(uuid, |found| found.readable, "read")?).await?;
        // What is subscribed to is handed on from the stream, where a value that was read shows up as well.
        if !self.device.subscribe.contains(&uuid) {
            // The receiver is there as long as the radio runs.
            let _ = self.events.send(RadioEvent::Heard(self.facts.heard(self.device.id, uuid, octets))).await;
        }
        Ok(())
    }

    async fn write(&self, Write { characteristic, octets, expect }: &Write) -> Result<(), CentralError> {
        let found = self.find(*characteristic, |found| found.writable || found.commanded, "written to")?;
        let Some(expect) = expect else { return self.handle.write(found, octets).await };
        let mut tapped = self.tap();
        let answered = async {
            self.handle.write(found, octets).await?;
            tokio::time::timeout(expect.within, answer(&mut tapped, expect))
                .await
                .unwrap_or(Err(()))
                .map_err(|()| CentralError::no_answer(expect.characteristic, expect.within))
        };
        let answered = answered.await;
        self.untap();
        answered
    }

    fn find(&self, uuid: Uuid, can: impl Fn(&Found) -> bool, what: &str) -> Result<&Found, CentralError> {
        let found = self.found.iter().find(|found| found.uuid == uuid && can(found));
        found.ok_or_else(|| CentralError::not_offered(uuid, what))
    }
}

/// `Err`: the stream ended.
async fn answer(tapped: &mut mpsc::Receiver<(Uuid, Vec<u8>)>, expect: &Expect) -> Result<(), ()> {
    while let Some((uuid, octets)) = tapped.recv().await {
        if uuid == expect.characteristic && octets.starts_with(&expect.prefix) {
            return Ok(());
        }
    }
    Err(())
}

/// When each of several questions is due. One that was held up is not made up for.
struct Rounds(Vec<(Instant, Duration)>);

impl Rounds {
    fn new(now: Instant, every: impl Iterator<Item = Duration>) -> Self {
        Self(every.map(|every| (now, every)).collect())
    }

    fn next(&self) -> Option<(Instant, usize)> {
        self.0.iter().enumerate().map(|(at, (due, _))| (*due, at)).min()
    }

    fn done(&mut self, at: usize, now: Instant) {
        let (due, every) = &mut self.0[at];
        *due = (*due + *every).max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_keeps_its_interval_and_one_held_up_is_not_made_up_for() {
        let (start, s) = (Instant::now(), Duration::from_secs);
        let mut rounds = Rounds::new(start, [s(2), s(5)].into_iter());
        let mut asked = Vec::new();
        while asked.len() < 7 {
            let (due, at) = rounds.next().unwrap();
            asked.push((due.duration_since(start).as_secs(), at));
            rounds.done(at, due);
        }
        assert_eq!(asked, [(0, 0), (0, 1), (2, 0), (4, 0), (5, 1), (6, 0), (8, 0)]);
        rounds.done(0, start + s(60));
        rounds.done(1, start + s(60));
        assert_eq!(rounds.next().unwrap(), (start + s(60), 0));
        rounds.done(0, start + s(60));
        assert_eq!(rounds.next().unwrap(), (start + s(60), 1), "once, not as often as it was missed");
        assert!(Rounds::new(start, std::iter::empty()).next().is_none());
    }
}

//! Several outlets that feed one node, as one device: off is all of them off.

use tokio::{task::JoinSet, time::Instant};

use std::sync::Arc;

use crate::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof};

/// Every feed of one node. All are told, all must confirm, and one that can't be asked leaves all unknown.
pub struct AllOf {
    name: String,
    feeds: Vec<Arc<dyn Device>>,
}

/// A device of no feeds would read off for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device needs at least one feed")]
pub struct NoFeeds;

impl AllOf {
    /// These feeds together.
    ///
    /// # Errors
    /// There are none.
    pub fn new(feeds: Vec<Arc<dyn Device>>) -> Result<Self, NoFeeds> {
        if feeds.is_empty() {
            return Err(NoFeeds);
        }
        let names: Vec<&str> = feeds.iter().map(|feed| feed.name()).collect();
        let name = names.join(" and ");
        Ok(Self { name, feeds })
    }

    /// Reads each feed once.
    async fn read(&self, deadline: Instant) -> Result<PowerState, DeviceError> {
        let answers = self.each(|feed| Box::pin(async move { feed.state(deadline).await })).await;
        let mut offs = 0;
        let mut failed = None;
        for answer in answers {
            match answer {
                // One feed is enough to run on.
                Ok(PowerState::On) => return Ok(PowerState::On),
                Ok(PowerState::Off) => offs += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            None if offs == self.feeds.len() => Ok(PowerState::Off),
            Some(error) => Err(error),
            None => Err(DeviceError::new(&self.name, Fault::Protocol, "not every feed gave an answer")),
        }
    }

    /// Asks all feeds at once, in the time of the slowest, in their order. When the caller goes away, so do the questions.
    async fn each<T: Send + 'static>(
        &self,
        ask: impl Fn(Arc<dyn Device>) -> BoxFuture<'static, Result<T, DeviceError>>,
    ) -> Vec<Result<T, DeviceError>> {
        let mut asked = JoinSet::new();
        for (place, feed) in self.feeds.iter().enumerate() {
            let answer = ask(Arc::clone(feed));
            asked.spawn(async move { (place, answer.await) });
        }
        let mut answers = Vec::new();
        while let Some(answer) = asked.join_next().await {
            // Panics end the process, and nobody aborts these tasks but by dropping all of them.
            answers.extend(answer.ok());
        }
        answers.sort_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn switch(&self, to: PowerState, deadline: Instant) -> Result<(), DeviceError> {
        let answers = self
            .each(|feed| {
                Box::pin(async move {
                    match to {
                        PowerState::Off => feed.off(deadline).await,
                        PowerState::On => feed.on(deadline).await,
                    }
                })
            })
            .await;
        self.taken(answers)
    }

    /// What to say of a command. Only if every feed clearly refused it is it certain that nothing will come of it.
    fn taken(&self, answers: Vec<Result<(), DeviceError>>) -> Result<(), DeviceError> {
        let asked = self.feeds.len();
        let mut errors: Vec<DeviceError> = Vec::new();
        let mut taken = 0;
        for answer in answers {
            match answer {
                Ok(()) => taken += 1,
                Err(error) => errors.push(error),
            }
        }
        if taken == asked {
            return Ok(());
        }
        let all_refused = errors.len() == asked && errors.iter().all(|error| error.fault.is_refusal());
        // What may have been carried out somewhere comes first: it is what the whole is judged by.
        let uncertain = errors.iter().position(|error| !error.fault.is_refusal()).unwrap_or(0);
        let Some(error) = (!errors.is_empty()).then(|| errors.swap_remove(uncertain)) else {
            return Err(DeviceError::new(&self.name, Fault::Protocol, "not every feed gave an answer"));
        };
        if all_refused || !error.fault.is_refusal() {
            Err(error)
        } else {
            Err(DeviceError { fault: Fault::Protocol, ..error })
        }
    }
}

impl Device for AllOf {
    fn name(&self) -> &str {
        &self.name
    }

    /// That of the weakest feed.
    fn sign(&self) -> OffSign {
        self.feeds.iter().map(|feed| feed.sign()).max().unwrap_or(OffSign::Program)
    }

    /// Off is all of them off at one time: feeds answer at different times, and one that was off early may be on again when
    /// the last goes off. So all are read once more after each has read off.
    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        Box::pin(async move {
            match self.read(deadline).await? {
                PowerState::Off if self.feeds.len() > 1 => self.read(deadline).await,
                state => Ok(state),
            }
        })
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.switch(PowerState::Off, deadline))
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.switch(PowerState::On, deadline))
    }

    /// Every feed is proven and on. One that is off while its node runs is another machine's, or feeds nothing.
    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        Box::pin(async move {
            let answers = self.each(|feed| Box::pin(async move { feed.prove(deadline).await })).await;
            let (mut state, mut guid, mut proven) = (PowerState::On, None, 0);
            for answer in answers {
                let proof = answer?;
                proven += 1;
                guid = guid.or(proof.guid);
                if proof.state == PowerState::Off {
                    state = PowerState::Off;
                }
            }
            if proven != self.feeds.len() {
                return Err(DeviceError::new(&self.name, Fault::Protocol, "not every feed gave an answer"));
            }
            // One feed's identity says nothing of the others'.
            Ok(Proof { state, guid: if self.feeds.len() == 1 { guid } else { None } })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    /// What a feed does next, and what it was told. It reads the first, then the next, and the last for ever.
    struct Feed {
        reads: Mutex<Vec<Result<PowerState, Fault>>>,
        takes: Result<(), Fault>,
        sign: OffSign,
        told: Arc<Mutex<Vec<PowerState>>>,
    }

    impl Feed {
        fn read(&self) -> Result<PowerState, Fault> {
            let mut reads = self.reads.lock().unwrap();
            if reads.len() > 1 { reads.remove(0) } else { reads[0] }
        }

        fn answer<T: Copy>(&self, answer: Result<T, Fault>) -> Result<T, DeviceError> {
            answer.map_err(|fault| DeviceError::new("feed", fault, "as the test wants"))
        }

        fn told(&self, to: PowerState) -> BoxFuture<'_, Result<(), DeviceError>> {
            self.told.lock().unwrap().push(to);
            Box::pin(std::future::ready(self.answer(self.takes)))
        }
    }

    impl Device for Feed {
        fn name(&self) -> &'static str {
            "feed"
        }

        fn sign(&self) -> OffSign {
            self.sign
        }

        fn state(&self, _: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
            Box::pin(std::future::ready(self.answer(self.read())))
        }

        fn off(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
            self.told(PowerState::Off)
        }

        fn on(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
            self.told(PowerState::On)
        }

        fn prove(&self, _: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
            let guid = crate::SystemGuid::new([7; 16]);
            Box::pin(std::future::ready(self.answer(self.read()).map(|state| Proof { state, guid })))
        }
    }

    type Feeds = [(Result<PowerState, Fault>, Result<(), Fault>); 2];

    fn all(feeds: Feeds) -> (AllOf, Arc<Mutex<Vec<PowerState>>>) {
        let told: Arc<Mutex<Vec<PowerState>>> = Arc::default();
        let feed = |(reads, takes)| {
            let (told, reads) = (Arc::clone(&told), Mutex::new(vec![reads]));
            Arc::new(Feed { reads, takes, sign: OffSign::Meter, told }) as Arc<dyn Device>
        };
        (AllOf::new(feeds.map(feed).into()).unwrap(), told)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    const ON: Result<PowerState, Fault> = Ok(PowerState::On);
    const OFF: Result<PowerState, Fault> = Ok(PowerState::Off);

    #[tokio::test]
    async fn row_45_off_is_every_feed_off_and_nothing_less() {
        let gone = Err(Fault::Unreachable);
        for (feeds, wanted) in [
            ([OFF, OFF], Ok(PowerState::Off)),
            ([OFF, ON], ON),
            ([ON, OFF], ON),
            ([gone, ON], ON),
            ([OFF, gone], gone),
            ([gone, OFF], gone),
        ] {
            let state = all(feeds.map(|reads| (reads, Ok(())))).0.state(soon()).await;
            assert_eq!(state.map_err(|error| error.fault), wanted, "{feeds:?}");
        }
        assert!(AllOf::new(Vec::new()).is_err());
    }

    #[tokio::test]
    async fn row_45_a_feed_that_is_on_again_when_the_last_goes_off_is_not_missed() {
        let gone = Err(Fault::Unreachable);
        for (first, second, wanted) in [
            ([OFF, ON], [OFF, OFF], ON),
            ([OFF, OFF], [OFF, ON], ON),
            ([OFF, gone], [OFF, OFF], gone),
            ([OFF, OFF], [OFF, OFF], Ok(PowerState::Off)),
        ] {
            let feed = |reads: [_; 2]| {
                let reads = Mutex::new(reads.into());
                Arc::new(Feed { reads, takes: Ok(()), sign: OffSign::Meter, told: Arc::default() }) as Arc<dyn Device>
            };
            let both = AllOf::new(vec![feed(first), feed(second)]).unwrap();
            let state = both.state(soon()).await;
            assert_eq!(state.map_err(|error| error.fault), wanted, "{first:?} {second:?}");
        }
    }

    #[tokio::test]
    async fn every_feed_is_told_whatever_the_others_say() {
        let (device, told) = all([(ON, Err(Fault::Unreachable)), (ON, Ok(()))]);
        assert_eq!(device.off(soon()).await.unwrap_err().fault, Fault::Unreachable);
        assert_eq!(*told.lock().unwrap(), [PowerState::Off; 2]);
        let (device, told) = all([(OFF, Ok(())), (OFF, Ok(()))]);
        device.on(soon()).await.unwrap();
        assert_eq!(*told.lock().unwrap(), [PowerState::On; 2]);
    }

    #[tokio::test]
    async fn a_command_that_one_feed_took_is_not_refused() {
        for (takes, fault) in [
            ([Err(Fault::Refused), Ok(())], Fault::Protocol),
            ([Err(Fault::Credentials), Err(Fault::Unreachable)], Fault::Unreachable),
            ([Err(Fault::Refused), Err(Fault::Credentials)], Fault::Refused),
        ] {
            let (device, _) = all(takes.map(|takes| (ON, takes)));
            assert_eq!(device.off(soon()).await.unwrap_err().fault, fault, "{takes:?}");
        }
    }

    #[tokio::test]
    async fn a_proof_needs_every_feed_on_and_takes_no_ones_identity_for_all() {
        let (device, _) = all([(ON, Ok(())), (ON, Ok(()))]);
        assert_eq!(device.prove(soon()).await.unwrap(), Proof { state: PowerState::On, guid: None });
        let (device, _) = all([(ON, Ok(())), (OFF, Ok(()))]);
        assert_eq!(device.prove(soon()).await.unwrap().state, PowerState::Off);
        let (device, _) = all([(ON, Ok(())), (Err(Fault::Credentials), Ok(()))]);
        assert_eq!(device.prove(soon()).await.unwrap_err().fault, Fault::Credentials);
    }

    #[test]
    fn the_weakest_feed_is_the_sign_of_all() {
        let reads = || Mutex::new(vec![ON]);
        let feed =
            |sign| Arc::new(Feed { reads: reads(), takes: Ok(()), sign, told: Arc::default() }) as Arc<dyn Device>;
        let both = AllOf::new(vec![feed(OffSign::Meter), feed(OffSign::Relay)]).unwrap();
        assert_eq!(both.sign(), OffSign::Relay);
    }
}

//! The client against plugs of our own: as documented, broken, and hostile.

pub(crate) mod fake;
mod hostile;

use std::time::Duration;

use tokio::time::Instant;

use self::fake::FakePlug;
use crate::{
    Device, DeviceError, Fault, OffSign, PlugConfig, PlugDevice, PlugError, PlugLogin, PlugModel, PowerState, Secret,
    power_off,
};

const MODELS: [PlugModel; 3] = [PlugModel::ShellyGen1, PlugModel::Shelly, PlugModel::Tasmota];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn plug(error: &DeviceError) -> &PlugError {
    error.source.downcast_ref().unwrap()
}

/// Lets everything be switched.
struct Yes;

impl crate::Overseer for Yes {
    fn may_switch(&self) -> crate::BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn progress(&self, _: crate::Progress) {}
}

#[tokio::test]
async fn a_plug_is_proven_switched_off_confirmed_by_its_meter_and_switched_on() {
    for model in MODELS {
        let fake = FakePlug::of(model).await;
        let device = fake.device();
        assert_eq!(device.sign(), OffSign::Meter);
        assert_eq!(device.prove(soon()).await.unwrap(), crate::Proof { state: PowerState::On, guid: None });
        assert!(fake.state().relay, "a proof switches nothing");
        let confirmed = power_off(&device, Duration::from_millis(5), soon(), &Yes).await.unwrap();
        assert!(!confirmed.already && !fake.state().relay);
        assert_eq!(device.state(soon()).await.unwrap(), PowerState::Off);
        device.on(soon()).await.unwrap();
        assert_eq!(device.state(soon()).await.unwrap(), PowerState::On);
    }
}

#[tokio::test]
async fn row_45_a_welded_relay_says_off_and_is_on() {
    for model in MODELS {
        let fake = FakePlug::like(model, |state| state.welded = true).await;
        fake.device().off(soon()).await.unwrap();
        assert!(!fake.state().relay);
        assert_eq!(fake.device().state(soon()).await.unwrap(), PowerState::On, "{model:?}");
        let deadline = Instant::now() + Duration::from_millis(300);
        power_off(&fake.device(), Duration::from_millis(10), deadline, &Yes).await.unwrap_err();
        // Less than a meter shows for nothing is nothing.
        fake.state().watts = 0.4;
        assert_eq!(fake.device().state(soon()).await.unwrap(), PowerState::Off, "{model:?}");
    }
}

#[tokio::test]
async fn row_45_a_meter_that_measures_nothing_proves_nothing() {
    for model in MODELS {
        // As a Shelly 1 does, which has none and shows zero watts.
        let fake = FakePlug::like(model, |state| state.watts = 0.0).await;
        let error = fake.device().prove(soon()).await.unwrap_err();
        assert!(matches!(plug(&error), PlugError::MeasuresNothing { milliwatts: 0 }), "{error}");
        fake.unmeasured().prove(soon()).await.unwrap();

        let fake = FakePlug::like(model, |state| state.meters = false).await;
        let error = fake.device().prove(soon()).await.unwrap_err();
        assert!(matches!(plug(&error), PlugError::NotMeasured(_)), "{error}");
        assert!(error.source.to_string().contains("measured = false"), "{error}");
        fake.device().off(soon()).await.unwrap();
        let error = fake.device().state(soon()).await.unwrap_err();
        assert!(matches!(plug(&error), PlugError::NotMeasured(_)), "{error}");
        let device = fake.unmeasured();
        assert_eq!((device.sign(), device.state(soon()).await.unwrap()), (OffSign::Relay, PowerState::Off));
    }
}

#[tokio::test]
async fn row_45_the_meter_of_tasmota_counts_only_where_it_measures_behind_an_open_relay() {
    let fake = FakePlug::like(PlugModel::Tasmota, |state| (state.awake, state.welded) = (false, true)).await;
    let error = fake.device().prove(soon()).await.unwrap_err();
    assert!(error.source.to_string().contains("SetOption21 1"), "{error}");
    fake.device().off(soon()).await.unwrap();
    let error = fake.device().state(soon()).await.unwrap_err();
    assert!(matches!(plug(&error), PlugError::MeterSleeps), "{error}");
}

#[tokio::test]
async fn another_plug_is_told_nothing() {
    for model in MODELS {
        let fake = FakePlug::of(model).await;
        let other = PlugDevice::new(PlugConfig { mac: "a8:03:2a:be:54:dd".parse().unwrap(), ..fake.config() });
        for error in [other.state(soon()).await.unwrap_err(), other.prove(soon()).await.unwrap_err()] {
            assert!(matches!(plug(&error), PlugError::OtherPlug { .. }), "{error}");
        }
        let error = other.off(soon()).await.unwrap_err();
        assert!(error.source.to_string().contains("is a8:03:2a:be:54:dc, not a8:03:2a:be:54:dd"), "{error}");
        assert!(fake.state().relay, "{model:?}");
        let told = fake.server.questions();
        let secret = |q: &crate::web::mock::Received| q.header("authorization").is_some();
        assert!(!told.iter().any(secret), "a stranger gets no password");
    }
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_told_apart_from_everything_else() {
    for model in MODELS {
        let fake = FakePlug::of(model).await;
        let user = crate::AccountName::new("tiebreaker").unwrap();
        let wrong = Some(PlugLogin { user, password: Secret::for_web("hunter2").unwrap() });
        for login in [wrong, None] {
            let device = PlugDevice::new(PlugConfig { login: login.clone(), ..fake.config() });
            let errors = [
                device.state(soon()).await.unwrap_err(),
                device.prove(soon()).await.unwrap_err(),
                device.off(soon()).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.fault, Fault::Credentials, "{model:?}: {error}");
                assert_eq!(login.is_none(), matches!(plug(&error), PlugError::PasswordWanted), "{error}");
                let text = format!("{error} {error:?}");
                assert!(!text.contains("hunter2") && !text.contains("horse"), "{text}");
            }
        }
        assert!(fake.state().relay);
    }
}

#[tokio::test]
async fn a_plug_that_was_reset_and_asks_for_no_password_is_found_by_its_proof() {
    for model in [PlugModel::ShellyGen1, PlugModel::Shelly] {
        let fake = FakePlug::like(model, |state| state.asks = false).await;
        let error = fake.device().prove(soon()).await.unwrap_err();
        assert!(matches!(plug(&error), PlugError::NoPasswordAsked), "{error}");
        // In a fence it is no reason to leave a node on.
        assert_eq!(fake.device().state(soon()).await.unwrap(), PowerState::On);
        let device = PlugDevice::new(PlugConfig { login: None, ..fake.config() });
        device.prove(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn the_generations_of_shelly_are_not_mixed_up() {
    for (is, set) in [(PlugModel::ShellyGen1, PlugModel::Shelly), (PlugModel::Shelly, PlugModel::ShellyGen1)] {
        let fake = FakePlug::of(is).await;
        let device = PlugDevice::new(PlugConfig { model: set, ..fake.config() });
        let error = device.off(soon()).await.unwrap_err();
        assert!(error.source.to_string().contains(&format!("set kind = {:?}", is.name())), "{error}");
        assert!(fake.state().relay && fake.server.questions().iter().all(|q| q.header("authorization").is_none()));
    }
}

#[tokio::test]
async fn an_outlet_that_is_not_there_is_named() {
    for model in MODELS {
        let fake = FakePlug::of(model).await;
        let device = PlugDevice::new(PlugConfig { outlet: 3, ..fake.config() });
        for error in [device.state(soon()).await.unwrap_err(), device.prove(soon()).await.unwrap_err()] {
            assert!(matches!(plug(&error), PlugError::NoOutlet(3)), "{model:?}: {error}");
        }
        assert!(fake.state().relay);
    }
}

#[tokio::test]
async fn names_hold_no_secret() {
    for model in MODELS {
        let fake = FakePlug::of(model).await;
        let device = fake.device();
        assert!(device.name().starts_with(model.name()));
        assert!(!format!("{device:?} {}", device.name()).contains("horse"));
    }
}

//! Resources from the command line.

use std::collections::BTreeMap;

use tiebreaker_pipeline::resource::{Driver, ResourceSpec, SpecError};

use crate::cli::{DriverArgs, SpecArgs};

/// What is wrong with a resource on the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecArgsError {
    /// No driver.
    #[error("say how to operate it: --start, --stop and --status with commands, or --ocf with an agent")]
    NoDriver,
    /// Quotes that don't match.
    #[error("--{option} has an open quote or a trailing backslash: {text}")]
    Quotes {
        /// Which option.
        option: &'static str,
        /// Its text.
        text: String,
    },
    /// Not an agent's name.
    #[error("{text:?} names no OCF agent: write ocf:PROVIDER:AGENT, for instance ocf:heartbeat:IPaddr2")]
    Agent {
        /// What was given.
        text: String,
    },
    /// Not a parameter.
    #[error("{text:?} is no parameter: write KEY=VALUE")]
    Param {
        /// What was given.
        text: String,
    },
    /// A parameter given twice.
    #[error("the parameter {key:?} is given twice")]
    ParamTwice {
        /// Which.
        key: String,
    },
    /// A bound that every member relies on.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// The driver, if one is named.
pub fn driver(args: &DriverArgs) -> Result<Option<Driver>, SpecArgsError> {
    if let (Some(start), Some(stop), Some(status)) = (&args.start, &args.stop, &args.status) {
        return Ok(Some(Driver::Command {
            start: words("start", start)?,
            stop: words("stop", stop)?,
            status: words("status", status)?,
            migrate: None,
        }));
    }
    let Some(text) = &args.ocf else { return Ok(None) };
    let bad = || SpecArgsError::Agent { text: text.clone() };
    let (provider, agent) = text.strip_prefix("ocf:").and_then(|rest| rest.split_once(':')).ok_or_else(bad)?;
    if provider.is_empty() || agent.is_empty() || agent.contains(':') {
        return Err(bad());
    }
    let mut params = BTreeMap::new();
    for param in &args.params {
        let (key, value) = param.split_once('=').ok_or_else(|| SpecArgsError::Param { text: param.clone() })?;
        if params.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(SpecArgsError::ParamTwice { key: key.to_owned() });
        }
    }
    Ok(Some(Driver::Ocf { provider: provider.to_owned(), agent: agent.to_owned(), params }))
}

fn words(option: &'static str, text: &str) -> Result<Vec<String>, SpecArgsError> {
    shlex::split(text).ok_or_else(|| SpecArgsError::Quotes { option, text: text.to_owned() })
}

/// A new resource's specification.
pub fn new_spec(driver_args: &DriverArgs, limits: &SpecArgs) -> Result<ResourceSpec, SpecArgsError> {
    let driver = driver(driver_args)?.ok_or(SpecArgsError::NoDriver)?;
    changed_spec(ResourceSpec::with_defaults(driver), &DriverArgs::default(), limits)
}

/// A specification with what the command line names changed.
pub fn changed_spec(
    mut spec: ResourceSpec,
    driver_args: &DriverArgs,
    limits: &SpecArgs,
) -> Result<ResourceSpec, SpecArgsError> {
    if let Some(driver) = driver(driver_args)? {
        spec.driver = driver;
    }
    let SpecArgs { max_restart, max_relocate, monitor_s, monitor_timeout_s, start_timeout_s, stop_timeout_s } = limits;
    spec.max_restart = max_restart.unwrap_or(spec.max_restart);
    spec.max_relocate = max_relocate.unwrap_or(spec.max_relocate);
    spec.monitor_every_ms = monitor_s.unwrap_or(spec.monitor_every_ms);
    spec.monitor_timeout_ms = monitor_timeout_s.unwrap_or(spec.monitor_timeout_ms);
    spec.start_timeout_ms = start_timeout_s.unwrap_or(spec.start_timeout_ms);
    spec.stop_timeout_ms = stop_timeout_s.unwrap_or(spec.stop_timeout_ms);
    spec.check()?;
    Ok(spec)
}

/// A driver in one line, as a person would write it.
pub fn describe(driver: &Driver) -> String {
    match driver {
        Driver::Command { start, .. } => match shlex::try_join(start.iter().map(String::as_str)) {
            Ok(text) => text,
            // A word with a zero byte can't be written in a shell, so the list is shown as it is.
            Err(_) => format!("{start:?}"),
        },
        Driver::Ocf { provider, agent, .. } => format!("ocf:{provider}:{agent}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(start: &str) -> DriverArgs {
        DriverArgs {
            start: Some(start.to_owned()),
            stop: Some("/bin/stop".to_owned()),
            status: Some("/bin/status".to_owned()),
            ..DriverArgs::default()
        }
    }

    #[test]
    fn commands_are_split_as_a_shell_would() {
        let spec = new_spec(&commands("/bin/start --name 'two words' \"a b\""), &SpecArgs::default()).unwrap();
        let Driver::Command { start, .. } = &spec.driver else { panic!("another driver") };
        assert_eq!(start, &["/bin/start", "--name", "two words", "a b"]);
        let quotes = new_spec(&commands("/bin/start 'open"), &SpecArgs::default());
        assert!(matches!(quotes, Err(SpecArgsError::Quotes { option: "start", .. })));
        assert!(matches!(new_spec(&commands("start"), &SpecArgs::default()), Err(SpecArgsError::Spec(_))));
        assert_eq!(new_spec(&DriverArgs::default(), &SpecArgs::default()), Err(SpecArgsError::NoDriver));
    }

    #[test]
    fn an_agent_is_named_whole() {
        let ocf = |text: &str, params: &[&str]| {
            driver(&DriverArgs {
                ocf: Some(text.to_owned()),
                params: params.iter().map(|p| (*p).to_owned()).collect(),
                ..DriverArgs::default()
            })
        };
        let Ok(Some(Driver::Ocf { params, .. })) = ocf("ocf:heartbeat:Dummy", &["state=/run/x=y"]) else {
            panic!("not taken")
        };
        assert_eq!(params["state"], "/run/x=y");
        for bad in ["heartbeat:Dummy", "ocf:Dummy", "ocf::Dummy", "ocf:a:b:c"] {
            assert!(matches!(ocf(bad, &[]), Err(SpecArgsError::Agent { .. })), "{bad}");
        }
        assert!(matches!(ocf("ocf:a:b", &["x"]), Err(SpecArgsError::Param { .. })));
        assert!(matches!(ocf("ocf:a:b", &["x=1", "x=2"]), Err(SpecArgsError::ParamTwice { .. })));
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let old = new_spec(&commands("/bin/start"), &SpecArgs { max_restart: Some(7), ..SpecArgs::default() }).unwrap();
        let limits = SpecArgs { monitor_s: Some(500), ..SpecArgs::default() };
        let new = changed_spec(old.clone(), &DriverArgs::default(), &limits).unwrap();
        assert_eq!((new.max_restart, new.monitor_every_ms), (7, 500));
        assert_eq!(new.driver, old.driver);
        assert!(changed_spec(old, &DriverArgs::default(), &SpecArgs { monitor_s: Some(1), ..limits }).is_err());
    }
}

//! Resources from the command line.

use std::collections::BTreeMap;

use tiebreaker_pipeline::resource::{Driver, ResourceSpec, SpecError};

use crate::cli::{DriverArgs, OrNone, SpecArgs};

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
    /// A migration program for something else than commands.
    #[error("--migrate is for resources of commands: an OCF agent brings its own, --live says that it does")]
    MigrateNeedsCommands,
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
            migrate: args.migrate.as_deref().map(|text| words("migrate", text)).transpose()?,
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
    changed_spec(ResourceSpec::with_defaults(driver), driver_args, limits)
}

/// A specification with what the command line names changed.
pub fn changed_spec(
    mut spec: ResourceSpec,
    driver_args: &DriverArgs,
    limits: &SpecArgs,
) -> Result<ResourceSpec, SpecArgsError> {
    let old_migrate = match &mut spec.driver {
        Driver::Command { migrate, .. } => migrate.take(),
        Driver::Ocf { .. } => None,
    };
    if let Some(driver) = driver(driver_args)? {
        spec.driver = driver;
    }
    match (&mut spec.driver, &driver_args.migrate) {
        (Driver::Command { migrate, .. }, Some(text)) => *migrate = Some(words("migrate", text)?),
        (Driver::Command { migrate, .. }, None) => *migrate = old_migrate,
        (Driver::Ocf { .. }, Some(_)) => return Err(SpecArgsError::MigrateNeedsCommands),
        (Driver::Ocf { .. }, None) => {}
    }
    spec.class = limits.class.unwrap_or(spec.class);
    spec.order = limits.order.unwrap_or(spec.order);
    spec.memory = limits.memory.map_or(spec.memory, |OrNone(memory)| memory);
    spec.milli_cpus = limits.cpus.map_or(spec.milli_cpus, |OrNone(cpus)| cpus);
    spec.failback = limits.wants_failback().unwrap_or(spec.failback);
    spec.live = limits.wants_live().unwrap_or(spec.live);
    spec.migrate_timeout_ms = limits.migrate_timeout_s.unwrap_or(spec.migrate_timeout_ms);
    spec.only_on = limits.only_on.clone().unwrap_or(spec.only_on);
    spec.max_restart = limits.max_restart.unwrap_or(spec.max_restart);
    spec.max_relocate = limits.max_relocate.unwrap_or(spec.max_relocate);
    spec.monitor_every_ms = limits.monitor_s.unwrap_or(spec.monitor_every_ms);
    spec.monitor_timeout_ms = limits.monitor_timeout_s.unwrap_or(spec.monitor_timeout_ms);
    spec.start_timeout_ms = limits.start_timeout_s.unwrap_or(spec.start_timeout_ms);
    spec.stop_timeout_ms = limits.stop_timeout_s.unwrap_or(spec.stop_timeout_ms);
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

    #[test]
    fn a_migration_program_belongs_to_commands_and_stays_until_another_is_named() {
        let live = DriverArgs { migrate: Some("/bin/move --fast".into()), ..commands("/bin/start") };
        let spec = new_spec(&live, &SpecArgs { live: true, ..SpecArgs::default() }).unwrap();
        let program = |spec: &ResourceSpec| match &spec.driver {
            Driver::Command { migrate, .. } => migrate.clone(),
            Driver::Ocf { .. } => None,
        };
        assert_eq!(program(&spec), Some(vec!["/bin/move".to_owned(), "--fast".to_owned()]));
        let same = changed_spec(spec.clone(), &commands("/bin/other"), &SpecArgs::default()).unwrap();
        assert_eq!((program(&same), same.live), (program(&spec), true));
        let other = DriverArgs { migrate: Some("/bin/else".into()), ..DriverArgs::default() };
        let other = changed_spec(same, &other, &SpecArgs::default()).unwrap();
        assert_eq!(program(&other), Some(vec!["/bin/else".to_owned()]));
        let without = new_spec(&commands("/bin/start"), &SpecArgs { live: true, ..SpecArgs::default() });
        assert_eq!(without, Err(SpecArgsError::Spec(SpecError::CannotMigrate)));
        let ocf = new_spec(&DriverArgs { ocf: Some("ocf:a:b".into()), ..DriverArgs::default() }, &SpecArgs::default())
            .unwrap();
        let both = DriverArgs { migrate: Some("/bin/move".into()), ..DriverArgs::default() };
        assert_eq!(changed_spec(ocf, &both, &SpecArgs::default()), Err(SpecArgsError::MigrateNeedsCommands));
    }

    #[test]
    fn what_a_resource_needs_can_be_set_and_taken_away() {
        let limits = SpecArgs {
            memory: Some(OrNone(Some(4 << 30))),
            cpus: Some(OrNone(Some(1500))),
            only_on: Some([tiebreaker_pipeline::name::MemberName::new("n1").unwrap()].into()),
            failback: true,
            ..SpecArgs::default()
        };
        let spec = new_spec(&commands("/bin/start"), &limits).unwrap();
        assert_eq!((spec.memory, spec.milli_cpus, spec.only_on.len()), (Some(4 << 30), Some(1500), 1));
        let kept = changed_spec(spec.clone(), &DriverArgs::default(), &SpecArgs::default()).unwrap();
        assert_eq!(kept, spec);
        let none =
            SpecArgs { memory: Some(OrNone(None)), only_on: Some([].into()), no_failback: true, ..SpecArgs::default() };
        let less = changed_spec(spec, &DriverArgs::default(), &none).unwrap();
        assert_eq!((less.memory, less.milli_cpus, less.only_on.len(), less.failback), (None, Some(1500), 0, false));
    }
}

//! A new power device: tried first, with words for what is wrong, and kept only if it works or the operator insists.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_fence::{
    Device as _, DeviceError, Fault, Fingerprint, IpmiConfig, IpmiDevice, PowerState, Privilege, RedfishError, Suite,
    SystemGuid, WebError, probe_suite,
};
use tiebreaker_member::ask::{DeviceReport, DeviceTrial, Hidden};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tokio::time::Instant;

use crate::config::Config;
use crate::device_config::Access;
use crate::layout::Layout;
use crate::recipe::Recipe;
use crate::secrets::{KeyPlace, Vault};
use tiebreaker_member::errors::chain;

/// All that is asked of a new device has an answer by then.
const TRIAL_WITHIN: Duration = Duration::from_secs(40);

/// A device that an operator wants to add.
pub(crate) struct Enrolment<'a> {
    /// The data folder.
    pub layout: &'a Layout,
    /// For which cluster.
    pub cluster: &'a ClusterName,
    /// Its table of `server.toml`, without the heading.
    pub table: &'a str,
    /// The secret, where the table names no place for one.
    pub password: Option<&'a Hidden>,
    /// Keep it whatever comes of the trial.
    pub force: bool,
    /// The UUIDs that the nodes' machines reported.
    pub machines: BTreeMap<MemberName, String>,
}

impl Enrolment<'_> {
    /// Tries the device, and keeps it if it works. Gives it back where it was kept.
    ///
    /// # Errors
    /// The table is wrong, the device is there already, or the files can't be written.
    pub(crate) async fn enrol(self) -> Result<(DeviceTrial, Option<Recipe>)> {
        let path = self.layout.config();
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut findings = Vec::new();
        let table = match self.complete(&mut findings).await? {
            Ok(table) => table,
            Err(report) => return Ok((DeviceTrial { report: *report, findings, kept: false }, None)),
        };
        let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let section =
            Config::parse(&text, self.layout.root()).with_context(|| path.display().to_string())?.section(self.cluster);
        let whole = format!("{text}{separator}\n[[{section}.{}.devices]]\n{table}", self.cluster);
        let mut recipe = self.recipe(&table)?;
        // With all that is there already: names and outlets belong to one node.
        let config = Config::parse(&whole, self.layout.root()).context("server.toml with the new device")?;
        let until = Instant::now() + TRIAL_WITHIN;
        let mut report = report_of(&recipe);
        let begun = Instant::now();
        let proof = recipe.open()?.prove(until).await;
        report.took_ms = u64::try_from(begun.elapsed().as_millis()).ok();
        match proof {
            Ok(proof) => {
                report.state = Some(proof.state.to_string());
                report.guid = proof.guid.map(|guid| guid.to_string());
                findings.push("it lets this account in with the right to switch".to_owned());
                report.fault = self.doubt(&recipe, proof.state, proof.guid, &mut findings);
            }
            Err(error) => report.fault = Some(self.words_for(&recipe, &error, until).await),
        }
        if report.fault.is_some() && !self.force {
            return Ok((DeviceTrial { report, findings, kept: false }, None));
        }
        if let Some(password) = self.password {
            let place = Vault::of(self.layout.root()).put(&recipe.secret_name(), password.expose())?;
            findings.push(kept_words(place).to_owned());
        }
        replace(&path, &whole)?;
        // From now on the secret is the vault's.
        let kept = config.cluster(self.cluster).devices.into_iter();
        recipe = kept.last().context("the device that was just added")?;
        Ok((DeviceTrial { report, findings, kept: true }, Some(recipe)))
    }

    fn recipe(&self, table: &str) -> Result<Recipe> {
        let text = table.into();
        let raw = toml::from_str(table).context("the device")?;
        let vault = Vault::of(self.layout.root());
        let recipe = Recipe::check(self.cluster, raw, &text, self.layout.root(), &vault)?;
        Ok(recipe.with_trial(self.password.cloned()))
    }

    /// Adds to the table what can be found out: the suite, the UUID. What needs the operator's eye ends the trial.
    async fn complete(&self, findings: &mut Vec<String>) -> Result<Result<String, Box<DeviceReport>>> {
        let mut table = self.table.to_owned();
        let values: toml::Table = toml::from_str(&table).context("the device")?;
        let has = |key: &str| values.contains_key(key);
        let node = values.get("node").and_then(toml::Value::as_str).unwrap_or_default();
        let machine = MemberName::new(node).ok().and_then(|node| self.machines.get(&node));
        match values.get("kind").and_then(toml::Value::as_str) {
            Some("ipmi") if !has("suite") => {
                let recipe = self.recipe(&format!("{table}suite = 17\n"))?;
                let Access::Ipmi(config) = recipe.access()? else { bail!("an ipmi device is none") };
                match probe_suite(&config, Instant::now() + TRIAL_WITHIN).await {
                    Ok(suite) => {
                        findings.push(format!("cipher suite {suite} is the best that it speaks of 17 and 3"));
                        if suite == Suite::Sha1 {
                            findings.push("suite 3 rests on SHA-1: newer firmware of the BMC may speak 17".to_owned());
                        }
                        table.push_str(&format!("suite = {suite}\n"));
                    }
                    // Known after all, where the login went so far that only the right is missing.
                    Err(error) if !self.force => {
                        let mut report = report_of(&recipe);
                        report.fault = Some(self.words_for(&recipe, &error, Instant::now() + TRIAL_WITHIN).await);
                        return Ok(Err(Box::new(report)));
                    }
                    Err(error) => {
                        findings.push(format!("its cipher suite could not be found out ({error}): 17 is taken"));
                        table.push_str("suite = 17\n");
                    }
                }
            }
            Some("redfish") => {
                if !has("uuid")
                    && let Some(machine) = machine
                {
                    findings.push(format!("{node} told the UUID of its machine: {machine}"));
                    table.push_str(&format!("uuid = {:?}\n", machine.trim()));
                }
                if !has("certificates") {
                    let nobodys = Fingerprint::of(&[]);
                    let recipe = self.recipe(&format!("{table}certificates = [\"{nobodys}\"]\n"))?;
                    let mut report = report_of(&recipe);
                    report.fault = Some(match recipe.open()?.prove(Instant::now() + TRIAL_WITHIN).await {
                        Err(error) => match shown(&error) {
                            Some(fingerprint) => {
                                findings.push(format!("certificate: {fingerprint}"));
                                format!(
                                    "no certificate is pinned: compare {fingerprint} with what the BMC's own console \
                                     shows, then give it with --certificate"
                                )
                            }
                            None => chain(&error),
                        },
                        Ok(_) => "it was let in under a certificate that nobody has".to_owned(),
                    });
                    return Ok(Err(Box::new(report)));
                }
            }
            Some(_) | None => {}
        }
        Ok(Ok(table))
    }

    /// What keeps the cluster from taking its word, though it answers.
    fn doubt(
        &self,
        recipe: &Recipe,
        state: PowerState,
        guid: Option<SystemGuid>,
        findings: &mut Vec<String>,
    ) -> Option<String> {
        let machine = self.machines.get(&recipe.node);
        match (guid, machine) {
            (Some(guid), Some(machine)) if guid.matches_dmi(machine) => {
                findings.push(format!("it is the device of {}: both name the UUID {}", recipe.node, machine.trim()));
            }
            (Some(guid), Some(machine)) if !recipe.drilled => {
                return Some(format!(
                    "it is the device of another machine: it names {guid}, and {} is {}; mend the address, or the \
                     names of the nodes",
                    recipe.node,
                    machine.trim()
                ));
            }
            (Some(_), Some(_)) => findings.push("its UUID is another than its node's: the drill counts".to_owned()),
            (None, _) | (_, None) if recipe.drilled => {}
            (None, _) => findings.push(
                "it tells no UUID: the cluster takes its word once `tiebreaker-server device drill` has shown that it is this node's"
                    .to_owned(),
            ),
            (Some(_), None) => findings.push(format!("{} has not told its UUID yet: it is compared later", recipe.node)),
        }
        if state == PowerState::Off {
            findings.push("it reads off: it is proven once it reads on while its node is up".to_owned());
        }
        None
    }

    async fn words_for(&self, recipe: &Recipe, error: &DeviceError, until: Instant) -> String {
        let words = chain(error);
        if error.fault != Fault::Privilege {
            return words;
        }
        // Is it the name, or what the account may do?
        if let Ok(Access::Ipmi(config)) = recipe.access() {
            let reader = IpmiDevice::new(IpmiConfig { privilege: Privilege::User, ..config });
            if reader.state(until).await.is_ok() {
                return format!("{words}: this user may read but not switch: give it OPERATOR");
            }
        }
        format!("{words}: give the account the right to switch power (OPERATOR)")
    }
}

/// The certificate that a BMC showed, where nothing but that was wrong.
fn shown(error: &DeviceError) -> Option<Fingerprint> {
    match error.source.downcast_ref::<RedfishError>()? {
        RedfishError::Web(WebError::Certificate(fingerprint)) => Some(*fingerprint),
        _ => None,
    }
}

fn report_of(recipe: &Recipe) -> DeviceReport {
    DeviceReport {
        cluster: recipe.cluster.to_string(),
        node: recipe.node.to_string(),
        device: recipe.name.clone(),
        kind: recipe.kind.to_owned(),
        address: recipe.address(),
        state: None,
        guid: None,
        fault: None,
        level: recipe.level,
        together: None,
        proven: None,
        unproven: None,
        proven_at_ms: None,
        proven_ago_ms: None,
        drill: None,
        off_ms: None,
        within_ms: None,
        took_ms: None,
    }
}

/// Where the secret is now, in plain words.
pub(crate) const fn kept_words(place: KeyPlace) -> &'static str {
    match place {
        KeyPlace::Credential => "its secret is in secrets.age, sealed to the service manager's credential",
        KeyPlace::File => {
            "its secret is in secrets.age; the key lies beside it in secrets.key, so whoever copies both can read it: \
             docs/devices.md says how the service manager keeps the key instead"
        }
    }
}

/// Replaces the configuration: after a power cut there is the old one or the new one, whole. It stays as readable as it was.
fn replace(path: &Path, text: &str) -> Result<()> {
    let at = || format!("writing {}", path.display());
    let mode = std::fs::metadata(path).with_context(at)?.permissions();
    let tmp = path.with_extension("toml.new");
    std::fs::write(&tmp, text).with_context(at)?;
    std::fs::set_permissions(&tmp, mode).with_context(at)?;
    std::fs::File::open(&tmp).and_then(|file| file.sync_all()).with_context(at)?;
    std::fs::rename(&tmp, path).with_context(at)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(at)
}

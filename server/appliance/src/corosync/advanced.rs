//! The advanced settings: `-S name=value,name=value`, as the original names and bounds them.

use std::path::PathBuf;
use std::time::Duration;

use tiebreaker_qnetd::Config;

use super::{NSSDB, SOCKET};
use crate::qdevice::ControlSettings;

/// Where the original notes that it runs.
const LOCK: &str = "/var/run/corosync-qnetd/corosync-qnetd.pid";

/// What the settings say.
#[derive(Clone, Debug)]
pub struct Advanced {
    /// Where the authority lies.
    pub nss_db_dir: PathBuf,
    /// The lock, with the process's number in it.
    pub lock_file: PathBuf,
    /// The control socket.
    pub control: ControlSettings,
    /// The longest queue of messages to one client.
    pub send_buffers: Option<usize>,
    heartbeat_min: Option<Duration>,
    heartbeat_max: Option<Duration>,
    dead_peers: bool,
    dead_after_permille: Option<u32>,
    keep_active: bool,
    /// What the log shall say of settings that do nothing here.
    pub remarks: Vec<String>,
}

impl Default for Advanced {
    fn default() -> Self {
        Self {
            nss_db_dir: NSSDB.into(),
            lock_file: LOCK.into(),
            control: ControlSettings::at(SOCKET.into()),
            send_buffers: None,
            heartbeat_min: None,
            heartbeat_max: None,
            dead_peers: true,
            dead_after_permille: None,
            keep_active: false,
            remarks: Vec::new(),
        }
    }
}

impl Advanced {
    /// Takes one option's value in.
    ///
    /// # Errors
    /// Names the setting.
    pub fn take(&mut self, text: &str) -> Result<(), String> {
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            self.set(name, value)?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let invalid = || format!("Invalid value '{value}' for option '{name}'");
        let number = |least: u64| value.parse().ok().filter(|number: &u64| *number >= least).ok_or_else(invalid);
        let size = |least| number(least).and_then(|number| usize::try_from(number).map_err(|_| invalid()));
        let switch = || on_or_off(value).ok_or_else(invalid);
        let path = || if value.is_empty() { Err(invalid()) } else { Ok(PathBuf::from(value)) };
        match name {
            "nss_db_dir" => self.nss_db_dir = path()?,
            "lock_file" => self.lock_file = path()?,
            "local_socket_file" => self.control.path = path()?,
            "local_socket_umask" => {
                let mask = u32::from_str_radix(value, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(invalid)?;
                self.control.mode = 0o777 & !mask;
            }
            "local_socket_gid" => self.control.group = Some(value.parse().map_err(|_| invalid())?),
            "ipc_max_clients" => self.control.max_clients = size(0)?,
            "ipc_max_receive_size" => self.control.max_request = size(LEAST_IPC)?,
            "ipc_max_send_size" => self.control.max_answer = size(LEAST_IPC)?,
            "max_client_send_buffers" => self.send_buffers = Some(size(2)?),
            "heartbeat_interval_min" => self.heartbeat_min = Some(Duration::from_millis(number(1)?)),
            "heartbeat_interval_max" => self.heartbeat_max = Some(Duration::from_millis(number(1)?)),
            "dpd_enabled" => self.dead_peers = switch()?,
            "dpd_interval_coefficient" => {
                let factor: f64 = value.parse().map_err(|_| invalid())?;
                if !(1.0..=1000.0).contains(&factor) {
                    return Err(invalid());
                }
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1000 to 1,000,000")]
                let permille = (factor * 1000.0).round() as u32;
                self.dead_after_permille = Some(permille);
            }
            "keep_active_partition_tie_breaker" => self.keep_active = switch()?,
            "dpd_interval" => {
                self.remarks.push("Option 'dpd_interval' is deprecated and has no effect anymore".into());
            }
            "listen_backlog" | "local_socket_backlog" => drop(number(1)?),
            "cert_nickname" => self.remarks.push(format!("{name} has no effect here: there is no NSS database")),
            "max_client_send_size" | "max_client_receive_size" => {
                if number(16)? != tiebreaker_qnetd::wire::MAX_MESSAGE as u64 {
                    let fixed = tiebreaker_qnetd::wire::MAX_MESSAGE;
                    self.remarks.push(format!("{name} has no effect here: it is {fixed}, as stock clients need it"));
                }
            }
            _ => return Err(format!("Unknown option '{name}'")),
        }
        Ok(())
    }

    /// Sets the vote service accordingly.
    ///
    /// # Errors
    /// When no client could connect.
    pub fn apply(&self, votes: &mut Config) -> Result<(), String> {
        votes.heartbeat_min = self.heartbeat_min.unwrap_or(votes.heartbeat_min);
        votes.heartbeat_max = self.heartbeat_max.unwrap_or(votes.heartbeat_max);
        if votes.heartbeat_min > votes.heartbeat_max {
            return Err("heartbeat_interval_min is above heartbeat_interval_max: no client could connect".into());
        }
        if !self.dead_peers {
            votes.dead_after_permille = None;
        } else if let Some(permille) = self.dead_after_permille {
            votes.dead_after_permille = Some(permille);
        }
        votes.keep_active = self.keep_active;
        votes.limits.queued = self.send_buffers.unwrap_or(votes.limits.queued);
        Ok(())
    }
}

/// The original's least size of a request and of an answer.
const LEAST_IPC: u64 = 1024;

/// A switch as the original reads it.
pub fn on_or_off(text: &str) -> Option<bool> {
    let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["on", "yes", "1"]) {
        Some(true)
    } else if is(["off", "no", "0"]) {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_qnetd::{Clusters, TlsMode};

    use super::*;

    #[test]
    fn settings_are_bounded_as_the_originals() {
        for (text, complaint) in [
            ("foo=1", "Unknown option 'foo'"),
            ("foo", "Unknown option 'foo'"),
            ("dpd_enabled=x", "Invalid value 'x' for option 'dpd_enabled'"),
            ("listen_backlog=0", "Invalid value '0' for option 'listen_backlog'"),
            ("max_client_send_buffers=1", "Invalid value '1' for option 'max_client_send_buffers'"),
            ("dpd_interval_coefficient=0", "Invalid value '0' for option 'dpd_interval_coefficient'"),
            ("ipc_max_receive_size=64", "Invalid value '64' for option 'ipc_max_receive_size'"),
            ("local_socket_umask=9", "Invalid value '9' for option 'local_socket_umask'"),
        ] {
            assert_eq!(Advanced::default().take(text).unwrap_err(), complaint);
        }
        let mut advanced = Advanced::default();
        advanced.take("heartbeat_interval_min=10,,dpd_interval_coefficient=2.5,dpd_interval=1").unwrap();
        advanced.take("keep_active_partition_tie_breaker=on,nss_db_dir=/x,local_socket_umask=7").unwrap();
        let mut votes = Config::new(Clusters::Any(TlsMode::Optional));
        advanced.apply(&mut votes).unwrap();
        assert_eq!((votes.heartbeat_min.as_millis(), votes.dead_after_permille), (10, Some(2500)));
        assert!(votes.keep_active && advanced.nss_db_dir.as_os_str() == "/x");
        assert_eq!((advanced.control.mode, advanced.remarks.len()), (0o770, 1));
        advanced.take("heartbeat_interval_max=5").unwrap();
        assert!(advanced.apply(&mut votes).unwrap_err().contains("no client"));
    }
}

//! The appliance: set up by the real command, run as the real daemon.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tiebreaker_member::ask::LocalRequest;

use crate::{
    Operator, Program, Ran, ServiceManager, loopback,
    node::{end, placed, spawn},
    run, until,
};

/// An appliance, `pi`. Its daemon ends when this is dropped.
#[derive(Debug)]
pub struct Appliance {
    folder: PathBuf,
    address: SocketAddr,
    place: Vec<OsString>,
    child: Option<Child>,
    manager: Option<ServiceManager>,
}

impl Appliance {
    /// Sets an appliance up in a folder of its own. `place` is put before its commands.
    ///
    /// # Errors
    /// It can't be set up.
    pub fn init(folder: &Path, address: SocketAddr, place: Vec<OsString>) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let appliance = Self { folder: folder.to_owned(), address, place, child: None, manager: None };
        let listen = address.to_string();
        appliance.command(&["init", "--name", "pi", "--listen", &listen, "--address", &listen])?.done()?;
        Ok(appliance)
    }

    /// An appliance of a data folder that is there already, which moves into `folder`. It listens at a free address, and its name
    /// for itself stays.
    ///
    /// # Errors
    /// The file system's, or there are no settings in it.
    pub fn of_data(folder: &Path, data: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let appliance =
            Self { folder: folder.to_owned(), address: loopback(), place: Vec::new(), child: None, manager: None };
        fs::rename(data, appliance.data())?;
        let file = appliance.data().join("server.toml");
        let text = fs::read_to_string(&file)?;
        let listen = text.lines().find(|line| line.starts_with("listen = ")).context("it listens")?;
        fs::write(&file, text.replace(listen, &format!("listen = [\"{}\"]", appliance.address)))?;
        Ok(appliance)
    }

    /// Has its commands run elsewhere from now on.
    pub fn move_to(&mut self, place: Vec<OsString>) {
        self.place = place;
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where all of its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The daemon's process, while it runs. Commands that become another keep their number.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// An operator on the appliance.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::at(&self.data())
    }

    /// Adds to its configuration.
    ///
    /// # Errors
    /// The file system's.
    pub fn configure(&self, more: &str) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.data().join("server.toml"))?;
        Ok(file.write_all(more.as_bytes())?)
    }

    /// Runs one of its daemon's commands to its end.
    ///
    /// # Errors
    /// It can't be run; whether it succeeded is in the result.
    pub fn command(&self, words: &[&str]) -> Result<Ran> {
        run(self.to_run(words)?)
    }

    /// One of its daemon's commands, to be run by the caller.
    ///
    /// # Errors
    /// The program isn't there.
    pub fn to_run(&self, words: &[&str]) -> Result<Command> {
        let mut command = placed(&self.place, Program::Server.path()?.as_os_str());
        command.args(words).arg("--data").arg(self.data());
        Ok(command)
    }

    /// A token for a node of a cluster, which is created where it is new.
    ///
    /// # Errors
    /// It is refused.
    pub fn token(&self, cluster: &str) -> Result<String> {
        Ok(self.command(&["token", "create", "--cluster", cluster])?.done()?.trim().to_owned())
    }

    /// From its next start on the daemon has a service manager that keeps descriptors for it.
    ///
    /// # Errors
    /// It can't be made.
    pub fn manage(&mut self) -> Result<&ServiceManager> {
        Ok(self.manager.insert(ServiceManager::start(&self.folder)?))
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Errors
    /// It doesn't.
    pub fn start(&mut self) -> Result<()> {
        let (program, data) = (Program::Server.path()?, self.data());
        let args = [OsStr::new("run"), OsStr::new("--data"), data.as_os_str()];
        let mut child = match &self.manager {
            Some(manager) => {
                manager.spawn(&self.place, program.as_os_str(), &args, |command| spawn(command, &self.folder))?
            }
            None => {
                let mut command = placed(&self.place, program.as_os_str());
                command.args(args);
                spawn(command, &self.folder)?
            }
        };
        let operator = self.operator();
        let up = until("answer of the appliance", Duration::from_secs(30), || match child.try_wait()? {
            Some(status) => Ok(Err(anyhow!("it ended: {status}"))),
            None => operator.ask(&LocalRequest::Clusters).map(Ok),
        });
        if let Err(error) = up.flatten() {
            end(&mut child);
            bail!("{error:#}; its log: {}", self.log());
        }
        self.child = Some(child);
        Ok(())
    }

    /// Kills the daemon as a power cut does.
    ///
    /// # Errors
    /// It doesn't run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the daemon does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks the daemon to end, and waits until it has.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }

    /// Waits until the daemon ends by itself.
    ///
    /// # Errors
    /// It doesn't run, or doesn't end in time.
    pub fn until_ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the daemon does not run")?;
        let ended = until("end of the daemon", within, || child.try_wait()?.context("it runs"));
        if ended.is_err() {
            self.child = Some(child);
        }
        ended
    }

    /// What its audit log holds, in order.
    ///
    /// # Errors
    /// It can't be read.
    pub fn audit(&self) -> Result<String> {
        let entries: Result<Vec<_>, _> = fs::read_dir(self.data().join("audit"))?.collect();
        let mut files: Vec<PathBuf> = entries?.into_iter().map(|entry| entry.path()).collect();
        files.sort();
        let texts: Result<Vec<String>, _> = files.into_iter().map(fs::read_to_string).collect();
        Ok(texts?.concat())
    }

    /// What the daemon logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.folder.join("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.stop();
        if !std::thread::panicking() {
            assert!(!self.log().contains("panicked"), "the appliance panicked: {}", self.log());
        }
    }
}

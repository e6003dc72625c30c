//! One connection: who it is, and what it asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::keys::ssh_key::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Pty};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::command::{Command, NotACommand};
use crate::place::{NSSDB, Place};
use crate::scp::{Receiving, Sending, Step};
use crate::sftp::Sftp;
use crate::signer::Signer;
use crate::window::{FILE_BYTES, Verdict, WRONG_CODES, Window};

/// Channels at once: `ssh-copy-id -s` has two.
const CHANNELS: usize = 4;
/// Channels that one connection may open after one another.
const CHANNELS_EVER: u32 = 64;
/// Codes that one connection may try, as many as OpenSSH's client asks for.
const CODES: u32 = 3;
const STDERR: u32 = 1;

const ALLOWED: &str = "This machine takes one `pvecm qdevice setup` and nothing else: ssh-copy-id, `corosync-qnetd-certutil -i`, \
                       `corosync-qnetd-certutil -s -c /tmp/qdevice-net-node.crq -n CLUSTER`, and scp of that request to here and of \
                       qnetd-cacert.crt and cluster-CLUSTER.crt in /etc/corosync/qnetd/nssdb from here. It has no shell.\n";
const BANNER: &str = "Tiebreaker: root's password is the code on this machine's screen.\n";

/// What all connections share.
#[derive(Debug)]
pub struct Pairing {
    window: Mutex<Window>,
    began: Instant,
    changed: Notify,
    signer: Signer,
}

impl Pairing {
    /// Opens the window now.
    #[must_use]
    pub fn new(window: Window, signer: Signer) -> Self {
        Self { window: Mutex::new(window), began: Instant::now(), changed: Notify::new(), signer }
    }

    /// Does something with the window, and lets the server look whether it is over.
    pub fn at<T>(&self, with: impl FnOnce(Duration, &mut Window) -> T) -> T {
        let done = self.look(with);
        self.changed.notify_one();
        done
    }

    /// Looks at the window, as the server does.
    pub fn look<T>(&self, with: impl FnOnce(Duration, &mut Window) -> T) -> T {
        with(self.began.elapsed(), &mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until somebody did.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The moment of a time that counts from the beginning.
    #[must_use]
    pub fn moment(&self, time: Duration) -> Instant {
        self.began + time
    }
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Progress {
    /// Keys are being exchanged.
    Greets,
    /// It may log in.
    Knocks,
    /// It has.
    Entered,
}

/// What goes on in a channel.
#[derive(Debug)]
enum Talk {
    /// Nothing was asked for yet.
    Silent,
    /// Keys come, to the end of the input.
    Keys(Vec<u8>),
    Receiving(Receiving),
    Sending(Sending),
    Sftp(Sftp),
    /// The program has ended.
    Ended,
}

/// The server's end of one connection.
pub struct Visitor {
    pairing: Arc<Pairing>,
    peer: IpAddr,
    progress: watch::Sender<Progress>,
    codes: u32,
    opened: u32,
    talks: BTreeMap<ChannelId, Talk>,
}

impl Visitor {
    /// Somebody who has just connected.
    #[must_use]
    pub fn new(pairing: Arc<Pairing>, peer: IpAddr, progress: watch::Sender<Progress>) -> Self {
        Self { pairing, peer, progress, codes: 0, opened: 0, talks: BTreeMap::new() }
    }

    /// Ends what runs in a channel, with what it says last.
    fn end(
        &mut self,
        id: ChannelId,
        said: &str,
        complained: &str,
        code: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if !said.is_empty() {
            session.data(id, said.as_bytes().to_vec())?;
        }
        if !complained.is_empty() {
            session.extended_data(id, STDERR, complained.as_bytes().to_vec())?;
        }
        session.exit_status_request(id, code)?;
        session.eof(id)?;
        session.close(id)?;
        self.talks.insert(id, Talk::Ended);
        Ok(())
    }

    fn refuse(&mut self, id: ChannelId, why: &NotACommand, session: &mut Session) -> Result<(), russh::Error> {
        self.end(id, "", &format!("{why}.\n{ALLOWED}"), why.exit_code(), session)
    }

    fn step(&mut self, id: ChannelId, talk: Talk, step: Step, session: &mut Session) -> Result<(), russh::Error> {
        if !step.out.is_empty() {
            session.data(id, step.out)?;
        }
        match step.exit {
            Some(code) => self.end(id, "", "", code, session),
            None => {
                self.talks.insert(id, talk);
                Ok(())
            }
        }
    }

    /// `corosync-qnetd-certutil -s`, with the original's words and codes.
    async fn sign(&mut self, id: ChannelId, cluster: &str, session: &mut Session) -> Result<(), russh::Error> {
        let request = match self.pairing.at(|now, window| window.sign(now)) {
            Ok(request) => request,
            Err(refused) => return self.end(id, "", &format!("{refused}\n"), 2, session),
        };
        let signed = self.pairing.signer.sign(cluster, &request).await;
        let (certificate, refusal) = match signed {
            Ok(certificate) => (Some(certificate), None),
            Err(error) => (None, Some(anyhow::Error::from(error))),
        };
        self.pairing.at(|now, window| window.signed(now, cluster, certificate));
        match refusal {
            None => {
                info!(peer = %self.peer, cluster, "a certificate is signed");
                let said =
                    format!("Signing cluster certificate\nCertificate stored in {NSSDB}/cluster-{cluster}.crt\n");
                self.end(id, &said, "", 0, session)
            }
            Some(error) => {
                warn!(peer = %self.peer, cluster, "nothing is signed: {error:#}");
                self.end(id, "", &format!("{error:#}\n"), 1, session)
            }
        }
    }

    fn take_keys(&mut self, id: ChannelId, text: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        match self.pairing.at(|now, window| window.add_keys(now, text)) {
            Ok(count) => {
                info!(peer = %self.peer, count, "keys may log in while this lasts");
                self.end(id, "", "", 0, session)
            }
            Err(refused) => self.end(id, "", &format!("{refused}\n"), 1, session),
        }
    }

    fn may(&self, user: &str, key: &PublicKey) -> Auth {
        if self.pairing.at(|now, window| window.knows(now, user, key)) { Auth::Accept } else { Auth::reject() }
    }
}

impl Handler for Visitor {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        self.progress.send_replace(Progress::Knocks);
        // Who has left a key knows.
        let known = self.pairing.at(|now, window| window.size(now, &Place::Keys)).is_some();
        Ok((!known).then(|| BANNER.to_owned()))
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        if self.codes >= CODES {
            return Ok(Auth::reject());
        }
        self.codes += 1;
        let (verdict, wrong) = self.pairing.at(|now, window| (window.code(now, user, password), window.wrong_codes()));
        match verdict {
            Verdict::Right => {
                info!(peer = %self.peer, "the code is right");
                Ok(Auth::Accept)
            }
            Verdict::Wrong(wait) => {
                warn!(peer = %self.peer, wrong, of = WRONG_CODES, "a code is wrong, or comes too late");
                tokio::time::sleep(wait).await;
                let again = (self.codes < CODES).then(methods);
                Ok(Auth::Reject { proceed_with_methods: again, partial_success: false })
            }
        }
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(self.may(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.may(user, key.public_key))
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        self.progress.send_replace(Progress::Entered);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.opened += 1;
        if self.opened > CHANNELS_EVER {
            session.disconnect(Disconnect::ByApplication, "too many channels", "en")?;
        } else if self.talks.len() >= CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        } else {
            self.talks.insert(channel.id(), Talk::Silent);
            reply.accept().await;
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.talks.remove(&id);
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, line: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        if !matches!(self.talks.get(&id), Some(Talk::Silent)) {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        match Command::parse(line) {
            Ok(Command::Exit) => self.end(id, "", "", 0, session),
            Ok(Command::TakeKeys) => {
                self.talks.insert(id, Talk::Keys(Vec::new()));
                Ok(())
            }
            Ok(Command::Initialise) => {
                let there = format!("Certificate database ({NSSDB}) already exists. Delete it to initialize new db\n");
                self.end(id, "", &there, 1, session)
            }
            Ok(Command::Sign(cluster)) => self.sign(id, &cluster, session).await,
            Ok(Command::Receive(place)) => {
                let (receiving, step) = Receiving::new(place);
                self.step(id, Talk::Receiving(receiving), step, session)
            }
            Ok(Command::Send(place)) => match self.pairing.at(|now, window| Sending::new(now, window, place)) {
                Ok(sending) => {
                    self.talks.insert(id, Talk::Sending(sending));
                    Ok(())
                }
                Err(refused) => self.end(id, "", &format!("scp: {refused}\n"), 1, session),
            },
            Err(why) => {
                let command = String::from_utf8_lossy(line.get(..200).unwrap_or(line)).escape_debug().to_string();
                warn!(peer = %self.peer, command, "a command is refused: {why}");
                self.refuse(id, &why, session)
            }
        }
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        if name == "sftp" && matches!(self.talks.get(&id), Some(Talk::Silent)) {
            self.talks.insert(id, Talk::Sftp(Sftp::default()));
            session.channel_success(id)
        } else {
            session.channel_failure(id)
        }
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        if !matches!(self.talks.get(&id), Some(Talk::Silent)) {
            return session.channel_failure(id);
        }
        // It begins and ends at once: a refusal would leave the client without a word.
        warn!(peer = %self.peer, "a shell is refused");
        session.channel_success(id)?;
        self.refuse(id, &NotACommand::Unknown, session)
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        if session.has_pending_data(id) {
            // What it asks for is small, and it has taken none of it yet.
            return session.disconnect(Disconnect::ByApplication, "it asks without listening", "en");
        }
        let Some(talk) = self.talks.get_mut(&id) else { return Ok(()) };
        match std::mem::replace(talk, Talk::Ended) {
            Talk::Keys(mut text) => {
                text.extend_from_slice(data);
                if text.len() > FILE_BYTES {
                    return self.take_keys(id, &text, session);
                }
                self.talks.insert(id, Talk::Keys(text));
                Ok(())
            }
            Talk::Receiving(mut receiving) => {
                let step = self.pairing.at(|now, window| receiving.feed(now, window, data));
                self.step(id, Talk::Receiving(receiving), step, session)
            }
            Talk::Sending(mut sending) => {
                let step = self.pairing.at(|now, window| sending.feed(now, window, data));
                self.step(id, Talk::Sending(sending), step, session)
            }
            Talk::Sftp(mut sftp) => match self.pairing.at(|now, window| sftp.feed(now, window, data)) {
                Ok(out) => self.step(id, Talk::Sftp(sftp), Step { out, exit: None }, session),
                Err(broken) => self.end(id, "", &format!("{broken}\n"), 1, session),
            },
            // Input that nobody reads.
            silent @ (Talk::Silent | Talk::Ended) => {
                self.talks.insert(id, silent);
                Ok(())
            }
        }
    }

    async fn channel_eof(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        let Some(talk) = self.talks.get_mut(&id) else { return Ok(()) };
        match std::mem::replace(talk, Talk::Ended) {
            Talk::Keys(text) => self.take_keys(id, &text, session),
            Talk::Receiving(receiving) => self.end(id, "", "", receiving.end(), session),
            Talk::Sftp(_) => self.end(id, "", "", 0, session),
            Talk::Sending(_) => self.end(id, "", "", 1, session),
            silent @ (Talk::Silent | Talk::Ended) => {
                self.talks.insert(id, silent);
                Ok(())
            }
        }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}

/// How one can log in.
#[must_use]
pub fn methods() -> MethodSet {
    MethodSet::from([MethodKind::PublicKey, MethodKind::Password].as_slice())
}

//! The ssh for one `pvecm qdevice setup`, by Debian's own clients: what must work, and what must not, above all.
//!
//! Needs the Debian package openssh-client; without it these tests fail. That a whole cluster gets its vote this way is in
//! `setup.rs`.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tiebreaker_interop::{Listens, Pairing, Program, Ran, run, tool, until};

const SOON: Duration = Duration::from_secs(60);
const NSSDB: &str = "/etc/corosync/qnetd/nssdb";
const REQUEST: &str = "qdevice-net-node.crq";
/// For every cluster that asks.
const ANY: &str = "\n[qdevice]\nany_certified = true\n";

/// An appliance's data folder, the program on it, and a node with a key and the code.
struct Scene {
    folder: TempDir,
    pairing: Pairing,
    address: SocketAddr,
}

impl Scene {
    fn new(qdevice: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tiebreaker-pairing").tempdir()?;
        for name in ["ssh", "ssh-keygen", "ssh-copy-id", "scp", "sftp"] {
            tool(name, "openssh-client")?;
        }
        let data = folder.path().join("data");
        Program::Server.run(&[&"init", &"--name", &"pi", &"--listen", &"127.0.0.1:1", &"--data", &data])?.done()?;
        let file = data.join("server.toml");
        fs::write(&file, fs::read_to_string(&file)? + qdevice)?;
        fs::create_dir(folder.path().join(".ssh"))?;
        let key = folder.path().join("key");
        let mut keygen = Command::new("ssh-keygen");
        // RSA, as nodes of Proxmox VE have.
        keygen.args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(&key);
        run(keygen)?.done()?;
        let (pairing, address) = start(&folder)?;
        let scene = Self { folder, pairing, address };
        scene.types(scene.pairing.code())?;
        Ok(scene)
    }

    /// What a person answers when a password is asked for.
    fn types(&self, password: &str) -> Result<()> {
        let path = self.folder.path().join("askpass");
        fs::write(&path, format!("#!/bin/sh\necho '{password}'\n"))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }

    fn client(&self, name: &str, options: &[&str]) -> Command {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap_or_default().to_owned();
        let mut command = Command::new(name);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path()).env("LANG", "C.UTF-8");
        command.env("SSH_ASKPASS", path("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
        for option in [
            "StrictHostKeyChecking=accept-new".to_owned(),
            format!("UserKnownHostsFile={}", path("known_hosts")),
            // Whatever its port, it is one machine: a host key that changes is refused.
            "HostKeyAlias=pi".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            format!("Port={}", self.address.port()),
        ] {
            command.args(["-o", &option]);
        }
        // ssh-copy-id takes one key, and hands it on.
        command.args(["-i", &path("key")]).args(options);
        command
    }

    fn copy_id(&self, options: &[&str]) -> Result<Ran> {
        let mut command = self.client("ssh-copy-id", options);
        command.arg(format!("root@{}", self.address.ip()));
        run(command)
    }

    /// As pvecm: with the key or not at all.
    fn ssh(&self, options: &[&str], words: &[&str]) -> Result<Ran> {
        let mut command = self.client("ssh", &["-o", "BatchMode=yes", "-lroot"]);
        command.args(options).arg(self.address.ip().to_string()).args(words);
        run(command)
    }

    fn scp(&self, options: &[&str], from: &str, to: &str) -> Result<Ran> {
        let mut command = self.client("scp", &["-o", "BatchMode=yes"]);
        command.args(options).args([from, to]);
        run(command)
    }

    fn far(&self, path: &str) -> String {
        format!("root@[{}]:{path}", self.address.ip())
    }

    fn near(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap_or_default().to_owned()
    }

    /// The request of a cluster's first node, which openssl makes here as NSS does there.
    fn make_request(&self, cluster: &str) -> Result<String> {
        let path = self.near(REQUEST);
        let mut openssl = Command::new(tool("openssl", "openssl")?);
        openssl.args(["req", "-new", "-newkey", "rsa:2048", "-nodes", "-sha256", "-outform", "DER", "-subj"]);
        openssl.arg(format!("/CN={cluster}")).args(["-keyout", &self.near("node.key"), "-out", &path]);
        run(openssl)?.done()?;
        Ok(path)
    }

    fn sign(&self, cluster: &str) -> Result<Ran> {
        let request = format!("/tmp/{REQUEST}");
        self.ssh(&[], &["corosync-qnetd-certutil", "-s", "-c", &request, "-n", cluster])
    }

    fn fetch(&self, options: &[&str], cluster: &str) -> Result<Ran> {
        self.scp(options, &self.far(&format!("{NSSDB}/cluster-{cluster}.crt")), &self.near("cluster.crt"))
    }

    fn logged(&self, words: &str) -> Result<()> {
        let log = self.pairing.log();
        ensure!(log.contains(words), "{words:?} is not in: {log}");
        Ok(())
    }

    fn pairing_says(&self, words: &str) -> Result<()> {
        until(words, SOON, || self.logged(words))
    }

    /// The code is nowhere but on the screen.
    fn the_code_is_in_no_log(&self) -> Result<()> {
        let log = self.pairing.log();
        ensure!(!log.contains(self.pairing.code()), "the code is in the log: {log}");
        Ok(())
    }
}

fn start(folder: &TempDir) -> Result<(Pairing, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let pairing = Pairing::start(&[], folder.path(), &folder.path().join("data"), Listens::Socket(listener))?;
    Ok((pairing, address))
}

/// Whether a certificate was signed by an authority, as openssl says.
fn signed_by(certificate: &str, authority: &str) -> Result<()> {
    let mut openssl = Command::new(tool("openssl", "openssl")?);
    openssl.args(["verify", "-CAfile", authority, certificate]);
    run(openssl)?.done().map(drop)
}

/// Every command of `pvecm qdevice setup`, by both kinds of scp.
#[test]
fn one_setup_goes_through_and_then_it_is_closed() -> Result<()> {
    for kind in [&[][..], &["-O"]] {
        let mut scene = Scene::new(ANY)?;
        let said = scene.copy_id(&[])?;
        ensure!(said.code == Some(0) && said.stderr.contains("code on this machine's screen"), "{said:?}");
        let again = scene.copy_id(&[])?;
        ensure!(again.code == Some(0) && again.stderr.contains("already exist"), "{again:?}");
        let init = scene.ssh(&[], &["corosync-qnetd-certutil", "-i"])?;
        ensure!(init.code == Some(1) && init.stderr.contains("already exists"), "{init:?}");
        let authority = scene.near("authority.crt");
        scene.scp(kind, &scene.far(&format!("{NSSDB}/qnetd-cacert.crt")), &authority)?.done()?;
        let early = scene.sign("pve")?;
        ensure!(early.code == Some(2) && early.stderr.contains("copy it there first"), "{early:?}");
        let request = scene.make_request("pve")?;
        scene.scp(kind, &request, &scene.far("/tmp"))?.done()?;
        let said = scene.sign("pve")?.done()?;
        ensure!(
            said == format!("Signing cluster certificate\nCertificate stored in {NSSDB}/cluster-pve.crt\n"),
            "{said}"
        );
        // Nobody else gets in any more, neither by the code nor with another request.
        let second = scene.sign("pve")?;
        ensure!(second.code == Some(2) && second.stderr.contains("closed"), "{second:?}");
        ensure!(scene.scp(kind, &request, &scene.far("/tmp"))?.code != Some(0), "a second request is taken");
        let mut by_code = scene.client("ssh", &["-lroot", "-o", "PubkeyAuthentication=no"]);
        by_code.args([&scene.address.ip().to_string(), "exit"]);
        let refused = run(by_code)?;
        ensure!(refused.code == Some(255) && refused.stderr.contains("Permission denied"), "{refused:?}");
        ensure!(scene.fetch(kind, "other")?.code != Some(0), "another certificate is there");
        scene.fetch(kind, "pve")?.done()?;
        signed_by(&scene.near("cluster.crt"), &authority)?;
        let status = scene.pairing.until_ended(SOON)?;
        ensure!(status.code() == Some(0), "{status}: {}", scene.pairing.log());
        let gone = TcpStream::connect(scene.address).map_err(|error| error.kind());
        ensure!(matches!(gone, Err(ErrorKind::ConnectionRefused)), "{gone:?}");
        scene.the_code_is_in_no_log()?;
    }
    Ok(())
}

#[test]
fn the_next_start_has_the_same_host_key_another_code_and_no_keys() -> Result<()> {
    let mut scene = Scene::new(ANY)?;
    scene.copy_id(&[])?.done()?;
    scene.ssh(&[], &["exit"])?.done()?;
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-l", "-f", &scene.near("known_hosts")]);
    let known = run(keygen)?.done()?;
    ensure!(known.contains(scene.pairing.fingerprint()) && known.contains("ED25519"), "{known}");
    let before = scene.pairing.code().to_owned();
    (scene.pairing, scene.address) = start(&scene.folder)?;
    assert_ne!(scene.pairing.code(), before);
    let refused = scene.ssh(&[], &["exit"])?;
    ensure!(refused.code == Some(255) && refused.stderr.contains("Permission denied"), "{refused:?}");
    ensure!(!refused.stderr.contains("HAS CHANGED"), "{refused:?}");
    scene.types(scene.pairing.code())?;
    scene.copy_id(&[])?.done().map(drop)
}

#[test]
fn keys_come_by_sftp_too() -> Result<()> {
    let scene = Scene::new(ANY)?;
    scene.copy_id(&["-s"])?.done()?;
    scene.ssh(&[], &["exit"])?.done().map(drop)
}

#[test]
fn a_wrong_code_lets_nobody_in_and_ten_close_it_for_all() -> Result<()> {
    let mut scene = Scene::new(ANY)?;
    scene.types("aaa-aaa-aaa-aaa")?;
    let refused = scene.copy_id(&[])?;
    ensure!(refused.code != Some(0) && refused.stderr.contains("Permission denied"), "{refused:?}");
    scene.types(scene.pairing.code())?;
    scene.copy_id(&[])?.done()?;
    scene.ssh(&[], &["exit"])?.done()?;
    ensure!(scene.pairing.runs()?, "three wrong codes are not too many");
    // Three for each connection: these are more than enough, side by side, and none of them comes in.
    scene.types("bbb-bbb-bbb-bbb")?;
    std::thread::scope(|scope| {
        let guess = || {
            let mut by_code = scene.client("ssh", &["-lroot", "-o", "PubkeyAuthentication=no"]);
            by_code.args([&scene.address.ip().to_string(), "exit"]);
            let refused = run(by_code)?;
            ensure!(refused.code == Some(255), "{refused:?}");
            Ok(())
        };
        let guesses: Vec<_> = (0..3).map(|_| scope.spawn(guess)).collect();
        guesses.into_iter().try_for_each(|guess| guess.join().map_err(|_| anyhow::anyhow!("a guess panicked"))?)
    })?;
    let status = scene.pairing.until_ended(SOON)?;
    ensure!(status.code() == Some(4), "{status}: {}", scene.pairing.log());
    scene.the_code_is_in_no_log()
}

#[test]
fn commands_that_nobody_needs_are_refused_with_what_is_allowed() -> Result<()> {
    let scene = Scene::new(ANY)?;
    scene.copy_id(&[])?.done()?;
    let sign = format!("corosync-qnetd-certutil -s -c /tmp/{REQUEST} -n pve");
    for (line, code) in [
        ("id", 127),
        ("cat /etc/shadow", 127),
        ("$(id)", 127),
        ("`id`", 127),
        ("exec sh -c 'id'", 127),
        ("corosync-qnetd-certutil -i; id", 126),
        ("corosync-qnetd-certutil -i | sh", 126),
        ("corosync-qnetd-certutil -i $(id)", 126),
        (&format!("{sign}; id"), 126),
        (&format!("{sign}$(id)"), 126),
        ("corosync-qnetd-certutil -s -c /tmp/../etc/shadow -n pve", 126),
        ("corosync-qnetd-tool -s", 127),
        ("scp -f /etc/shadow", 126),
        ("scp -t /etc", 126),
    ] {
        let refused = scene.ssh(&[], &[line])?;
        ensure!(refused.code == Some(code) && refused.stdout.is_empty(), "{line}: {refused:?}");
        ensure!(refused.stderr.contains("one `pvecm qdevice setup` and nothing else"), "{line}: {refused:?}");
    }
    scene.logged("a command is refused")?;
    scene.logged("cat /etc/shadow")
}

#[test]
fn no_file_of_the_machine_is_read_or_written() -> Result<()> {
    let mut scene = Scene::new(ANY)?;
    scene.copy_id(&[])?.done()?;
    let small = scene.near("small");
    fs::write(&small, "small")?;
    let authority = format!("{NSSDB}/qnetd-cacert.crt");
    let key = scene.near("data/qdevice-ca.pem");
    ensure!(fs::exists(&key)?, "the authority's key is there to be read");
    let escapes = scene.near("escapes");
    for kind in [&[][..], &["-O"]] {
        for path in
            ["/etc/shadow", "/tmp/../etc/shadow", "/etc/hostname", &key, "/proc/self/environ", "/root/.ssh/id_rsa"]
        {
            let refused = scene.scp(kind, &scene.far(path), &scene.near("fetched"))?;
            ensure!(refused.code != Some(0) && !fs::exists(scene.near("fetched"))?, "{path}: {refused:?}");
        }
        for path in ["/etc/cron.d/x", &escapes, "/tmp/x", "/tmp/../tmp/x", &authority, "/root/.ssh/rc"] {
            let refused = scene.scp(kind, &small, &scene.far(path))?;
            ensure!(refused.code != Some(0), "{path}: {refused:?}");
        }
        // A folder whole, and what is too large.
        ensure!(scene.scp(&[kind, &["-r"]].concat(), &scene.far("/tmp"), &scene.near("folder"))?.code != Some(0));
        let large = scene.near(REQUEST);
        fs::write(&large, vec![0; 100_000])?;
        let refused = scene.scp(kind, &large, &scene.far("/tmp"))?;
        ensure!(refused.code != Some(0), "{refused:?}");
        let missing = scene.sign("pve")?;
        ensure!(missing.code == Some(2) && missing.stderr.contains("copy it there first"), "{missing:?}");
        ensure!(scene.fetch(kind, "pve")?.code != Some(0), "a certificate is there that nobody signed");
    }
    ensure!(!fs::exists(&escapes)?, "it was written");
    let mut sftp = scene.client("sftp", &["-b", "-"]);
    let batch = scene.near("batch");
    fs::write(
        &batch,
        format!(
            "-get /etc/shadow {0}\n-ls /\n-rename /tmp/a /tmp/b\n-rm {authority}\n-symlink /etc/shadow /tmp/{REQUEST}\n-get /tmp/{REQUEST} {0}\nget {authority} {0}\n",
            scene.near("fetched")
        ),
    )?;
    sftp.arg(format!("root@{}", scene.address.ip())).stdin(fs::File::open(&batch)?);
    let said = sftp.output()?;
    ensure!(said.status.success(), "{said:?}");
    ensure!(
        fs::read_to_string(scene.near("fetched"))?.starts_with("-----BEGIN CERTIFICATE"),
        "the last one is allowed"
    );
    ensure!(scene.pairing.runs()?);
    scene.logged("/etc/shadow")
}

#[test]
fn there_is_no_shell_no_terminal_no_environment_and_no_way_through() -> Result<()> {
    let mut scene = Scene::new(ANY)?;
    scene.copy_id(&[])?.done()?;
    let shell = scene.ssh(&[], &[])?;
    ensure!(
        shell.code == Some(127) && shell.stdout.is_empty() && shell.stderr.contains("It has no shell"),
        "{shell:?}"
    );
    // For a client that wants a terminal above all that is the end.
    for words in [&[][..], &["exit"]] {
        let terminal = scene.ssh(&["-tt"], words)?;
        ensure!(terminal.code != Some(0) && terminal.stderr.contains("PTY allocation request failed"), "{terminal:?}");
    }
    scene.ssh(&["-o", "SetEnv=LD_PRELOAD=/tmp/x", "-A", "-X"], &["exit"])?.done()?;
    // Something to get through to, which nobody gets to.
    let hidden = TcpListener::bind("127.0.0.1:0")?;
    hidden.set_nonblocking(true)?;
    let through = scene.ssh(&["-W", &hidden.local_addr()?.to_string()], &[])?;
    ensure!(through.code != Some(0) && through.stderr.contains("prohibited"), "{through:?}");
    ensure!(hidden.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "somebody came through");
    let back = scene.ssh(&["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "-N"], &[])?;
    ensure!(back.code == Some(255) && back.stderr.contains("failed"), "{back:?}");
    let socket = scene.ssh(&["-o", "ExitOnForwardFailure=yes", "-R", "/tmp/x.sock:127.0.0.1:1", "-N"], &[])?;
    ensure!(socket.code == Some(255), "{socket:?}");
    let other = scene.ssh(&["-s"], &["netconf"])?;
    ensure!(other.code != Some(0) && other.stderr.contains("subsystem request failed"), "{other:?}");
    ensure!(scene.pairing.runs()?);
    // Nobody but root is here, though the key is known.
    let mut admin = scene.client("ssh", &["-o", "BatchMode=yes", "-ladmin"]);
    admin.args([&scene.address.ip().to_string(), "exit"]);
    ensure!(run(admin)?.stderr.contains("Permission denied"));
    Ok(())
}

#[test]
fn a_cluster_that_is_not_served_gets_no_certificate_and_the_next_try_is_free() -> Result<()> {
    let scene = Scene::new("\n[qdevice.clusters.pve]\n")?;
    scene.copy_id(&[])?.done()?;
    let request = scene.make_request("other")?;
    scene.scp(&[], &request, &scene.far("/tmp"))?.done()?;
    let refused = scene.sign("other")?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains("server.toml does not name this cluster"),
        "{refused:?}"
    );
    let refused = scene.sign("pve")?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("other"), "{refused:?}");
    scene.logged("nothing is signed")?;
    let request = scene.make_request("pve")?;
    scene.scp(&[], &request, &scene.far(&format!("/tmp/{REQUEST}")))?.done()?;
    scene.sign("pve")?.done()?;
    scene.fetch(&[], "pve")?.done().map(drop)
}

/// Connections that say nothing, or half of something: each is closed, and none keeps a node away.
#[test]
fn who_is_slow_is_closed_and_keeps_nobody_away() -> Result<()> {
    let scene = Scene::new(ANY)?;
    let mut silent = Vec::new();
    for hello in [&b""[..], b"SSH-2.0-slow\r\n", b"SSH-2.0-slow\r\n\0\0\xff\xff", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(scene.address)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(hello)?;
        silent.push(stream);
    }
    scene.copy_id(&[])?.done()?;
    for mut stream in silent {
        // It greets and then hangs up, in its own time.
        let mut heard = Vec::new();
        match stream.read_to_end(&mut heard) {
            Ok(_) => {}
            Err(error) => ensure!(error.kind() == ErrorKind::ConnectionReset, "it isn't closed: {error}"),
        }
    }
    // More than one address may have: the rest is closed at once, and there is room again when they go.
    let many: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(scene.address)).collect::<Result<_, _>>()?;
    scene.pairing_says("it has too many connections")?;
    drop(many);
    until("room for a node", SOON, || scene.ssh(&[], &["exit"])?.done()).map(drop)
}

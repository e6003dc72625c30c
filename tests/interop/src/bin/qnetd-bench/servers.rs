//! The two servers on loopback, set up alike: TLS for who wants it, certificates of clients required.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tempfile::TempDir;
use tiebreaker_interop::{Appliance, Program, loopback, mounted, run, tool, until};

use crate::Args;

/// Time to come up.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// The name in the certificate of the clients. Clusters whose names differ from it in case alone are clusters of their own
/// for both servers, so one certificate is good for thousands.
const CERTIFIED: &str = "benchmarkclients";

/// Whose server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// Debian's.
    Original,
    /// Ours.
    Ours,
}

impl Whose {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "corosync-qnetd",
            Self::Ours => "tiebreaker-server",
        }
    }
}

enum Running {
    Original(Child),
    Ours(Box<Appliance>),
}

/// A running server. It ends when this is dropped.
pub struct Rig {
    running: Running,
    /// Where it listens.
    pub address: SocketAddr,
    /// Clients of clusters whose names [`secure_name`] gives.
    pub tls: Option<Arc<ClientConfig>>,
    folder: TempDir,
}

/// The name of a cluster that speaks plain text.
pub fn plain_name(number: usize) -> String {
    format!("plain-{number}")
}

/// The name of a cluster that the clients' certificate is good for.
pub fn secure_name(number: usize) -> String {
    let upper = |(at, letter): (usize, char)| {
        if number >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
    };
    CERTIFIED.chars().enumerate().map(upper).collect()
}

impl Rig {
    /// Starts a server for so many plain clusters and so many with TLS.
    pub fn start(args: &Args, whose: Whose, plain: usize, secure: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tiebreaker-bench").tempdir()?;
        match whose {
            Whose::Original => Self::original(folder, secure > 0),
            Whose::Ours => Self::ours(args, folder, plain, secure),
        }
    }

    fn original(folder: TempDir, secure: bool) -> Result<Self> {
        for name in ["etc/qnetd", "lib", "root", "run/corosync-qnetd"] {
            fs::create_dir_all(folder.path().join(name))?;
        }
        let place = ["unshare", "--mount"].map(Into::into);
        let command = |words: &[&str]| mounted(&place, folder.path(), words);
        run(command(&["corosync-qnetd-certutil", "-i"])?)?.done()?;
        let tls = if secure {
            let request = request(folder.path(), "DER")?;
            fs::copy(request, folder.path().join("etc/request"))?;
            run(command(&["corosync-qnetd-certutil", "-s", "-c", "/etc/corosync/request", "-n", CERTIFIED])?)?
                .done()?;
            let signed = folder.path().join(format!("etc/qnetd/nssdb/cluster-{CERTIFIED}.crt"));
            Some(client(folder.path(), &fs::read(signed)?)?)
        } else {
            None
        };
        let address = SocketAddr::new(loopback().ip(), 5403);
        let log = fs::File::create(folder.path().join("log"))?;
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let words = ["corosync-qnetd", "-f", "-4", "-s", "on", "-c", "on", "-l", &ip, "-p", &port];
        let mut command = command(&words)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("starting corosync-qnetd")?;
        let rig = Self { running: Running::Original(child), address, tls, folder };
        until("corosync-qnetd", UP_WITHIN, || Ok(TcpStream::connect(address)?))
            .with_context(|| fs::read_to_string(rig.folder.path().join("log")).unwrap_or_default())?;
        Ok(rig)
    }

    fn ours(args: &Args, folder: TempDir, plain: usize, secure: usize) -> Result<Self> {
        Program::use_built(args.server.parent().unwrap_or(Path::new(".")))?;
        let place = loopback();
        let address = SocketAddr::new(place.ip(), 5403);
        let mut appliance = Appliance::init(&folder.path().join("pi"), place, vec![])?;
        let mut config = format!("\n[qdevice]\nlisten = [\"{address}\"]\n");
        for number in 0..plain {
            config.push_str(&format!("[qdevice.clusters.{}]\nplain_text = true\n", plain_name(number)));
        }
        for number in 0..secure {
            config.push_str(&format!("[qdevice.clusters.{}]\n", secure_name(number)));
        }
        appliance.configure(&config)?;
        appliance.start()?;
        let tls = if secure > 0 {
            let request = request(folder.path(), "PEM")?;
            let request = request.to_str().context("a temporary folder is text")?;
            let signed = appliance.command(&["qdevice", "sign", "--cluster", &secure_name(0), request])?.done()?;
            Some(client(folder.path(), signed.as_bytes())?)
        } else {
            None
        };
        Ok(Self { running: Running::Ours(Box::new(appliance)), address, tls, folder })
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32> {
        match &self.running {
            Running::Original(child) => Ok(child.id()),
            Running::Ours(appliance) => appliance.pid().context("our server runs"),
        }
    }

    /// Our server.
    pub fn appliance(&self) -> Option<&Appliance> {
        match &self.running {
            Running::Original(_) => None,
            Running::Ours(appliance) => Some(appliance),
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Running::Original(child) = &mut self.running {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// An address of loopback from which the client of this number connects: few enough share one.
pub fn source(number: usize) -> Ipv4Addr {
    let [.., high, low] = u32::try_from(number / 100).unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(127, 1, high, low.max(1))
}

/// What the stock script would make on a node: an RSA key, and a request to sign it. Gives the request's file.
fn request(folder: &Path, form: &str) -> Result<std::path::PathBuf> {
    let (key, file) = (folder.join("key.pem"), folder.join("request"));
    let mut command = Command::new(tool("openssl", "openssl")?);
    command.args(["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", &format!("/CN={CERTIFIED}")]);
    command.args(["-outform", form, "-keyout"]).arg(key).arg("-out").arg(&file);
    run(command)?.done()?;
    Ok(file)
}

fn client(folder: &Path, signed: &[u8]) -> Result<Arc<ClientConfig>> {
    let certificate = if signed.starts_with(b"-----") {
        CertificateDer::from_pem_slice(signed).map_err(|error| anyhow::anyhow!("the client's certificate: {error}"))?
    } else {
        CertificateDer::from(signed.to_vec())
    };
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"));
    let key = key.map_err(|error| anyhow::anyhow!("the client's key: {error}"))?;
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_client_auth_cert(vec![certificate], key)?;
    // As the stock client after its first connection: nothing is resumed.
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The server is one that we have started; its certificate names no address.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! `corosync-qnetd-certutil`: makes the authority, and signs the request of a cluster's first node.
//!
//! The certificates lie where the original has them; the authority itself is a file of ours beside them, in no database.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::options::{Operands, Said, read};
use super::{NSSDB, print};
use crate::qdevice::{Folder, Pki, PkiError};

/// The data folder of an appliance that may be on this machine too.
const APPLIANCE: &str = "/var/lib/tiebreaker-server";

/// Corosync's own bound for a cluster's name.
const MAX_NAME: usize = 64;

enum Operation {
    Initialise,
    Sign,
}

/// What didn't work, and how the program ends of it: 1 for the certificates, 2 for the command line.
struct Failed {
    code: u8,
    text: String,
}

impl From<PkiError> for Failed {
    fn from(error: PkiError) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(deeper) = source {
            let _ = write!(text, ": {deeper}");
            source = deeper.source();
        }
        Self { code: 1, text }
    }
}

/// Runs it.
pub fn main(args: &[OsString]) -> ExitCode {
    let (program, rest) = args.split_first().map_or(("corosync-qnetd-certutil".into(), args), |(program, rest)| {
        (program.to_string_lossy().into_owned(), rest)
    });
    let usage = || {
        print(stdout(), usage(&program).as_bytes());
        ExitCode::SUCCESS
    };
    let (mut operation, mut request, mut cluster, mut group_writes) = (None, OsString::new(), OsString::new(), true);
    for said in read(rest, "Ghis", "cn", Operands::End) {
        match said {
            Said::Flag('i') => operation = Some(Operation::Initialise),
            Said::Flag('s') => operation = Some(Operation::Sign),
            Said::Flag('G') => group_writes = false,
            Said::Flag(_) => return usage(),
            Said::Value('c', value) => request = value,
            Said::Value(_, value) => cluster = value,
            Said::Unknown(letter) => return fail(1, &format!("Invalid option: -{letter}")),
            Said::NoValue(letter) => return fail(1, &format!("Option -{letter} requires an argument.")),
        }
    }
    let folder = Folder::of_corosync(Path::new(NSSDB));
    let done = match operation {
        None => return usage(),
        Some(Operation::Initialise) => initialise(&folder, group_writes),
        Some(Operation::Sign) => sign(&program, &folder, &PathBuf::from(request), &cluster),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { code, text }) => fail(code, &text),
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    print(stderr(), format!("{text}\n").as_bytes());
    ExitCode::from(code)
}

fn say(text: &str) {
    print(stdout(), format!("{text}\n").as_bytes());
}

fn initialise(folder: &Folder, group_writes: bool) -> Result<(), Failed> {
    let path = folder.path().display();
    if folder.has_authority() || folder.has_nss() {
        let mut text = format!("Certificate database ({path}) already exists. Delete it to initialize new db");
        if !folder.has_authority() {
            let _ = write!(
                text,
                "\nIt is of another corosync-qnetd: `tiebreaker-server qdevice adopt {path} --into {path}` takes it over"
            );
        }
        return Err(Failed { code: 1, text });
    }
    // Two authorities on one machine: nodes would trust the one, and the server show the other.
    let appliance = Folder::of_appliance(Path::new(APPLIANCE));
    if appliance.has_authority() {
        let elsewhere = appliance.authority();
        return Err(Failed {
            code: 1,
            text: format!(
                "The appliance on this machine has its QDevice authority in {0}. To use it here, put authority = \"{path}\" \
                 under [qdevice] of {APPLIANCE}/server.toml, mkdir -p {path}, mv {0} {path}/, and restart tiebreaker-server",
                elsewhere.display()
            ),
        });
    }
    if folder.make_path(if group_writes { 0o770 } else { 0o750 })? {
        say(&format!("Creating {path}"));
    }
    say("Creating new CA");
    folder.put(&Pki::create()?)?;
    say(&format!("QNetd CA certificate is exported as {}", folder.exported().display()));
    Ok(())
}

fn sign(program: &str, folder: &Folder, request: &Path, cluster: &OsString) -> Result<(), Failed> {
    let usage = |text: String| Failed { code: 2, text };
    if !request.exists() {
        return Err(usage(format!("Can't open certificate file {}", request.display())));
    }
    if cluster.is_empty() {
        return Err(usage("You have to specify cluster name".into()));
    }
    let name = cluster.to_str().filter(|name| name.len() <= MAX_NAME && !name.contains(['/', '\0', '\n']));
    let Some(name) = name else {
        let text = format!("{:?} can't be a cluster's name: it has at most {MAX_NAME} bytes and no slash", cluster);
        return Err(usage(text));
    };
    if !folder.has_authority() && !folder.has_nss() {
        return Err(Failed {
            code: 1,
            text: format!("Certificate database doesn't exists. Use {program} -i to create it"),
        });
    }
    let pki = folder.open()?;
    say("Signing cluster certificate");
    let bytes = fs::read(request).map_err(|error| usage(format!("Can't read {}: {error}", request.display())))?;
    let path = folder.publish(&format!("cluster-{name}.crt"), &pki.sign(&bytes, name)?)?;
    say(&format!("Certificate stored in {}", path.display()));
    Ok(())
}

fn usage(program: &str) -> String {
    format!(
        "{program}: [-i|-s] [-c certificate] [-G] [-n cluster_name]\n\n \
         -i                  Makes the authority and exports its certificate\n \
         -s                  Signs the certificate of a cluster\n \
         -c certificate      The request's file\n \
         -G                  The group may not write new folders\n \
         -n cluster_name     The cluster's name (with -s)\n"
    )
}

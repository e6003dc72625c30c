//! `corosync-qnetd-tool`: asks the daemon through its control socket.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write, stderr, stdout};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::options::{Operands, Said, complaint, read};
use super::{SOCKET, print, words};

const USAGE: &str = "usage: corosync-qnetd-tool [-Hhlsv] [-c cluster_name] [-p qnetd_ipc_socket_path]\n";

/// A daemon that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer answers than a daemon may be set to give.
const MAX_ANSWER: u64 = 1 << 28;

/// How it ends, beside 0.
const WRONG_USAGE: u8 = 1;
const INTERNAL: u8 = 2;
const NO_DAEMON: u8 = 3;
const REFUSED: u8 = 4;

#[derive(Clone, Copy)]
enum Operation {
    Status,
    List,
    Shutdown,
}

/// Runs it.
pub fn main(args: &[OsString]) -> ExitCode {
    let program = args.first().map_or(OsStr::new("corosync-qnetd-tool"), OsString::as_os_str);
    let usage = || {
        print(stdout(), USAGE.as_bytes());
        ExitCode::from(WRONG_USAGE)
    };
    let (mut operation, mut verbose, mut cluster, mut path) = (None, false, None, PathBuf::from(SOCKET));
    for said in read(args.get(1..).unwrap_or_default(), "Hhlsv", "cp", Operands::Skipped) {
        match said {
            Said::Flag('s') => operation = Some(Operation::Status),
            Said::Flag('l') => operation = Some(Operation::List),
            Said::Flag('H') => operation = Some(Operation::Shutdown),
            Said::Flag('v') => verbose = true,
            Said::Flag(_) => return usage(),
            Said::Value('c', name) => cluster = Some(name),
            Said::Value(_, socket) => path = socket.into(),
            mistake @ (Said::Unknown(_) | Said::NoValue(_)) => {
                print(stderr(), complaint(program, &mistake).unwrap_or_default().as_bytes());
                return usage();
            }
        }
    }
    let Some(operation) = operation else { return usage() };
    let fail = |code, text: String| {
        print(stderr(), format!("{}: {text}\n", program.display()).as_bytes());
        ExitCode::from(code)
    };
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) => {
            let why = words(&error);
            return fail(NO_DAEMON, format!("Can't connect to qnetd socket (is QNetd running?): {why}"));
        }
    };
    match ask(stream, &request(operation, verbose, cluster.as_deref())) {
        Ok(Answer::Done(text)) => {
            print(stdout(), &text);
            ExitCode::SUCCESS
        }
        Ok(Answer::Refused(text)) => {
            print(stderr(), &[b"Error: ", &text[..]].concat());
            ExitCode::from(REFUSED)
        }
        Ok(Answer::Strange) => fail(INTERNAL, "Unknown status line returned by IPC server".into()),
        Err(error) => fail(INTERNAL, format!("Internal error during IPC status line read: {}", words(&error))),
    }
}

fn request(operation: Operation, verbose: bool, cluster: Option<&OsStr>) -> Vec<u8> {
    let mut line = match operation {
        Operation::Status => b"status ".to_vec(),
        Operation::List => b"list ".to_vec(),
        Operation::Shutdown => b"shutdown ".to_vec(),
    };
    if verbose {
        line.extend_from_slice(b"verbose ");
    }
    if let (Operation::List, Some(name)) = (operation, cluster) {
        line.extend_from_slice(b"cluster \"");
        for byte in name.as_bytes() {
            if matches!(byte, b'"' | b'\\') {
                line.push(b'\\');
            }
            line.push(*byte);
        }
        line.extend_from_slice(b"\" ");
    }
    line.push(b'\n');
    line
}

enum Answer {
    Done(Vec<u8>),
    Refused(Vec<u8>),
    Strange,
}

fn ask(mut stream: UnixStream, request: &[u8]) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let end = answer.iter().position(|byte| *byte == b'\n');
    let Some(end) = end else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    let text = answer.get(end + 1..).unwrap_or_default().to_vec();
    Ok(match answer.get(..end).unwrap_or_default() {
        line if line.eq_ignore_ascii_case(b"ok") => Answer::Done(text),
        line if line.eq_ignore_ascii_case(b"error") => Answer::Refused(text),
        _ => Answer::Strange,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_with_the_name_in_quotes() {
        let text = |operation, verbose, cluster: Option<&str>| {
            String::from_utf8(request(operation, verbose, cluster.map(OsStr::new))).unwrap()
        };
        assert_eq!(text(Operation::Status, false, Some("x")), "status \n");
        assert_eq!(text(Operation::Shutdown, false, None), "shutdown \n");
        assert_eq!(text(Operation::List, true, Some("a \"b\\")), "list verbose cluster \"a \\\"b\\\\\" \n");
    }
}

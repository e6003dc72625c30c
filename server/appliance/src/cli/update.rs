//! `tiebreaker-server update`: updates of the SD card's image. Process 1 of the image checks and writes them; here one is sent
//! to it, or its signature is looked at.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tiebreaker_update::wire::{self, Answer};
use tiebreaker_update::{KEY_FILE, Key, Manifest, SOCKET};

/// Process 1 says something at least at each quarter of each step, however slow a card is.
const SILENT: Duration = Duration::from_secs(300);

#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    /// The update, `tiebreaker.update` as `cross/image` makes it.
    file: PathBuf,
    /// Looks at the signature and the content, and installs nothing. Works on any machine.
    #[arg(long)]
    check: bool,
    /// The public key to check with, the line that begins with RW or a file with it; the image's own if it is left out.
    #[arg(long, value_name = "KEY", requires = "check")]
    public_key: Option<String>,
    /// Prints one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &UpdateArgs) -> Result<()> {
    let mut file = File::open(&args.file).with_context(|| format!("opening {}", args.file.display()))?;
    if args.check {
        let key = key(args.public_key.as_deref(), Path::new(KEY_FILE))?;
        let checked = tiebreaker_update::check(&mut BufReader::new(&mut file), &key);
        let manifest = checked.with_context(|| format!("checking {}", args.file.display()))?;
        println!("{}", checked_words(&args.file, &manifest, args.json));
        return Ok(());
    }
    let done = send(&mut file, Path::new(SOCKET), |step| eprintln!("{step}"))?;
    if args.json {
        println!("{}", serde_json::json!({ "installed": true, "message": done }));
    } else {
        println!("{done}.");
    }
    Ok(())
}

fn key(given: Option<&str>, own: &Path) -> Result<Key> {
    let text = match given {
        Some(text) if text.starts_with("RW") => text.to_owned(),
        Some(path) => fs::read_to_string(path).with_context(|| format!("reading the public key from {path}"))?,
        None => fs::read_to_string(own)
            .context("there is no public key on this machine: give the maker's with --public-key, a line or a file")?,
    };
    Ok(Key::parse(&text)?)
}

fn checked_words(file: &Path, manifest: &Manifest, json: bool) -> String {
    let Manifest { version, build, bytes, sha256 } = manifest;
    if json {
        let document = serde_json::json!({
            "file": file, "version": version.to_string(), "build": build, "bytes": bytes, "sha256": sha256, "signed": true,
        });
        return document.to_string();
    }
    format!("{} is version {version}, build {build}, whole and signed with this key.", file.display())
}

/// Sends the file to process 1, and gives its last word.
fn send(file: &mut File, socket: &Path, mut tell: impl FnMut(String)) -> Result<String> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "this machine wasn't started from the image of the SD card, or it is on trial: there is no slot here to write. A \
             machine with Debian is updated by its package (apt-get install ./tiebreaker-server_*.deb); --check looks at a \
             file without installing it"
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("only root and the server's user may update this machine")
        }
        Err(error) => return Err(error).with_context(|| format!("asking process 1 at {}", socket.display())),
    };
    stream.set_read_timeout(Some(SILENT)).context("setting a limit")?;
    stream.set_write_timeout(Some(SILENT)).context("setting a limit")?;
    let bytes = file.metadata().context("reading the update's length")?.len();
    let sent = wire::announce(&mut stream, bytes).and_then(|()| io::copy(file, &mut stream));
    let closed = stream.shutdown(Shutdown::Write);
    let mut from = BufReader::new(stream);
    loop {
        match wire::hear(&mut from) {
            Ok(Answer::At(step)) => tell(step),
            Ok(Answer::Done(words)) => return Ok(words),
            Ok(Answer::Refused(why)) => bail!("{why}"),
            // It may have refused before it had read all; where it said nothing, what went wrong first counts.
            Err(error) => {
                sent.map(drop).and(closed).context("sending the update")?;
                return Err(error).context("process 1 has said nothing more");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    }

    /// A process 1 that reads the file and gives these answers.
    fn sent(bytes: &'static [u8], answers: &'static [Answer]) -> (Result<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let process = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut from = BufReader::new(stream);
            let length = wire::announced(&mut from).unwrap();
            let mut read = Vec::new();
            io::Read::read_to_end(&mut from, &mut read).unwrap();
            assert_eq!((length, read.as_slice()), (bytes.len() as u64, bytes));
            for answer in answers {
                wire::say(from.get_mut(), answer).unwrap();
            }
        });
        let mut steps = Vec::new();
        let result = send(&mut file(bytes), &socket, |step| steps.push(step));
        process.join().unwrap();
        (result, steps)
    }

    #[test]
    fn process_1_s_last_word_is_the_result() {
        static DONE: std::sync::LazyLock<[Answer; 2]> =
            std::sync::LazyLock::new(|| [Answer::At("writing".into()), Answer::Done("tried now".into())]);
        static NO: std::sync::LazyLock<[Answer; 1]> =
            std::sync::LazyLock::new(|| [Answer::Refused("not signed".into())]);
        let (result, steps) = sent(b"an update", &*DONE);
        assert_eq!((result.unwrap(), steps), ("tried now".to_owned(), vec!["writing".to_owned()]));
        assert_eq!(sent(b"x", &*NO).0.unwrap_err().to_string(), "not signed");
        assert!(sent(b"x", &[]).0.unwrap_err().to_string().contains("said nothing more"));
    }

    #[test]
    fn a_machine_that_is_not_the_image_says_what_to_do_instead() {
        let missing = send(&mut file(b"x"), Path::new("/nonexistent/socket"), |_| {}).unwrap_err().to_string();
        assert!(missing.contains("no slot here to write") && missing.contains("apt-get install"), "{missing}");
    }

    #[test]
    fn a_key_is_a_line_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, format!("untrusted comment: x\n{KEY}\n")).unwrap();
        let none = folder.path().join("none");
        assert!(key(Some(KEY), &none).is_ok() && key(path.to_str(), &none).is_ok() && key(None, &path).is_ok());
        assert!(key(None, &none).unwrap_err().to_string().contains("--public-key"));
        assert!(key(Some("nonsense"), &none).unwrap_err().to_string().contains("nonsense"));
    }
}

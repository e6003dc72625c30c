//! Where updates arrive: from the card's first partition, once, and then through the socket, one after the other.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_update::wire::{self, Answer};
use tiebreaker_update::{Build, Key, Manifest, SOCKET, Slot, Step, install};

use crate::log::say;
use crate::server;
use crate::slots::Partition;
use crate::updates::Written;

/// Where an update waits that came through the socket. It is memory.
const WAITING: &str = "/run/update.part";
/// Memory that an update leaves to everything else.
const LEFT_FREE: u64 = 48 * 1024 * 1024;
/// How long the other end may be silent.
const SILENT: Duration = Duration::from_secs(60);

const NO_KEY: &str = "this machine knows no public key, so it takes no update: put [update] with public_key = \"RW…\" into \
                      tiebreaker.toml, or build the image with cross/image --public-key";

/// What the desk works with.
pub struct Ways {
    /// The slot that doesn't start.
    pub slot: Slot,
    /// Its partition.
    pub device: PathBuf,
    /// The file on the card's first partition.
    pub card: PathBuf,
    /// What runs.
    pub running: Build,
    /// Digests of what was tried.
    pub tried: Vec<String>,
}

/// The desk.
pub struct Desk {
    ways: Ways,
    key: Option<Key>,
}

/// Who brings an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bringer {
    /// Who holds the card.
    Card,
    /// Who works at the server.
    Socket,
}

impl Desk {
    /// One that trusts this key.
    pub fn new(ways: Ways, key: Option<Key>) -> Self {
        Self { ways, key }
    }

    /// Whether no update lies on the card, which is there.
    pub fn card_is_empty(&self) -> bool {
        self.ways.card.with_file_name("autoboot.txt").exists() && !self.ways.card.exists()
    }

    /// Takes updates until one is written.
    pub fn run(self, written: &SyncSender<Written>) {
        if let Some(manifest) = self.card_s_update() {
            let _ = written.send(Written { manifest, slot: self.ways.slot });
            return;
        }
        let listener = match listen(Path::new(SOCKET)) {
            Ok(listener) => listener,
            Err(error) => return say(format_args!("no update is taken from the server: {error:#}")),
        };
        for stream in listener.incoming() {
            let taken = stream.map_err(anyhow::Error::from).and_then(|stream| self.serve(stream, Path::new(WAITING)));
            // Memory is needed elsewhere.
            let _ = fs::remove_file(WAITING);
            match taken {
                Ok(Some(manifest)) => {
                    let _ = written.send(Written { manifest, slot: self.ways.slot });
                    return;
                }
                Ok(None) => {}
                Err(error) => say(format_args!("an update did not arrive: {error:#}")),
            }
        }
    }

    /// The card's update, if there is one that was not tried yet.
    fn card_s_update(&self) -> Option<Manifest> {
        let path = &self.ways.card;
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                say(format_args!("UPDATE: {} can't be read: {error}", path.display()));
                return None;
            }
        };
        say(format_args!("UPDATE: there is {} on the card", tiebreaker_update::ON_THE_CARD));
        match self.install(&mut file, Bringer::Card, |step| say(format_args!("UPDATE: {step}"))) {
            Ok(manifest) => {
                say(format_args!(
                    "UPDATE: version {} is written to slot {} and is tried now",
                    manifest.version, self.ways.slot
                ));
                Some(manifest)
            }
            Err(why) => {
                say(format_args!("UPDATE REFUSED: {why}"));
                None
            }
        }
    }

    /// Takes one file from the socket. Gives what is to be tried, if it is in order.
    fn serve(&self, stream: UnixStream, waiting: &Path) -> Result<Option<Manifest>> {
        stream.set_read_timeout(Some(SILENT))?;
        stream.set_write_timeout(Some(SILENT))?;
        let mut back = stream.try_clone()?;
        let mut from = BufReader::new(stream);
        let outcome =
            receive(&mut from, waiting, memory_free()).map_err(|error| format!("{error:#}")).and_then(|mut file| {
                self.install(&mut file, Bringer::Socket, |step| {
                    // Who asked may have gone: what is begun is finished.
                    let _ = wire::say(&mut back, &Answer::At(step.to_string()));
                })
            });
        match outcome {
            Ok(manifest) => {
                let slot = self.ways.slot;
                say(format_args!("UPDATE: version {} is written to slot {slot} and is tried now", manifest.version));
                let words = format!(
                    "version {} is written to slot {slot}. The machine restarts now and tries it; if it doesn't prove within two \
                     minutes that it works, version {} comes back by itself",
                    manifest.version, self.ways.running.version
                );
                let _ = wire::say(&mut back, &Answer::Done(words));
                Ok(Some(manifest))
            }
            Err(why) => {
                say(format_args!("UPDATE REFUSED: {why}"));
                wire::say(&mut back, &Answer::Refused(why)).context("telling so")?;
                Ok(None)
            }
        }
    }

    fn install(
        &self,
        file: &mut (impl Read + Seek),
        from: Bringer,
        mut tell: impl FnMut(Step),
    ) -> Result<Manifest, String> {
        let key = self.key.as_ref().ok_or(NO_KEY)?;
        let mut slot = Partition::open(&self.ways.device)
            .map_err(|error| format!("slot {} can't be opened: {error}", self.ways.slot))?;
        let mut told = None;
        let tell = |step: Step| {
            // A person wants to see that it goes on, and no more.
            let (what, percent) = match step {
                Step::Checking(percent) => (0, percent),
                Step::Writing(percent) => (1, percent),
                Step::Reading(percent) => (2, percent),
            };
            let now = Some((what, percent / 25));
            if told != now {
                told = now;
                tell(step);
            }
        };
        install(file, key, |manifest| self.may(manifest, from), &mut slot, tell).map_err(|error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        })
    }

    /// What speaks against an update that is signed.
    fn may(&self, manifest: &Manifest, from: Bringer) -> Result<(), String> {
        let Ways { running, tried, .. } = &self.ways;
        if manifest.build == running.build {
            return Err(format!("it is version {} ({}), which runs already", running.version, running.build));
        }
        match from {
            Bringer::Card if tried.contains(&manifest.sha256) => Err(
                "it was tried before, and isn't tried again by itself: take it away, or start the machine once without it \
                 and put it back"
                    .into(),
            ),
            // Who got at the server shall not be able to bring back a version with a hole.
            Bringer::Socket if manifest.version < running.version => Err(format!(
                "it is version {}, and {} runs: an older one is taken only from the card, as {} on its first partition",
                manifest.version,
                running.version,
                tiebreaker_update::ON_THE_CARD
            )),
            Bringer::Card | Bringer::Socket => Ok(()),
        }
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
    chown(path, Some(server::USER), Some(server::USER)).context("opening it to the server")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context("opening it to the server alone")?;
    Ok(listener)
}

/// The announced file, whole.
fn receive(from: &mut BufReader<UnixStream>, waiting: &Path, free: u64) -> Result<File> {
    let bytes = wire::announced(from).context("reading what was announced")?;
    if bytes.saturating_add(LEFT_FREE) > free {
        bail!(
            "this machine has {} MiB of free memory, which isn't enough for an update of {} MiB: put it onto the card's first \
             partition as {}",
            free >> 20,
            bytes >> 20,
            tiebreaker_update::ON_THE_CARD
        );
    }
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(waiting)?;
    let there = io::copy(&mut from.take(bytes), &mut file).context("receiving the update")?;
    if there != bytes {
        bail!("the update is cut off: {there} of {bytes} bytes arrived");
    }
    file.flush()?;
    file.rewind()?;
    Ok(file)
}

/// Bytes of memory that can be had.
fn memory_free() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available(&text)
}

fn available(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or(0, |kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use minisign::KeyPair;
    use tempfile::TempDir;
    use tiebreaker_update::Version;

    use super::*;

    const CONTENT: [u8; 4096] = [5; 4096];
    /// By `sha256sum` of the content.
    const SHA256: &str = "fb7363f1f02c2f244c32aa8076ef7edbc2e621137542836adc1e312143968d75";

    struct Bench {
        folder: TempDir,
        pair: KeyPair,
    }

    impl Bench {
        fn new() -> Self {
            let bench =
                Self { folder: tempfile::tempdir().unwrap(), pair: KeyPair::generate_unencrypted_keypair().unwrap() };
            fs::write(bench.path("slot"), [0xff; 8192]).unwrap();
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn desk(&self, tried: &[&str]) -> Desk {
            let ways = Ways {
                slot: Slot::Three,
                device: self.path("slot"),
                card: self.path("card"),
                running: Build { version: Version::parse("0.2.0").unwrap(), build: "00000000000000aa".into() },
                tried: tried.iter().map(ToString::to_string).collect(),
            };
            Desk::new(ways, Some(Key::parse(&self.pair.pk.to_base64()).unwrap()))
        }

        fn update(&self, version: &str, build: &str) -> Vec<u8> {
            let manifest = format!("version {version}\nbuild {build}\nbytes {}\nsha256 {SHA256}\n", CONTENT.len());
            let signed = minisign::sign(Some(&self.pair.pk), &self.pair.sk, Cursor::new(&manifest), None, None);
            let signature = signed.unwrap().to_string();
            let head = format!("tiebreaker-update 1 {} {}\n{manifest}{signature}", manifest.len(), signature.len());
            [head.as_bytes(), &CONTENT].concat()
        }

        fn slot(&self) -> Vec<u8> {
            fs::read(self.path("slot")).unwrap()
        }

        /// Sends a file, all but the bytes that are left out, and gives the last answer and what is to be tried.
        fn send(&self, desk: &Desk, file: &[u8], left_out: usize) -> (Answer, Option<Manifest>) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            thread::scope(|scope| {
                let client = scope.spawn(move || {
                    let mut to = ours.try_clone().unwrap();
                    wire::announce(&mut to, file.len() as u64).unwrap();
                    to.write_all(&file[..file.len() - left_out]).unwrap();
                    to.shutdown(std::net::Shutdown::Write).unwrap();
                    let mut from = BufReader::new(ours);
                    loop {
                        match wire::hear(&mut from).unwrap() {
                            Answer::At(_) => {}
                            last => return last,
                        }
                    }
                });
                let taken = desk.serve(theirs, &self.path("waiting")).unwrap();
                (client.join().unwrap(), taken)
            })
        }
    }

    #[test]
    fn an_update_of_the_card_is_written_and_tried_once() {
        let bench = Bench::new();
        let (sender, receiver) = sync_channel(1);
        assert!(!bench.desk(&[]).card_is_empty(), "a card that isn't there");
        fs::write(bench.path("autoboot.txt"), "").unwrap();
        assert!(bench.desk(&[]).card_is_empty());
        fs::write(bench.path("card"), bench.update("0.1.0", "00000000000000bb")).unwrap();
        bench.desk(&[]).run(&sender);
        let written = receiver.recv().unwrap();
        assert_eq!((written.slot, written.manifest.build.as_str()), (Slot::Three, "00000000000000bb"));
        assert_eq!(bench.slot()[..CONTENT.len()], CONTENT, "an older version is taken from who holds the card");
        fs::write(bench.path("slot"), [0xff; 8192]).unwrap();
        assert_eq!(bench.desk(&[SHA256]).card_s_update(), None);
        assert_eq!(bench.slot(), [0xff; 8192]);
    }

    #[test]
    fn an_update_through_the_socket_is_written_with_progress() {
        let bench = Bench::new();
        let (answer, taken) = bench.send(&bench.desk(&[SHA256]), &bench.update("0.2.0", "00000000000000bb"), 0);
        let Answer::Done(words) = answer else { panic!("{answer:?}") };
        assert!(words.contains("comes back by itself") && taken.is_some(), "{words}");
        assert_eq!(bench.slot()[..CONTENT.len()], CONTENT);
    }

    #[test]
    fn what_is_refused_is_told_and_writes_nothing() {
        let bench = Bench::new();
        let desk = bench.desk(&[]);
        let refused = |file: &[u8], left_out| match bench.send(&desk, file, left_out) {
            (Answer::Refused(why), None) => why,
            other => panic!("{other:?}"),
        };
        let whole = bench.update("0.2.0", "00000000000000bb");
        assert!(refused(&whole, 100).contains("cut off"));
        assert!(refused(&bench.update("0.1.9", "00000000000000bb"), 0).contains("only from the card"));
        assert!(refused(&bench.update("0.2.0", "00000000000000aa"), 0).contains("runs already"));
        assert!(refused(&Bench::new().update("0.2.0", "00000000000000bb"), 0).contains("signature is wrong"));
        assert!(refused(&[1; 700], 0).contains("no update"));
        let mut without = bench.desk(&[]);
        without.key = None;
        let (answer, _) = bench.send(&without, &whole, 0);
        assert!(matches!(answer, Answer::Refused(why) if why.contains("public_key")));
        assert_eq!(bench.slot(), [0xff; 8192]);
    }

    #[test]
    fn a_machine_with_little_memory_says_what_to_do_instead() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        wire::announce(&mut ours, 20 << 20).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let refused = receive(&mut BufReader::new(theirs), &folder.path().join("waiting"), 60 << 20).unwrap_err();
        assert!(
            refused.to_string().contains("60 MiB of free memory") && refused.to_string().contains("first partition")
        );
        assert!(!folder.path().join("waiting").exists());
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   1024 kB\n"), 1 << 20);
        assert_eq!(available("nothing"), 0);
        assert!(memory_free() > 0);
    }
}

//! The far side of SFTP, version 3, which scp of OpenSSH 9 speaks, and `ssh-copy-id -s`. Sans-IO.
//!
//! Behind it are the few files of [`Place`] and nothing else. What is written counts when its handle is closed, whole or not
//! at all.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use russh_sftp::protocol::{
    Attrs, Data, File, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode, Version,
};
use thiserror::Error;
use tracing::warn;

use crate::place::Place;
use crate::window::{FILE_BYTES, Refused, Window};

/// A packet of the client's: its writes have 32 KiB.
const PACKET_BYTES: usize = 64 * 1024;
/// Files that are open at once.
const HANDLES: usize = 8;
const FOLDER_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_644;

/// The client doesn't speak SFTP.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("this is no SFTP: {0}")]
pub struct Broken(&'static str);

#[derive(Debug)]
enum Open {
    /// A copy of the file, and whether its end was read.
    Read { place: Place, file: Vec<u8>, to_the_end: bool },
    /// What came of it. `None` after something that was refused.
    Write { place: Place, file: Option<Vec<u8>> },
}

/// One conversation.
#[derive(Debug, Default)]
pub struct Sftp {
    came: Vec<u8>,
    open: BTreeMap<u32, Open>,
    next: u32,
}

/// What isn't done, as the client is told it.
struct No(StatusCode, String);

impl From<Refused> for No {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::Closed | Refused::NotYours => StatusCode::PermissionDenied,
            Refused::Missing(_) => StatusCode::NoSuchFile,
            Refused::Busy | Refused::TooLarge | Refused::NoKeys => StatusCode::Failure,
        };
        Self(code, refused.to_string())
    }
}

impl Sftp {
    /// Takes what came, and gives what to answer.
    ///
    /// # Errors
    /// It makes no sense; the conversation is over.
    pub fn feed(&mut self, now: Duration, window: &mut Window, data: &[u8]) -> Result<Vec<u8>, Broken> {
        self.came.extend_from_slice(data);
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some(length) =
            self.came.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
        {
            let length = usize::try_from(length).map_err(|_| Broken("a packet's length"))?;
            if length > PACKET_BYTES {
                return Err(Broken("a packet's length"));
            }
            let Some(packet) = self.came.get(at + 4..at + 4 + length) else { break };
            let packet = Packet::try_from(&mut Bytes::copy_from_slice(packet)).map_err(|_| Broken("a packet"))?;
            at += 4 + length;
            let answer = Bytes::try_from(self.answer(now, window, packet)?).map_err(|_| Broken("an answer"))?;
            out.extend_from_slice(&answer);
        }
        self.came.drain(..at);
        Ok(out)
    }

    fn answer(&mut self, now: Duration, window: &mut Window, packet: Packet) -> Result<Packet, Broken> {
        let id = packet.get_request_id();
        let done = match packet {
            Packet::Init(_) => Ok(Packet::Version(Version::new())),
            Packet::Open(open) => {
                self.open(now, window, &open.filename, open.pflags).map(|handle| handle_of(id, handle))
            }
            Packet::Close(close) => self.close(now, window, &close.handle).map(|()| fine(id)),
            Packet::Read(read) => self.read(&read.handle, read.offset, read.len).map(|data| Data { id, data }.into()),
            Packet::Write(write) => self.write(&write.handle, write.offset, &write.data).map(|()| fine(id)),
            Packet::Stat(stat) => attributes(now, window, &stat.path).map(|attrs| Attrs { id, attrs }.into()),
            Packet::Lstat(stat) => attributes(now, window, &stat.path).map(|attrs| Attrs { id, attrs }.into()),
            Packet::Fstat(stat) => self.size(&stat.handle).map(|size| Attrs { id, attrs: file_of(size) }.into()),
            // Modes and times mean nothing here.
            Packet::SetStat(set) => attributes(now, window, &set.path).map(|_| fine(id)),
            Packet::FSetStat(set) => self.size(&set.handle).map(|_| fine(id)),
            Packet::RealPath(path) => {
                real_path(&path.path).map(|path| Name { id, files: vec![File::dummy(path)] }.into())
            }
            Packet::MkDir(make) => match Place::of(&make.path) {
                Some(Place::Folder) => Err(No(StatusCode::Failure, "it is there".into())),
                Some(_) | None => Err(not_there(&make.path)),
            },
            Packet::OpenDir(folder) => Err(not_there(&folder.path)),
            Packet::Remove(remove) => Err(not_there(&remove.filename)),
            Packet::RmDir(remove) => Err(not_there(&remove.path)),
            Packet::Rename(rename) => Err(not_there(&rename.oldpath)),
            Packet::ReadLink(link) => Err(not_there(&link.path)),
            Packet::Symlink(link) => Err(not_there(&link.linkpath)),
            Packet::ReadDir(_) | Packet::Extended(_) => {
                Err(No(StatusCode::OpUnsupported, "that is not done here".into()))
            }
            Packet::Version(_)
            | Packet::Status(_)
            | Packet::Handle(_)
            | Packet::Data(_)
            | Packet::Name(_)
            | Packet::Attrs(_)
            | Packet::ExtendedReply(_) => return Err(Broken("an answer where a question should be")),
        };
        Ok(done.unwrap_or_else(|No(code, why)| Packet::status(id, code, &why, "en")))
    }

    fn open(&mut self, now: Duration, window: &mut Window, path: &str, flags: OpenFlags) -> Result<u32, No> {
        let place = Place::of(path).ok_or_else(|| not_there(path))?;
        if self.open.len() >= HANDLES {
            return Err(No(StatusCode::Failure, format!("{HANDLES} files at once at most")));
        }
        let open = if flags.contains(OpenFlags::WRITE) {
            window.writable(now, &place)?;
            Open::Write { place, file: Some(Vec::new()) }
        } else {
            let file = window.read(now, &place)?;
            Open::Read { place, file, to_the_end: false }
        };
        let handle = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(handle, open);
        Ok(handle)
    }

    fn close(&mut self, now: Duration, window: &mut Window, handle: &str) -> Result<(), No> {
        let number = handle.parse().map_err(|_| no_handle())?;
        match self.open.remove(&number).ok_or_else(no_handle)? {
            Open::Read { place, to_the_end, .. } => {
                if to_the_end {
                    window.fetched(now, &place);
                }
                Ok(())
            }
            Open::Write { place, file: Some(file) } => Ok(window.write(now, &place, file)?),
            Open::Write { file: None, .. } => Err(No(StatusCode::Failure, "nothing was written".into())),
        }
    }

    fn read(&mut self, handle: &str, offset: u64, length: u32) -> Result<Vec<u8>, No> {
        let Open::Read { file, to_the_end, .. } = self.handle(handle)? else {
            return Err(No(StatusCode::PermissionDenied, "it is open to be written".into()));
        };
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        let end = begin.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(file.len());
        *to_the_end |= end == file.len();
        match file.get(begin..end) {
            Some(bytes) if !bytes.is_empty() => Ok(bytes.to_vec()),
            _ => Err(No(StatusCode::Eof, "that is all".into())),
        }
    }

    fn write(&mut self, handle: &str, offset: u64, data: &[u8]) -> Result<(), No> {
        let Open::Write { file, .. } = self.handle(handle)? else {
            return Err(No(StatusCode::PermissionDenied, "it is open to be read".into()));
        };
        let end = usize::try_from(offset).ok().and_then(|begin| begin.checked_add(data.len()));
        match (end, file.as_mut()) {
            (Some(end), Some(bytes)) if end <= FILE_BYTES => {
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(part) = bytes.get_mut(end - data.len()..end) {
                    part.copy_from_slice(data);
                }
                Ok(())
            }
            _ => {
                *file = None;
                Err(Refused::TooLarge.into())
            }
        }
    }

    fn size(&mut self, handle: &str) -> Result<usize, No> {
        Ok(match self.handle(handle)? {
            Open::Read { file, .. } | Open::Write { file: Some(file), .. } => file.len(),
            Open::Write { file: None, .. } => 0,
        })
    }

    fn handle(&mut self, handle: &str) -> Result<&mut Open, No> {
        handle.parse().ok().and_then(|number: u32| self.open.get_mut(&number)).ok_or_else(no_handle)
    }
}

fn no_handle() -> No {
    No(StatusCode::Failure, "there is no such handle".into())
}

fn not_there(path: &str) -> No {
    warn!(path = %path.escape_debug(), "a client asks for a file that nobody needs here");
    No(StatusCode::PermissionDenied, Refused::NotYours.to_string())
}

fn fine(id: u32) -> Packet {
    Packet::Status(Status { id, status_code: StatusCode::Ok, error_message: "done".into(), language_tag: "en".into() })
}

fn handle_of(id: u32, handle: u32) -> Packet {
    Handle { id, handle: handle.to_string() }.into()
}

fn attributes(now: Duration, window: &mut Window, path: &str) -> Result<FileAttributes, No> {
    match Place::of(path) {
        Some(Place::Folder) => Ok(with_mode(FOLDER_MODE, 0)),
        Some(place) => match window.size(now, &place) {
            Some(size) => Ok(file_of(size)),
            None => Err(No(StatusCode::NoSuchFile, "it is not there yet".into())),
        },
        None => Err(not_there(path)),
    }
}

fn file_of(size: usize) -> FileAttributes {
    with_mode(FILE_MODE, size)
}

fn with_mode(mode: u32, size: usize) -> FileAttributes {
    FileAttributes { permissions: Some(mode), size: u64::try_from(size).ok(), ..FileAttributes::default() }
}

/// The whole path: of what is relative, in root's folder.
fn real_path(path: &str) -> Result<String, No> {
    match (path, Place::of(path)) {
        ("" | ".", _) => Ok("/root".into()),
        (_, Some(_)) if path.starts_with('/') => Ok(path.into()),
        (_, Some(_)) => Ok(format!("/root/{path}")),
        (_, None) => Err(not_there(path)),
    }
}

#[cfg(test)]
mod tests {
    use russh_sftp::protocol::{Close, Init, MkDir, Open, OpenDir, Read, RealPath, Rename, Stat, Write};

    use super::*;
    use crate::code::Code;

    const NOW: Duration = Duration::from_secs(1);
    const REQUEST: &str = "/tmp/qdevice-net-node.crq";
    const AUTHORITY: &str = "/etc/corosync/qnetd/nssdb/qnetd-cacert.crt";

    struct Bench {
        sftp: Sftp,
        window: Window,
    }

    impl Bench {
        fn new() -> Self {
            Self { sftp: Sftp::default(), window: Window::new(Code::known(), b"authority".to_vec()) }
        }

        fn ask(&mut self, packet: impl Into<Packet>) -> Packet {
            let bytes = Bytes::try_from(packet.into()).unwrap();
            let answer = self.sftp.feed(NOW, &mut self.window, &bytes).unwrap();
            Packet::try_from(&mut Bytes::copy_from_slice(&answer[4..])).unwrap()
        }

        fn open(&mut self, path: &str, pflags: OpenFlags) -> Result<String, StatusCode> {
            let attrs = FileAttributes::default();
            match self.ask(Open { id: 1, filename: path.into(), pflags, attrs }) {
                Packet::Handle(handle) => Ok(handle.handle),
                Packet::Status(status) => Err(status.status_code),
                other => panic!("{other:?}"),
            }
        }

        fn status(&mut self, packet: impl Into<Packet>) -> StatusCode {
            match self.ask(packet) {
                Packet::Status(status) => status.status_code,
                other => panic!("{other:?}"),
            }
        }

        fn read(&mut self, handle: &str, offset: u64, len: u32) -> Result<Vec<u8>, StatusCode> {
            match self.ask(Read { id: 2, handle: handle.into(), offset, len }) {
                Packet::Data(data) => Ok(data.data),
                Packet::Status(status) => Err(status.status_code),
                other => panic!("{other:?}"),
            }
        }

        fn write(&mut self, handle: &str, offset: u64, data: &[u8]) -> StatusCode {
            self.status(Write { id: 3, handle: handle.into(), offset, data: data.to_vec() })
        }

        fn close(&mut self, handle: &str) -> StatusCode {
            self.status(Close { id: 4, handle: handle.into() })
        }
    }

    const WRITE: OpenFlags = OpenFlags::WRITE.union(OpenFlags::CREATE).union(OpenFlags::TRUNCATE);

    #[test]
    fn a_file_is_read_in_pieces() {
        let mut bench = Bench::new();
        assert!(
            matches!(bench.ask(Init { version: 3, extensions: Default::default() }), Packet::Version(v) if v.version == 3)
        );
        let Packet::Attrs(stat) = bench.ask(Stat { id: 1, path: AUTHORITY.into() }) else { panic!() };
        assert_eq!((stat.attrs.size, stat.attrs.permissions), (Some(9), Some(0o100_644)));
        let handle = bench.open(AUTHORITY, OpenFlags::READ).unwrap();
        assert_eq!(bench.read(&handle, 0, 4), Ok(b"auth".to_vec()));
        assert_eq!(bench.read(&handle, 4, 32768), Ok(b"ority".to_vec()));
        assert_eq!(bench.read(&handle, 9, 1), Err(StatusCode::Eof));
        assert_eq!(bench.read(&handle, u64::MAX, u32::MAX), Err(StatusCode::Eof));
        assert_eq!(bench.write(&handle, 0, b"x"), StatusCode::PermissionDenied);
        assert_eq!(bench.close(&handle), StatusCode::Ok);
        assert_eq!(bench.read(&handle, 0, 4), Err(StatusCode::Failure));
    }

    #[test]
    fn what_is_written_counts_when_it_is_closed() {
        let mut bench = Bench::new();
        let handle = bench.open(REQUEST, WRITE).unwrap();
        assert_eq!(bench.write(&handle, 2, b"cd"), StatusCode::Ok);
        assert_eq!(bench.write(&handle, 0, b"ab"), StatusCode::Ok);
        assert_eq!(bench.read(&handle, 0, 1), Err(StatusCode::PermissionDenied));
        assert!(bench.window.sign(NOW).is_err());
        assert_eq!(bench.close(&handle), StatusCode::Ok);
        assert_eq!(bench.window.sign(NOW), Ok(b"abcd".to_vec()));
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        for (offset, bytes) in [(FILE_BYTES as u64, 1), (0, FILE_BYTES + 1), (u64::MAX, 1), (u64::MAX - 3, 2)] {
            let mut bench = Bench::new();
            let handle = bench.open(REQUEST, WRITE).unwrap();
            assert_eq!(bench.write(&handle, 0, b"ab"), StatusCode::Ok);
            assert_eq!(bench.write(&handle, offset, &vec![0; bytes]), StatusCode::Failure);
            assert_eq!(bench.write(&handle, 0, b"ab"), StatusCode::Failure);
            assert_eq!(bench.close(&handle), StatusCode::Failure);
            assert!(bench.window.sign(NOW).is_err());
        }
        let mut bench = Bench::new();
        for _ in 0..HANDLES {
            bench.open(REQUEST, WRITE).unwrap();
        }
        assert_eq!(bench.open(REQUEST, WRITE), Err(StatusCode::Failure));
    }

    #[test]
    fn nothing_else_is_there() {
        let mut bench = Bench::new();
        for path in
            ["/etc/shadow", "/tmp/../etc/shadow", "/tmp/x", "/state/server/qdevice-ca.pem", "/proc/self/maps", ""]
        {
            for flags in [OpenFlags::READ, WRITE] {
                assert_eq!(bench.open(path, flags), Err(StatusCode::PermissionDenied), "{path}");
            }
            assert_eq!(bench.status(Stat { id: 1, path: path.into() }), StatusCode::PermissionDenied, "{path}");
        }
        assert_eq!(bench.open(AUTHORITY, WRITE), Err(StatusCode::PermissionDenied));
        assert_eq!(bench.open(REQUEST, OpenFlags::READ), Err(StatusCode::PermissionDenied));
        assert_eq!(bench.open("/etc/corosync/qnetd/nssdb/cluster-a.crt", OpenFlags::READ), Err(StatusCode::NoSuchFile));
        assert_eq!(bench.status(OpenDir { id: 1, path: "/tmp".into() }), StatusCode::PermissionDenied);
        let rename = Rename { id: 1, oldpath: REQUEST.into(), newpath: "/tmp/x".into() };
        assert_eq!(bench.status(rename), StatusCode::PermissionDenied);
        assert_eq!(bench.status(RealPath { id: 1, path: "/etc".into() }), StatusCode::PermissionDenied);
    }

    #[test]
    fn ssh_copy_id_finds_its_way_by_sftp() {
        let mut bench = Bench::new();
        let Packet::Name(name) = bench.ask(RealPath { id: 1, path: ".".into() }) else { panic!() };
        assert_eq!(name.files[0].filename, "/root");
        assert_eq!(bench.open("/root/.ssh/authorized_keys", OpenFlags::READ), Err(StatusCode::NoSuchFile));
        let make = MkDir { id: 1, path: "/root/.ssh".into(), attrs: FileAttributes::default() };
        assert_eq!(bench.status(make), StatusCode::Failure);
        let handle = bench.open("/root/.ssh/authorized_keys", WRITE).unwrap();
        assert_eq!(bench.write(&handle, 0, b"no key"), StatusCode::Ok);
        assert_eq!(bench.close(&handle), StatusCode::Failure, "what is no key is refused when it is whole");
    }

    #[test]
    fn what_is_no_sftp_ends_it() {
        for bytes in
            [&[0, 1, 0, 1, 1][..], &[0xff; 8], &[0, 0, 0, 1, 77], &[0, 0, 0, 0], &[0, 0, 0, 5, 101, 0, 0, 0, 0]]
        {
            let mut bench = Bench::new();
            assert!(bench.sftp.feed(NOW, &mut bench.window, bytes).is_err(), "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, kind in 1u8..21) {
            let mut bench = Bench::new();
            let packet = [&(bytes.len() as u32 + 1).to_be_bytes()[..], &[kind], &bytes].concat();
            let _ = bench.sftp.feed(NOW, &mut bench.window, &packet);
            let _ = bench.sftp.feed(NOW, &mut bench.window, &bytes);
        }
    }
}

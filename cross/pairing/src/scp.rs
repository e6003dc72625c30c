//! The far side of scp's own protocol, which clients older than OpenSSH 9 speak, and newer ones with `-O`. Sans-IO.
//!
//! The sender says `C0644 LENGTH NAME`, then the bytes and a zero; the receiver answers each with a zero. A 1 or 2 and a
//! line instead is a complaint.

use std::time::Duration;

use crate::place::{Place, REQUEST};
use crate::window::{FILE_BYTES, Refused, Window};

const FINE: &[u8] = b"\0";
/// A line of the sender's: a mode, a length and a name.
const LINE_BYTES: usize = 512;

/// What one step comes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// What goes to the client.
    pub out: Vec<u8>,
    /// How the program ends, if it does.
    pub exit: Option<u32>,
}

impl Step {
    fn answer(out: &[u8]) -> Self {
        Self { out: out.to_vec(), exit: None }
    }

    fn complain(why: &str) -> Self {
        Self { out: [b"\x01scp: ", why.as_bytes(), b"\n"].concat(), exit: Some(1) }
    }
}

/// `scp -t`: a file comes.
#[derive(Debug)]
pub struct Receiving {
    /// What was named: the file or its folder.
    target: Place,
    came: Vec<u8>,
    /// The length that was announced, while its bytes come.
    length: Option<usize>,
    done: bool,
}

impl Receiving {
    /// Begins.
    #[must_use]
    pub fn new(target: Place) -> (Self, Step) {
        (Self { target, came: Vec::new(), length: None, done: false }, Step::answer(FINE))
    }

    /// Takes what came.
    pub fn feed(&mut self, now: Duration, window: &mut Window, data: &[u8]) -> Step {
        self.came.extend_from_slice(data);
        let mut step = Step::default();
        loop {
            let next = match self.length {
                None => self.line(now, window),
                Some(length) => self.bytes(now, window, length),
            };
            match next {
                Ok(true) => step.out.extend_from_slice(FINE),
                Ok(false) => return step,
                Err(why) => {
                    let complaint = Step::complain(&why);
                    step.out.extend(complaint.out);
                    return Step { out: step.out, exit: complaint.exit };
                }
            }
        }
    }

    /// The client sends no more. How the program ends.
    #[must_use]
    pub fn end(&self) -> u32 {
        u32::from(!self.done)
    }

    /// A whole line, if it is there.
    fn line(&mut self, now: Duration, window: &mut Window) -> Result<bool, String> {
        let Some(end) = self.came.iter().position(|byte| *byte == b'\n') else {
            return if self.came.len() > LINE_BYTES { Err("this line is too long".into()) } else { Ok(false) };
        };
        let line: Vec<u8> = self.came.drain(..=end).collect();
        let line = std::str::from_utf8(&line).map_err(|_| "this line is no text")?.trim_end();
        match line.as_bytes().first() {
            // Times of the file, with -p.
            Some(b'T') => Ok(true),
            Some(b'C') if !self.done => {
                let mut words = line.splitn(3, ' ').skip(1);
                let length =
                    words.next().and_then(|length| length.parse::<usize>().ok()).ok_or("there is no length")?;
                let name = words.next().ok_or("there is no name")?;
                let place = if self.target == Place::Folder {
                    Place::of(&format!("/tmp/{name}"))
                } else {
                    Some(Place::Request)
                };
                if place != Some(Place::Request) {
                    return Err(format!("only {REQUEST} can be written here"));
                }
                window.writable(now, &Place::Request).map_err(|refused| refused.to_string())?;
                if length > FILE_BYTES {
                    return Err(Refused::TooLarge.to_string());
                }
                self.length = Some(length);
                Ok(true)
            }
            _ => Err("one file is taken, and no folder".into()),
        }
    }

    /// The whole file and the zero behind it, if they are there.
    fn bytes(&mut self, now: Duration, window: &mut Window, length: usize) -> Result<bool, String> {
        match self.came.get(length) {
            None => Ok(false),
            Some(0) => {
                let mut file: Vec<u8> = self.came.drain(..=length).collect();
                file.truncate(length);
                (self.length, self.done) = (None, true);
                window.write(now, &Place::Request, file).map_err(|refused| refused.to_string())?;
                Ok(true)
            }
            Some(_) => Err("the client could not read the file to its end".into()),
        }
    }
}

/// `scp -f`: a file goes.
#[derive(Debug)]
pub struct Sending {
    place: Place,
    name: String,
    file: Vec<u8>,
    /// What the client has taken: it is ready, it knows the length, it has the file.
    taken: u8,
}

impl Sending {
    /// Begins.
    ///
    /// # Errors
    /// The file isn't there.
    pub fn new(now: Duration, window: &mut Window, place: Place) -> Result<Self, Refused> {
        let file = window.read(now, &place)?;
        let name = match &place {
            Place::Certificate(cluster) => format!("cluster-{cluster}.crt"),
            Place::Authority => "qnetd-cacert.crt".to_owned(),
            Place::Folder | Place::Request | Place::Keys => return Err(Refused::NotYours),
        };
        Ok(Self { place, name, file, taken: 0 })
    }

    /// Takes the client's answers.
    pub fn feed(&mut self, now: Duration, window: &mut Window, data: &[u8]) -> Step {
        let mut step = Step::default();
        for byte in data {
            if *byte != 0 {
                step.exit = Some(1);
                break;
            }
            self.taken += 1;
            match self.taken {
                1 => step.out.extend(format!("C0644 {} {}\n", self.file.len(), self.name).into_bytes()),
                2 => {
                    step.out.extend_from_slice(&self.file);
                    step.out.extend_from_slice(FINE);
                }
                _ => {
                    window.fetched(now, &self.place);
                    step.exit = Some(0);
                    break;
                }
            }
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Code;

    const NOW: Duration = Duration::from_secs(1);

    fn window() -> Window {
        Window::new(Code::known(), b"authority".to_vec())
    }

    #[test]
    fn a_request_comes_however_it_is_cut() {
        for cut in 1..30 {
            let mut window = window();
            let (mut receiving, begin) = Receiving::new(Place::Folder);
            assert_eq!(begin.out, FINE);
            let mut out = Vec::new();
            for piece in b"T1 0 1 0\nC0600 3 qdevice-net-node.crq\n\0\n\x01\0".chunks(cut) {
                let step = receiving.feed(NOW, &mut window, piece);
                assert_eq!(step.exit, None);
                out.extend(step.out);
            }
            assert_eq!((out.as_slice(), receiving.end()), ([0, 0, 0].as_slice(), 0));
            assert_eq!(window.sign(NOW), Ok(b"\0\n\x01".to_vec()));
        }
    }

    #[test]
    fn nothing_else_comes() {
        for (target, bytes) in [
            (Place::Folder, "C0600 3 shadow\n"),
            (Place::Folder, "C0600 3 ../etc/shadow\n"),
            (Place::Folder, "C0600 3 ../tmp/qdevice-net-node.crq\n"),
            (Place::Folder, "C0600 8193 qdevice-net-node.crq\n"),
            (Place::Folder, "C0600 99999999999999999999999 qdevice-net-node.crq\n"),
            (Place::Folder, "C0600 -1 qdevice-net-node.crq\n"),
            (Place::Folder, "C0600\n"),
            (Place::Folder, "D0755 0 tmp\n"),
            (Place::Request, "C0600 1 x\nab"),
            (Place::Request, "C0600 1 x\na\0C0600 1 x\n"),
            (Place::Folder, "\u{1}no such file\n"),
        ] {
            let mut window = window();
            let (mut receiving, _) = Receiving::new(target);
            let step = receiving.feed(NOW, &mut window, bytes.as_bytes());
            assert_eq!(step.exit, Some(1), "{bytes:?}");
            assert!(step.out.ends_with(b"\n"), "{bytes:?}: {step:?}");
        }
        let mut window = window();
        let (mut receiving, _) = Receiving::new(Place::Folder);
        assert_eq!(receiving.feed(NOW, &mut window, &[b'C'; LINE_BYTES]).exit, None);
        assert_eq!(receiving.feed(NOW, &mut window, b"C").exit, Some(1));
        assert_eq!(receiving.end(), 1);
    }

    #[test]
    fn a_file_goes_when_the_client_is_ready() {
        let mut window = window();
        let mut sending = Sending::new(NOW, &mut window, Place::Authority).unwrap();
        let step = sending.feed(NOW, &mut window, FINE);
        assert_eq!((step.out.as_slice(), step.exit), (b"C0644 9 qnetd-cacert.crt\n".as_slice(), None));
        let step = sending.feed(NOW, &mut window, FINE);
        assert_eq!((step.out.as_slice(), step.exit), (b"authority\0".as_slice(), None));
        assert_eq!(sending.feed(NOW, &mut window, FINE).exit, Some(0));
        let mut sending = Sending::new(NOW, &mut window, Place::Authority).unwrap();
        assert_eq!(sending.feed(NOW, &mut window, b"\x01no space\n").exit, Some(1));
        for place in [Place::Certificate("pve".into()), Place::Keys, Place::Request] {
            assert!(Sending::new(NOW, &mut window, place).is_err());
        }
    }

    #[test]
    fn a_certificate_counts_as_fetched_when_the_client_has_said_so() {
        let mut window = window();
        window.write(NOW, &Place::Request, vec![1]).unwrap();
        window.sign(NOW).unwrap();
        window.signed(NOW, "pve", Some(vec![2]));
        let mut sending = Sending::new(NOW, &mut window, Place::Certificate("pve".into())).unwrap();
        sending.feed(NOW, &mut window, b"\0\0");
        let before = window.poll_timeout();
        sending.feed(NOW, &mut window, FINE);
        assert!(window.poll_timeout() < before);
    }
}

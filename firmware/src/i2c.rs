//! Watchdogs that are registers behind an I2C bus.

use core::fmt;
use core::time::Duration;

use embedded_hal::i2c::I2c;

use crate::{BootReason, Capabilities, Nature, Watchdog};

/// Where a watchdog keeps what. Registers are 8 bits wide; numbers in them are 16 bits, the low byte first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterMap {
    /// What it is called.
    pub identity: &'static str,
    /// Its address on the bus, 7 bits.
    pub address: u8,
    /// Writing the key here restarts the countdown.
    pub reload: u8,
    /// The key.
    pub reload_key: u8,
    /// The timeout in seconds is written here.
    pub write_period: u8,
    /// And read here.
    pub read_period: u8,
    /// How many times it has reset the machine.
    pub resets: u8,
    /// The shortest timeout that it takes, in seconds.
    pub shortest_s: u16,
    /// The longest.
    pub longest_s: u16,
}

/// Sequent Microsystems' Super Watchdog HAT, which takes the Pi's power away. Registers as its maker's own library names
/// them.
pub const SEQUENT_SUPER_WATCHDOG: RegisterMap = RegisterMap {
    identity: "Sequent Super Watchdog",
    address: 0x30,
    reload: 0x00,
    reload_key: 0xCA,
    write_period: 0x01,
    read_period: 0x03,
    resets: 0x09,
    shortest_s: 11,
    longest_s: 65_000,
};

/// A watchdog of registers. It can't be stopped.
pub struct I2cWatchdog<I> {
    bus: I,
    map: RegisterMap,
}

impl<I: I2c> I2cWatchdog<I> {
    /// The watchdog on that bus. Nothing is sent yet.
    pub const fn new(bus: I, map: RegisterMap) -> Self {
        Self { bus, map }
    }

    /// How many times it has reset this machine, as it counts.
    ///
    /// # Errors
    /// The bus failed.
    pub fn resets(&mut self) -> Result<u16, I2cWatchdogError<I::Error>> {
        self.word(self.map.resets)
    }

    fn word(&mut self, register: u8) -> Result<u16, I2cWatchdogError<I::Error>> {
        let mut word = [0; 2];
        self.bus.write_read(self.map.address, &[register], &mut word).map_err(I2cWatchdogError::Bus)?;
        Ok(u16::from_le_bytes(word))
    }
}

impl<I: I2c> Watchdog for I2cWatchdog<I> {
    type Error = I2cWatchdogError<I::Error>;

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            identity: self.map.identity,
            nature: Nature::Hardware,
            magic_close: false,
            no_way_out: Some(true),
            settable: true,
        }
    }

    /// Takes whole seconds, rounded down. On an error it runs with whatever timeout it has.
    fn arm(&mut self, timeout: Duration) -> Result<Duration, Self::Error> {
        let RegisterMap { address, write_period, read_period, shortest_s, longest_s, .. } = self.map;
        let seconds = u16::try_from(timeout.as_secs()).unwrap_or(longest_s).min(longest_s);
        if seconds < shortest_s {
            return Err(I2cWatchdogError::TooShort { asked: timeout, shortest_s });
        }
        let [low, high] = seconds.to_le_bytes();
        self.bus.write(address, &[write_period, low, high]).map_err(I2cWatchdogError::Bus)?;
        let taken_s = self.word(read_period)?;
        if taken_s == 0 || taken_s > seconds {
            return Err(I2cWatchdogError::NotTaken { asked_s: seconds, read_s: taken_s });
        }
        self.pet()?;
        Ok(Duration::from_secs(u64::from(taken_s)))
    }

    fn pet(&mut self) -> Result<(), Self::Error> {
        let RegisterMap { address, reload, reload_key, .. } = self.map;
        self.bus.write(address, &[reload, reload_key]).map_err(I2cWatchdogError::Bus)
    }

    fn disarm(&mut self) -> Result<(), Self::Error> {
        Err(I2cWatchdogError::NoWayOut)
    }

    fn boot_reason(&mut self) -> Result<BootReason, Self::Error> {
        // All ones is what a bus reads on which nobody drives the data line.
        Ok(match self.resets()? {
            0 | u16::MAX => BootReason::NotSaid,
            _ => BootReason::Watchdog,
        })
    }
}

/// Why a watchdog behind I2C could not do as told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum I2cWatchdogError<E> {
    /// It takes no timeout as short as this.
    TooShort {
        /// What was asked for.
        asked: Duration,
        /// The shortest that it takes, in seconds.
        shortest_s: u16,
    },
    /// Read back, the timeout is another one, longer than asked for or none at all.
    NotTaken {
        /// What was written.
        asked_s: u16,
        /// What was read.
        read_s: u16,
    },
    /// It can't be stopped.
    NoWayOut,
    /// The bus failed: nobody answers at this address, or somebody holds the lines.
    Bus(E),
}

impl<E: fmt::Debug> fmt::Display for I2cWatchdogError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { asked, shortest_s } => {
                write!(f, "the watchdog takes no timeout below {shortest_s} s, and {asked:?} is asked for")
            }
            Self::NotTaken { asked_s, read_s } => {
                write!(f, "the watchdog was told {asked_s} s and reads {read_s} s: it runs, but not as asked")
            }
            Self::NoWayOut => f.write_str("the watchdog can't be stopped"),
            Self::Bus(error) => write!(f, "the watchdog's bus failed: {error:?}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for I2cWatchdogError<E> {}

#[cfg(test)]
mod tests {
    extern crate std;

    use embedded_hal::i2c::{ErrorKind, NoAcknowledgeSource};
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};
    use std::vec;

    use super::*;

    const AT: u8 = 0x30;
    const NOBODY: ErrorKind = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);
    const MINUTE: Duration = Duration::from_secs(60);

    fn set(seconds: u16) -> Transaction {
        let [low, high] = seconds.to_le_bytes();
        Transaction::write(AT, vec![0x01, low, high])
    }

    fn read(seconds: u16) -> Transaction {
        Transaction::write_read(AT, vec![0x03], seconds.to_le_bytes().to_vec())
    }

    fn reload() -> Transaction {
        Transaction::write(AT, vec![0x00, 0xCA])
    }

    fn told(expected: &[Transaction], timeout: Duration) -> Result<Duration, I2cWatchdogError<ErrorKind>> {
        let mut bus = Mock::new(expected);
        let answer = I2cWatchdog::new(bus.clone(), SEQUENT_SUPER_WATCHDOG).arm(timeout);
        bus.done();
        answer
    }

    #[test]
    fn arming_writes_the_time_reads_it_back_and_pets() {
        assert_eq!(told(&[set(300), read(300), reload()], Duration::from_millis(300_900)), Ok(MINUTE * 5));
        // The real one counts, if it is shorter.
        assert_eq!(told(&[set(60), read(59), reload()], MINUTE), Ok(Duration::from_secs(59)));
        let longest = told(&[set(65_000), read(65_000), reload()], Duration::MAX);
        assert_eq!(longest, Ok(Duration::from_secs(65_000)));
    }

    #[test]
    fn one_that_does_not_take_the_time_is_an_error_and_not_petted() {
        for read_s in [61, 270, 0, u16::MAX] {
            let refused = Err(I2cWatchdogError::NotTaken { asked_s: 60, read_s });
            assert_eq!(told(&[set(60), read(read_s)], MINUTE), refused);
        }
    }

    #[test]
    fn a_time_below_its_shortest_is_refused_before_anything_is_sent() {
        let asked = Duration::from_secs(5);
        assert_eq!(told(&[], asked), Err(I2cWatchdogError::TooShort { asked, shortest_s: 11 }));
    }

    #[test]
    fn the_bus_may_fail_at_every_step() {
        let failed = Err(I2cWatchdogError::Bus(NOBODY));
        assert_eq!(told(&[set(60).with_error(NOBODY)], MINUTE), failed);
        assert_eq!(told(&[set(60), read(60).with_error(NOBODY)], MINUTE), failed);
        assert_eq!(told(&[set(60), read(60), reload().with_error(NOBODY)], MINUTE), failed);
    }

    #[test]
    fn it_can_not_be_stopped_and_therefore_promises() {
        let mut bus = Mock::new(&[]);
        let mut dog = I2cWatchdog::new(bus.clone(), SEQUENT_SUPER_WATCHDOG);
        assert_eq!(dog.disarm(), Err(I2cWatchdogError::NoWayOut));
        assert_eq!(dog.promise(), crate::Promise::Evidence);
        bus.done();
    }

    #[test]
    fn its_count_of_resets_tells_the_reason_of_the_last_boot() {
        for (count, reason) in [
            (0, BootReason::NotSaid),
            (1, BootReason::Watchdog),
            (300, BootReason::Watchdog),
            (u16::MAX, BootReason::NotSaid),
        ] {
            let answer = Transaction::write_read(AT, vec![0x09], count.to_le_bytes().to_vec());
            let mut bus = Mock::new(&[answer]);
            assert_eq!(I2cWatchdog::new(bus.clone(), SEQUENT_SUPER_WATCHDOG).boot_reason(), Ok(reason));
            bus.done();
        }
    }
}

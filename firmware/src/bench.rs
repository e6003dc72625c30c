//! A bench for the tests: lines whose levels the test sets and reads, and which fail when told.

extern crate std;

use core::cell::RefCell;
use core::time::Duration;
use std::vec::Vec;

use embedded_hal::digital::{Error, ErrorKind, ErrorType, InputPin, OutputPin};

use crate::Moment;

/// So many milliseconds after the start.
pub fn ms(at: u64) -> Moment {
    Moment::at(Duration::from_millis(at))
}

const LINES: usize = 4;

/// Lines 0 to 3.
pub struct Bench {
    lines: RefCell<[State; LINES]>,
    writes: RefCell<Vec<(usize, bool)>>,
}

#[derive(Clone, Copy, Default)]
struct State {
    high: bool,
    fails: bool,
}

/// A line of a [`Bench`].
pub struct Line<'a>(&'a Bench, usize);

/// What a line that fails says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

impl Error for Broken {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl Bench {
    pub fn new() -> Self {
        Self { lines: RefCell::default(), writes: RefCell::default() }
    }

    pub fn line(&self, number: usize) -> Line<'_> {
        Line(self, number)
    }

    pub fn set(&self, number: usize, high: bool) {
        self.lines.borrow_mut()[number].high = high;
    }

    pub fn is_high(&self, number: usize) -> bool {
        self.lines.borrow()[number].high
    }

    pub fn fail(&self, number: usize, fails: bool) {
        self.lines.borrow_mut()[number].fails = fails;
    }

    /// The levels that a line was driven to.
    pub fn writes(&self, number: usize) -> Vec<bool> {
        self.writes.borrow().iter().filter(|(line, _)| *line == number).map(|(_, high)| *high).collect()
    }

    fn write(&self, number: usize, high: bool) -> Result<(), Broken> {
        if self.lines.borrow()[number].fails {
            return Err(Broken);
        }
        self.set(number, high);
        self.writes.borrow_mut().push((number, high));
        Ok(())
    }
}

impl ErrorType for Line<'_> {
    type Error = Broken;
}

impl OutputPin for Line<'_> {
    fn set_low(&mut self) -> Result<(), Broken> {
        self.0.write(self.1, false)
    }

    fn set_high(&mut self) -> Result<(), Broken> {
        self.0.write(self.1, true)
    }
}

impl InputPin for Line<'_> {
    fn is_high(&mut self) -> Result<bool, Broken> {
        let state = self.0.lines.borrow()[self.1];
        if state.fails { Err(Broken) } else { Ok(state.high) }
    }

    fn is_low(&mut self) -> Result<bool, Broken> {
        self.is_high().map(|high| !high)
    }
}

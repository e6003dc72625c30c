//! The board's drivers on lines and buses of a kernel, as process 1 of a virtual machine: `tests/hardware/run` starts it and
//! reads its verdict off the console.
//!
//! `board gpio LIST` loads drivers, makes a chip of simulated lines (gpio-sim) and drives a relay, LEDs, a button and a
//! watchdog's pin on it, with the kernel's own view of each line as the witness. `board i2c LIST BUS` speaks with a
//! temperature sensor (tmp105) at 0x48, and with nobody at 0x30, where the I2C watchdog would be.
//!
//! The last line is `BOARD: passed`, or `BOARD: FAILED: ` and why.

use std::error::Error;
use std::ffi::CStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use embedded_hal::i2c::{I2c, NoAcknowledgeSource};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use tiebreaker_firmware::{
    BUTTON_EVERY, Bias, I2cWatchdogError, I2cdev, Indicator, LineAddress, Moment, Pattern, Polarity, PushButton,
    Pushed, RegisterMap, SEQUENT_SUPER_WATCHDOG, Supply, SupplyRelay, Watchdog, i2c_watchdog, input_line, output_line,
    pin_watchdog,
};

type Outcome = Result<(), Box<dyn Error>>;

/// The simulated lines, by number.
const NAMES: [&str; 5] = ["RELAY", "LED", "BUTTON", "PIN", "SPARE"];
const RELAY: usize = 0;
const LED: usize = 1;
const BUTTON: usize = 2;
const PIN: usize = 3;
/// Where QEMU's sensor is on the bus.
const SENSOR: u8 = 0x48;
/// Where nobody is: the address of the watchdog that the driver is for.
const NOBODY: u8 = SEQUENT_SUPER_WATCHDOG.address;
/// The sensor's registers in the place of a watchdog's: two limits of temperature, which keep what is written, and the
/// configuration.
const SENSOR_AS_WATCHDOG: RegisterMap = RegisterMap {
    identity: "tmp105",
    address: SENSOR,
    reload: 0x01,
    reload_key: 0x00,
    write_period: 0x02,
    read_period: 0x02,
    resets: 0x03,
    shortest_s: 11,
    longest_s: 65_000,
};

fn main() {
    let first = std::process::id() == 1;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["gpio", list] => prepare(first, list).and_then(|()| gpio()),
        ["i2c", list, bus] => prepare(first, list).and_then(|()| i2c(Path::new(bus))),
        _ => Err("usage: board gpio LIST, or board i2c LIST BUS".into()),
    };
    match &outcome {
        Ok(()) => println!("BOARD: passed"),
        Err(error) => println!("BOARD: FAILED: {error}"),
    }
    if first {
        // What a machine can't do, its harness does.
        let _ = reboot(RebootCommand::PowerOff);
        loop {
            sleep(Duration::from_secs(60));
        }
    }
    std::process::exit(i32::from(outcome.is_err()));
}

/// What process 1 has to do before anything else: the kernel's file systems, and drivers.
fn prepare(first: bool, list: &str) -> Outcome {
    if !first {
        return Err("this is for process 1 of a virtual machine: it would change the lines of this one".into());
    }
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        fs::create_dir_all(at)?;
        mount(kind, at, kind, MountFlags::empty(), None::<&CStr>)?;
    }
    let list = Path::new(list);
    let folder = list.parent().unwrap_or(Path::new("/"));
    for name in fs::read_to_string(list)?.lines() {
        // A driver of another machine doesn't keep this one's away.
        if let Err(error) = finit_module(File::open(folder.join(name))?, c"", 0) {
            println!("BOARD: driver {name}: {error}");
        }
    }
    Ok(())
}

/// The simulated chip, as the kernel shows it from the other side.
struct Bench {
    lines: PathBuf,
    began: Instant,
}

impl Bench {
    fn new() -> Result<Self, Box<dyn Error>> {
        mount("configfs", "/sys/kernel/config", "configfs", MountFlags::empty(), None::<&CStr>)?;
        let device = Path::new("/sys/kernel/config/gpio-sim/board");
        let bank = device.join("bank");
        fs::create_dir_all(&bank)?;
        fs::write(bank.join("num_lines"), NAMES.len().to_string())?;
        for (number, name) in NAMES.iter().enumerate() {
            let line = bank.join(format!("line{number}"));
            fs::create_dir(&line)?;
            fs::write(line.join("name"), name)?;
        }
        fs::write(device.join("live"), "1")?;
        let word = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned());
        let lines =
            Path::new("/sys/devices/platform").join(word(device.join("dev_name"))?).join(word(bank.join("chip_name"))?);
        let bench = Self { lines, began: Instant::now() };
        // Their device file comes a moment later.
        while !Path::new("/dev").join(word(bank.join("chip_name"))?).exists() {
            if bench.began.elapsed() > Duration::from_secs(10) {
                return Err("the simulated chip has no device".into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(bench)
    }

    fn now(&self) -> Moment {
        Moment::at(self.began.elapsed())
    }

    fn high(&self, line: usize) -> Result<bool, Box<dyn Error>> {
        Ok(fs::read_to_string(self.lines.join(format!("sim_gpio{line}/value")))?.trim() == "1")
    }

    fn expect(&self, line: usize, high: bool, when: &str) -> Outcome {
        if self.high(line)? == high {
            Ok(())
        } else {
            Err(format!("{} is not {} {when}", NAMES[line], if high { "high" } else { "low" }).into())
        }
    }

    fn pull(&self, line: usize, up: bool) -> Outcome {
        Ok(fs::write(self.lines.join(format!("sim_gpio{line}/pull")), if up { "pull-up" } else { "pull-down" })?)
    }
}

fn address(line: usize) -> Result<LineAddress, Box<dyn Error>> {
    Ok(NAMES[line].parse()?)
}

fn gpio() -> Outcome {
    let bench = Bench::new()?;
    relay(&bench)?;
    println!("BOARD: the relay's line follows");
    led(&bench)?;
    println!("BOARD: the LED's line follows");
    button(&bench)?;
    println!("BOARD: the button is heard");
    pin(&bench)?;
    println!("BOARD: the watchdog's pin is pulsed");
    let taken = output_line(&address(RELAY)?, Polarity::ActiveHigh, "first")?;
    let Err(error) = output_line(&address(RELAY)?, Polarity::ActiveHigh, "second") else {
        return Err("one line was given twice".into());
    };
    drop(taken);
    println!("BOARD: a line that is taken says: {error}");
    Ok(())
}

fn relay(bench: &Bench) -> Outcome {
    for (polarity, rest) in [(Polarity::ActiveHigh, false), (Polarity::ActiveLow, true)] {
        // The board's own resistor, which decides where nobody drives.
        bench.pull(RELAY, rest)?;
        let drain = Duration::from_millis(200);
        let mut relay = SupplyRelay::new(output_line(&address(RELAY)?, polarity, "board-relay")?, drain);
        bench.expect(RELAY, rest, "at rest")?;
        relay.cut(bench.now())?;
        bench.expect(RELAY, !rest, "while the supply is cut")?;
        if !matches!(relay.supply(bench.now()), Supply::Draining { .. }) {
            return Err("a supply that was cut just now is drained already".into());
        }
        sleep(drain);
        if relay.supply(bench.now()) != Supply::Cut {
            return Err("a supply that is drained is not cut".into());
        }
        relay.give()?;
        bench.expect(RELAY, rest, "when the supply is given back")?;
        relay.cut(bench.now())?;
        bench.expect(RELAY, !rest, "while the supply is cut again")?;
        drop(relay);
        bench.expect(RELAY, rest, "when nobody holds it any more")?;
    }
    Ok(())
}

fn led(bench: &Bench) -> Outcome {
    let mut led = Indicator::new(output_line(&address(LED)?, Polarity::ActiveHigh, "board-led")?);
    for (pattern, lit) in [(Pattern::Lit, true), (Pattern::Dark, false)] {
        led.show(bench.now(), pattern);
        led.poll(bench.now())?;
        bench.expect(LED, lit, &format!("for {pattern:?}"))?;
    }
    // Changes that the line makes in two seconds, polled when the driver asks for it.
    for (pattern, changes) in [(Pattern::Slow, 3..=5), (Pattern::Fast, 12..=18)] {
        led.show(bench.now(), pattern);
        let (mut seen, mut before, began) = (0, bench.high(LED)?, bench.began.elapsed());
        while bench.began.elapsed() - began < Duration::from_secs(2) {
            led.poll(bench.now())?;
            let high = bench.high(LED)?;
            seen += i32::from(high != before);
            before = high;
            if let Some(next) = led.poll_at(bench.now()) {
                sleep(next.since(bench.now()));
            }
        }
        if !changes.contains(&seen) {
            return Err(format!("{pattern:?} changed the LED's line {seen} times in two seconds").into());
        }
    }
    led.show(bench.now(), Pattern::Lit);
    led.poll(bench.now())?;
    drop(led);
    bench.expect(LED, false, "when nobody holds it any more")
}

fn button(bench: &Bench) -> Outcome {
    // To ground: up is high.
    bench.pull(BUTTON, true)?;
    let mut button = PushButton::new(input_line(&address(BUTTON)?, Bias::Wired, "board-button")?, Polarity::ActiveLow);
    let mut keep = |down: bool, long: Duration| -> Result<Vec<Pushed>, Box<dyn Error>> {
        bench.pull(BUTTON, !down)?;
        let (mut told, began) = (Vec::new(), bench.began.elapsed());
        while bench.began.elapsed() - began < long {
            told.extend(button.poll(bench.now())?);
            sleep(BUTTON_EVERY);
        }
        Ok(told)
    };
    let short = Duration::from_millis(300);
    let seen = [keep(false, short)?, keep(true, short)?, keep(false, short)?, keep(true, Duration::from_secs(6))?];
    if seen == [vec![], vec![], vec![Pushed::Pressed], vec![Pushed::Held]] {
        Ok(())
    } else {
        Err(format!("a press and a hold were heard as {seen:?}").into())
    }
}

fn pin(bench: &Bench) -> Outcome {
    let timeout = Duration::from_secs(2);
    let mut dog = pin_watchdog(&address(PIN)?, Polarity::ActiveHigh, 300_000, timeout)?;
    bench.expect(PIN, false, "before the first pulse")?;
    // A pulse is as long as a look from another thread takes.
    let pulse = std::thread::scope(|threads| {
        let looked = threads.spawn(|| {
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(2) {
                if bench.high(PIN).is_ok_and(|high| high) {
                    return true;
                }
                sleep(Duration::from_millis(5));
            }
            false
        });
        let armed = dog.arm(timeout);
        (armed, looked.join())
    });
    bench.expect(PIN, false, "after the pulse")?;
    match pulse {
        (Ok(taken), Ok(true)) if taken == timeout => Ok(()),
        (Err(error), _) => Err(error.into()),
        (armed, seen) => Err(format!("armed {armed:?}, pulse seen {seen:?}").into()),
    }
}

fn i2c(bus: &Path) -> Outcome {
    let began = Instant::now();
    while !bus.exists() {
        if began.elapsed() > Duration::from_secs(30) {
            return Err(format!("there is no bus {}", bus.display()).into());
        }
        sleep(Duration::from_millis(100));
    }
    let mut wires = I2cdev::new(bus)?;
    let mut degrees = [0; 2];
    wires.write_read(SENSOR, &[0x00], &mut degrees)?;
    println!("BOARD: the sensor reads {:.2} degrees", f64::from(i16::from_be_bytes(degrees)) / 256.0);
    let mut limit = [0; 2];
    wires.write(SENSOR, &[0x03, 0x4b, 0x00])?;
    wires.write_read(SENSOR, &[0x03], &mut limit)?;
    if limit != [0x4b, 0x00] {
        return Err(format!("the sensor keeps {limit:02x?} of 4b 00").into());
    }
    let Err(nobody) = wires.write(NOBODY, &[0x00]) else { return Err("somebody answers at 0x30".into()) };
    let kind = embedded_hal::i2c::Error::kind(&nobody);
    println!("BOARD: nobody answers at 0x30: {nobody} ({kind:?})");
    drop(wires);

    // The driver of the watchdog over the same bus: with the sensor's registers it writes, reads back and pets.
    let minute = Duration::from_secs(60);
    let mut dog = i2c_watchdog(bus, SENSOR_AS_WATCHDOG)?;
    let taken = dog.arm(minute)?;
    if taken != minute {
        return Err(format!("{taken:?} were taken of {minute:?}").into());
    }
    dog.pet()?;
    let mut absent = i2c_watchdog(bus, SEQUENT_SUPER_WATCHDOG)?;
    match absent.arm(minute) {
        Err(error @ I2cWatchdogError::Bus(_)) => println!("BOARD: a watchdog that is not there says: {error}"),
        other => return Err(format!("a watchdog that is not there says {other:?}").into()),
    }
    if matches!(kind, embedded_hal::i2c::ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data)) {
        return Err("an address that nobody has is told as refused data".into());
    }
    Ok(())
}

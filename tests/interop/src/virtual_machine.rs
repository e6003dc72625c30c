//! A virtual machine in QEMU, without KVM: what it boots, its wire to the switch, its console, and its end.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Network, Node, Program, node::placed, run, tool, until, workload::MACHINE_VARIABLE};

/// The variable that names the folder which `tests/hardware/guest` prints.
const GUEST_VARIABLE: &str = "TIEBREAKER_GUEST";
/// The variable that names the SD card's image, with the folder of its boot files beside it, as `cross/image` leaves both.
const IMAGE_VARIABLE: &str = "TIEBREAKER_IMAGE";
/// How many bytes a node's disk has: the agent with its libraries, and its data.
const DISK: u64 = 512 << 20;
/// What a node says on its console at each boot, before the id of the boot and what the watchdog's driver knows of the last one.
const UP: &str = "MACHINE UP:";
/// As `WDIOF_CARDRESET` in that: the watchdog has reset the machine.
const CARD_RESET: u32 = 0x20;

/// The first process of a node's machine, which becomes the agent's supervisor. The service's lock is one of its own, since
/// locks of the folder that machines share end at QEMU: a second run elsewhere shows in the order of the ledger.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b --install -s /bin
export PATH=/bin
mkdir -p /run /tmp && mount -t tmpfs tmpfs /run
ip link set lo up
ip address add @ADDRESS@/24 dev eth0 && ip link set eth0 up
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none shared @SHARED@
: >>@SHARED@/lock && : >>/run/lock && mount --bind /run/lock @SHARED@/lock
echo "@UP@ boot $(cat /proc/sys/kernel/random/boot_id) watchdog $(cat /sys/class/watchdog/watchdog0/bootstatus)"
exec env @COMMAND@ </dev/null
"#;

/// A virtual machine. Its process ends when this is dropped.
#[derive(Debug)]
pub struct VirtualMachine {
    folder: PathBuf,
    place: Vec<OsString>,
    command: Vec<OsString>,
    child: Option<Child>,
}

impl VirtualMachine {
    /// A node's machine, off so far: a PC with a disk of its own, a wire to the switch in the place of the node's namespace, the
    /// watchdog i6300esb, and a folder that it shares with all machines. The node has joined; its files are copied to the disk.
    ///
    /// # Errors
    /// Something is missing: QEMU, what it boots, or a tool for the disk.
    pub fn node(node: &Node, network: &Network, shared: &Path) -> Result<Self> {
        let guest = named_folder(GUEST_VARIABLE, "the folder that tests/hardware/guest prints", "guest.cpio")?;
        let qemu = tool("qemu-system-x86_64", "qemu-system-x86")?;
        let folder = folder_beside(node.folder())?;
        let disk = disk_of(node, network.ip(node.name())?, shared, &folder)?;
        let mut command = qemu_command(&qemu, &folder, &["-M", "pc", "-cpu", "Westmere,+rdrand", "-m", "512"])?;
        command.extend(["-kernel".into(), guest.join("vmlinuz").into_os_string()]);
        command.extend(["-initrd".into(), guest.join("guest.cpio").into_os_string()]);
        command.extend(["-append", "console=ttyS0 loglevel=5 panic=5"].map(OsString::from));
        command.extend(["-drive".into(), joined(&["format=raw,if=none,id=disk,file=".as_ref(), disk.as_os_str()])]);
        command.extend(["-device", "virtio-blk-pci,drive=disk"].map(OsString::from));
        let share = ["local,id=shared,security_model=none,path=".as_ref(), shared.as_os_str()];
        command.extend(["-fsdev".into(), joined(&share)]);
        command.extend(["-device", "virtio-9p-pci,fsdev=shared,mount_tag=shared"].map(OsString::from));
        command.extend(["-device", "i6300esb", "-action", "watchdog=reset"].map(OsString::from));
        wire(&mut command, network, node.name())?;
        Ok(Self { folder, place: network.on_switch(), command, child: None })
    }

    /// The SD card's image on QEMU's `virt`, in the place of a machine of the network, off so far. `settings` go onto the card.
    ///
    /// # Errors
    /// Something is missing: QEMU, the image, or the tool that writes to it.
    pub fn appliance(parent: &Path, network: &Network, host: &str, settings: &str) -> Result<Self> {
        let image = PathBuf::from(std::env::var_os(IMAGE_VARIABLE).with_context(|| {
            format!(
                "{IMAGE_VARIABLE} is not set: it names the image that cross/image makes (tests/hardware/run does that)"
            )
        })?);
        let slot = image.parent().unwrap_or(Path::new(".")).join("slot");
        ensure!(slot.join("initramfs.zst").is_file(), "{} has no boot files: run cross/image", slot.display());
        let qemu = tool("qemu-system-aarch64", "qemu-system-arm")?;
        let folder = folder_beside(&parent.join(host))?;
        let card = folder.join("card");
        let mut copy = Command::new("cp");
        copy.arg("--sparse=always").args([&image, &card]);
        run(copy)?.done().context("copying the image")?;
        let text = folder.join("tiebreaker.toml");
        fs::write(&text, settings)?;
        let mut write = Command::new(tool("mcopy", "mtools")?);
        write.arg("-o").arg("-i").arg(joined(&[card.as_os_str(), "@@1M".as_ref()])).arg(&text).arg("::tiebreaker.toml");
        run(write)?.done().context("writing the settings")?;
        let machine = ["-M", "virt", "-cpu", "cortex-a53", "-m", "256"];
        let mut command = qemu_command(&qemu, &folder, &machine)?;
        command.extend(["-kernel".into(), slot.join("kernel8.img").into_os_string()]);
        command.extend(["-initrd".into(), slot.join("initramfs.zst").into_os_string()]);
        let line = "console=ttyAMA0 loglevel=5 panic=10 printk.devkmsg=on tiebreaker.disk=7462726b";
        command.extend(["-append", line].map(OsString::from));
        command.extend(["-drive".into(), joined(&["format=raw,if=none,id=card,file=".as_ref(), card.as_os_str()])]);
        command.extend(["-device", "virtio-blk-pci,drive=card"].map(OsString::from));
        command.extend(["-device", "i6300esb", "-action", "watchdog=reset"].map(OsString::from));
        wire(&mut command, network, host)?;
        Ok(Self { folder, place: network.on_switch(), command, child: None })
    }

    /// Gives it a BMC that is reached at this port of its own loopback, as `ipmi_sim` offers it.
    #[must_use]
    pub fn with_bmc(mut self, port: u16) -> Self {
        // The BMC may be started after the machine, and again.
        let socket = format!("socket,id=bmc,host=127.0.0.1,port={port},reconnect=1");
        let devices = ["-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc", "-device", "isa-ipmi-kcs,bmc=bmc0"];
        self.command.extend(["-chardev".to_owned(), socket].map(OsString::from));
        self.command.extend(devices.map(OsString::from));
        self
    }

    /// A program that becomes the machine: what a BMC calls to switch it on.
    ///
    /// # Errors
    /// The file system's, or a path of the test is no text.
    pub fn script(&self) -> Result<PathBuf> {
        let words: Result<Vec<String>> = self.command.iter().map(|word| quoted(word)).collect();
        let script = self.folder.join("start");
        let log = quoted(self.folder.join("qemu.log").as_os_str())?;
        fs::write(&script, format!("#!/bin/sh\nexec {} </dev/null >>{log} 2>&1\n", words?.join(" ")))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(script)
    }

    /// Switches it on.
    ///
    /// # Errors
    /// It runs, or can't be started.
    pub fn on(&mut self) -> Result<()> {
        ensure!(self.pid().is_none(), "the machine is on");
        let (program, arguments) = self.command.split_first().context("a command has a program")?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("qemu.log"))?;
        let mut command = placed(&self.place, program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("starting QEMU")?);
        Ok(())
    }

    /// Cuts its power.
    pub fn off(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The child is ours and not reaped yet, so its id can't be another's.
            let _dead = child.kill();
            let _collected = child.wait();
        }
        if let Some(pid) = self.pid() {
            let _dead = kill_process(pid, Signal::KILL);
        }
    }

    /// Its process while it runs, whoever started it; stopped or not.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.folder.join("pid")).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let state = status.lines().find_map(|line| line.strip_prefix("State:"))?;
        // Its number may be somebody else's after its end.
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let own = String::from_utf8_lossy(&line).contains(&*self.folder.to_string_lossy());
        if own && !state.trim_start().starts_with('Z') { Pid::from_raw(pid) } else { None }
    }

    /// Whether it stands still, as a machine whose processors hang.
    ///
    /// # Errors
    /// It doesn't run.
    pub fn set_still(&self, still: bool) -> Result<()> {
        let pid = self.pid().context("the machine is off")?;
        Ok(kill_process(pid, if still { Signal::STOP } else { Signal::CONT })?)
    }

    /// All that it has shown so far.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read(self.folder.join("console"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// What comes after a text on the lines of the console that have it, without the spaces around it.
    #[must_use]
    pub fn said(&self, text: &str) -> Vec<String> {
        let console = self.console();
        let whole = console.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(|line| line.split_once(text)).map(|(_, rest)| rest.trim().to_owned()).collect()
    }

    /// Waits until so many lines of the console have this text, and gives what comes after it on each.
    ///
    /// # Errors
    /// They don't come in time, or the machine went off: tells the console's end.
    pub fn until_said(&self, text: &str, count: usize, within: Duration) -> Result<Vec<String>> {
        let said = until(&format!("line {count} with {text:?} on the console"), within, || {
            let said = self.said(text);
            ensure!(said.len() >= count, "{} so far", said.len());
            Ok(said)
        });
        said.with_context(|| self.end_of_console())
    }

    /// Waits for a node's boot of this number, the first is 1, and says whether the watchdog caused it.
    ///
    /// # Errors
    /// It doesn't come in time, or says nothing of that.
    pub fn until_booted(&self, number: usize, within: Duration) -> Result<bool> {
        let said = self.until_said(UP, number, within)?;
        let line = said.get(number - 1).context("a line for each boot")?;
        let status = line.split_once("watchdog ").and_then(|(_, status)| status.trim().parse::<u32>().ok());
        Ok(status.with_context(|| format!("the boot says nothing of the watchdog: {line}"))? & CARD_RESET != 0)
    }

    /// How often a node has booted.
    #[must_use]
    pub fn boots(&self) -> usize {
        self.said(UP).len()
    }

    /// The last lines of the console, and what QEMU itself says.
    #[must_use]
    pub fn end_of_console(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        let qemu = fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
        format!("the console:\n{}\nQEMU: {qemu}", lines[lines.len().saturating_sub(60)..].join("\n"))
    }
}

impl Drop for VirtualMachine {
    fn drop(&mut self) {
        self.off();
    }
}

/// A folder that a variable names. A test that needs it fails without it.
fn named_folder(variable: &str, what: &str, holds: &str) -> Result<PathBuf> {
    let folder = std::env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: it names {what} (tests/hardware/run does that)"))?;
    ensure!(folder.join(holds).is_file(), "{} holds no {holds}: {variable} names {what}", folder.display());
    Ok(folder)
}

/// The machine's own files, beside those of the node that it is.
fn folder_beside(of: &Path) -> Result<PathBuf> {
    let folder = of.with_extension("vm");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What every machine has: no device but those that are named, a console that is kept across its boots, and its number.
fn qemu_command(qemu: &Path, folder: &Path, more: &[&str]) -> Result<Vec<OsString>> {
    ensure!(
        !folder.to_string_lossy().contains(','),
        "{} has a comma, by which QEMU parts its options",
        folder.display()
    );
    let mut command = vec![qemu.as_os_str().to_owned()];
    command.extend(more.iter().map(OsString::from));
    command.extend(["-nodefaults", "-no-user-config", "-accel", "tcg", "-display", "none"].map(OsString::from));
    let console = folder.join("console");
    command.extend(["-chardev".into(), joined(&["file,id=console,append=on,path=".as_ref(), console.as_os_str()])]);
    command.extend(["-serial", "chardev:console"].map(OsString::from));
    command.extend(["-pidfile".into(), folder.join("pid").into_os_string()]);
    Ok(command)
}

/// The machine's wire: the place of its namespace at the switch.
fn wire(command: &mut Vec<OsString>, network: &Network, host: &str) -> Result<()> {
    let tap = network.give_place(host)?;
    let device = format!("virtio-net-pci,netdev=net,romfile=,mac={}", network.mac(host)?);
    let wire = format!("tap,id=net,ifname={tap},script=no,downscript=no");
    command.extend(["-netdev", &wire, "-device", &device].map(OsString::from));
    Ok(())
}

/// A disk that a node's machine goes on from: busybox, the agent with its libraries, and the node's data where they were.
fn disk_of(node: &Node, address: Ipv4Addr, shared: &Path, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    for path in ["bin", "dev", "proc", "sys", "run", "tmp"] {
        fs::create_dir_all(root.join(path))?;
    }
    let guest = named_folder(GUEST_VARIABLE, "the folder that tests/hardware/guest prints", "root/bin/busybox")?;
    fs::copy(guest.join("root/bin/busybox"), root.join("bin/busybox"))?;
    let agent = Program::Agent.path()?;
    // The service's script needs it, and Debian's busybox has none.
    let flock = tool("flock", "util-linux")?;
    copy(&flock, &root)?;
    for library in [libraries(&agent)?, libraries(&flock)?].concat() {
        copy(&library, &root)?;
    }
    let own = below(&root, &agent)?;
    fs::create_dir_all(own.parent().context("a program lies in a folder")?)?;
    let mut strip = Command::new(tool("strip", "binutils")?);
    strip.arg("-o").args([&own, &agent]);
    run(strip)?.done().context("leaving the agent's symbols behind")?;
    fs::create_dir_all(below(&root, shared)?)?;
    let data = below(&root, &node.data())?;
    fs::create_dir_all(data.parent().context("a node has a folder")?)?;
    let mut all = Command::new("cp");
    all.arg("-a").args([&node.data(), &data]);
    run(all)?.done().context("copying the node's data")?;
    let mut words = vec![quoted(&joined(&[MACHINE_VARIABLE.as_ref(), "=".as_ref(), node.folder().as_os_str()]))?];
    words.extend(["NO_COLOR=1".to_owned(), quoted(agent.as_os_str())?, "supervise --data".to_owned()]);
    words.push(quoted(node.data().as_os_str())?);
    let init = INIT
        .replace("@ADDRESS@", &address.to_string())
        .replace("@SHARED@", &quoted(shared.as_os_str())?)
        .replace("@UP@", UP)
        .replace("@COMMAND@", &words.join(" "));
    fs::write(root.join("init"), init)?;
    for program in ["init", "bin/busybox"] {
        fs::set_permissions(root.join(program), fs::Permissions::from_mode(0o755))?;
    }
    let disk = folder.join("disk");
    fs::File::create(&disk)?.set_len(DISK)?;
    let mut make = Command::new(tool("mke2fs", "e2fsprogs")?);
    make.args(["-q", "-F", "-t", "ext4", "-d"]).args([&root, &disk]);
    run(make)?.done().context("making the machine's disk")?;
    fs::remove_dir_all(&root)?;
    Ok(disk)
}

/// The libraries that a program of this machine loads, and who loads them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new(tool("ldd", "libc-bin")?);
    command.arg(program);
    let said = run(command)?.done().context("asking for the agent's libraries")?;
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    let paths: Vec<PathBuf> = paths.map(PathBuf::from).collect();
    if paths.is_empty() {
        bail!("the agent's libraries are not told: {said}");
    }
    Ok(paths)
}

/// Copies a file of this machine to the same place below a root.
fn copy(file: &Path, root: &Path) -> Result<()> {
    let to = below(root, file)?;
    fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
    fs::copy(file, &to).with_context(|| format!("copying {}", file.display()))?;
    Ok(())
}

fn below(root: &Path, path: &Path) -> Result<PathBuf> {
    Ok(root.join(path.strip_prefix("/").with_context(|| format!("{} is no whole path", path.display()))?))
}

fn joined(parts: &[&OsStr]) -> OsString {
    parts.iter().fold(OsString::new(), |mut all, part| {
        all.push(part);
        all
    })
}

/// A word for a shell.
fn quoted(word: &OsStr) -> Result<String> {
    let word = word.to_str().context("a path of the test is no text")?;
    ensure!(!word.contains('\''), "{word} can't be quoted");
    Ok(format!("'{word}'"))
}

//! The virtual machine: QEMU with software emulation, because a KVM that opens need not be one that boots a stock kernel.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::pki::run_quietly;
use super::super::process::wait_until;
use super::Air;
use super::leash::Leashed;

/// It takes 6 s on an idle machine.
const BOOT: Duration = Duration::from_secs(120);
/// A script that has not ended by then hangs.
const SCRIPT: Duration = Duration::from_secs(120);
/// What the guest knows this machine's loopback as.
pub const HOST: &str = "10.0.2.2";
/// Where the guest hands its bus out, to whoever says to be root.
const BUS_PORT: u16 = 7;

pub struct Guest {
    directory: TempDir,
    qemu: Leashed,
    control: Mutex<Control>,
    bus_port: u16,
    /// From switching it on to a shell.
    pub took: Duration,
    // One guest at a time is what two cores can carry.
    _only: File,
}

struct Control {
    stream: BufReader<UnixStream>,
    asked: u64,
}

/// What a script in the guest came to.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub output: String,
}

impl Guest {
    /// With D-Bus, and nothing of Bluetooth yet. `disk` is what the guest has as /gateway.
    pub fn boot(air: &Air, disk: Option<&Path>) -> Self {
        let only = File::create(super::prepared("guest.lock")).expect("a file to lock");
        only.lock().expect("no other guest runs");
        let directory = TempDir::new().expect("a directory for the guest");
        let bus_port = TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a free port").port();
        let command = qemu(directory.path(), air, disk, bus_port);
        let started = Instant::now();
        let output = directory.path().join("qemu");
        let qemu = Leashed::start(&command, &output, false);
        let socket = directory.path().join("control");
        let mut stream = None;
        wait_until(Duration::from_secs(20), || {
            stream = UnixStream::connect(&socket).ok();
            stream.is_some()
        });
        let said = || {
            let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&[read("qemu"), read("console")].concat()).into_owned()
        };
        let stream = stream.unwrap_or_else(|| panic!("QEMU does not start:\n{}", said()));
        stream.set_read_timeout(Some(BOOT)).expect("a time limit");
        let mut stream = BufReader::new(stream);
        let mut up = String::new();
        let heard = stream.read_line(&mut up);
        assert!(heard.is_ok() && up.starts_with("up "), "the guest does not boot ({heard:?}, {up:?}):\n{}", said());
        stream.get_ref().set_read_timeout(Some(SCRIPT)).expect("a time limit");
        let took = started.elapsed();
        let guest = Self { directory, qemu, control: Mutex::new(Control { stream, asked: 0 }), bus_port, took, _only: only };
        guest.must("date -s @$(date +%s) >/dev/null; ulimit -c 0");
        guest
    }

    /// Runs a shell script to its end.
    pub fn run(&self, script: &str) -> Ran {
        let mut control = self.control.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        control.asked += 1;
        let line = format!("{} {}\n", control.asked, hex(script));
        let mut answer = String::new();
        let asked = control.stream.get_mut().write_all(line.as_bytes()).and_then(|()| control.stream.read_line(&mut answer));
        let mut parts = answer.split_whitespace();
        let number = parts.next().and_then(|number| number.parse::<u64>().ok());
        assert!(
            asked.is_ok() && number == Some(control.asked),
            "the guest answers {script:?} with {asked:?} {answer:?}:\n{}",
            self.console()
        );
        let status = parts.next().and_then(|status| status.parse().ok()).unwrap_or(-1);
        let output = from_hex(parts.next().unwrap_or_default());
        Ran { status, output: String::from_utf8_lossy(&output).into_owned() }
    }

    /// The output of a script that must succeed.
    pub fn must(&self, script: &str) -> String {
        let ran = self.run(script);
        assert!(ran.status == 0, "{script:?} in the guest: {ran:?}");
        ran.output
    }

    pub fn wait_for(&self, what: &str, limit: Duration, script: &str) {
        let came = wait_until(limit, || self.run(script).status == 0);
        assert!(came, "{what}: not within {limit:?}\n{}", self.logs());
    }

    /// Runs it again whenever it ends, until `leave`.
    pub fn keep(&self, name: &str, command: &str) {
        self.must(&format!("setsid keep {name} {command} </dev/null >/dev/null 2>&1 &"));
        self.wait_for(name, Duration::from_secs(10), &format!("[ -s /run/{name}.pid ]"));
    }

    pub fn leave(&self, name: &str, signal: &str) {
        self.must(&format!("rm -f /run/keep/{name}; kill -{signal} $(cat /run/{name}.pid); rm -f /run/{name}.pid"));
    }

    /// The controller is attached as a UART's, as on a Raspberry Pi.
    pub fn plug_adapter(&self) {
        self.must("stty -F /dev/hvc0 raw -echo");
        self.keep("adapter", "btattach -B /dev/hvc0 -P h4");
        self.wait_for("the adapter", Duration::from_secs(20), "[ -e /sys/class/bluetooth/hci0 ]");
    }

    pub fn unplug_adapter(&self) {
        self.leave("adapter", "KILL");
        self.wait_for("no adapter", Duration::from_secs(20), "[ ! -e /sys/class/bluetooth/hci0 ]");
    }

    /// Debian's own configuration. It comes back by itself, as under systemd with `Restart=always`, until `leave`.
    pub fn start_bluetoothd(&self) {
        self.keep("bluetoothd", "bluetoothd -n");
        self.wait_for("bluetoothd", Duration::from_secs(20), &format!("{CALL} / org.freedesktop.DBus.Peer.Ping"));
    }

    pub fn set_powered(&self, on: bool) {
        let set = "org.freedesktop.DBus.Properties.Set string:org.bluez.Adapter1 string:Powered";
        self.wait_for("powered", Duration::from_secs(20), &format!("{CALL} /org/bluez/hci0 {set} variant:boolean:{on}"));
    }

    /// The guest's system bus, for clients here.
    pub fn bus(&self) -> String {
        let to = "UNIX-CONNECT:/run/dbus/system_bus_socket";
        self.keep("bus", &format!("socat TCP-LISTEN:{BUS_PORT},fork,reuseaddr {to}"));
        self.wait_for("the bus", Duration::from_secs(10), &format!("netstat -ltn | grep -q ':{BUS_PORT} '"));
        format!("tcp:host=127.0.0.1,port={}", self.bus_port)
    }

    /// QEMU is killed where it stands. What the guest has not written to its disk is lost.
    pub fn cut_power(mut self) {
        self.qemu.kill();
    }

    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.path().join("console")).unwrap_or_default()).into_owned()
    }

    /// The end of every log there is.
    pub fn logs(&self) -> String {
        let of_guest = self.run("cd /run/log; for log in *; do echo \"--- $log\"; tail -n 60 $log; done; dmesg | tail -n 15");
        format!("{}\n--- console\n{}", of_guest.output, self.console())
    }
}

/// A method call on bluetoothd.
const CALL: &str = "dbus-send --system --print-reply --dest=org.bluez";

fn qemu(directory: &Path, air: &Air, disk: Option<&Path>, bus_port: u16) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    let image = |part: &str| super::prepared("image").join(part);
    let path = |name: &str| directory.join(name).display().to_string();
    let pairs: Vec<(&str, String)> = vec![
        ("-machine", "pc,vmport=off".into()),
        ("-accel", "tcg,thread=multi".into()),
        ("-cpu", "max".into()),
        ("-smp", "2".into()),
        ("-m", "512".into()),
        ("-display", "none".into()),
        ("-kernel", image("kernel").display().to_string()),
        ("-initrd", image("initrd").display().to_string()),
        // Without what slows an emulated start; a panic ends the machine instead of waiting.
        (
            "-append",
            "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr tsc=reliable random.trust_cpu=on \
             cryptomgr.notests"
                .into(),
        ),
        ("-serial", format!("file:{}", path("console"))),
        ("-device", "virtio-rng-pci".into()),
        ("-device", "virtio-serial-pci".into()),
        ("-chardev", format!("socket,id=control,path={},server=on,wait=off", path("control"))),
        ("-device", "virtserialport,chardev=control,name=control".into()),
        ("-chardev", format!("socket,id=hci,path={}", air.hci().display())),
        ("-device", "virtconsole,chardev=hci".into()),
        ("-netdev", format!("user,id=net,hostfwd=tcp:127.0.0.1:{bus_port}-:{BUS_PORT}")),
        ("-device", "virtio-net-pci,netdev=net,romfile=".into()),
    ];
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    qemu.args(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    if let Some(disk) = disk {
        // A write the guest has not flushed may be lost with its power; one it has is on the file.
        qemu.arg("-drive").arg(format!("file={},if=virtio,format=raw,cache=writeback", disk.display()));
    }
    qemu
}

/// A file system of `directory`'s contents, with `mib` to write into.
pub fn make_disk(directory: &Path, disk: &Path, mib: u64) -> PathBuf {
    let size = format!("{mib}M");
    let mut make = Command::new("mke2fs");
    // Where it is in the path of root alone.
    make.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    run_quietly(make.args(["-q", "-t", "ext4", "-m", "0", "-d"]).arg(directory).arg(disk).arg(size));
    disk.to_owned()
}

fn hex(text: &str) -> String {
    text.bytes().map(|octet| format!("{octet:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    digits.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

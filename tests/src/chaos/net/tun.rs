//! Network namespaces with one TUN device each, and a switch in this process between them: each IP packet that a member sends passes
//! through here, and is carried, delayed, lost, doubled or overtaken as the policy of its ordered pair says. TCP above it has to cope.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep_until};
use tun_rs::{AsyncDevice, DeviceBuilder};

use super::{Inner, Policy};

/// Where members listen.
const PORT: u16 = 7_420;
/// Bytes of a packet at most.
const MTU: u16 = 1_400;
/// The last part of this machine's own address in the network; members have their ids.
const HOST: u8 = 254;
/// Packets that are held at once, at most; what comes above that is lost, as in any switch.
const MOST_HELD: u64 = 4_096;
/// How long a packet is held that others overtake, in milliseconds.
const OVERTAKEN_MS: (u64, u64) = (3, 40);
/// Under a bound of bytes per second, packets that would wait longer are lost.
const LONGEST_QUEUE: Duration = Duration::from_millis(300);

/// One network. Devices and namespaces are taken away when it is dropped.
pub(super) struct Switch {
    ports: Arc<Ports>,
    runtime: tokio::runtime::Handle,
    /// Distinguishes it from others of this and other processes.
    tag: String,
    subnet: [u8; 3],
    namespaces: Mutex<Vec<String>>,
}

/// What was done to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Sent by somebody.
    pub seen: u64,
    /// Lost, those on cut links among them.
    pub lost: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Held while others overtook them.
    pub overtaken: u64,
}

/// The side of the switch that tasks share.
struct Ports {
    inner: Arc<Inner>,
    devices: Mutex<BTreeMap<u8, Arc<AsyncDevice>>>,
    /// When the last byte of each pair will have passed, where bytes per second are bounded.
    busy_until: Mutex<BTreeMap<(u8, u8), Instant>>,
    held: AtomicU64,
    seen: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    overtaken: AtomicU64,
}

/// Why this machine does not allow it; `None` where it does. It is tried once.
pub fn forbidden() -> Option<String> {
    static TRIED: OnceLock<Option<String>> = OnceLock::new();
    TRIED.get_or_init(|| attempt().err()).clone()
}

fn attempt() -> Result<(), String> {
    if !Path::new("/dev/net/tun").exists() {
        return Err("there is no /dev/net/tun".to_owned());
    }
    let name = format!("plimsoll-try-{}", std::process::id());
    ip(&["netns", "add", &name])?;
    let device = format!("plt{}", std::process::id());
    let tried = ip(&["-n", &name, "tuntap", "add", "dev", &device, "mode", "tun"]);
    ip(&["netns", "del", &name])?;
    tried
}

impl Switch {
    /// A network with nobody but this machine in it.
    pub(super) fn new(inner: Arc<Inner>, runtime: tokio::runtime::Handle) -> Result<Switch, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let byte = |value: u32| u8::try_from(value % 200).expect("below 200");
        let ports = Ports {
            inner,
            devices: Mutex::default(),
            busy_until: Mutex::default(),
            held: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
            overtaken: AtomicU64::new(0),
        };
        let switch = Switch {
            ports: Arc::new(ports),
            runtime,
            // Names of devices have room for fifteen characters.
            tag: format!("{}x{}", pid % 1_000_000, number % 100),
            subnet: [10, 50 + byte(pid / 200), byte(pid + number)],
            namespaces: Mutex::default(),
        };
        let device = switch.plug(HOST)?;
        ip(&["addr", "add", &format!("{}/24", switch.address(HOST)), "dev", &device])?;
        ip(&["link", "set", &device, "up"])?;
        Ok(switch)
    }

    /// Makes the namespace of a member: where it listens, and the command that becomes a process there.
    pub(super) fn attach(&self, member: u64) -> Result<(String, Vec<String>), String> {
        let number = u8::try_from(member).ok().filter(|number| *number < HOST);
        let number = number.ok_or_else(|| format!("there is no place for member {member}"))?;
        let namespace = format!("plimsoll-{}-{number}", self.tag);
        ip(&["netns", "add", &namespace])?;
        self.namespaces.lock().expect("nothing panics under this lock").push(namespace.clone());
        let device = self.plug(number)?;
        ip(&["link", "set", &device, "netns", &namespace])?;
        let inside = |arguments: &[&str]| ip(&[&["-n", namespace.as_str()], arguments].concat());
        inside(&["addr", "add", &format!("{}/24", self.address(number)), "dev", &device])?;
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "set", &device, "up"])?;
        let enter = ["ip", "netns", "exec", &namespace].map(str::to_owned).to_vec();
        Ok((format!("{}:{PORT}", self.address(number)), enter))
    }

    /// What was done to packets so far.
    pub(super) fn packets(&self) -> Packets {
        let ports = &self.ports;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Packets {
            seen: read(&ports.seen),
            lost: read(&ports.lost),
            doubled: read(&ports.doubled),
            overtaken: read(&ports.overtaken),
        }
    }

    fn address(&self, number: u8) -> String {
        let [a, b, c] = self.subnet;
        format!("{a}.{b}.{c}.{number}")
    }

    /// Makes a device and carries what comes from it, until the switch is dropped; its name.
    fn plug(&self, number: u8) -> Result<String, String> {
        let name = format!("pl{}m{number}", self.tag);
        let failed = |error: io::Error| format!("a TUN device: {error}");
        let _entered = self.runtime.enter();
        let device = Arc::new(DeviceBuilder::new().name(&name).mtu(MTU).build_async().map_err(failed)?);
        self.ports.devices().insert(number, Arc::clone(&device));
        let ports = Arc::clone(&self.ports);
        self.runtime.spawn(async move {
            let mut packet = vec![0; usize::from(MTU) + 100];
            loop {
                match device.recv(&mut packet).await {
                    Ok(length) => ports.carry(number, &packet[..length]),
                    // The device is down while it moves into its namespace.
                    Err(_) if ports.is_plugged(number) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(_) => return,
                }
            }
        });
        Ok(name)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.ports.devices().clear();
        for namespace in self.namespaces.lock().expect("nothing panics under this lock").drain(..) {
            drop(ip(&["netns", "del", &namespace]));
        }
    }
}

impl Ports {
    fn devices(&self) -> MutexGuard<'_, BTreeMap<u8, Arc<AsyncDevice>>> {
        self.devices.lock().expect("nothing panics under this lock")
    }

    fn is_plugged(&self, number: u8) -> bool {
        self.devices().contains_key(&number)
    }

    /// One packet from a member, or from this machine.
    fn carry(self: &Arc<Ports>, from: u8, packet: &[u8]) {
        let Some(to) = receiver(packet).filter(|to| *to != from) else { return };
        let Some(device) = self.devices().get(&to).cloned() else { return };
        self.seen.fetch_add(1, Ordering::Relaxed);
        let member = |number: u8| (number != HOST).then_some(u64::from(number));
        let policy = self.inner.policy(member(from), member(to));
        let mut random = rand::rng();
        let mut strikes = |permille: u32| permille > 0 && random.random_range(0..1_000) < permille;
        if policy.cut || strikes(policy.lose_permille) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let copies = if strikes(policy.double_permille) { 2 } else { 1 };
        self.doubled.fetch_add(copies - 1, Ordering::Relaxed);
        let is_overtaken = strikes(policy.overtake_permille);
        self.overtaken.fetch_add(u64::from(is_overtaken), Ordering::Relaxed);
        for _ in 0..copies {
            let Some(wait) = self.wait(from, to, packet.len(), policy, is_overtaken) else {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if wait.is_zero() {
                // Where the receiver's queue is full the packet is lost, as in any switch.
                drop(device.try_send(packet));
            } else if self.held.fetch_add(1, Ordering::Relaxed) < MOST_HELD {
                tokio::spawn(Arc::clone(self).send_later(Arc::clone(&device), packet.to_vec(), wait));
            } else {
                self.held.fetch_sub(1, Ordering::Relaxed);
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn send_later(self: Arc<Ports>, device: Arc<AsyncDevice>, packet: Vec<u8>, wait: Duration) {
        sleep_until(Instant::now() + wait).await;
        drop(device.try_send(&packet));
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// How long a packet is held; `None` where there is no room for it.
    fn wait(&self, from: u8, to: u8, bytes: usize, policy: Policy, is_overtaken: bool) -> Option<Duration> {
        let mut random = rand::rng();
        let mut wait_ms = policy.delay_ms;
        if policy.jitter_ms > 0 {
            wait_ms += random.random_range(0..=policy.jitter_ms);
        }
        if is_overtaken {
            wait_ms += random.random_range(OVERTAKEN_MS.0..=OVERTAKEN_MS.1);
        }
        let mut wait = Duration::from_millis(wait_ms);
        if let Some(micros) = (bytes as u64 * 1_000_000).checked_div(policy.bytes_per_s) {
            let now = Instant::now();
            let mut busy_until = self.busy_until.lock().expect("nothing panics under this lock");
            let free_at = busy_until.get(&(from, to)).copied().unwrap_or(now).max(now);
            if free_at - now > LONGEST_QUEUE {
                return None;
            }
            let passed_at = free_at + Duration::from_micros(micros);
            busy_until.insert((from, to), passed_at);
            wait += passed_at - now;
        }
        Some(wait)
    }
}

/// The last part of the address that an IPv4 packet is for.
fn receiver(packet: &[u8]) -> Option<u8> {
    (packet.len() >= 20 && packet[0] >> 4 == 4).then(|| packet[19])
}

/// Runs the command that configures networks.
fn ip(arguments: &[&str]) -> Result<(), String> {
    let said = |what: &str| format!("ip {}: {}", arguments.join(" "), what.trim());
    let output = Command::new("ip").args(arguments).output().map_err(|error| said(&error.to_string()))?;
    if output.status.success() { Ok(()) } else { Err(said(&String::from_utf8_lossy(&output.stderr))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_is_read_from_the_packet() {
        let mut packet = [0u8; 40];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(receiver(&packet), Some(3));
        packet[0] = 0x60;
        assert_eq!(receiver(&packet), None, "IPv6 is not carried");
        assert_eq!(receiver(&packet[..10]), None);
    }
}

//! An independent receiver: Debian's `mosquitto_sub` with MQTT 5, QoS 1 and a persistent session. What it prints is all a
//! test learns about what arrived.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::pki::Identity;
use super::process::wait_until;
use super::receipts::Receipts;
use super::unbatch;

/// How a zstd frame begins.
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// A message, or a record of a batch.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: String,
    pub retained: bool,
    /// Parsed; its numbers are binary floats, so compare digits in `raw`. `Null` when the payload is no JSON.
    pub payload: serde_json::Value,
    pub raw: String,
    pub at: Instant,
}

#[derive(Clone, Debug)]
pub struct Receiver {
    pub port: u16,
    pub client_id: String,
    pub topic: String,
    pub tls: Option<(PathBuf, Option<Identity>)>,
    pub login: Option<(String, String)>,
}

impl Receiver {
    /// One of mosquitto's programs, told where to connect and as whom.
    pub(super) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.connect_with(&mut command);
        command
    }

    fn connect_with(&self, command: &mut Command) {
        let Self { port, tls, login, .. } = self;
        command.args(["-V", "mqttv5", "-q", "1", "-h", "127.0.0.1", "-p", &port.to_string()]);
        if let Some((ca, identity)) = tls {
            command.arg("--cafile").arg(ca);
            if let Some(identity) = identity {
                command.arg("--cert").arg(&identity.cert).arg("--key").arg(&identity.key);
            }
        }
        if let Some((user, password)) = login {
            command.args(["-u", user, "-P", password]);
        }
    }
}

#[derive(Default)]
struct Said {
    messages: Vec<Message>,
    count: usize,
    subscriptions: usize,
    /// What else it said, for a failure.
    rest: Vec<String>,
}

/// What a subscriber has heard so far, for whoever follows it from another thread.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Said>>);

impl Heard {
    /// Up to `limit` messages from the `first`th on.
    pub fn from(&self, first: usize, limit: usize) -> Vec<Message> {
        self.lock().messages.iter().skip(first).take(limit).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pub struct Subscriber {
    receiver: Receiver,
    heard: Heard,
    child: Option<(Child, JoinHandle<()>)>,
}

impl Subscriber {
    /// Returns once the broker has acknowledged the subscription.
    pub fn start(receiver: Receiver) -> Self {
        let mut subscriber = Self { receiver, heard: Heard::default(), child: None };
        subscriber.resume();
        subscriber
    }

    pub fn messages(&self) -> Vec<Message> {
        self.heard.lock().messages.clone()
    }

    /// Confirms what comes to `topic`, until what is answered is dropped.
    pub fn confirm(&self, topic: &str) -> Receipts {
        Receipts::start(self.receiver.clone(), self.heard.clone(), topic.to_owned())
    }

    /// Messages so far; the gateways' own status, which brokers say by themselves too, and receipts left out.
    pub fn count(&self) -> usize {
        self.heard.lock().count
    }

    /// Waits until everything the broker has for it has come: a broker delivers in order, and this message is the last.
    pub fn drain(&self, limit: Duration) {
        let last = format!("drained {}", self.count());
        let topic = self.receiver.topic.replace('#', "drain");
        let mut command = self.receiver.client("mosquitto_pub");
        command.args(["-i", "drain", "-t", &topic, "-m", &last]);
        super::pki::run_quietly(&mut command);
        let came = self.wait_until(limit, |messages| messages.iter().rev().any(|message| message.raw == last));
        assert!(came, "what was published last to {topic} never came");
    }

    /// Waits until `condition` holds for all messages so far; says whether it did in time.
    pub fn wait_until(&self, limit: Duration, condition: impl Fn(&[Message]) -> bool) -> bool {
        wait_until(limit, || condition(&self.heard.lock().messages))
    }

    /// Goes away; the broker keeps its session.
    pub fn stop(&mut self) {
        if let Some((mut child, reader)) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            let _ = reader.join();
        }
    }

    pub fn resume(&mut self) {
        self.stop();
        let before = self.heard.lock().subscriptions;
        let mut child = self.command().spawn().expect("mosquitto_sub starts (Debian package mosquitto-clients)");
        let output = child.stdout.take().expect("it is piped");
        let heard = self.heard.clone();
        let read = move || BufReader::new(output).lines().map_while(Result::ok).for_each(|line| hear(&heard, &line));
        self.child = Some((child, std::thread::spawn(read)));
        let subscribed = wait_until(Duration::from_secs(10), || self.heard.lock().subscriptions > before);
        assert!(subscribed, "mosquitto_sub could not subscribe to {}: {:?}", self.receiver.topic, self.heard.lock().rest);
    }

    fn command(&self) -> Command {
        let Receiver { client_id, topic, .. } = &self.receiver;
        // It flushes only after a message; when the subscription stands must be heard at once.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub"]);
        // -d also says when the subscription stands; -x keeps the session for a day.
        command.args(["-d", "-c", "-x", "86400", "-i", client_id, "-t", topic, "-F", r"%r\t%t\t%x"]);
        self.receiver.connect_with(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop();
    }
}

fn hear(heard: &Heard, line: &str) {
    let mut parts = line.splitn(3, '\t');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(retained @ ("0" | "1")), Some(topic), Some(digits)) => {
            let mut heard = heard.lock();
            heard.count += usize::from(!["/status", "/receipt/"].iter().any(|part| topic.contains(part)));
            for raw in texts(digits) {
                let payload = serde_json::from_str(&raw).unwrap_or_default();
                let topic = topic.to_owned();
                heard.messages.push(Message { topic, retained: retained == "1", payload, raw, at: Instant::now() });
            }
        }
        (Some(said), ..) if said.starts_with("Subscribed") => heard.lock().subscriptions += 1,
        _ => heard.lock().rest.push(line.to_owned()),
    }
}

/// The payload, or the records of a batch.
fn texts(digits: &str) -> Vec<String> {
    let octet = |n: usize| u8::from_str_radix(digits.get(n..n + 2)?, 16).ok();
    let octets: Vec<u8> = (0..digits.len()).step_by(2).map_while(octet).collect();
    match octets.starts_with(&ZSTD) {
        true => unbatch::records(&octets),
        false => vec![String::from_utf8_lossy(&octets).into_owned()],
    }
}

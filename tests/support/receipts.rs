//! A receiving application that confirms what it has: every message, repeats too, a batch of delivery ids at a time.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ledger::Arrived;
use super::subscriber::{Heard, Receiver};

/// A receipt for what came within this.
const EVERY: Duration = Duration::from_millis(200);
/// Delivery ids in one receipt: below the usual limit of a packet, and of an argument.
const AT_ONCE: usize = 500;

/// Ends with its drop.
pub struct Receipts {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receipts {
    /// Confirms to `topic` what `receiver` hears.
    pub(super) fn start(receiver: Receiver, heard: Heard, topic: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut next = 0;
            while !stopped.load(SeqCst) {
                std::thread::sleep(EVERY);
                let messages = heard.from(next, AT_ONCE);
                let ids: Vec<String> =
                    messages.iter().filter_map(|message| Arrived::parse(&message.raw)).map(|arrived| arrived.receipt()).collect();
                // What a broker that is away did not take is confirmed again.
                if ids.is_empty() || publish(&receiver, &topic, &ids) {
                    next += messages.len();
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn publish(receiver: &Receiver, topic: &str, ids: &[String]) -> bool {
    let receipt = serde_json::json!({ "schema": "bedrail.receipt/1", "received": ids }).to_string();
    let mut command: Command = receiver.client("mosquitto_pub");
    command.args(["-i", "receipts", "-t", topic, "-m", &receipt]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

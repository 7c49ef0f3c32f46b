//! Bonds: who is paired and how, what a wrong passkey and a lost bond come to, and what people do about it. On a fake
//! bluetoothd and a real bus; each test of the radio runs in a child process with a bus of its own.

// Clippy lets only the test functions themselves unwrap, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use bedrail::radio::{
    Bond, BondState, Bonds, Deadlines, Durable, EVENT_QUEUE, Pace, Priority, RadioDevice, RadioError, RadioEvent, RadioSettings,
    RequestError, Requests, STANDS_BY, Sharing, Visits, What, run,
};
use bedrail::reading::{DeviceId, SecurityLevel};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use support::bluez::{AdapterSpec, DeviceSpec, FakeBluez, Forgot};
use support::bus::on_a_bus_of_its_own;
use support::devices::{Kind, VirtualDevice};

const LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);
/// Long enough for several attempts with the deadlines below.
const WHILE: Duration = Duration::from_millis(700);
const ADAPTER: &str = "00:11:22:33:44:55";
const CUFF: &str = "C0:FF:EE:00:00:21";
const STRAP: &str = "C0:FF:EE:00:00:22";

fn id(address: &str) -> DeviceId {
    address.parse().unwrap()
}

fn passkey(digits: &str) -> Bond {
    Bond::Passkey(digits.parse().unwrap())
}

fn cuff() -> VirtualDevice {
    VirtualDevice::new(Kind::Cuff, CUFF, "cuff")
}

fn strap() -> VirtualDevice {
    VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap")
}

fn wanted(device: &VirtualDevice, bond: Bond) -> RadioDevice {
    RadioDevice {
        id: id(&device.address),
        name: device.name.clone(),
        subscribe: vec![device.characteristic()],
        profile: None,
        read: vec![],
        clock: vec![],
        ask_nameplate: false,
        bond,
        adapter: None,
        visit: Visits::default(),
        adverts: vec![],
        expect_every: None,
        priority: Priority::Normal,
        streams: false,
    }
}

/// What it measures needs an encrypted link; `passkey` is the one it shows.
fn guarded(device: &VirtualDevice, passkey: Option<u32>) -> DeviceSpec {
    let mut spec = device.spec();
    let all = spec.services.iter_mut().flat_map(|service| &mut service.characteristics);
    all.filter(|characteristic| characteristic.uuid == device.characteristic()).for_each(|c| c.encrypted = true);
    spec.behaviour.passkey = passkey;
    spec
}

fn room(bus: &str, devices: Vec<DeviceSpec>) -> FakeBluez {
    let bluez = FakeBluez::start(bus);
    bluez.add_adapter(AdapterSpec::new("hci0", ADAPTER));
    for spec in devices {
        let address = spec.address.clone();
        bluez.add_device("hci0", spec);
        bluez.advertise(&address, -60);
    }
    bluez
}

struct Radio {
    events: mpsc::Receiver<RadioEvent>,
    seen: Vec<RadioEvent>,
    requests: Requests,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RadioError>>,
}

impl Radio {
    fn start(devices: Vec<RadioDevice>) -> Self {
        Self::with(devices, Bonds::default())
    }

    fn with(devices: Vec<RadioDevice>, bonds: Bonds) -> Self {
        let deadlines = Deadlines {
            connect: Duration::from_millis(1_500),
            resolve: Duration::from_secs(2),
            subscribe: Duration::from_secs(3),
            pair: Duration::from_millis(500),
            disconnect: Duration::from_secs(3),
            retry_first: Duration::from_millis(10),
            retry_most: Duration::from_millis(50),
            retry_suspect: Duration::from_secs(4),
            retry_quick: Duration::from_millis(10),
        };
        let requests = Requests::default();
        let settings = RadioSettings {
            adapters: vec![],
            devices,
            clock_decoder: |_, _| None,
            deadlines,
            pace: Pace::default(),
            sharing: Sharing::default(),
            durable: Durable::default(),
            bonds,
            requests: requests.clone(),
        };
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(settings, sender, stop.clone()));
        Self { events, seen: vec![], requests, stop, task }
    }

    async fn until(&mut self, what: &str, mut is_it: impl FnMut(&RadioEvent) -> bool) -> RadioEvent {
        let end = Instant::now() + SOON;
        loop {
            let event = timeout(end.saturating_duration_since(Instant::now()), self.events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("no {what} in time after {:?}", self.seen)).expect("the radio runs");
            self.seen.push(event.clone());
            if is_it(&event) {
                return event;
            }
        }
    }

    async fn ready(&mut self, address: &str) {
        let wanted = RadioEvent::Ready { device: id(address) };
        self.until("Ready", |event| *event == wanted).await;
    }

    async fn refused(&mut self, address: &str) -> String {
        let event = self.until("refusal", |event| is_bond(event, address, |state| matches!(state, BondState::Refused(_)))).await;
        let RadioEvent::Bond { state: BondState::Refused(why), .. } = event else { unreachable!() };
        why
    }

    async fn bond_lost(&mut self, address: &str) -> String {
        let event = self.until("lost bond", |event| is_bond(event, address, |state| matches!(state, BondState::Lost(_)))).await;
        let RadioEvent::Bond { state: BondState::Lost(why), .. } = event else { unreachable!() };
        why
    }

    async fn security_of(&mut self, bluez: &FakeBluez, device: &VirtualDevice) -> SecurityLevel {
        let emission = device.value(7, 0);
        assert!(bluez.notify(&device.address, emission.characteristic, &emission.octets), "it is listened to");
        let heard = |event: &RadioEvent| matches!(event, RadioEvent::Heard(heard) if heard.octets == emission.octets);
        let RadioEvent::Heard(heard) = self.until("value", heard).await else { unreachable!() };
        heard.security
    }

    /// Takes in what comes for so long.
    async fn quiet(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(Some(event)) = tokio::time::timeout_at(end, self.events.recv()).await {
            self.seen.push(event);
        }
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(SOON, self.task).await.expect("it stops").expect("it does not panic").expect("it stops in order");
    }
}

fn is_bond(event: &RadioEvent, address: &str, is_it: impl Fn(&BondState) -> bool) -> bool {
    matches!(event, RadioEvent::Bond { device, state } if *device == id(address) && is_it(state))
}

fn on_a_bus(name: &str, body: impl AsyncFnOnce(String)) {
    on_a_bus_of_its_own(name, LIMIT, |bus| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(body(bus));
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
}

#[test]
fn a_device_with_a_passkey_is_paired_and_trusted_and_its_readings_are_authenticated() {
    on_a_bus("a_device_with_a_passkey_is_paired_and_trusted_and_its_readings_are_authenticated", async |bus| {
        let bluez = room(&bus, vec![guarded(&cuff(), Some(42_137)), guarded(&strap(), None)]);
        let mut radio = Radio::start(vec![wanted(&cuff(), passkey("042137")), wanted(&strap(), Bond::JustWorks)]);
        radio.ready(CUFF).await;
        assert_eq!(bluez.agents(), ["KeyboardOnly"], "nobody is here to compare numbers");
        assert!(bluez.is_paired(CUFF) && bluez.count(CUFF, "Pair") == 1);
        let trusted = |call: &support::bluez::Call| call.member == "Set" && call.detail.contains("Trusted");
        assert!(bluez.calls().iter().any(trusted));
        assert_eq!(radio.security_of(&bluez, &cuff()).await, SecurityLevel::Authenticated);
        if !bluez.is_listening(STRAP, strap().characteristic()) {
            radio.ready(STRAP).await;
        }
        assert_eq!(radio.security_of(&bluez, &strap()).await, SecurityLevel::Encrypted);
        assert_eq!(bluez.count(STRAP, "Pair"), 0, "it asks by itself");

        // The bond outlives the link: no second pairing.
        bluez.drop_link(CUFF);
        radio.ready(CUFF).await;
        assert_eq!(radio.security_of(&bluez, &cuff()).await, SecurityLevel::Authenticated);
        assert_eq!(bluez.count(CUFF, "Pair"), 1);
        radio.end().await;
    });
}

#[test]
fn a_wrong_passkey_is_told_with_the_remedy_and_tried_once_while_others_go_on() {
    on_a_bus("a_wrong_passkey_is_told_with_the_remedy_and_tried_once_while_others_go_on", async |bus| {
        let bluez = room(&bus, vec![guarded(&cuff(), Some(111_222)), strap().spec()]);
        let mut radio = Radio::start(vec![wanted(&cuff(), passkey("654321")), wanted(&strap(), Bond::None)]);
        let why = radio.refused(CUFF).await;
        assert!(why.contains("\"cuff\"") && why.contains("passkey") && why.contains("bedrail pair cuff"), "{why}");
        radio.quiet(WHILE).await;
        assert_eq!(bluez.count(CUFF, "Pair"), 1, "a device locks up after too many");
        assert!(!bluez.is_paired(CUFF));
        let told = format!("{:?}", radio.seen);
        assert!(!told.contains("654321") && !told.contains("111222"), "{told}");
        assert_eq!(radio.security_of(&bluez, &strap()).await, SecurityLevel::None);

        bluez.with_behaviour(CUFF, |behaviour| behaviour.passkey = Some(654_321));
        radio.requests.ask(id(CUFF), What::Pair(STANDS_BY)).await.unwrap();
        radio.ready(CUFF).await;
        assert_eq!(radio.security_of(&bluez, &cuff()).await, SecurityLevel::Authenticated);
        radio.end().await;
    });
}

#[test]
fn a_passkey_is_given_to_its_own_device_alone_and_never_left_out() {
    on_a_bus("a_passkey_is_given_to_its_own_device_alone_and_never_left_out", async |bus| {
        // One shows a passkey and none is configured, the other has one configured and pairs without.
        let bluez = room(&bus, vec![guarded(&strap(), Some(42_137)), guarded(&cuff(), None)]);
        let mut radio = Radio::start(vec![wanted(&cuff(), passkey("042137")), wanted(&strap(), Bond::JustWorks)]);
        let why = radio.refused(CUFF).await;
        assert!(why.contains("without asking for its passkey") && why.contains("just-works"), "{why}");
        assert!(!bluez.is_paired(CUFF), "the bond is removed again");
        radio.quiet(WHILE).await;
        assert!(!bluez.is_paired(STRAP));
        let asks = |event: &RadioEvent| {
            is_bond(
                event,
                STRAP,
                |state| matches!(state, BondState::Refused(why) if why.contains("\"strap\" asks for a passkey")),
            )
        };
        assert!(radio.seen.iter().any(asks), "{:?}", radio.seen);
        radio.end().await;
    });
}

#[test]
fn a_pairing_that_is_not_answered_is_cancelled_and_tried_again() {
    on_a_bus("a_pairing_that_is_not_answered_is_cancelled_and_tried_again", async |bus| {
        let bluez = room(&bus, vec![guarded(&cuff(), Some(42_137))]);
        bluez.with_behaviour(CUFF, |behaviour| {
            behaviour.never_answers.insert("Pair");
        });
        let mut radio = Radio::start(vec![wanted(&cuff(), passkey("042137"))]);
        radio.until("failure", |event| matches!(event, RadioEvent::Lost { .. })).await;
        assert_eq!((bluez.count(CUFF, "Pair"), bluez.count(CUFF, "CancelPairing")), (1, 1));
        bluez.with_behaviour(CUFF, |behaviour| behaviour.never_answers.clear());
        radio.ready(CUFF).await;
        radio.end().await;

        // And when bedrail stops in the middle of one.
        let mut radio = Radio::start(vec![wanted(&cuff(), passkey("042137"))]);
        radio.ready(CUFF).await;
        radio.requests.ask(id(CUFF), What::Forget).await.unwrap();
        bluez.with_behaviour(CUFF, |behaviour| {
            behaviour.never_answers.insert("Pair");
        });
        let before = bluez.count(CUFF, "Pair");
        radio.requests.ask(id(CUFF), What::Pair(STANDS_BY)).await.unwrap();
        let end = Instant::now() + SOON;
        while bluez.count(CUFF, "Pair") == before && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        radio.end().await;
        assert_eq!(bluez.count(CUFF, "CancelPairing"), 2);
    });
}

#[test]
fn a_lost_bond_is_told_from_radio_trouble_and_never_paired_anew_by_itself() {
    on_a_bus("a_lost_bond_is_told_from_radio_trouble_and_never_paired_anew_by_itself", async |bus| {
        for (forgot, bond) in [(Forgot::Drops, passkey("042137")), (Forgot::Refuses, Bond::JustWorks)] {
            let shown = matches!(bond, Bond::Passkey(_)).then_some(42_137);
            let bluez = room(&bus, vec![guarded(&cuff(), shown), strap().spec()]);
            let mut radio = Radio::start(vec![wanted(&cuff(), bond), wanted(&strap(), Bond::None)]);
            radio.ready(CUFF).await;
            let paired = bluez.count(CUFF, "Pair");

            // Links that break, and a device that is away, are no lost bond.
            for _ in 0..5 {
                bluez.drop_link(CUFF);
                radio.ready(CUFF).await;
            }
            bluez.out_of_range(CUFF);
            radio.quiet(WHILE).await;
            assert!(
                !radio.seen.iter().any(|event| is_bond(event, CUFF, |s| matches!(s, BondState::Lost(_)))),
                "{:?}",
                radio.seen
            );

            bluez.with_behaviour(CUFF, |behaviour| behaviour.forgot_bond = Some(forgot));
            bluez.advertise(CUFF, -60);
            let why = radio.bond_lost(CUFF).await;
            assert!(why.contains("bedrail forget cuff") && why.contains("bedrail pair cuff"), "{why}");
            let connects = bluez.count(CUFF, "Connect");
            radio.quiet(WHILE).await;
            assert_eq!(bluez.count(CUFF, "Pair"), paired, "{forgot:?}: it is never paired by itself");
            assert!(bluez.count(CUFF, "Connect") <= connects + 1, "{forgot:?}: and hardly tried");
            assert_eq!(radio.security_of(&bluez, &strap()).await, SecurityLevel::None);

            let refused = radio.requests.ask(id(CUFF), What::Pair(STANDS_BY)).await.unwrap_err();
            assert_eq!(refused, RequestError::Bonded("cuff".to_owned()));
            radio.requests.ask(id(CUFF), What::Forget).await.unwrap();
            radio.quiet(WHILE).await;
            assert!(!bluez.is_paired(CUFF), "{forgot:?}: forgotten is not paired anew");
            radio.requests.ask(id(CUFF), What::Pair(STANDS_BY)).await.unwrap();
            radio.ready(CUFF).await;
            assert!(bluez.is_paired(CUFF) && bluez.count(CUFF, "Pair") == paired + 1, "{forgot:?}");
            radio.end().await;
        }
    });
}

#[test]
fn a_device_whose_bond_turns_out_to_be_there_is_taken_up_again() {
    on_a_bus("a_device_whose_bond_turns_out_to_be_there_is_taken_up_again", async |bus| {
        let bluez = room(&bus, vec![guarded(&cuff(), Some(42_137))]);
        let mut radio = Radio::start(vec![wanted(&cuff(), passkey("042137"))]);
        radio.ready(CUFF).await;
        bluez.with_behaviour(CUFF, |behaviour| behaviour.drop_before_resolve = Some(Duration::from_millis(20)));
        bluez.drop_link(CUFF);
        radio.bond_lost(CUFF).await;
        bluez.with_behaviour(CUFF, |behaviour| behaviour.drop_before_resolve = None);
        radio.ready(CUFF).await;
        radio.until("word that it is bonded", |event| is_bond(event, CUFF, |state| *state == BondState::Bonded)).await;
        assert_eq!(bluez.count(CUFF, "Pair"), 1);
        radio.end().await;
    });
}

#[test]
fn a_pairing_that_was_refused_is_told_as_such_though_bluez_leaves_the_subscription_unanswered() {
    on_a_bus("a_pairing_that_was_refused_is_told_as_such_though_bluez_leaves_the_subscription_unanswered", async |bus| {
        let bluez = room(&bus, vec![guarded(&cuff(), None)]);
        bluez.with_behaviour(CUFF, |behaviour| behaviour.silent_when_refused = true);
        let mut radio = Radio::start(vec![wanted(&cuff(), Bond::None)]);
        let lost = radio.until("end of the link", |event| matches!(event, RadioEvent::Lost { .. })).await;
        let RadioEvent::Lost { reason, .. } = lost else { unreachable!() };
        assert!(reason.contains("\"cuff\" asks to pair and may not") && reason.contains("bond = \"just-works\""), "{reason}");
        assert_eq!(radio.refused(CUFF).await, reason);
        assert!(!bluez.is_paired(CUFF));
        radio.end().await;
    });
}

#[test]
fn a_pairing_nobody_comes_for_ends_with_whoever_stood_by() {
    on_a_bus("a_pairing_nobody_comes_for_ends_with_whoever_stood_by", async |bus| {
        let bluez = room(&bus, vec![guarded(&cuff(), Some(42_137))]);
        bluez.out_of_range(CUFF);
        let mut radio = Radio::start(vec![wanted(&cuff(), passkey("042137"))]);
        radio.until("adapter", |event| matches!(event, RadioEvent::Adapter { usable: true, .. })).await;
        radio.requests.ask(id(CUFF), What::Pair(WHILE)).await.unwrap();
        radio.until("word that it is paired", |event| is_bond(event, CUFF, |state| *state == BondState::Bonding)).await;
        radio.until("word that it is no more", |event| is_bond(event, CUFF, |state| *state == BondState::None)).await;
        assert_eq!(bluez.count(CUFF, "Pair"), 0);

        // Who comes later is paired after all: this one has its passkey.
        bluez.advertise(CUFF, -60);
        radio.ready(CUFF).await;
        assert!(bluez.is_paired(CUFF));
        radio.end().await;
    });
}

#[test]
fn a_forgotten_bond_stays_forgotten_though_bluez_ends_the_link_before_it_removes_the_device() {
    on_a_bus("a_forgotten_bond_stays_forgotten_though_bluez_ends_the_link_before_it_removes_the_device", async |bus| {
        let bluez = room(&bus, vec![guarded(&cuff(), Some(42_137))]);
        let mut radio = Radio::start(vec![wanted(&cuff(), passkey("042137"))]);
        radio.ready(CUFF).await;
        for paired in 1..=8 {
            radio.requests.ask(id(CUFF), What::Forget).await.unwrap();
            radio.quiet(Duration::from_millis(200)).await;
            let told = radio.seen.iter().rev().find(|event| matches!(event, RadioEvent::Bond { .. }));
            assert!(told.is_some_and(|event| is_bond(event, CUFF, |state| *state == BondState::None)), "{:?}", radio.seen);
            assert!(!bluez.is_paired(CUFF) && bluez.count(CUFF, "Pair") == paired, "it is not paired by itself");
            radio.requests.ask(id(CUFF), What::Pair(STANDS_BY)).await.unwrap();
            radio.ready(CUFF).await;
        }
        radio.end().await;
    });
}

#[test]
fn a_bonded_device_waits_for_its_adapter_and_is_paired_with_no_other_by_itself() {
    const OTHER: &str = "66:66:66:66:66:66";
    on_a_bus("a_bonded_device_waits_for_its_adapter_and_is_paired_with_no_other_by_itself", async |bus| {
        for (shows, bond) in [(Some(42_137), passkey("042137")), (None, Bond::JustWorks)] {
            let bluez = room(&bus, vec![guarded(&cuff(), shows)]);
            let bonds = Bonds::default();
            let mut radio = Radio::with(vec![wanted(&cuff(), bond)], bonds.clone());
            radio.ready(CUFF).await;
            assert_eq!((bluez.is_paired(CUFF), bonds.all()), (true, [(id(CUFF), id(ADAPTER))].into()));

            bluez.add_adapter(AdapterSpec::new("hci1", OTHER));
            bluez.remove_adapter("hci0");
            bluez.add_device("hci1", guarded(&cuff(), shows));
            let tries = bluez.count(CUFF, "Connect");
            bluez.advertise(CUFF, -60);
            let told = |event: &RadioEvent| matches!(event, RadioEvent::Lost { reason, .. } if reason.contains(ADAPTER));
            radio.until("word of the adapter", told).await;
            radio.quiet(WHILE).await;
            assert_eq!((bluez.is_paired(CUFF), bluez.count(CUFF, "Connect")), (false, tries), "{bond:?}");
            radio.end().await;

            let mut radio = Radio::with(vec![wanted(&cuff(), bond)], Bonds::new(bonds.all()));
            radio.until("word of the adapter", told).await;
            radio.quiet(WHILE).await;
            assert_eq!((bluez.is_paired(CUFF), bluez.count(CUFF, "Connect")), (false, tries), "{bond:?} after a restart");
            radio.end().await;

            let bonds = Bonds::new(bonds.all());
            let mut radio = Radio::with(vec![wanted(&cuff(), bond)], bonds.clone());
            radio.until("word of the adapter", told).await;
            radio.requests.ask(id(CUFF), What::Pair(STANDS_BY)).await.unwrap();
            bluez.advertise(CUFF, -61);
            radio.ready(CUFF).await;
            assert_eq!((bluez.is_paired(CUFF), bonds.all()), (true, [(id(CUFF), id(OTHER))].into()), "a person asked");
            radio.end().await;
        }
    });
}

//! Receipts of the receiving application settle, and nothing else does; against a destination that is played, in simulated
//! time.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod played;

use std::time::Duration;

use bedrail::deliver::{Fault, FaultClass, Happened, RouteState, Verdict, Why};
use bedrail::reading::{DeliveryId, Op, Placement, RecordId};
use played::{Play, waits};

const WITHIN: Duration = Duration::from_secs(120);

fn with_receipts(devices: usize) -> Play {
    let mut play = Play::new(devices);
    play.settings.receipt_within = Some(WITHIN);
    play
}

#[tokio::test(start_paused = true)]
async fn a_brokers_word_settles_nothing_where_receipts_do() {
    let mut play = with_receipts(2);
    play.append(50);
    play.start();
    play.until(|status| status.unconfirmed == 100).await;
    assert_eq!((play.status().tally.get("sent"), play.status().backlog, play.status().in_flight), (None, 100, 0));
    play.confirm(1..=60);
    play.until(|status| status.tally.get("sent") == Some(&60)).await;
    assert_eq!((play.status().backlog, play.status().unconfirmed), (40, 40));

    // After a restart everything unconfirmed is owed again, under the same delivery ids.
    let first = play.delivery(61);
    play.stop().await;
    let before = play.sent().len();
    play.start();
    play.until(|status| status.unconfirmed == 40).await;
    let again: Vec<u64> = play.sent()[before..].iter().map(|sent| sent.seq).collect();
    assert_eq!(again, (61..=100).collect::<Vec<_>>());
    assert_eq!(play.delivery(61), first);
    play.confirm(61..=100);
    play.until(|status| status.tally.get("sent") == Some(&100) && status.backlog == 0).await;
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_receiver_passed_by_goes_again_and_the_wait_is_shown() {
    let mut play = with_receipts(2);
    play.append(20);
    play.start();
    play.until(|status| status.unconfirmed == 40).await;
    play.confirm((1..=40).filter(|seq| seq % 4 != 0));
    play.until(|status| status.tally.get("sent") == Some(&30)).await;
    let before = play.sent().len();
    tokio::time::sleep(WITHIN + Duration::from_secs(2)).await;
    let again: Vec<u64> = play.sent()[before..].iter().map(|sent| sent.seq).collect();
    assert_eq!(again, (1..=10).map(|n| 4 * n).collect::<Vec<_>>());
    assert_eq!(play.status().tally.get("unconfirmed"), Some(&10));
    play.confirm(1..=40);
    play.until(|status| status.tally.get("sent") == Some(&40) && status.backlog == 0).await;
    assert_eq!(play.status().tally.get("receipt_unknown"), Some(&30), "receipts said twice change nothing");
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_away_does_not_find_its_queue_full_of_repeats() {
    let mut play = with_receipts(2);
    play.append(1_000);
    play.start();
    play.until(|status| status.unconfirmed == 2_000).await;
    let before = play.sent().len();
    tokio::time::sleep(30 * WITHIN).await;
    let again = play.sent().len() - before;
    assert!((20..=31).contains(&again), "{again} repeats in an hour");
    let detail = play.status().detail.unwrap();
    assert!(detail.contains("waiting since 20") && detail.contains("receipts of 2000 records"), "{detail}");
    // It is back, and has everything but what the broker lost meanwhile.
    play.confirm((1..=2_000).filter(|seq| *seq != 700));
    play.until(|status| status.tally.get("sent") == Some(&1_999)).await;
    let before = play.sent().len();
    tokio::time::sleep(WITHIN).await;
    assert_eq!(play.sent()[before..].iter().map(|sent| sent.seq).collect::<Vec<_>>(), [700]);
    assert_eq!(play.status().state, RouteState::Up);
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn more_than_a_bounded_number_never_waits_for_receipts() {
    let mut play = with_receipts(4);
    play.append(2_000);
    play.start();
    play.until(|status| status.state == RouteState::Waiting && status.unconfirmed == 4_096).await;
    assert_eq!(play.sent().len(), 4_096);
    play.confirm(1..=4_096);
    play.until(|status| status.unconfirmed == 8_000 - 4_096).await;
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn receipts_nobody_waits_for_and_what_is_none_are_counted_and_harmless() {
    let mut play = with_receipts(1);
    play.append(3);
    play.start();
    play.until(|status| status.unconfirmed == 3).await;
    let ours = play.delivery(2);
    let foreign = DeliveryId { record: RecordId([9; 16]), placement: Placement([9; 16]), version: 1, op: Op::Put };
    let newer = DeliveryId { version: 2, ..ours };
    let taken_back = DeliveryId { op: Op::Retract, ..ours };
    play.say(Happened::Received { deliveries: vec![foreign, newer, taken_back], unreadable: 2 });
    play.until(|status| status.tally.get("receipt_unknown") == Some(&3)).await;
    assert_eq!(play.status().tally.get("receipt_unreadable"), Some(&2));
    assert_eq!((play.status().tally.get("sent"), play.status().backlog), (None, 3));
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_may_come_before_the_brokers_word() {
    let mut play = with_receipts(1);
    play.settings.window = 4;
    play.start();
    play.until(|status| status.state == RouteState::Up).await;
    play.append(1);
    while play.sent().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    play.confirm([1]);
    play.until(|status| status.tally.get("sent") == Some(&1)).await;
    play.append(8);
    play.until(|status| status.unconfirmed == 8).await;
    play.confirm(2..=9);
    play.until(|status| status.tally.get("sent") == Some(&9) && status.live == 0 && status.backlog == 0).await;
    assert_eq!(play.sent().len(), 9);
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_broken_connection_what_is_unconfirmed_goes_again_in_order() {
    let mut play = with_receipts(2);
    play.append(50);
    let mut cut = false;
    play.hang_up(move |sent| {
        let now = sent.seq == 80 && !std::mem::replace(&mut cut, true);
        now.then(|| Fault { class: FaultClass::Broken, text: "cut".into() })
    });
    play.start();
    play.until(|_| true).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    play.until(|status| status.unconfirmed == 100).await;
    let sent: Vec<u64> = play.sent().iter().map(|sent| sent.seq).collect();
    let again = sent.iter().rposition(|seq| *seq == 1).unwrap();
    assert_eq!(sent[again..], (1..=100).collect::<Vec<_>>());
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_nobody_heard_goes_on_whole_once_it_is_heard_and_confirmed() {
    let mut play = with_receipts(2);
    play.append(10);
    play.answer(|sent| if sent.device == 1 { waits(Why::Unheard) } else { Verdict::Settled });
    play.start();
    play.until(|status| status.held.get("unheard") == Some(&10) && status.unconfirmed == 10).await;
    play.answer(|_| Verdict::Settled);
    play.until(|status| status.unconfirmed == 20).await;
    assert_eq!((play.status().held.len(), play.status().backlog), (0, 20));
    play.confirm(1..=20);
    play.until(|status| status.tally.get("sent") == Some(&20) && status.backlog == 0).await;
    play.stop().await;
}

//! What a route does about the answers it gets, against a destination that is played: time is simulated, so that minutes of
//! waiting cost nothing.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod played;

use std::collections::BTreeSet;
use std::time::Duration;

use bedrail::config::When;
use bedrail::deliver::{Fault, FaultClass, Lane, RouteCommand, RouteState, Verdict, Why};
use bedrail::reading::Timestamp;
use bedrail::ward::HoldReason;
use played::{Play, device_of, waits};
use tokio::sync::oneshot;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_topic_nobody_hears_holds_up_itself_and_no_other() {
    let mut play = Play::new(4);
    play.append(25);
    play.answer(|sent| if sent.device == 1 { waits(Why::Unheard) } else { Verdict::Settled });
    play.start();
    play.until(|status| status.held.get("unheard") == Some(&25)).await;
    play.until(|status| status.tally.get("sent") == Some(&75)).await;
    play.append(5);
    play.until(|status| status.tally.get("sent") == Some(&90)).await;
    let status = play.status();
    assert_eq!((status.state, status.backlog, status.live), (RouteState::Up, 0, 0));
    assert_eq!(status.held.get("unheard"), Some(&30));

    // It is asked for now and then, not all the time.
    let before = play.sent().len();
    tokio::time::sleep(10 * MINUTE).await;
    let probes = play.sent().split_off(before);
    assert!((5..=150).contains(&probes.len()), "{} probes in ten minutes", probes.len());
    assert!(probes.iter().all(|sent| sent.seq == probes[0].seq), "the lowest of them, again and again");

    // Somebody subscribes: everything comes, in order, and nothing comes twice.
    play.answer(|_| Verdict::Settled);
    play.until(|status| status.tally.get("sent") == Some(&120)).await;
    assert!(play.status().held.is_empty());
    let taken = play.taken();
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len());
    let of_one: Vec<u64> = taken.iter().copied().filter(|seq| device_of(*seq, 4) == 1).collect();
    assert!(of_one.is_sorted(), "{of_one:?}");
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_unheard_before_a_restart_is_not_sent_all_over_again() {
    let mut play = Play::new(4);
    play.append(25);
    play.answer(|sent| if sent.device == 1 { waits(Why::Unheard) } else { Verdict::Settled });
    play.start();
    play.until(|status| status.held.get("unheard") == Some(&25)).await;
    play.stop().await;
    let before = play.sent().len();
    play.start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(play.sent().len() - before <= 8, "a probe or two, not the queue");
    play.answer(|_| Verdict::Settled);
    play.until(|status| status.tally.get("sent") == Some(&100)).await;
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_not_allowed_keeps_its_link_tries_now_and_then_and_goes_on_by_itself() {
    let mut play = Play::new(4);
    play.append(50);
    play.answer(|sent| if sent.number < 40 { Verdict::Settled } else { waits(Why::Forbidden) });
    play.start();
    play.until(|status| status.state == RouteState::Paused).await;
    let status = play.status();
    assert_eq!(status.last_fault, Some(FaultClass::NotAuthorized));
    assert!(status.detail.is_some_and(|detail| detail.contains("played")));
    let before = play.sent().len();
    tokio::time::sleep(60 * MINUTE).await;
    let tried = play.sent().len() - before;
    assert!((8..=800).contains(&tried), "{tried} messages in an hour");
    assert_eq!(play.connections(), 1, "the link stays up");
    assert_eq!(play.status().held.values().sum::<u64>(), 0, "everything is refused: nothing is sorted out");

    // Nothing is lost, the order of each stream holds in its lane, and what goes again is backlog.
    play.append(10);
    play.answer(|_| Verdict::Settled);
    play.until(|status| status.tally.get("sent") == Some(&240)).await;
    assert_eq!(play.status().state, RouteState::Up);
    play.assert_order();
    let mut seen = BTreeSet::new();
    assert!(play.sent().iter().all(|sent| seen.insert(sent.seq) || sent.lane == Lane::Backlog));
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn resume_tries_at_once() {
    let mut play = Play::new(2);
    play.append(5);
    play.answer(|_| waits(Why::Forbidden));
    play.start();
    play.until(|status| status.state == RouteState::Paused).await;
    tokio::time::sleep(30 * MINUTE).await;
    play.answer(|_| Verdict::Settled);
    let (done, answer) = oneshot::channel();
    play.command(RouteCommand::Resume { done }).await;
    answer.await.unwrap();
    let asked = tokio::time::Instant::now();
    play.until(|status| status.tally.get("sent") == Some(&10)).await;
    assert!(asked.elapsed() < Duration::from_secs(5));
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_has_had_enough_gets_less_and_no_new_connections() {
    let mut play = Play::new(2);
    play.append(500);
    // Ten a second, as a broker with a quota counts.
    let mut counted = (Duration::ZERO, 0);
    play.answer(move |sent| {
        if sent.at - counted.0 > Duration::from_secs(1) {
            counted = (sent.at, 0);
        }
        counted.1 += 1;
        if counted.1 > 10 { waits(Why::Quota) } else { Verdict::Settled }
    });
    play.start();
    play.until(|status| status.tally.get("sent") == Some(&1_000)).await;
    assert_eq!(play.connections(), 1);
    let wasted = play.sent().len() - 1_000;
    assert!(wasted < 1_000, "{wasted} messages in vain for 1,000 that were taken");
    assert_eq!(play.status().dead, 0);
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_record_a_broker_cant_bear_ends_as_a_dead_letter_and_holds_up_nothing_for_long() {
    let mut play = Play::new(2);
    play.append(30);
    play.answer(|sent| if sent.seq == 7 { waits(Why::Refused) } else { Verdict::Settled });
    play.start();
    play.until(|status| status.dead == 1 && status.tally.get("sent") == Some(&59)).await;
    assert!((5..=10).contains(&play.sent().iter().filter(|sent| sent.seq == 7).count()));
    play.stop().await;
    assert_eq!(play.missing(), [7]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_everything_without_a_word_kills_nothing() {
    let mut play = Play::new(2);
    play.append(30);
    play.answer(|_| waits(Why::Refused));
    play.start();
    play.until(|status| status.state == RouteState::Waiting).await;
    tokio::time::sleep(60 * MINUTE).await;
    assert_eq!((play.status().dead, play.connections()), (0, 1));
    play.answer(|_| Verdict::Settled);
    play.until(|status| status.tally.get("sent") == Some(&60)).await;
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_over_which_a_broker_hangs_up_is_found_and_buried() {
    let mut play = Play::new(2);
    play.append(20);
    let too_large = || Fault { class: FaultClass::TooLarge, text: "too large".into() };
    play.hang_up(move |sent| (sent.seq == 11).then(too_large));
    play.start();
    play.until(|status| status.dead == 1 && status.tally.get("sent") == Some(&39)).await;
    play.stop().await;
    assert_eq!(play.missing(), [11]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_hears_is_done_with_where_the_route_says_so() {
    let mut play = Play::new(2);
    play.append(5);
    play.answer(|sent| if sent.device == 0 { Verdict::SettledUnheard } else { Verdict::Settled });
    play.start();
    play.until(|status| status.tally.get("unheard") == Some(&5) && status.tally.get("sent") == Some(&5)).await;
    assert_eq!(play.status().backlog, 0);
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_sends_no_faster_than_it_may() {
    let mut play = Play::new(2);
    play.settings.max_rate = Some(10);
    play.append(150);
    play.start();
    play.until(|status| status.tally.get("sent") == Some(&300)).await;
    let sent = play.sent();
    let took = sent.last().unwrap().at - sent[0].at;
    assert!((28..=31).contains(&took.as_secs()), "300 messages at 10 a second in {took:?}");
    for second in sent.windows(21) {
        assert!(second[20].at - second[0].at >= Duration::from_secs(1), "more than twenty in a second");
    }
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_with_turns_sends_what_was_there_as_backlog_and_nothing_between() {
    let mut play = Play::new(2);
    play.settings.when = When::Every(15 * MINUTE);
    play.append(10);
    play.start();
    play.until(|status| status.tally.get("sent") == Some(&20) && status.state == RouteState::Waiting).await;
    assert!(play.status().detail.is_some_and(|detail| detail.starts_with("sends again in 15 min")));
    play.append(10);
    tokio::time::sleep(14 * MINUTE).await;
    assert_eq!(play.sent().len(), 20, "it is not time");
    tokio::time::sleep(MINUTE + Duration::from_secs(5)).await;
    let sent = play.sent();
    assert_eq!((sent.len(), play.connections()), (40, 1));
    assert!(sent.iter().all(|sent| sent.lane == Lane::Backlog), "what waited is no news");
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_days_octets_are_live_values_first_and_a_restart_is_no_new_day() {
    // A hundred octets a message, as played.
    let mut play = Play::new(2);
    play.settings.daily_bytes = Some(20_000);
    play.append(200);
    play.start();
    play.until(|status| status.tally.get("sent") == Some(&150)).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(play.sent().len(), 150, "three quarters for the backlog");
    let detail = play.status().detail.unwrap();
    assert!(detail.contains("15000 of 20000 octets") && detail.contains("backlog"), "{detail}");
    play.append(10);
    play.until(|status| status.tally.get("sent") == Some(&170)).await;
    assert!(play.sent()[150..].iter().all(|sent| sent.lane == Lane::Live), "and live values still go");
    play.stop().await;

    play.start();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(play.sent().len(), 170);
    play.append(100);
    play.until(|status| status.state == RouteState::Waiting).await;
    assert_eq!(play.sent().len(), 200, "the day is spent");
    assert!(play.status().detail.is_some_and(|detail| detail.contains("goes on at midnight")));
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_route_sends_no_record_and_goes_on_telling_how_the_gateway_is() {
    let mut play = Play::new(2);
    play.append(5);
    play.start();
    play.until(|status| status.tally.get("sent") == Some(&10)).await;
    let (done, answer) = oneshot::channel();
    play.command(RouteCommand::Pause { reason: "the broker moves".into(), done }).await;
    answer.await.unwrap();
    play.until(|status| status.state == RouteState::Paused).await;
    let told = play.announce();
    play.append(5);
    tokio::time::sleep(MINUTE).await;
    assert_eq!((play.sent().len(), play.connections()), (10, 1));
    assert!(play.announce() > told);

    // The broker is away for an hour: it is asked for now and then, and the route is what it was.
    play.cut();
    tokio::time::sleep(60 * MINUTE).await;
    assert!((50..=1_500).contains(&play.connections()), "{} connections", play.connections());
    let status = play.status();
    assert_eq!((status.state, status.detail.as_deref()), (RouteState::Paused, Some("the broker moves")));
    assert_eq!(status.last_fault, None, "a person stopped it, not the line");
    play.mend();
    let (done, answer) = oneshot::channel();
    play.command(RouteCommand::Resume { done }).await;
    answer.await.unwrap();
    play.until(|status| status.tally.get("sent") == Some(&20) && status.state == RouteState::Up).await;
    assert!(play.sent()[10..].iter().all(|sent| sent.lane == Lane::Backlog));
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_version_is_never_sent_after_a_higher_one() {
    let mut play = Play::new(1);
    play.start();
    play.until(|status| status.state == RouteState::Up).await;
    // The first version is refused; while it waits the second is made, and taken.
    play.answer(|sent| if sent.number == 0 { waits(Why::Quota) } else { Verdict::Settled });
    play.append_window();
    play.until(|status| status.state == RouteState::Waiting).await;
    play.append_window();
    play.until(|status| status.tally.get("sent") == Some(&1) && status.tally.get("superseded") == Some(&1)).await;
    assert_eq!(play.taken(), [2]);
    assert_eq!(play.status().backlog + play.status().live, 0);

    // Nor by a replay of all there was.
    let (done, answer) = oneshot::channel();
    let (from, to) = (Timestamp(0), Timestamp(i64::MAX));
    play.command(RouteCommand::Replay { from, to, done }).await;
    assert_eq!(answer.await.unwrap(), 2);
    play.until(|status| status.tally.get("superseded") == Some(&2) && status.backlog == 0).await;
    assert_eq!(play.taken(), [2, 2]);
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_destination_has_no_patient_for_is_held_offered_again_and_holds_up_no_other() {
    let mut play = Play::new(4);
    play.append(25);
    let unknown = Verdict::Held(HoldReason::PatientUnknown);
    play.answer(move |sent| if sent.device == 1 { unknown.clone() } else { Verdict::Settled });
    play.start();
    play.until(|status| status.held.get("patient_unknown") == Some(&25)).await;
    play.until(|status| status.tally.get("sent") == Some(&75)).await;
    assert_eq!(play.status().state, RouteState::Up);
    // Now and then all of them are offered once more, and not all the time.
    let before = play.sent().len();
    tokio::time::sleep(10 * MINUTE).await;
    let offered = play.sent().len() - before;
    assert!((25 * 5..=25 * 11).contains(&offered), "{offered} in ten minutes");
    // A restart forgets none of it.
    play.stop().await;
    play.start();
    play.until(|status| status.held.get("patient_unknown") == Some(&25)).await;
    // Somebody is admitted there.
    play.answer(|_| Verdict::Settled);
    play.until(|status| status.tally.get("sent") == Some(&100)).await;
    assert!(play.status().held.is_empty());
    let taken = play.taken();
    assert_eq!((taken.len(), taken.iter().collect::<BTreeSet<_>>().len()), (100, 100));
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_destination_has_no_place_for_is_counted_as_that_and_not_as_sent() {
    let mut play = Play::new(2);
    play.append(10);
    play.answer(|sent| if sent.device == 1 { Verdict::NotCharted } else { Verdict::Settled });
    play.start();
    play.until(|status| status.tally.get("not_charted") == Some(&10)).await;
    play.until(|status| status.tally.get("sent") == Some(&10)).await;
    let status = play.status();
    assert_eq!((status.live, status.backlog, status.dead, status.held.len()), (0, 0, 0, 0));
    play.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_forbidden_and_then_has_no_patient_is_held_once_and_comes_in_the_end() {
    let mut play = Play::new(4);
    play.append(25);
    play.answer(|sent| if sent.device == 1 { waits(Why::Forbidden) } else { Verdict::Settled });
    play.start();
    play.until(|status| status.held.get("forbidden") == Some(&25)).await;
    let unknown = Verdict::Held(HoldReason::PatientUnknown);
    play.answer(move |sent| if sent.device == 1 { unknown.clone() } else { Verdict::Settled });
    play.until(|status| status.held.get("patient_unknown") == Some(&25)).await;
    assert_eq!(play.status().held.values().sum::<u64>(), 25);
    play.answer(|_| Verdict::Settled);
    play.until(|status| status.tally.get("sent") == Some(&100)).await;
    assert!(play.status().held.is_empty());
    play.stop().await;
}

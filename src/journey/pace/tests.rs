//! The pacer alone: any order of starts and ends.

use proptest::prelude::*;

use super::*;

fn given(count: u32, per: Duration) -> Pacer {
    Pacer::new(PaceRules { rate: Some(Rate { count, per }), ..PaceRules::default() })
}

fn left(remaining: u64) -> Heard {
    let allowance = Allowance { limit: Some(60), remaining: Some(remaining), reset_in: None };
    Heard { status: Some(200), allowance, ..Heard::default() }
}

fn refused(seconds: u64) -> Heard {
    let allowance = Allowance { limit: Some(60), remaining: Some(0), reset_in: None };
    let retry_after = Some(Duration::from_secs(seconds));
    Heard { status: Some(429), retry_after, allowance, is_trouble: false }
}

#[test]
fn what_is_in_flight_is_taken_from_what_is_left() {
    let mut pacer = Pacer::default();
    let turns: Vec<Turn> = (0..4).map(|_| pacer.began(Tick(0))).collect();
    pacer.ended(turns[3], &left(3), Tick(10));
    // Three are in flight, and perhaps none of them was counted.
    assert_eq!(pacer.may_start(Tick(10)), Err(Wait::Answer));
    // The older answers say that all were.
    for (turn, said) in turns.iter().zip([6, 5, 4]) {
        pacer.ended(*turn, &left(said), Tick(10));
    }
    for _ in 0..3 {
        assert_eq!(pacer.may_start(Tick(10)), Ok(()));
        pacer.began(Tick(10));
    }
    assert_eq!(pacer.may_start(Tick(10)), Err(Wait::Answer));
}

#[test]
fn one_refusal_tells_how_long_a_window_is_and_the_next_ones_are_known() {
    #[track_caller]
    fn check(refused_at: u64, seconds: u64, length: u64) {
        let mut pacer = Pacer::default();
        let first = pacer.began(Tick(0));
        pacer.ended(first, &left(59), Tick(0));
        for (at, remaining) in (0..refused_at).step_by(1_000).zip((0..59).rev()) {
            let turn = pacer.began(Tick(at));
            pacer.ended(turn, &left(remaining), Tick(at));
        }
        let last = pacer.began(Tick(refused_at));
        let lesson = pacer.ended(last, &refused(seconds), Tick(refused_at));
        let per = Duration::from_secs(length);
        assert_eq!(lesson.rate, Some(Rate { count: 60, per }), "{seconds} s at {refused_at}");
        assert!(pacer.is_refused(Tick(refused_at)));
    }
    // Rounded up, and a minute where that is near.
    check(400, 6, 6);
    check(5_999, 1, 6);
    check(0, 6, 6);
    check(700, 60, 60);
    check(700, 59, 60);
    check(30_200, 29, 60);
    check(1_500, 119, 120);
}

#[test]
fn when_a_window_is_over_by_reckoning_one_goes_ahead_and_the_others_follow() {
    let mut pacer = Pacer::default();
    let first = pacer.began(Tick(0));
    pacer.ended(first, &left(59), Tick(10));
    let last = pacer.began(Tick(400));
    pacer.ended(last, &refused(6), Tick(410));
    assert_eq!(pacer.may_start(Tick(6_000)), Err(Wait::Until(Tick(6_017))));
    assert_eq!(pacer.next_start_at(Tick(6_000)), Some(Tick(6_017)));
    assert_eq!(pacer.may_start(Tick(6_017)), Ok(()));
    let ahead = pacer.began(Tick(6_017));
    assert_eq!(pacer.may_start(Tick(6_020)), Err(Wait::Answer));
    // Too early: the server's own word holds to the second.
    let lesson = pacer.ended(ahead, &refused(1), Tick(6_030));
    assert_eq!(lesson.waits, Some(Duration::from_secs(1)));
    assert_eq!(pacer.may_start(Tick(7_000)), Err(Wait::Until(Tick(7_030))));
    let ahead = pacer.began(Tick(7_030));
    pacer.ended(ahead, &left(59), Tick(7_040));
    for _ in 0..59 {
        assert_eq!(pacer.may_start(Tick(7_040)), Ok(()));
        pacer.began(Tick(7_040));
    }
    assert_eq!(pacer.may_start(Tick(7_040)), Err(Wait::Answer));
}

#[test]
fn what_others_have_used_up_is_no_measure_of_a_window() {
    let mut pacer = Pacer::default();
    let first = pacer.began(Tick(0));
    pacer.ended(first, &left(59), Tick(10));
    let last = pacer.began(Tick(400));
    pacer.ended(last, &refused(6), Tick(410));
    let six = Some(Rate { count: 60, per: Duration::from_secs(6) });
    assert_eq!(pacer.view(Tick(410)).rate, six);
    // Ten minutes later others have used the window up.
    let ahead = pacer.began(Tick(600_000));
    let lesson = pacer.ended(ahead, &refused(3), Tick(600_010));
    assert_eq!(lesson.waits, Some(Duration::from_secs(3)));
    assert_eq!(pacer.view(Tick(600_010)).rate, six);
    // Nor is a refusal for something else while more are left.
    let ahead = pacer.began(Tick(603_010));
    pacer.ended(ahead, &left(59), Tick(603_020));
    let banned = pacer.began(Tick(603_030));
    let mut heard = refused(900);
    heard.allowance = Allowance::default();
    let lesson = pacer.ended(banned, &heard, Tick(603_040));
    assert_eq!(lesson.waits, Some(Duration::from_mins(15)));
    assert_eq!(pacer.view(Tick(603_040)).rate, six);
    // And where some of a window is left, but its length is unknown.
    let mut pacer = Pacer::default();
    let first = pacer.began(Tick(0));
    pacer.ended(first, &left(59), Tick(10));
    let later = pacer.began(Tick(600_000));
    pacer.ended(later, &left(0), Tick(600_010));
    let last = pacer.began(Tick(600_010));
    pacer.ended(last, &refused(3), Tick(600_020));
    assert_eq!(pacer.view(Tick(600_020)).rate, None);
}

#[test]
fn without_a_word_about_the_end_of_a_window_one_tries_it() {
    let mut pacer = Pacer::default();
    let first = pacer.began(Tick(0));
    pacer.ended(first, &left(0), Tick(5));
    assert_eq!(pacer.may_start(Tick(5)), Ok(()));
    let tries = pacer.began(Tick(5));
    assert_eq!(pacer.may_start(Tick(5)), Err(Wait::Answer));
    pacer.ended(tries, &left(59), Tick(10));
    assert_eq!(pacer.may_start(Tick(10)), Ok(()));
}

#[test]
fn a_reset_in_ordinary_answers_spares_the_refusal() {
    let mut pacer = Pacer::default();
    let mut now = 0;
    for remaining in (0..60).rev() {
        assert_eq!(pacer.may_start(Tick(now)), Ok(()));
        let turn = pacer.began(Tick(now));
        let mut heard = left(remaining);
        heard.allowance.reset_in = Some(Duration::from_millis(20_000 - now).max(Duration::ZERO));
        now += 10;
        pacer.ended(turn, &heard, Tick(now));
    }
    let Err(Wait::Until(at)) = pacer.may_start(Tick(now)) else {
        panic!("{:?}", pacer.view(Tick(now)))
    };
    assert!((20_000..=20_050).contains(&at.0), "{at:?}");
}

#[test]
fn a_server_that_no_longer_tells_is_not_held_to_what_it_told() {
    let mut pacer = Pacer::default();
    let first = pacer.began(Tick(0));
    pacer.ended(first, &refused(30), Tick(5));
    assert_eq!(pacer.may_start(Tick(5)), Err(Wait::Until(Tick(30_005))));
    let ahead = pacer.began(Tick(30_005));
    pacer.ended(ahead, &Heard { status: Some(200), ..Heard::default() }, Tick(30_010));
    for _ in 0..100 {
        assert_eq!(pacer.may_start(Tick(30_010)), Ok(()));
        pacer.began(Tick(30_010));
    }
}

#[test]
fn latency_that_rises_lowers_the_level_and_a_constant_one_does_not() {
    #[track_caller]
    fn check(latency: impl Fn(u64) -> u64, lowered: bool) {
        let mut pacer = Pacer::default();
        pacer.add_slots(8);
        let mut turns: std::collections::VecDeque<Turn> =
            (0..8).map(|_| pacer.began(Tick(0))).collect();
        let (mut now, mut was_lowered) = (0, false);
        for round in 0..40 {
            let turn = turns.pop_front().expect("one is always in flight");
            now = (turn.at.0 + latency(round)).max(now);
            pacer.ended(turn, &Heard { status: Some(200), ..Heard::default() }, Tick(now));
            was_lowered |= pacer.view(Tick(now)).at_once.is_some();
            while pacer.may_start(Tick(now)).is_ok() && turns.len() < 8 {
                turns.push_back(pacer.began(Tick(now)));
            }
        }
        assert_eq!(was_lowered, lowered, "{:?}", pacer.gauge);
    }
    check(|_| 200, false);
    check(|_| 5_000, false);
    check(|round| if round % 2 == 0 { 50 } else { 90 }, false);
    check(|round| if round < 10 { 50 } else { 3_000 }, true);
}

#[derive(Clone, Debug)]
enum Event {
    Starts,
    Ends { nth: usize, heard: Heard },
    Passes { ms: u64 },
}

fn heard() -> impl Strategy<Value = Heard> {
    let status = prop_oneof![
        6 => Just(Some(200)),
        2 => Just(Some(429)),
        1 => Just(Some(503)),
        1 => Just(Some(422)),
        1 => Just(None)
    ];
    let span = || proptest::option::of((0..90_u64).prop_map(Duration::from_secs));
    (status, span(), span(), proptest::option::of(0..12_u64), proptest::option::of(1..12_u64))
        .prop_map(|(status, retry_after, reset_in, remaining, limit)| Heard {
            status,
            retry_after,
            allowance: Allowance { limit, remaining, reset_in },
            is_trouble: status.is_none_or(|status| status >= 500),
        })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Starts),
        5 => (0..100_usize, heard()).prop_map(|(nth, heard)| Event::Ends { nth, heard }),
        3 => (0..3_000_u64).prop_map(|ms| Event::Passes { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_given_rate_is_never_exceeded_and_nothing_ever_starves(
        count in 1..6_u32,
        seconds in 1..5_u64,
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let per = Duration::from_secs(seconds);
        let mut pacer = given(count, per);
        pacer.add_slots(8);
        let mut now = Tick(1_000);
        let mut in_flight: Vec<Turn> = Vec::new();
        let mut begun: Vec<(Tick, Tick)> = Vec::new();
        for event in events {
            match event {
                Event::Starts => {
                    if pacer.may_start(now).is_ok() {
                        in_flight.push(pacer.began(now));
                        begun.push((now, now));
                    }
                }
                Event::Ends { nth, heard } if !in_flight.is_empty() => {
                    let turn = in_flight.remove(nth % in_flight.len());
                    pacer.ended(turn, &heard, now);
                }
                Event::Ends { .. } => {}
                Event::Passes { ms } => now = now.plus(Duration::from_millis(ms)),
            }
            match pacer.may_start(now) {
                Err(Wait::Until(at)) => prop_assert!(at > now, "waits for the past"),
                Err(Wait::Answer) => prop_assert!(!in_flight.is_empty(), "waits for nobody"),
                Ok(()) => {}
            }
            let next = pacer.next_start_at(now);
            prop_assert!(next.is_none_or(|at| at > now), "a wake in the past");
        }
        for (first, _) in &begun {
            let in_one = begun.iter().filter(|(at, _)| *first <= *at && *at < first.plus(per));
            prop_assert!(in_one.count() <= count as usize);
        }
        // Everything in flight ends well, and then time alone lets the next one start.
        for turn in in_flight.drain(..) {
            pacer.ended(turn, &left(59), now);
        }
        let mut waits = 0;
        while let Err(wait) = pacer.may_start(now) {
            let Wait::Until(at) = wait else { panic!("waits for nobody") };
            now = at;
            waits += 1;
            prop_assert!(waits < 20, "starves");
        }
    }
}

//! A whole room without a socket or a clock: a native publisher, the gateway's own machines, and viewers of every kind, over links
//! that lose, delay, reorder and duplicate, driven by a seed.
//!
//! What must hold in every run is checked in every step: nobody decodes a frame without the one that it refers to, nothing is
//! shown twice or out of order, the log stays within its bounds, requests for keyframes within their budget. In the end, when the
//! links are good again and a keyframe has come, everybody is live. `WZP_SIMULATIONS=5000` runs so many seeds.

mod links;
mod native_viewer;
mod publisher;
mod viewers;
mod world;

use std::time::Instant;

use crate::world::{Outcome, Scenario, World};

/// Runs of each test.
fn runs(default: u64) -> u64 {
    std::env::var("WZP_SIMULATIONS").map_or(default, |text| text.parse().expect("a number"))
}

fn run(scenario: Scenario) -> Outcome {
    World::new(scenario, Instant::now()).run()
}

#[test]
fn nobody_decodes_what_it_cannot_and_everybody_is_live_in_the_end() {
    let (begin, runs) = (Instant::now(), runs(40));
    let mut all = Outcome::default();
    for seed in 0..runs {
        all.add(&run(Scenario::random(seed)));
    }
    eprintln!("{runs} runs in {:?}: {all}", begin.elapsed());
    assert!(
        all.decoded > 100 * runs && all.lost > runs,
        "the runs tell nothing: {all}"
    );
    if runs >= 40 {
        assert!(
            all.repaired > 0 && all.nacks_of_viewers > 0 && all.keyframes_asked > 0,
            "{all}"
        );
    }
}

#[test]
fn good_links_cost_nobody_a_frame() {
    for seed in 0..runs(12) {
        let outcome = run(Scenario::good(seed));
        assert_eq!(outcome.nacks, 0, "seed {seed}");
        // A newcomer goes over to the fresh keyframe once, if its source answers; after that nothing is left out.
        assert!(outcome.jumps <= outcome.viewers, "seed {seed}: {outcome}");
        assert_eq!(outcome.lost, 0, "seed {seed}");
    }
}

#[test]
fn silent_publisher_is_asked_for_packets_a_few_times_at_most() {
    for seed in 0..runs(12) {
        let mut scenario = Scenario::random(seed);
        scenario.answers_nacks = false;
        let outcome = run(scenario);
        // Three that are seen to be unanswered; a keyframe may come in between.
        assert!(outcome.nacks <= 6, "seed {seed}: {outcome}");
    }
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in 0..runs(5).min(100) {
        let [first, again] = [(); 2].map(|()| run(Scenario::random(seed)));
        assert_eq!(first, again, "seed {seed}");
        assert_ne!(first.trace, run(Scenario::random(seed + 1)).trace);
    }
}

//! Loss on the path: what is sent again, and what happens with members that neither ask nor answer.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use tokio::time::timeout;
use wzp_gateway::join;

use crate::lossy::LossyPath;
use crate::support::{DEADLINE, Door, h264};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: join::Args,
}

fn member(address: SocketAddr, more: &[&str]) -> tokio::task::JoinHandle<anyhow::Result<join::Summary>> {
    let address = address.to_string();
    let fixed = ["join", address.as_str(), "--room", "general"];
    tokio::spawn(join::stay(Cli::parse_from(fixed.iter().chain(more)).args))
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

struct Outcome {
    door: Door,
    publisher: join::Summary,
    viewer: join::Summary,
    lost: u64,
}

/// One publishes, one watches, for some seconds; on the way of one of them 3 % of the packets are lost.
async fn call(publisher: &[&str], viewer: &[&str], loss_of_publisher: bool) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    // One keyframe in ten seconds, so that every other one was asked for.
    let video = h264(directory.path(), 300);
    let door = Door::open();
    let path = LossyPath::to(door.address).await;
    let (of_publisher, of_viewer) = match loss_of_publisher {
        true => (path.address, door.address),
        false => (door.address, path.address),
    };
    let fixed = ["--alias", "publisher", "--video", &video, "--seconds", "9"];
    let publisher = member(of_publisher, &[&fixed, publisher].concat());
    until("no picture came", || door.counters.video_in.get() > 0).await;
    let viewer = member(of_viewer, &[&["--alias", "viewer", "--seconds", "7"], viewer].concat());
    until("the viewer does not come", || door.counters.joined.get() == 2).await;
    let direction = match loss_of_publisher {
        true => &path.loss.up,
        false => &path.loss.down,
    };
    direction.store(30, Ordering::Relaxed);
    let viewer = viewer.await.unwrap().unwrap();
    direction.store(0, Ordering::Relaxed);
    Outcome {
        publisher: publisher.await.unwrap().unwrap(),
        viewer,
        lost: path.loss.lost.load(Ordering::Relaxed),
        door,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_a_publisher_loses_are_sent_again_and_no_keyframe_is_needed() {
    let Outcome {
        door,
        publisher,
        viewer,
        lost,
    } = call(&["--nack"], &[], true).await;
    let counters = &door.counters;
    let (repaired, given_up) = (counters.video_repaired_in.get(), counters.video_lost_in.get());
    eprintln!(
        "publisher: {lost} lost, {repaired} repaired, {given_up} given up, {:?} {:?}",
        publisher.nack, publisher.pli
    );
    assert!(lost > 10 && repaired > 5, "{repaired} repaired of {lost}");
    assert_eq!(publisher.nack.received, counters.nacks_out.get());
    assert!(publisher.nack.resent >= repaired);
    // On a machine that stops now and then for 50 ms some come too late.
    assert!(repaired > 3 * given_up, "{repaired} repaired, {given_up} given up");
    assert!(publisher.pli.received <= 1 + given_up, "{:?}", publisher.pli);
    assert_eq!((viewer.video.gaps, viewer.video.dropped, viewer.video.lost), (0, 0, 0));
    assert!(viewer.video.frames > 150, "{:?}", viewer.video);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publisher_that_never_answers_is_soon_asked_for_keyframes_only() {
    let Outcome {
        door,
        publisher,
        viewer,
        lost,
    } = call(&[], &[], true).await;
    let counters = &door.counters;
    eprintln!(
        "silent publisher: {lost} lost, {:?} {:?}",
        publisher.nack, publisher.pli
    );
    assert!(lost > 10, "{lost} lost");
    // Three that are seen to be unanswered; as in the simulation, a keyframe may come in between.
    assert!(
        (1..=6).contains(&counters.nacks_out.get()),
        "{} asked for",
        counters.nacks_out.get()
    );
    assert_eq!(publisher.nack.received, counters.nacks_out.get());
    assert_eq!(counters.video_repaired_in.get(), 0);
    assert!(publisher.pli.received > counters.nacks_out.get(), "{:?}", publisher.pli);
    assert!(publisher.sent.keyframes > 2, "{:?}", publisher.sent);
    assert_eq!((viewer.video.gaps, viewer.video.dropped), (0, 0));
    assert!(viewer.video.keyframes > 1, "{:?}", viewer.video);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_a_viewer_loses_are_sent_again_from_our_history() {
    let Outcome {
        door,
        publisher,
        viewer,
        lost,
    } = call(&[], &["--nack"], false).await;
    let counters = &door.counters;
    eprintln!(
        "viewer: {lost} lost, {:?} {:?} {:?}",
        viewer.video, viewer.nack, viewer.pli
    );
    assert!(lost > 10 && viewer.video.repaired > 5, "{:?} of {lost}", viewer.video);
    assert_eq!(viewer.nack.sent, counters.nacks_in.get());
    assert!(counters.resent_out.get() >= viewer.video.repaired);
    assert!(viewer.video.repaired > 3 * viewer.video.lost, "{:?}", viewer.video);
    assert_eq!(viewer.video.disordered, 0);
    assert!(viewer.pli.sent <= viewer.video.gaps, "{:?}", viewer.pli);
    assert!(publisher.pli.received <= viewer.pli.sent + 1, "{:?}", publisher.pli);
    assert_eq!(counters.nacks_out.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_that_does_not_ask_for_packets_gets_keyframes() {
    let Outcome { door, viewer, lost, .. } = call(&[], &[], false).await;
    assert!(lost > 10, "{lost} lost");
    assert_eq!((door.counters.nacks_in.get(), door.counters.resent_out.get()), (0, 0));
    assert!(viewer.pli.sent > 0 && viewer.video.keyframes > 1, "{:?}", viewer.video);
}

//! Sound and pictures from member to member.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use wzp_gateway::join;
use wzp_gateway::native::client::Event;
use wzp_gateway::room::registry::{Registry, RoomLimits};
use wzp_gateway::room::track::Bounds;
use wzp_proto::header::MediaType;
use wzp_proto::signal::Signal;
use wzp_proto::video::{FrameSize, Reassembler};

use crate::support::{DEADLINE, Door, Member, access_unit, ffmpeg, h264};

async fn next_frame(member: &mut Member, reassembler: &mut Reassembler) -> wzp_proto::video::AssembledFrame {
    loop {
        let packet = member.wait_packet(MediaType::Video).await;
        assert!(packet.payload.len() <= 1100);
        if let Some(frame) = reassembler.push(&packet, Duration::ZERO).unwrap() {
            return frame;
        }
    }
}

#[tokio::test]
async fn sound_passes_unchanged_under_new_numbers() {
    let door = Door::open();
    let mut talker = door.join("general", "talker").await;
    let mut listener = door.join("general", "listener").await;
    listener.wait_list(&["talker", "listener"]).await;
    // What comes before the listener knows of the track is gone; it is live sound.
    talker.send_sound(0, &[0xf8; 30]);
    let first = listener_hears(&mut talker, &mut listener).await;
    assert!(first.header.seq >= 1 << 31, "far from every app's own counter");
    let began = Instant::now();
    for n in 1..=50u32 {
        talker.send_sound(100 + n, &sound(n));
        let heard = listener.wait_packet(MediaType::Audio).await;
        assert_eq!(heard.payload[..], sound(n));
        assert_eq!(heard.header.seq, first.header.seq + n);
        // This talker's clock runs faster than time and is new, so that it is followed by 100 ms a second at most.
        let followed = 1 + began.elapsed().as_millis() as u32 / 10;
        let off = heard.header.timestamp.abs_diff(first.header.timestamp + n * 20);
        assert!(off <= followed, "packet {n} is {off} ms off");
        assert_eq!((heard.header.stream_id, heard.header.fec_block), (0, 0));
    }
}

/// A packet that says it is 20 ms of Opus.
fn sound(n: u32) -> [u8; 40] {
    let mut packet = [n as u8; 40];
    packet[0] = 0xf8;
    packet
}

/// Sends until the listener hears; the numbers go on at 101.
async fn listener_hears(talker: &mut Member, listener: &mut Member) -> wzp_proto::packet::MediaPacket {
    for n in 1..=100 {
        talker.send_sound(n, &sound(n));
        talker.ping().await;
    }
    let mut last = listener.wait_packet(MediaType::Audio).await;
    while last.payload[..] != sound(100) {
        last = listener.wait_packet(MediaType::Audio).await;
    }
    last
}

#[tokio::test]
async fn late_joiner_gets_the_keyframe_and_all_since_and_then_what_is_live() {
    let door = Door::open();
    let mut sender = door.join("general", "sender").await;
    let units: Vec<_> = [(true, 9_000), (false, 500), (false, 2_500)]
        .map(|(key, len)| access_unit(key, len))
        .into();
    let mut seq = 70;
    for (n, unit) in units.iter().enumerate() {
        seq += sender.send_picture(seq, n as u32 * 33, unit, n == 0);
    }
    while door.counters.video_in.get() < 3 {
        sender.ping().await;
    }
    let mut late = door.join("general", "late").await;
    let mut reassembler = Reassembler::default();
    let mut frames = Vec::new();
    for _ in 0..3 {
        frames.push(next_frame(&mut late, &mut reassembler).await);
    }
    let live = access_unit(false, 700);
    sender.send_picture(seq, 99, &live, false);
    frames.push(next_frame(&mut late, &mut reassembler).await);
    assert!(frames[0].keyframe && frames[1..].iter().all(|frame| !frame.keyframe));
    assert_eq!(
        frames.iter().map(|frame| &frame.payload).collect::<Vec<_>>(),
        [&units[0], &units[1], &units[2], &live]
    );
    let size = FrameSize {
        width: 640,
        height: 360,
    };
    assert_eq!((frames[0].size, frames[0].stream_id), (Some(size), 1));
    for pair in frames.windows(2) {
        assert_eq!(pair[1].first_seq, pair[0].last_seq + 1);
        assert_eq!(pair[1].timestamp - pair[0].timestamp, 33);
    }
}

#[tokio::test]
async fn without_replay_a_late_joiner_is_one_keyframe_request() {
    let limits = RoomLimits { rooms: 1, members: 4 };
    for off in [
        Bounds {
            hard_age: 0,
            ..Bounds::VIDEO
        },
        Bounds {
            hard_bytes: 0,
            ..Bounds::VIDEO
        },
    ] {
        let door = Door::open_registry(Registry::with_replay(limits, off), |_| {});
        let mut sender = door.join("general", "sender").await;
        let seq = sender.send_picture(0, 0, &access_unit(true, 3_000), true);
        while door.counters.video_in.get() < 1 {
            sender.ping().await;
        }
        let mut late = door.join("general", "late").await;
        sender
            .wait("the request", |event| match event {
                Event::Signal(Signal::PictureLossIndication { .. }) => Some(()),
                _ => None,
            })
            .await;
        let fresh = access_unit(true, 500);
        sender.send_picture(seq, 33, &fresh, true);
        let frame = next_frame(&mut late, &mut Reassembler::default()).await;
        assert_eq!(frame.payload, fresh);
    }
}

#[tokio::test]
async fn keyframe_request_reaches_exactly_its_source_with_the_sources_stream_id() {
    let door = Door::open();
    let mut sender = door.join("general", "sender").await;
    let mut other = door.join("general", "other").await;
    let mut viewer = door.join("general", "viewer").await;
    sender.send_picture(0, 0, &access_unit(true, 100), true);
    // The other one shows something too, but is not looked at.
    other.send_picture(0, 0, &access_unit(true, 100), true);
    let seen = next_frame(&mut viewer, &mut Reassembler::default()).await;
    let (meant, unmeant) = if seen.stream_id == 1 {
        (&mut sender, &mut other)
    } else {
        (&mut other, &mut sender)
    };
    assert!(viewer.client.sender().signal(Signal::picture_loss(seen.stream_id)));
    let asked = |event| match event {
        Event::Signal(Signal::PictureLossIndication { stream_id, .. }) => Some(stream_id),
        Event::Closed(error) => panic!("closed: {error}"),
        _ => None,
    };
    assert_eq!(meant.wait("the request", asked).await, 3);
    // A request that had gone astray would be here before the pong.
    assert!(unmeant.client.sender().signal(Signal::ping(1)));
    unmeant
        .wait("the pong", |event| match event {
            Event::Signal(Signal::PictureLossIndication { .. }) => panic!("asked, though not meant"),
            Event::Signal(Signal::Pong { .. }) => Some(()),
            _ => None,
        })
        .await;
    // A flood of requests is one request.
    for _ in 0..50 {
        viewer.client.sender().signal(Signal::picture_loss(seen.stream_id));
        viewer.ping().await;
    }
    assert!(
        door.counters.pli_out.get() <= 3,
        "{} requests",
        door.counters.pli_out.get()
    );
}

#[tokio::test]
async fn loss_on_the_way_in_asks_the_source_for_a_keyframe() {
    let door = Door::open();
    let mut sender = door.join("general", "sender").await;
    sender.send_picture(0, 0, &access_unit(true, 100), true);
    sender.send_picture(7, 33, &access_unit(false, 100), false);
    let asked = sender
        .wait("the request", |event| match event {
            Event::Signal(Signal::PictureLossIndication { stream_id, .. }) => Some(stream_id),
            _ => None,
        })
        .await;
    assert_eq!(asked, 3);
}

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: join::Args,
}

fn arguments(door: &Door, more: &[&str]) -> join::Args {
    let address = door.address.to_string();
    let fixed = ["join", address.as_str(), "--room", "general"];
    Cli::parse_from(fixed.iter().chain(more)).args
}

fn count_frames(path: &Path) -> u64 {
    let arguments = [
        "-v",
        "error",
        "-count_frames",
        "-show_entries",
        "stream=nb_read_frames",
        "-of",
        "csv=p=0",
    ];
    let out = Command::new("ffprobe").args(arguments).arg(path).output().unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_command_line_members_hear_and_see_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (picture, sound) = (h264(directory.path(), 30), path("in.ogg"));
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=1000",
        "-t",
        "2",
        "-c:a",
        "libopus",
        "-b:a",
        "24k",
        &sound,
    ]);
    let door = Door::open();
    let one = join::stay(arguments(
        &door,
        &[
            "--alias",
            "one",
            "--audio",
            "tone:440",
            "--video",
            &picture,
            "--seconds",
            "6",
        ],
    ));
    let (seen, heard) = (path("out.h264"), path("out.ogg"));
    let recorded = [
        "--alias",
        "two",
        "--audio",
        &sound,
        "--record-video",
        &seen,
        "--record-audio",
        &heard,
    ];
    let two = arguments(&door, &[&recorded[..], &["--seconds", "4"]].concat());
    let two = async {
        // Late, in the middle of the picture's second.
        tokio::time::timeout(DEADLINE, async {
            while door.counters.video_in.get() < 45 {
                tokio::time::sleep(Duration::from_millis(1)).await
            }
        })
        .await
        .unwrap();
        join::stay(two).await
    };
    let (one, two) = tokio::join!(one, two);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(
        (one.audio.dominant_hz, two.audio.dominant_hz),
        (Some(1000.0), Some(440.0))
    );
    assert!(
        two.audio.rms.is_some_and(|rms| (rms - 0.1768).abs() < 0.01),
        "{:?}",
        two.audio.rms
    );
    assert!(two.audio.packets > 150, "{:?}", two.audio);
    for summary in [&one, &two] {
        let (audio, video) = (&summary.audio, &summary.video);
        assert_eq!(
            (audio.lost, audio.duplicates, audio.disordered, audio.undecodable),
            (0, 0, 0, 0)
        );
        assert_eq!(
            (
                video.lost,
                video.gaps,
                video.incomplete,
                video.dropped,
                video.disordered
            ),
            (0, 0, 0, 0, 0)
        );
        assert_eq!((summary.pli.sent, summary.malformed, &summary.closed), (0, 0, &None));
    }
    assert!(two.video.frames > 115, "{:?}", two.video);
    assert!(two.video.first_frame_ms.is_some_and(|ms| ms < 500), "{:?}", two.video);
    assert_eq!((two.video.width, two.video.height), (Some(640), Some(360)));
    let names: Vec<_> = two.participants.iter().filter_map(|who| who.alias.as_deref()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(
        count_frames(Path::new(&seen)),
        two.video.frames,
        "every recorded picture decodes"
    );
    ffmpeg(&["-xerror", "-i", &heard, "-f", "null", "-"]);
}

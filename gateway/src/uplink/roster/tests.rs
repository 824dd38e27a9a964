use wzp_proto::codec::Codec;
use wzp_proto::header::Flags;

use super::*;

const OWN: &str = "own";

fn who(fingerprint: &str, alias: &str) -> RoomParticipant {
    RoomParticipant {
        fingerprint: fingerprint.to_owned(),
        alias: Some(alias.to_owned()),
        relay_label: None,
        stream_id: None,
    }
}

fn header(kind: Kind, stream_id: u8, seq: u32, timestamp: u32) -> MediaHeader {
    MediaHeader {
        flags: Flags::empty(),
        media_type: match kind {
            Kind::Audio => MediaType::Audio,
            Kind::Video => MediaType::Video,
        },
        codec: Codec::Opus24k,
        stream_id,
        fec_ratio: 0,
        seq,
        timestamp,
        fec_block: 0,
    }
}

fn ms(ms: u64) -> RoomTime {
    RoomTime::from_millis(ms)
}

/// Packets of a stream whose sender began at `origin`.
fn hear(roster: &mut Roster, id: u32, kind: Kind, first_seq: u32, origin: i64, now: u64) {
    for n in 0..PACKETS {
        let at = now + u64::from(n) * 20;
        let header = header(kind, id as u8, first_seq + n, (at as i64 - origin) as u32);
        roster.seen(StreamId(id), &header, ms(at));
    }
}

fn name_of(roster: &Roster, id: u32) -> String {
    match roster.owner(StreamId(id)) {
        Some(Owner::Member(key)) => roster.members().find(|(known, _)| *known == key).unwrap().1.to_owned(),
        Some(Owner::Unnamed(number)) => roster.unnamed()[number].clone(),
        None => "nobody".to_owned(),
    }
}

#[test]
fn our_other_legs_are_never_listed_and_forgotten_when_they_are_gone() {
    let names = |roster: &Roster| roster.members().map(|(_, name)| name.to_owned()).collect::<Vec<_>>();
    let mut roster = Roster::new(OWN.to_owned());
    let list = || vec![who(OWN, "us"), who("one", "Ana"), who("bo", "Bo"), who("two", "Bea")];
    roster.set_own_legs(vec!["one".into(), "two".into()]);
    roster.list(list(), "us", ms(0));
    assert_eq!(names(&roster), ["Bo"]);
    assert_eq!(roster.own().collect::<Vec<_>>(), [OWN, "one", "two"]);
    roster.set_own_legs(vec!["two".into()]);
    roster.list(list(), "us", ms(1_000));
    assert_eq!(names(&roster), ["Ana", "Bo"]);
    assert_eq!(roster.own().collect::<Vec<_>>(), [OWN, "two"]);
}

#[test]
fn own_leg_is_never_listed_even_under_an_accounts_fingerprint() {
    let mut roster = Roster::new(OWN.to_owned());
    let list = vec![who("bo", "Bo"), who(OWN, "Ana via web")];
    assert!(roster.list(list, "Ana via web", ms(0)));
    assert_eq!(roster.members().map(|(_, name)| name).collect::<Vec<_>>(), ["Bo"]);
    let mut roster = Roster::new(OWN.to_owned());
    let list = vec![who("x", "Ana via web"), who("bo", "Bo"), who("account", "Ana via web")];
    roster.list(list, "Ana via web", ms(0));
    assert_eq!(
        roster.members().map(|(_, name)| name).collect::<Vec<_>>(),
        ["Ana via web", "Bo"]
    );
}

#[test]
fn only_member_sends_whatever_comes() {
    let mut roster = Roster::new(OWN.to_owned());
    roster.list(vec![who(OWN, "us"), who("bo", "Bo")], "us", ms(0));
    hear(&mut roster, 1, Kind::Audio, 0, -5_000, 100);
    hear(&mut roster, 2, Kind::Video, 7, 90_000, 100);
    assert_eq!((name_of(&roster, 1), name_of(&roster, 2)), ("Bo".into(), "Bo".into()));
    assert_eq!(roster.unheard(), 0);
}

#[test]
fn one_packet_is_nobody() {
    let mut roster = Roster::new(OWN.to_owned());
    roster.list(vec![who(OWN, "us"), who("bo", "Bo")], "us", ms(0));
    assert!(!roster.seen(StreamId(1), &header(Kind::Audio, 0, 5, 100), ms(100)));
    assert_eq!(name_of(&roster, 1), "nobody");
}

#[test]
fn those_who_were_there_before_are_told_by_the_order_of_their_origins() {
    let mut roster = Roster::new(OWN.to_owned());
    roster.list(vec![who("bo", "Bo"), who("cy", "Cy"), who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 1, Kind::Audio, 900, -4_000, 100);
    assert_eq!(name_of(&roster, 1), "native 1", "it could be either");
    hear(&mut roster, 2, Kind::Audio, 2_000, -40_000, 100);
    assert_eq!((name_of(&roster, 1), name_of(&roster, 2)), ("Cy".into(), "Bo".into()));
    // A picture goes with the sound of its origin.
    hear(&mut roster, 3, Kind::Video, 100, -39_900, 200);
    assert_eq!(name_of(&roster, 3), "Bo");
    assert_eq!(roster.video_of(roster.owner(StreamId(3)).unwrap()), Some(3));
}

#[test]
fn those_who_join_later_are_told_by_when_they_did() {
    let mut roster = Roster::new(OWN.to_owned());
    let (bo, cy, di) = (who("bo", "Bo"), who("cy", "Cy"), who("di", "Di"));
    roster.list(vec![bo.clone(), who(OWN, "us")], "us", ms(0));
    roster.list(vec![bo.clone(), who(OWN, "us"), cy.clone()], "us", ms(10_000));
    roster.list(vec![bo, who(OWN, "us"), cy, di], "us", ms(20_000));
    assert_eq!(roster.unheard(), 3);
    hear(&mut roster, 4, Kind::Audio, 0, 20_300, 20_400);
    assert_eq!(name_of(&roster, 4), "Di");
    hear(&mut roster, 5, Kind::Audio, 0, 9_800, 20_400);
    assert_eq!(name_of(&roster, 5), "Cy");
    hear(&mut roster, 6, Kind::Audio, 0, -70_000, 20_400);
    assert_eq!(name_of(&roster, 6), "Bo", "the last one left");
    assert_eq!(roster.unheard(), 0);
}

#[test]
fn equal_origins_stay_without_a_name_and_come_apart_when_one_leaves() {
    let mut roster = Roster::new(OWN.to_owned());
    let (bo, cy) = (who("bo", "Bo"), who("cy", "Cy"));
    roster.list(vec![bo.clone(), cy, who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 1, Kind::Audio, 0, -4_000, 100);
    hear(&mut roster, 2, Kind::Audio, 0, -4_100, 100);
    let names = [name_of(&roster, 1), name_of(&roster, 2)];
    assert_eq!(names, ["native 1", "native 2"].map(String::from));
    roster.list(vec![bo, who(OWN, "us")], "us", ms(5_000));
    roster.vanished(&[StreamId(2)]);
    assert_eq!(name_of(&roster, 1), "Bo");
}

#[test]
fn what_a_leaving_member_left_on_its_way_is_nobody() {
    let mut roster = Roster::new(OWN.to_owned());
    let (bo, cy) = (who("bo", "Bo"), who("cy", "Cy"));
    roster.list(vec![bo.clone(), cy, who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 1, Kind::Audio, 0, -9_000, 100);
    hear(&mut roster, 2, Kind::Audio, 0, -4_000, 100);
    assert_eq!((name_of(&roster, 1), name_of(&roster, 2)), ("Bo".into(), "Cy".into()));
    roster.list(vec![bo, who(OWN, "us")], "us", ms(5_000));
    hear(&mut roster, 2, Kind::Audio, 300, -4_000, 5_010);
    assert_eq!(
        (name_of(&roster, 1), name_of(&roster, 2)),
        ("Bo".into(), "nobody".into())
    );
    assert!(roster.unnamed().is_empty());
}

#[test]
fn mix_of_a_gateway_is_called_by_all_it_may_be() {
    let mut roster = Roster::new(OWN.to_owned());
    let (bo, cy) = (who("bo", "Bo"), who("cy", "Cy"));
    roster.list(vec![bo.clone(), who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 1, Kind::Audio, 1 << 31, -4_000, 100);
    assert_eq!(name_of(&roster, 1), "Bo");
    roster.list(vec![bo.clone(), who(OWN, "us"), cy], "us", ms(5_000));
    assert_eq!(name_of(&roster, 1), "Bo + Cy");
    roster.list(vec![bo, who(OWN, "us")], "us", ms(9_000));
    assert_eq!(name_of(&roster, 1), "Bo");
}

#[test]
fn keyframe_of_one_who_left_takes_over_nobodys_picture() {
    let mut roster = Roster::new(OWN.to_owned());
    roster.list(vec![who("bo", "Bo"), who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 1, Kind::Video, 7, 0, 100);
    assert_eq!(name_of(&roster, 1), "Bo");
    // The relay's memory of Cy: many fragments, one time.
    for n in 0..20 {
        roster.seen(StreamId(2), &header(Kind::Video, 2, n, 5_000), ms(200));
    }
    assert_eq!(name_of(&roster, 2), "nobody");
    roster.list(vec![who("bo", "Bo"), who(OWN, "us"), who("di", "Di")], "us", ms(300));
    roster.list(vec![who("bo", "Bo"), who(OWN, "us")], "us", ms(400));
    assert_eq!(
        (name_of(&roster, 1), name_of(&roster, 2)),
        ("Bo".into(), "nobody".into())
    );
}

#[test]
fn stream_that_goes_on_is_the_only_members_and_not_the_newest() {
    let mut roster = Roster::new(OWN.to_owned());
    let (bo, cy) = (who("bo", "Bo"), who("cy", "Cy"));
    roster.list(vec![bo.clone(), cy, who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 1, Kind::Audio, 0, -4_000, 100);
    hear(&mut roster, 2, Kind::Audio, 0, -4_050, 100);
    roster.seen(StreamId(1), &header(Kind::Audio, 1, 200, 8_000), ms(4_100));
    roster.list(vec![bo, who(OWN, "us")], "us", ms(4_200));
    assert_eq!(name_of(&roster, 1), "Bo");
}

#[test]
fn one_who_joins_again_has_new_streams_and_wants_a_picture() {
    let mut roster = Roster::new(OWN.to_owned());
    let (us, bo, cy) = (who(OWN, "us"), who("bo", "Bo"), who("cy", "Cy"));
    let list = |roster: &mut Roster, whos: [&RoomParticipant; 3], at| {
        let whos = whos.into_iter().cloned().collect();
        roster.list(whos, "us", ms(at))
    };
    assert!(list(&mut roster, [&us, &bo, &cy], 0));
    hear(&mut roster, 1, Kind::Audio, 0, -90_000, 100);
    hear(&mut roster, 2, Kind::Audio, 0, -50_000, 100);
    hear(&mut roster, 3, Kind::Video, 0, -90_000, 100);
    assert_eq!(
        [1, 2, 3].map(|id| name_of(&roster, id)),
        ["Bo", "Cy", "Bo"].map(String::from)
    );
    // He stands at the end now.
    assert!(list(&mut roster, [&us, &cy, &bo], 20_000));
    assert_eq!(
        [1, 2, 3].map(|id| name_of(&roster, id)),
        ["nobody", "Cy", "nobody"].map(String::from)
    );
    hear(&mut roster, 4, Kind::Audio, 0, 20_100, 20_200);
    assert_eq!(name_of(&roster, 4), "Bo");
    // Once more, and the list is the same.
    assert!(list(&mut roster, [&us, &cy, &bo], 30_000));
    assert_eq!(
        (name_of(&roster, 2), name_of(&roster, 4)),
        ("Cy".into(), "nobody".into())
    );
    // We ourselves were named anew: nobody else has done anything.
    hear(&mut roster, 5, Kind::Audio, 0, 30_100, 30_200);
    list(&mut roster, [&cy, &bo, &us], 40_000);
    list(&mut roster, [&cy, &bo, &us], 41_000);
    assert_eq!((name_of(&roster, 2), name_of(&roster, 5)), ("Cy".into(), "Bo".into()));
    assert!(
        !roster.list(vec![cy, us], "us", ms(50_000)),
        "somebody left: nobody wants a picture"
    );
}

#[test]
fn sound_and_picture_of_one_without_a_name_are_one() {
    let mut roster = Roster::new(OWN.to_owned());
    roster.list(vec![who("bo", "Bo"), who("cy", "Cy"), who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 1, Kind::Video, 0, -3_950, 100);
    hear(&mut roster, 2, Kind::Audio, 0, -4_000, 100);
    assert_eq!(
        (name_of(&roster, 1), name_of(&roster, 2)),
        ("native 1".into(), "native 1".into())
    );
    assert_eq!(roster.unnamed().len(), 1);
    // Two pictures near one sound: it is not clear whose is whose.
    let mut roster = Roster::new(OWN.to_owned());
    roster.list(vec![who("bo", "Bo"), who("cy", "Cy"), who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 1, Kind::Video, 0, -3_950, 100);
    hear(&mut roster, 3, Kind::Video, 0, -4_100, 100);
    hear(&mut roster, 2, Kind::Audio, 0, -4_000, 100);
    assert_eq!(roster.unnamed().len(), 3);
}

#[test]
fn stream_that_may_be_of_several_is_called_by_all_of_them() {
    let mut roster = Roster::new(OWN.to_owned());
    let (bo, cy, di) = (who("bo", "Bo"), who("cy", "Cy"), who("di", "Di"));
    roster.list(vec![bo.clone(), who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 1, Kind::Audio, 0, -9_000, 100);
    assert!((0..200).all(|_| name_of(&roster, 1) == "Bo" && !roster.blur(StreamId(1), false)));
    roster.list(vec![bo, who(OWN, "us"), cy, di], "us", ms(5_000));
    assert_eq!(name_of(&roster, 1), "Bo");
    let blurs: Vec<_> = (0..200).map(|_| roster.blur(StreamId(1), true)).collect();
    assert_eq!(blurs.iter().filter(|changed| **changed).count(), 1);
    assert_eq!(name_of(&roster, 1), "Bo + Cy + Di");
}

#[test]
fn gateway_among_apps_is_one_member() {
    let mut roster = Roster::new(OWN.to_owned());
    let list = vec![who("bo", "Bo"), who("leg", "Cy, Di via web"), who(OWN, "us")];
    roster.list(list, "us", ms(0));
    hear(&mut roster, 1, Kind::Audio, 1 << 31, 77_000, 100);
    assert_eq!(
        name_of(&roster, 1),
        "Bo + Cy, Di via web",
        "the relay may be a gateway that mixes"
    );
    hear(&mut roster, 2, Kind::Audio, 900, -4_000, 200);
    assert_eq!(
        (name_of(&roster, 1), name_of(&roster, 2)),
        ("Cy, Di via web".into(), "Bo".into())
    );
}

#[test]
fn members_on_other_relays_stay_as_long_as_they_are_heard() {
    let mut roster = Roster::new(OWN.to_owned());
    let far = |fingerprint: &str, alias: &str| RoomParticipant {
        relay_label: Some("far".to_owned()),
        ..who(fingerprint, alias)
    };
    let (us, bo) = (who(OWN, "us"), who("bo", "Bo"));
    roster.list(vec![us.clone(), bo, far("cy", "Cy")], "us", ms(0));
    hear(&mut roster, 1, Kind::Audio, 0, -90_000, 100);
    roster.list(vec![us.clone(), far("cy", "Cy")], "us", ms(1_000));
    assert_eq!(name_of(&roster, 1), "Cy");
    // Somebody else left, of whom nothing was heard, and the relay leaves out all that are elsewhere.
    roster.list(vec![us], "us", ms(2_000));
    assert_eq!(name_of(&roster, 1), "Cy");
    roster.vanished(&[StreamId(1)]);
    assert_eq!(roster.members().count(), 0);
}

#[test]
fn relay_that_says_whose_streams_are_whose_is_believed() {
    let mut roster = Roster::new(OWN.to_owned());
    let of = |fingerprint: &str, alias: &str, stream_id| RoomParticipant {
        stream_id: Some(stream_id),
        ..who(fingerprint, alias)
    };
    roster.list(vec![of("bo", "Bo", 4), of("cy", "Cy", 2), who(OWN, "us")], "us", ms(0));
    for (id, kind) in [(1, Kind::Audio), (2, Kind::Audio), (3, Kind::Video), (4, Kind::Audio)] {
        for n in 0..PACKETS {
            let stream_id = [4, 2, 4, 9][id as usize - 1];
            roster.seen(StreamId(id), &header(kind, stream_id, n, n * 20), ms(100));
        }
    }
    let names = [1, 2, 3, 4].map(|id| name_of(&roster, id));
    assert_eq!(names, ["Bo", "Cy", "Bo", "nobody"].map(String::from));
    assert!(roster.unnamed().is_empty());
    let repeated = [of("bo", "Bo", 4), of("cy", "Cy", 2)];
    roster.list(repeated.to_vec(), "us", ms(200));
    roster.list(repeated.to_vec(), "us", ms(300));
    assert_eq!(name_of(&roster, 2), "Cy");
}

#[test]
fn list_and_names_are_bounded() {
    let mut roster = Roster::new(OWN.to_owned());
    let crowd = (0..1000).map(|n| who(&n.to_string(), &"x".repeat(300))).collect();
    roster.list(crowd, "us", ms(0));
    assert_eq!(roster.members().count(), MOST_MEMBERS);
    assert!(roster.members().all(|(_, name)| name.chars().count() <= MOST_NAME));
    // Nameless ones are told apart by place.
    roster.list(vec![who("", ""), who("", "")], "us", ms(0));
    assert_eq!(
        roster.members().map(|(key, name)| (key.nth, name)).collect::<Vec<_>>(),
        [(0, "native"), (1, "native")]
    );
}

#[test]
fn keyframe_requests_for_somebody_elses_picture_are_known_by_its_stream() {
    let mut roster = Roster::new(OWN.to_owned());
    roster.list(vec![who("bo", "Bo"), who(OWN, "us")], "us", ms(0));
    hear(&mut roster, 9, Kind::Video, 0, 0, 100);
    assert!(roster.has_video(9, ms(200)));
    assert!(!roster.has_video(8, ms(200)));
    assert!(!roster.has_video(9, ms(9_000)), "it is sent no more");
}

#[test]
fn cached_keyframe_does_not_decide_for_long_whose_picture_it_is() {
    let mut roster = Roster::new(OWN.to_owned());
    roster.list(vec![who("bo", "Bo"), who("cy", "Cy"), who(OWN, "us")], "us", ms(2_500));
    hear(&mut roster, 1, Kind::Audio, 90, 0, 2_500);
    hear(&mut roster, 2, Kind::Audio, 0, 2_000, 2_500);
    assert_eq!((name_of(&roster, 1), name_of(&roster, 2)), ("Bo".into(), "Cy".into()));
    // Bo's keyframe is from his beginning, so its age is as if its sender had begun when Cy did.
    hear(&mut roster, 3, Kind::Video, 0, 2_000, 2_500);
    hear(&mut roster, 4, Kind::Video, 0, 2_000, 2_500);
    assert_ne!(name_of(&roster, 3), name_of(&roster, 4), "nobody has two pictures");
    roster.restarted(StreamId(3));
    hear(&mut roster, 3, Kind::Video, 70, 0, 2_700);
    roster.restarted(StreamId(4));
    hear(&mut roster, 4, Kind::Video, 30, 2_000, 2_700);
    assert_eq!((name_of(&roster, 3), name_of(&roster, 4)), ("Bo".into(), "Cy".into()));
}

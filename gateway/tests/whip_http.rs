//! WHIP and WHEP as HTTP sees them: a real gateway in this process, a real HTTP client.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use ureq::http;
use wzp_gateway::config::{Config, Settings};
use wzp_gateway::http::whip::MAX_BODY;
use wzp_gateway::room::member::Door;
use wzp_gateway::serve::Gateway;
use wzp_proto::room_name::RoomName;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

struct Server {
    gateway: Gateway,
    url: String,
    _state: tempfile::TempDir,
}

async fn start(args: &[&str]) -> Server {
    let state = tempfile::tempdir().unwrap();
    let local = "127.0.0.1:0";
    let fixed = [
        "gateway", "--no-tls", "--http", local, "--native", local, "--webrtc", local,
    ];
    let settings = Line::parse_from(fixed.iter().chain(args)).settings;
    let config = Config {
        state_dir: state.path().to_owned(),
        ..settings.resolve().unwrap()
    };
    let gateway = Gateway::start(&config).await.unwrap();
    let url = format!("http://{}", gateway.addresses().http);
    Server {
        gateway,
        url,
        _state: state,
    }
}

impl Server {
    fn members(&self, room: &str) -> Vec<(String, Door)> {
        let room = self.gateway.registry().get(RoomName::parse(room).unwrap().key());
        room.map_or_else(Vec::new, |room| {
            let snapshot = room.snapshot();
            snapshot
                .members
                .iter()
                .map(|member| (member.name.clone(), member.door))
                .collect()
        })
    }

    async fn until(&self, what: &str, deadline: Duration, test: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !test(self) {
            assert!(start.elapsed() < deadline, "waited {deadline:?} for: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body: Vec<u8> = body.into();
        let has_body = matches!(method, "POST" | "PUT" | "PATCH");
        tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .allow_non_standard_methods(true)
                .timeout_global(Some(Duration::from_secs(20)))
                .build();
            let agent = ureq::Agent::new_with_config(config);
            let mut response = if has_body {
                agent.run(request.body(body).unwrap()).unwrap()
            } else {
                agent.run(request.body(()).unwrap()).unwrap()
            };
            Answer {
                status: response.status().as_u16(),
                headers: joined(response.headers()),
                body: response.body_mut().read_to_string().unwrap(),
            }
        })
        .await
        .unwrap()
    }

    /// Begins a session; its address and entity tag.
    async fn begin(&self, path: &str, offer: &str) -> (String, String) {
        let answer = self.send("POST", path, &[SDP], offer).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        (answer.header("location").to_owned(), answer.header("etag").to_owned())
    }
}

fn joined(headers: &http::HeaderMap) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = value.to_str().unwrap();
        joined
            .entry(name.to_string())
            .and_modify(|known| *known += &format!(", {value}"))
            .or_insert_with(|| value.to_owned());
    }
    joined
}

struct Answer {
    status: u16,
    /// Lines of the same name are joined by commas.
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        assert!(
            body["message"].as_str().is_some_and(|text| text.len() > 10),
            "no sentence: {body}"
        );
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

const SDP: (&str, &str) = ("Content-Type", "application/sdp");
const FRAGMENT: (&str, &str) = ("Content-Type", "application/trickle-ice-sdpfrag");
const CANDIDATE: &str = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n\
    a=mid:0\r\na=candidate:1 1 udp 2130706431 192.0.2.1 9 typ host\r\n";
const RESTART: &str = "a=ice-ufrag:wxyz\r\na=ice-pwd:abcdefghijabcdefghijab\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n\
    a=mid:0\r\n";

/// An offer of sound in Opus and pictures in `video`, one way.
fn offer(direction: &str, audio: &str, video: &str) -> String {
    let fingerprint = vec!["AB"; 32].join(":");
    let transport = format!(
        "c=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\na={direction}\r\n"
    );
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{transport}a=mid:0\r\na=rtpmap:111 {audio}\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\n{transport}a=mid:1\r\na=rtpmap:96 {video}\r\n\
         a=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\n"
    )
}

fn publishing() -> String {
    offer("sendonly", "opus/48000/2", "H264/90000")
}

fn watching() -> String {
    offer("recvonly", "opus/48000/2", "H264/90000")
}

/// A request, and what must come of it: status, problem code (or nothing), headers.
struct Case {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    expected: Vec<(&'static str, &'static str)>,
}

fn case(method: &'static str, path: impl Into<String>, status: u16, code: &'static str) -> Case {
    Case {
        method,
        path: path.into(),
        headers: Vec::new(),
        body: Vec::new(),
        status,
        code,
        expected: Vec::new(),
    }
}

impl Case {
    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("Content-Type", content_type)
    }

    fn sdp(self, body: impl Into<Vec<u8>>) -> Self {
        self.body("application/sdp", body)
    }

    fn fragment(self, body: impl Into<Vec<u8>>) -> Self {
        self.body("application/trickle-ice-sdpfrag", body)
    }

    fn gives(mut self, name: &'static str, value: &'static str) -> Self {
        self.expected.push((name, value));
        self
    }
}

async fn check(server: &Server, cases: Vec<Case>) -> usize {
    let count = cases.len();
    for case in cases {
        let headers: Vec<(&str, &str)> = case
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let what = format!("{} {} {headers:?}", case.method, case.path);
        let answer = server.send(case.method, &case.path, &headers, case.body).await;
        assert_eq!(answer.status, case.status, "{what}: {}", answer.body);
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{what}");
        assert!(
            answer
                .header("access-control-expose-headers")
                .contains("Location, ETag, Link")
        );
        if answer.status >= 400 && case.method != "HEAD" {
            assert_eq!(answer.header("content-type"), "application/json", "{what}");
            assert_eq!(answer.code(), case.code, "{what}");
        }
        for (name, value) in case.expected {
            assert_eq!(answer.header(name), value, "{what}: {name}");
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_gets_the_status_and_headers_that_the_rfc_asks_for() {
    let server = start(&[]).await;
    let (session, etag) = server.begin("/whip/table?name=Cam", &publishing()).await;
    let (viewer, viewer_etag) = server.begin("/whep/table?source=Cam", &watching()).await;
    let large = publishing() + &"a=x-padding:0123456789\r\n".repeat(MAX_BODY / 24);
    let nobody = "0".repeat(32);
    let endpoint = "POST, OPTIONS";
    let resource = "PATCH, DELETE, OPTIONS";
    let mut cases = Vec::new();
    for (role, good, wrong) in [("whip", publishing(), watching()), ("whep", watching(), publishing())] {
        let room = format!("/{role}/table");
        let wrong_code = if role == "whip" {
            "nothing_sent"
        } else {
            "nothing_received"
        };
        cases.extend([
            case("POST", &room, 201, "")
                .sdp(good.clone())
                .gives("content-type", "application/sdp"),
            case("POST", &room, 201, "")
                .body("Application/SDP; charset=utf-8", good.clone())
                .gives("link", ""),
            case("POST", &room, 415, "unsupported_media_type").body("text/plain", good.clone()),
            case("POST", &room, 415, "unsupported_media_type"),
            case("POST", &room, 400, "bad_sdp").sdp(""),
            case("POST", &room, 400, "bad_sdp").sdp("hello"),
            case("POST", &room, 400, "bad_sdp").sdp("{\"sdp\":\"v=0\"}"),
            case("POST", &room, 400, "bad_sdp").sdp("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"),
            case("POST", &room, 400, "bad_body").sdp(vec![0xff, 0xfe]),
            case("POST", &room, 400, "bad_offer").sdp(good.replace("a=ice-pwd", "a=x")),
            case("POST", &room, 400, "bad_offer").sdp(good.replace("a=fingerprint", "a=x")),
            case("POST", &room, 400, "bad_offer").sdp(good.replace("a=mid:1", "a=mid:0")),
            case("POST", &room, 400, wrong_code).sdp(wrong),
            case("POST", &room, 413, "too_large").sdp(large.clone()),
            case("POST", &room, 406, "no_common_codec").sdp(
                good.replace("opus/48000/2", "PCMU/8000")
                    .replace("H264/90000", "VP8/90000"),
            ),
            case("POST", format!("{room}?name="), 400, "bad_name").sdp(good.clone()),
            case("POST", format!("{room}?name={}", "x".repeat(65)), 400, "bad_name").sdp(good.clone()),
            case("POST", format!("{room}?name=a%0Ab"), 400, "bad_name").sdp(good.clone()),
            case("POST", format!("/{role}/api"), 400, "bad_room").sdp(good.clone()),
            case("POST", format!("/{role}/{}", "x".repeat(300)), 400, "bad_room").sdp(good.clone()),
            case("POST", format!("/{role}/a%2Fb"), 400, "bad_room").sdp(good.clone()),
            case("POST", format!("/{role}/%ff"), 400, "bad_room").sdp(good.clone()),
            case("OPTIONS", &room, 204, "")
                .header("Origin", "https://studio.example")
                .header("Access-Control-Request-Method", "POST")
                .gives("accept-post", "application/sdp")
                .gives("access-control-allow-methods", endpoint)
                .gives("access-control-allow-headers", "Authorization, Content-Type, If-Match"),
            case("GET", &room, 405, "method_not_allowed").gives("allow", endpoint),
            case("HEAD", &room, 405, "method_not_allowed").gives("allow", endpoint),
            case("PUT", &room, 405, "method_not_allowed")
                .sdp(good.clone())
                .gives("allow", endpoint),
            case("PATCH", &room, 405, "method_not_allowed")
                .sdp(good.clone())
                .gives("allow", endpoint),
            case("DELETE", &room, 405, "method_not_allowed").gives("allow", endpoint),
            case("POST", "/whip".to_owned(), 404, "no_such_room"),
            case("POST", "/whep/".to_owned(), 404, "no_such_room"),
            case("PATCH", format!("{room}/{nobody}"), 404, "no_such_session").fragment(CANDIDATE),
            case("DELETE", format!("{room}/{nobody}"), 404, "no_such_session"),
            case("DELETE", format!("{room}/short"), 404, "no_such_session"),
            case("DELETE", format!("{room}/%ff"), 404, "no_such_session"),
        ]);
    }
    cases.push(case("POST", "/whep/table?source=Nobody", 404, "no_such_source").sdp(watching()));
    cases.push(case("POST", "/whep/table?source=", 400, "bad_name").sdp(watching()));
    for (session, etag, other_role) in [(&session, &etag, "whep"), (&viewer, &viewer_etag, "whip")] {
        let id = session.rsplit('/').next().unwrap();
        assert_eq!(id.len(), 32);
        cases.extend([
            case("OPTIONS", session, 204, "")
                .gives("accept-patch", "application/trickle-ice-sdpfrag")
                .gives("access-control-allow-methods", resource),
            case("GET", session, 405, "method_not_allowed").gives("allow", resource),
            case("HEAD", session, 405, "method_not_allowed").gives("allow", resource),
            case("POST", session, 405, "method_not_allowed")
                .sdp(publishing())
                .gives("allow", resource),
            case("PUT", session, 405, "method_not_allowed")
                .sdp(publishing())
                .gives("allow", resource),
            case("PATCH", session, 204, "")
                .fragment(CANDIDATE)
                .header("If-Match", etag.clone()),
            case("PATCH", session, 204, "")
                .fragment(CANDIDATE)
                .header("If-Match", format!("\"x\", {etag}")),
            case("PATCH", session, 204, "")
                .fragment(CANDIDATE)
                .header("If-Match", "*"),
            case("PATCH", session, 204, "").fragment(CANDIDATE),
            case("PATCH", session, 204, "").fragment("a=end-of-candidates\r\n"),
            case("PATCH", session, 412, "precondition_failed")
                .fragment(CANDIDATE)
                .header("If-Match", "\"stale\""),
            case("PATCH", session, 412, "precondition_failed")
                .fragment(CANDIDATE)
                .header("If-Match", format!("W/{etag}")),
            case("PATCH", session, 412, "precondition_failed")
                .fragment(RESTART)
                .header("If-Match", etag.clone()),
            case("PATCH", session, 428, "precondition_required").fragment(RESTART),
            case("PATCH", session, 415, "unsupported_media_type").sdp(CANDIDATE),
            case("PATCH", session, 400, "bad_fragment").fragment(""),
            case("PATCH", session, 400, "bad_fragment").fragment("hello"),
            case("PATCH", session, 400, "bad_fragment").fragment("a=ice-ufrag:abcd\r\n"),
            case("PATCH", session, 400, "bad_fragment").fragment("a=candidate:1 1 udp\r\n"),
            case("PATCH", session, 400, "bad_fragment")
                .fragment("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".repeat(65)),
            case("PATCH", session, 413, "too_large").fragment("a=x:0123456789\r\n".repeat(5000)),
            // Right in every part but one.
            case("DELETE", format!("/{other_role}/table/{id}"), 404, "no_such_session"),
            case(
                "DELETE",
                format!("/{}/other/{id}", &session[1..5]),
                404,
                "no_such_session",
            ),
            case(
                "DELETE",
                session.replace(id, &id.to_uppercase()),
                404,
                "no_such_session",
            ),
        ]);
    }
    let mut count = check(&server, cases).await;

    // Restart: a new tag and our new credentials; the old tag is worth nothing then, and its candidates go nowhere.
    for (session, etag) in [(&session, &etag), (&viewer, &viewer_etag)] {
        let answer = server
            .send("PATCH", session, &[FRAGMENT, ("If-Match", "*")], RESTART)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("content-type"), FRAGMENT.1);
        let new = answer.header("etag").to_owned();
        assert!(new.starts_with('"') && new != *etag);
        assert!(answer.body.contains("a=ice-ufrag:") && answer.body.contains("a=ice-pwd:"));
        assert!(
            answer.body.contains("a=candidate:") && answer.body.contains("m=audio"),
            "{}",
            answer.body
        );
        let trickled = RESTART.to_owned() + "a=end-of-candidates\r\n";
        count += check(
            &server,
            vec![
                case("PATCH", session, 412, "precondition_failed")
                    .fragment(trickled.clone())
                    .header("If-Match", etag.clone()),
                case("PATCH", session, 204, "")
                    .fragment(trickled)
                    .header("If-Match", new),
            ],
        )
        .await;
        let many = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".repeat(64);
        for _ in 0..4 {
            assert_eq!(
                server.send("PATCH", session, &[FRAGMENT], many.clone()).await.status,
                204
            );
        }
        count += check(
            &server,
            vec![case("PATCH", session, 400, "too_many_candidates").fragment(many)],
        )
        .await;
    }
    // The viewer's source leaves with DELETE, and the viewer's session with it.
    assert!(server.members("table").contains(&("Cam".to_owned(), Door::Whip)));
    count += check(&server, vec![case("DELETE", &session, 200, "")]).await;
    server
        .until("Cam to leave", Duration::from_secs(1), |server| {
            !server.members("table").iter().any(|(name, _)| name == "Cam")
        })
        .await;
    count += check(&server, vec![case("DELETE", &session, 404, "no_such_session")]).await;
    let (path, left) = (viewer.clone(), Duration::from_secs(2));
    let start = Instant::now();
    while server.send("PATCH", &path, &[FRAGMENT], CANDIDATE).await.status != 404 {
        assert!(start.elapsed() < left, "the viewer outlived its source");
    }
    println!("{count} cases");
    assert!(count >= 40);
    server.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_the_address_the_tag_and_ice_of_the_session() {
    let server = start(&[]).await;
    let answer = server
        .send("POST", "/whip/Caf%C3%A9%20Eins", &[SDP], publishing())
        .await;
    assert_eq!(answer.status, 201);
    let location = answer.header("location");
    assert!(location.starts_with("/whip/Caf%C3%A9%20Eins/"), "{location}");
    assert!(answer.header("etag").starts_with('"'));
    assert!(
        answer.body.starts_with("v=0") && answer.body.contains("a=candidate:"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("a=recvonly"));
    assert_eq!(server.members("café eins"), [("WHIP".to_owned(), Door::Whip)]);
    let viewer = server.send("POST", "/whep/Caf%C3%A9%20Eins", &[SDP], watching()).await;
    assert!(viewer.body.contains("a=sendonly"));
    let another = server
        .send("POST", "/whip/Caf%C3%A9%20Eins", &[SDP], publishing())
        .await;
    assert_ne!(another.header("location"), location);
    server.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_names_the_public_addresses_first() {
    let server = start(&["--public-ip", "203.0.113.7", "--public-ip", "2001:db8::7"]).await;
    let port = server.gateway.addresses().webrtc.unwrap().port();
    for (path, offer) in [("/whip/public?name=Cam", publishing()), ("/whep/public", watching())] {
        let answer = server.send("POST", path, &[SDP], offer).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        // Foundation, component, protocol, priority, address, port, and what follows.
        let candidates: Vec<Vec<&str>> = answer
            .body
            .lines()
            .filter_map(|line| Some(line.strip_prefix("a=candidate:")?.split(' ').collect()))
            .collect();
        for (protocol, kind) in [("udp", "typ host"), ("tcp", "typ host tcptype passive")] {
            let mut of_protocol: Vec<_> = candidates.iter().filter(|words| words[2] == protocol).collect();
            of_protocol.sort_by_key(|words| std::cmp::Reverse(words[3].parse::<u32>().unwrap()));
            let addresses: Vec<&str> = of_protocol.iter().map(|words| words[4]).collect();
            assert_eq!(
                addresses,
                ["203.0.113.7", "2001:db8::7", "127.0.0.1"],
                "{}",
                answer.body
            );
            for words in of_protocol {
                assert_eq!(
                    (words[5], words[6..].join(" ").as_str()),
                    (port.to_string().as_str(), kind)
                );
            }
        }
    }
    server.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_every_request_but_options_needs_one() {
    let server = start(&["--token", "sesame"]).await;
    let room = "/whip/closed";
    let good = ("Authorization", "Bearer sesame");
    for headers in [
        vec![SDP],
        vec![SDP, ("Authorization", "Bearer wrong")],
        vec![SDP, ("Authorization", "Basic sesame")],
    ] {
        let answer = server.send("POST", room, &headers, publishing()).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    assert!(server.members("closed").is_empty());
    let answer = server
        .send("POST", room, &[SDP, ("Authorization", "bearer sesame")], publishing())
        .await;
    assert_eq!(answer.status, 201);
    let session = answer.header("location").to_owned();
    assert_eq!(server.send("OPTIONS", room, &[], "").await.status, 204);
    assert_eq!(server.send("OPTIONS", &session, &[], "").await.status, 204);
    assert_eq!(server.send("PATCH", &session, &[FRAGMENT], CANDIDATE).await.status, 401);
    assert_eq!(server.send("DELETE", &session, &[], "").await.status, 401);
    assert_eq!(
        server
            .send("PATCH", &session, &[FRAGMENT, good], CANDIDATE)
            .await
            .status,
        204
    );
    assert_eq!(server.send("DELETE", &session, &[good], "").await.status, 200);
    server.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_room_and_a_full_server_say_when_to_come_again() {
    let server = start(&["--max-members", "1", "--max-rooms", "1"]).await;
    let (session, _) = server.begin("/whip/one", &publishing()).await;
    for (path, code) in [("/whip/one", "room_full"), ("/whip/two", "server_full")] {
        let answer = server.send("POST", path, &[SDP], publishing()).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, code));
        assert!(answer.header("retry-after").parse::<u64>().is_ok());
    }
    assert_eq!(server.send("DELETE", &session, &[], "").await.status, 200);
    server.begin("/whip/one", &publishing()).await;
    server.gateway.shutdown().await;

    let server = start(&["--max-connections", "2"]).await;
    server.begin("/whip/one", &publishing()).await;
    server.begin("/whep/one", &watching()).await;
    let answer = server.send("POST", "/whep/one", &[SDP], watching()).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "server_full"));
    server.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_offer_leaves_nobody_in_the_room() {
    let server = start(&[]).await;
    let foreign = offer("sendonly", "PCMU/8000", "VP8/90000");
    assert_eq!(server.send("POST", "/whip/quiet", &[SDP], foreign).await.status, 406);
    server
        .until("the room is gone", Duration::from_secs(2), |server| {
            server.gateway.registry().is_empty()
        })
        .await;
    server.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_begins_too_many_sessions_is_slowed_down() {
    let server = start(&[]).await;
    let mut refused = None;
    for _ in 0..1000 {
        let answer = server.send("POST", "/whip/busy", &[SDP], "no").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 400);
    }
    let refused = refused.expect("1000 requests at once and never a 429");
    assert_eq!(refused.code(), "rate_limited");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    server.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_media_never_comes_up_leaves_the_room() {
    let server = start(&[]).await;
    let (session, _) = server.begin("/whip/silent", &publishing()).await;
    assert_eq!(server.members("silent").len(), 1);
    server
        .until("the member leaves", Duration::from_secs(20), |server| {
            server.members("silent").is_empty()
        })
        .await;
    assert_eq!(server.send("DELETE", &session, &[], "").await.status, 404);
    server.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_every_session() {
    let server = start(&[]).await;
    for _ in 0..3 {
        server.begin("/whip/end", &publishing()).await;
    }
    let registry = server.gateway.registry().clone();
    let start = Instant::now();
    server.gateway.shutdown().await;
    while !registry.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(5), "sessions outlive the gateway");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ice_servers_are_in_links() {
    let turn = "turn:turn.example:3478?transport=udp user secret";
    let server = start(&["--ice-server", "stun:stun.example", "--ice-server", turn]).await;
    for (path, offer) in [("/whip/ice", publishing()), ("/whep/ice", watching())] {
        let answer = server.send("POST", path, &[SDP], offer).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let expected = "<stun:stun.example>; rel=\"ice-server\", \
             <turn:turn.example:3478?transport=udp>; rel=\"ice-server\"; username=\"user\"; credential=\"secret\"; \
             credential-type=\"password\"";
        assert_eq!(answer.header("link"), expected);
        assert!(answer.header("access-control-expose-headers").contains("Link"));
    }
    let plain = start(&[]).await;
    let answer = plain.send("POST", "/whip/ice", &[SDP], publishing()).await;
    assert_eq!((answer.status, answer.header("link")), (201, ""));
}

//! Starting, settings and stopping of the program itself.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tests::{DEADLINE, Gateway, address, command};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PORTS: [&str; 6] = [
    "--http",
    "127.0.0.1:0",
    "--native",
    "127.0.0.1:0",
    "--webrtc",
    "127.0.0.1:0",
];

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The next control message.
async fn control(socket: &mut Socket) -> anyhow::Result<Value> {
    loop {
        let message = timeout(DEADLINE, socket.next())
            .await?
            .context("the connection ended")??;
        if let Message::Text(text) = message {
            return Ok(serde_json::from_str(&text)?);
        }
    }
}

/// A browser's control channel, greeted; and the greeting.
async fn connect(http: std::net::SocketAddr) -> anyhow::Result<(Socket, Value)> {
    let mut request = format!("ws://{http}/ws/demo").into_client_request()?;
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", "wzp.v2".parse()?);
    let (mut socket, _) = connect_async(request).await?;
    let hello = control(&mut socket).await?;
    Ok((socket, hello))
}

#[tokio::test]
async fn stopped_program_says_goodbye_to_every_browser_before_it_is_gone() -> anyhow::Result<()> {
    let mut command = command()?;
    command.args(PORTS).args(["--no-tls", "--print-addresses"]);
    let gateway = Gateway::start(command)?;
    let http = address(&gateway.addresses()?, "http")?;
    let mut clients = Vec::new();
    for i in 0..8 {
        let (mut socket, _) = connect(http).await?;
        let join = json!({"type": "join", "name": format!("page {i}"), "id": format!("0123456789abcdef-{i}")});
        for message in [json!({"type": "hello", "versions": [2]}), join] {
            socket.send(Message::text(message.to_string())).await?;
        }
        while control(&mut socket).await?["type"] != "joined" {}
        clients.push(socket);
    }
    let begun = Instant::now();
    gateway.terminate()?;
    for mut socket in clients {
        let mut said = Value::Null;
        let code = loop {
            match timeout(DEADLINE, socket.next())
                .await?
                .context("ended without a close")??
            {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text)?;
                    if message["type"] == "bye" {
                        said = message["reason"].clone();
                    }
                }
                Message::Close(frame) => break frame.map(|frame| u16::from(frame.code)),
                _ => {}
            }
        };
        assert_eq!((said, code), (json!("shutting_down"), Some(1001)));
    }
    assert!(gateway.wait()?.success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn settings_of_the_file_the_environment_and_flags_go_over_each_other() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("gateway.toml");
    std::fs::write(
        &file,
        "http = \"127.0.0.2:0\"\nnative = \"127.0.0.2:0\"\nwebrtc = \"127.0.0.2:0\"\nno_tls = true\n",
    )?;
    let mut command = command()?;
    command
        .env("WZP_CONFIG", &file)
        .env("WZP_NATIVE", "127.0.0.3:0")
        .env("WZP_WEBRTC", "127.0.0.3:0")
        // There and empty: as if it were not there.
        .env("WZP_HTTP", "")
        .args(["--webrtc", "127.0.0.4:0", "--print-addresses"]);
    let gateway = Gateway::start(command)?;
    let addresses = gateway.addresses()?;
    let ips =
        ["http", "native", "webrtc"].map(|door| address(&addresses, door).map(|address| address.ip().to_string()));
    let ips = ips.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    assert_eq!(ips, ["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    Ok(())
}

#[tokio::test]
async fn token_that_is_set_to_nothing_shuts_nobody_out() -> anyhow::Result<()> {
    for (token, required) in [("", false), ("sesame", true)] {
        let mut command = command()?;
        command
            .env("WZP_TOKEN", token)
            .args(PORTS)
            .args(["--no-tls", "--print-addresses"]);
        let gateway = Gateway::start(command)?;
        let (_, hello) = connect(address(&gateway.addresses()?, "http")?).await?;
        assert_eq!(hello["auth_required"], required, "{token:?}");
    }
    let mut command = command()?;
    let refused = command.args(["--token", ""]).output()?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("empty token"), "{text}");
    Ok(())
}

#[test]
fn person_is_told_what_to_open_and_the_doctor_asks_there() -> anyhow::Result<()> {
    let mut serve = command()?;
    serve.args(PORTS);
    let gateway = Gateway::start(serve)?;
    let url = gateway.line("Open   ")?;
    let port = url
        .strip_prefix("https://localhost:")
        .and_then(|rest| rest.strip_suffix('/'));
    let port = port
        .with_context(|| format!("{url:?} is not where it listens"))?
        .to_owned();
    assert!(gateway.line("Native ")?.starts_with("127.0.0.1:"));
    assert!(gateway.state().join("tls-cert.pem").exists());
    let doctor = || -> anyhow::Result<(Option<i32>, String)> {
        let asked = command()?
            .args(["doctor", "--http", &format!("127.0.0.1:{port}")])
            .output()?;
        let said = [asked.stdout, asked.stderr].concat();
        Ok((asked.status.code(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (code, said) = doctor()?;
    assert_eq!(
        (code, said.trim()),
        (Some(0), &*format!("https://127.0.0.1:{port}/health is well"))
    );
    gateway.terminate()?;
    assert!(gateway.wait()?.success());
    let (code, said) = doctor()?;
    assert!(code == Some(1) && said.contains("does not answer"), "{code:?} {said}");
    Ok(())
}

#[test]
fn stay_without_a_length_is_refused_before_anything_is_dialled() -> anyhow::Result<()> {
    let refused = command()?
        .args(["join", "localhost:1", "--room", "a", "--seconds", "nan"])
        .output()?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(2) && text.contains("number of seconds"),
        "{text}"
    );
    Ok(())
}

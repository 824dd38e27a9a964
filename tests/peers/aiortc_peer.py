"""A WHIP publisher or WHEP viewer made of aiortc, for the tests.

    aiortc_peer.py publish URL --hz 440      sends a tone and a moving picture until stdin ends
    aiortc_peer.py watch URL --seconds 5     receives for so long after the first frame

Both print one JSON line when media flows ("connected") and one at the end, and end the session with DELETE.
"""

import argparse
import asyncio
import fractions
import json
import sys
import time
import urllib.parse
import urllib.request

import av
import numpy
from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError

RATE = 48_000
DEADLINE = 20


class Tone(AudioStreamTrack):
    """A sine, 20 ms at a time."""

    def __init__(self, hz):
        super().__init__()
        self.hz, self.at, self.begun = hz, 0, None

    async def recv(self):
        count = RATE // 50
        self.begun = self.begun or time.monotonic()
        await asyncio.sleep(max(0, self.begun + self.at / RATE - time.monotonic()))
        phase = 2 * numpy.pi * self.hz * (numpy.arange(count) + self.at) / RATE
        frame = av.AudioFrame.from_ndarray((numpy.sin(phase) * 16_000).astype(numpy.int16)[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.at, fractions.Fraction(1, RATE)
        self.at += count
        return frame


class Picture(VideoStreamTrack):
    """A bar that wanders over a gradient."""

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        picture = numpy.broadcast_to(numpy.arange(320, dtype=numpy.uint8)[None, :, None], (240, 320, 3)).copy()
        left = (pts // 3000 * 5) % 280
        picture[:, left : left + 40] = (250, 250, 20)
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


def http(method, url, body=None, content_type=None):
    headers = {"Content-Type": content_type} if content_type else {}
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=DEADLINE) as response:
        return response.status, response.headers, response.read().decode()


async def connect(peer, url):
    """Offers, takes the answer, waits for the connection; the address of the session."""
    up = asyncio.Event()
    ended = asyncio.Event()

    @peer.on("connectionstatechange")
    def changed():
        if peer.connectionState == "connected":
            up.set()
        if peer.connectionState in ("failed", "closed"):
            ended.set()

    await peer.setLocalDescription(await peer.createOffer())
    offer = peer.localDescription.sdp.encode()
    status, headers, answer = await asyncio.to_thread(http, "POST", url, offer, "application/sdp")
    assert status == 201, status
    assert headers["Content-Type"] == "application/sdp" and headers["ETag"], headers.items()
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(up.wait(), DEADLINE)
    print(json.dumps({"connected": True}), flush=True)
    return urllib.parse.urljoin(url, headers["Location"]), ended


async def publish(options):
    peer = RTCPeerConnection()
    peer.addTransceiver(Tone(options.hz), direction="sendonly")
    peer.addTransceiver(Picture(), direction="sendonly")
    session, _ = await connect(peer, options.url)
    await asyncio.to_thread(sys.stdin.read)
    reports = await peer.getStats()
    sent = {stat.kind: stat.packetsSent for stat in reports.values() if stat.type == "outbound-rtp"}
    status, _, _ = await asyncio.to_thread(http, "DELETE", session)
    await peer.close()
    print(json.dumps({"sent": sent, "deleted": status}), flush=True)


async def listen(track, sounds):
    try:
        while True:
            frame = await track.recv()
            samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
            sounds.append(samples.astype(numpy.float32) / 32_768)
    except MediaStreamError:
        pass


async def look(track, pictures, first):
    try:
        while True:
            frame = await track.recv()
            first.set()
            pictures.append(frame.reformat(width=80, height=60, format="gray").to_ndarray().astype(numpy.int16))
    except MediaStreamError:
        pass


async def watch(options):
    peer = RTCPeerConnection()
    sounds, pictures, first, tasks = [], [], asyncio.Event(), []

    @peer.on("track")
    def begun(track):
        work = listen(track, sounds) if track.kind == "audio" else look(track, pictures, first)
        tasks.append(asyncio.create_task(work))

    peer.addTransceiver("audio", direction="recvonly")
    peer.addTransceiver("video", direction="recvonly")
    session, ended = await connect(peer, options.url)
    await asyncio.wait_for(first.wait(), DEADLINE)
    await asyncio.sleep(options.seconds)
    status, _, _ = await asyncio.to_thread(http, "DELETE", session)
    try:
        await asyncio.wait_for(ended.wait(), 5)
        closed = True
    except asyncio.TimeoutError:
        closed = False
    await peer.close()
    # The last three seconds: the start has the jitter buffer's silence in it.
    sound = numpy.concatenate(sounds)[-3 * RATE :] if sounds else numpy.zeros(RATE)
    spectrum = numpy.abs(numpy.fft.rfft(sound * numpy.hanning(len(sound))))
    moved = [float(numpy.abs(b - a).max()) for a, b in zip(pictures, pictures[1:])]
    print(
        json.dumps(
            {
                "frames": len(pictures),
                "moving": sum(change > 20 for change in moved),
                "hz": float(numpy.argmax(spectrum) * RATE / len(sound)),
                "rms": float(numpy.sqrt(numpy.mean(sound**2))),
                "seconds": len(sound) / RATE,
                "deleted": status,
                "closed": closed,
            }
        ),
        flush=True,
    )


parser = argparse.ArgumentParser()
parser.add_argument("role", choices=["publish", "watch"])
parser.add_argument("url")
parser.add_argument("--hz", type=float, default=440)
parser.add_argument("--seconds", type=float, default=5)
arguments = parser.parse_args()
asyncio.run(publish(arguments) if arguments.role == "publish" else watch(arguments))

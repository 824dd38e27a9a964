//! What a publisher must hear about its own packets to ramp up: receiver reports (RFC 3550) and transport-wide
//! feedback. Both come from the protocol crate's interceptors, driven here without its peer-connection layer.

use std::time::{Duration, Instant};

use rtc::interceptor::{
    AttributedPacket, Interceptor as _, Packet, RTPHeaderExtension, ReceiverReportBuilder, ReceiverReportInterceptor,
    StreamInfo, TaggedPacket, TwccReceiverBuilder, TwccReceiverInterceptor,
};
use rtc::rtcp;
use rtc::rtp;
use rtc::sansio::Protocol as _;
use rtc::shared::TransportContext;

use super::line::TRANSPORT_CC;

const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const TRANSPORT_CC_INTERVAL: Duration = Duration::from_millis(50);

/// Feedback of one session.
pub(super) struct Feedback {
    reports: ReceiverReportInterceptor,
    transport_cc: TwccReceiverInterceptor,
}

impl Feedback {
    pub fn new() -> Self {
        Self {
            reports: ReceiverReportBuilder::new().with_interval(REPORT_INTERVAL).build(),
            transport_cc: TwccReceiverBuilder::new().with_interval(TRANSPORT_CC_INTERVAL).build(),
        }
    }

    /// Starts on a stream. `transport_cc` is the id of the header extension.
    pub fn bind(&mut self, ssrc: u32, clock_rate: u32, transport_cc: Option<u8>) {
        let info = stream_info(ssrc, clock_rate, transport_cc);
        self.reports.bind_remote_stream(&info);
        self.transport_cc.bind_remote_stream(&info);
    }

    /// Forgets a stream.
    pub fn unbind(&mut self, ssrc: u32) {
        let info = stream_info(ssrc, 0, None);
        self.reports.unbind_remote_stream(&info);
        self.transport_cc.unbind_remote_stream(&info);
    }

    /// Notes a packet and gives it back.
    pub fn note_rtp(&mut self, now: Instant, packet: rtp::Packet) -> Option<rtp::Packet> {
        let message = tagged(now, Packet::Rtp(packet));
        self.reports.handle_read(message).ok()?;
        self.transport_cc.handle_read(self.reports.poll_read()?).ok()?;
        match self.transport_cc.poll_read()?.message.packet {
            Packet::Rtp(packet) => Some(packet),
            _ => None,
        }
    }

    /// Notes reports of the peer, for the round-trip fields of ours, and gives them back.
    pub fn note_rtcp(
        &mut self,
        now: Instant,
        packets: Vec<Box<dyn rtcp::Packet>>,
    ) -> Option<Vec<Box<dyn rtcp::Packet>>> {
        self.reports.handle_read(tagged(now, Packet::Rtcp(packets))).ok()?;
        match self.reports.poll_read()?.message.packet {
            Packet::Rtcp(packets) => Some(packets),
            _ => None,
        }
    }

    pub fn next_timeout(&mut self) -> Option<Instant> {
        self.reports
            .poll_timeout()
            .into_iter()
            .chain(self.transport_cc.poll_timeout())
            .min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = self.reports.handle_timeout(now);
        let _ = self.transport_cc.handle_timeout(now);
    }

    /// RTCP to send.
    pub fn poll(&mut self) -> Option<Vec<Box<dyn rtcp::Packet>>> {
        loop {
            let message = self.reports.poll_write().or_else(|| self.transport_cc.poll_write())?;
            if let Packet::Rtcp(packets) = message.message.packet
                && !packets.is_empty()
            {
                return Some(packets);
            }
        }
    }
}

fn tagged(now: Instant, packet: Packet) -> TaggedPacket {
    TaggedPacket {
        now,
        transport: TransportContext::default(),
        message: AttributedPacket::new(packet),
    }
}

fn stream_info(ssrc: u32, clock_rate: u32, transport_cc: Option<u8>) -> StreamInfo {
    let extension = |id: u8| RTPHeaderExtension {
        uri: TRANSPORT_CC.to_owned(),
        id: u16::from(id),
    };
    StreamInfo {
        ssrc,
        clock_rate,
        rtp_header_extensions: transport_cc.map(extension).into_iter().collect(),
        ..StreamInfo::default()
    }
}

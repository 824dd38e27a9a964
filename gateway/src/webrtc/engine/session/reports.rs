//! The RTCP of a session, both ways.

use std::time::{Duration, Instant};

use rtc::rtcp;
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};

use super::super::line::Line;
use super::super::types::{Event, Kind, Mid, ReportTime, Rid};
use super::{Session, Sinks, WriteError};

/// Most entries, of up to 17 packets each, in one NACK. It stays below the smallest path's datagram, and the protocol crate
/// refuses more than 253.
const MAX_NACK_PAIRS: usize = 200;

impl Session {
    /// Takes a compound packet of the peer's.
    pub(super) fn handle_rtcp(&mut self, now: Instant, packets: Vec<Box<dyn rtcp::Packet>>, sinks: &mut Sinks<'_>) {
        let Some(packets) = self.feedback.note_rtcp(now, packets) else {
            return;
        };
        let session = self.id;
        let line_of = |lines: &[Line], ssrc: u32| {
            lines
                .iter()
                .position(|line| line.local.media == ssrc || line.local.rtx == ssrc)
        };
        for packet in &packets {
            let packet = packet.as_any();
            if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
                if let Some(line) = line_of(&self.lines, pli.media_ssrc) {
                    sinks.events.push_back(Event::KeyframeRequest {
                        session,
                        mid: self.lines[line].mid,
                    });
                }
            } else if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
                for entry in &fir.fir {
                    if let Some(line) = line_of(&self.lines, entry.ssrc) {
                        sinks.events.push_back(Event::KeyframeRequest {
                            session,
                            mid: self.lines[line].mid,
                        });
                    }
                }
            } else if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
                if let Some(line) = line_of(&self.lines, nack.media_ssrc) {
                    let seqs = nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
                    sinks.events.push_back(Event::Nack {
                        session,
                        mid: self.lines[line].mid,
                        seqs,
                    });
                }
            } else if let Some(remb) = packet.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
                let bps = remb.bitrate.clamp(0.0, 10e9) as u64;
                if self.bandwidth.note_remb(now, bps) {
                    sinks.events.push_back(Event::Estimate { session, bps });
                }
            } else if let Some(feedback) = packet.downcast_ref::<TransportLayerCc>() {
                if let Some(bps) = self.bandwidth.note_feedback(now, feedback) {
                    sinks.events.push_back(Event::Estimate { session, bps });
                }
            } else if let Some(report) = packet.downcast_ref::<ReceiverReport>() {
                self.note_reports(now, &report.reports, sinks);
            } else if let Some(report) = packet.downcast_ref::<SenderReport>() {
                // One about a stream that another took over from says nothing of the m-line any more.
                if let Some((line, rid)) = self.inbound.find(report.ssrc)
                    && self.inbound.ssrc_of(line, rid) == Some(report.ssrc)
                {
                    let time = ReportTime {
                        ntp: report.ntp_time,
                        rtp: report.rtp_time,
                    };
                    let mid = self.lines[line].mid;
                    sinks.events.push_back(Event::SenderReport {
                        session,
                        mid,
                        rid,
                        time,
                    });
                }
                self.note_reports(now, &report.reports, sinks);
            }
        }
    }

    fn note_reports(&mut self, now: Instant, reports: &[ReceptionReport], sinks: &mut Sinks<'_>) {
        for report in reports {
            let Some(index) = self.lines.iter().position(|line| line.local.media == report.ssrc) else {
                continue;
            };
            let sent = self.outgoing[index]
                .reports
                .iter()
                .find(|(middle, _)| *middle == report.last_sender_report);
            let rtt = sent.map(|&(_, at)| {
                let held = Duration::from_secs_f64(f64::from(report.delay) / 65_536.0);
                now.saturating_duration_since(at).saturating_sub(held)
            });
            sinks.events.push_back(Event::ReceiverReport {
                session: self.id,
                mid: self.lines[index].mid,
                fraction_lost: report.fraction_lost,
                total_lost: report.total_lost,
                // The upper half counts the cycles.
                highest: report.last_sequence_number as u16,
                jitter: report.jitter,
                rtt,
            });
        }
    }

    /// Asks the publisher for a keyframe (PLI).
    pub fn request_keyframe(&mut self, mid: Mid, rid: Option<Rid>, sinks: &mut Sinks<'_>) -> Result<(), WriteError> {
        let line = self.line(mid, |direction| direction.recv)?;
        let media_ssrc = self.inbound.ssrc_of(line, rid).ok_or(WriteError::NoLine)?;
        let pli = PictureLossIndication {
            sender_ssrc: self.ssrc,
            media_ssrc,
        };
        self.write_rtcp(&[Box::new(pli)], sinks)
    }

    /// Asks the publisher for packets again (generic NACK).
    pub fn nack(&mut self, mid: Mid, rid: Option<Rid>, seqs: &[u64], sinks: &mut Sinks<'_>) -> Result<(), WriteError> {
        let line = self.line(mid, |direction| direction.recv)?;
        let media_ssrc = self.inbound.ssrc_of(line, rid).ok_or(WriteError::NoLine)?;
        for nack in nack_messages(self.ssrc, media_ssrc, seqs) {
            self.write_rtcp(&[Box::new(nack)], sinks)?;
        }
        Ok(())
    }

    /// Bounds what the publisher sends altogether (REMB).
    pub fn limit_rate(&mut self, bps: u64, sinks: &mut Sinks<'_>) -> Result<(), WriteError> {
        let takes_it = |line: &Line| line.codecs.iter().any(|codec| codec.feedback.contains(&"goog-remb"));
        let videos = self.lines.iter().enumerate();
        let ssrcs: Vec<u32> = videos
            .filter(|(_, line)| line.kind == Some(Kind::Video) && line.direction.recv && takes_it(line))
            .filter_map(|(index, _)| self.inbound.ssrc_of(index, None))
            .collect();
        if ssrcs.is_empty() {
            return Err(WriteError::NoLine);
        }
        let remb = ReceiverEstimatedMaximumBitrate {
            sender_ssrc: self.ssrc,
            bitrate: bps as f32,
            ssrcs,
        };
        self.write_rtcp(&[Box::new(remb)], sinks)
    }

    /// Tells a viewer the clocks of the stream we send.
    pub fn send_report(
        &mut self,
        now: Instant,
        mid: Mid,
        time: ReportTime,
        sinks: &mut Sinks<'_>,
    ) -> Result<(), WriteError> {
        let line = self.line(mid, |direction| direction.send)?;
        let outgoing = &mut self.outgoing[line];
        if outgoing.reports.len() >= 4 {
            outgoing.reports.pop_front();
        }
        outgoing.reports.push_back(((time.ntp >> 16) as u32, now));
        let report = SenderReport {
            ssrc: self.lines[line].local.media,
            ntp_time: time.ntp,
            rtp_time: time.rtp,
            packet_count: outgoing.packets,
            octet_count: outgoing.octets,
            ..SenderReport::default()
        };
        self.write_rtcp(&[Box::new(report)], sinks)
    }

    pub(super) fn write_rtcp(
        &mut self,
        packets: &[Box<dyn rtcp::Packet>],
        sinks: &mut Sinks<'_>,
    ) -> Result<(), WriteError> {
        if !self.transport.is_up() {
            return Err(WriteError::NotConnected);
        }
        let compound = rtcp::packet::marshal(packets).map_err(|_| WriteError::Engine)?;
        let (path, encrypted) = self.transport.protect_rtcp(&compound).ok_or(WriteError::Engine)?;
        sinks.outbox.push(path, &encrypted);
        Ok(())
    }
}

/// The messages that ask for `seqs`, extended numbers in ascending order.
fn nack_messages(sender_ssrc: u32, media_ssrc: u32, seqs: &[u64]) -> Vec<TransportLayerNack> {
    let seqs: Vec<u16> = seqs.iter().map(|&seq| seq as u16).collect();
    let pairs = nack_pairs_from_sequence_numbers(&seqs);
    let messages = pairs.chunks(MAX_NACK_PAIRS).map(|pairs| TransportLayerNack {
        sender_ssrc,
        media_ssrc,
        nacks: pairs.to_vec(),
    });
    messages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_missing_packets_are_asked_for_in_messages_that_fit_a_datagram() {
        // So far apart that each takes an entry of its own.
        let seqs: Vec<u64> = (0..1_024).map(|place| 65_000 + place * 20).collect();
        let messages = nack_messages(1, 2, &seqs);
        let asked: Vec<u16> = messages
            .iter()
            .flat_map(|message| message.nacks.iter().flat_map(|pair| pair.packet_list()))
            .collect();
        assert_eq!(asked, seqs.iter().map(|&seq| seq as u16).collect::<Vec<_>>());
        for message in messages {
            let packets: [Box<dyn rtcp::Packet>; 1] = [Box::new(message)];
            assert!(rtcp::packet::marshal(&packets).unwrap().len() <= 1_200);
        }
    }
}

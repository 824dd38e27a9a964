//! How many sessions one address may begin.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Sessions per second that an address may begin in the long run, …
const RATE: f64 = 5.0;
/// … and at once.
const BURST: f64 = 200.0;
/// Addresses remembered. When they are all in use, the one that asked longest ago is forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// A token bucket per address; for IPv6 per /64, which is what one customer has.
#[derive(Debug, Default)]
pub struct Rates {
    buckets: BTreeMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Rates {
    /// Takes one session; or says after how long to come again.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn take(&mut self, ip: IpAddr, now: Instant) -> Result<(), Duration> {
        let ip = network_of(ip);
        if self.buckets.len() >= MAX_ADDRESSES && !self.buckets.contains_key(&ip) {
            self.forget(now);
        }
        let bucket = self.buckets.entry(ip).or_insert(Bucket { level: BURST, at: now });
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * RATE;
        bucket.level = (bucket.level + gained).min(BURST);
        bucket.at = now;
        if bucket.level >= 1.0 {
            bucket.level -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.level) / RATE))
    }

    fn forget(&mut self, now: Instant) {
        let full_after = Duration::from_secs_f64(BURST / RATE);
        self.buckets
            .retain(|_, bucket| now.saturating_duration_since(bucket.at) < full_after);
        if self.buckets.len() >= MAX_ADDRESSES
            && let Some(oldest) = self
                .buckets
                .iter()
                .min_by_key(|(_, bucket)| bucket.at)
                .map(|(ip, _)| *ip)
        {
            self.buckets.remove(&oldest);
        }
    }
}

fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_burst_and_then_its_rate() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let ip = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..BURST as usize {
            assert_eq!(rates.take(ip, start), Ok(()));
        }
        let wait = rates.take(ip, start).unwrap_err();
        assert!(wait <= Duration::from_millis(200), "{wait:?}");
        assert_eq!(rates.take(IpAddr::from([192, 0, 2, 2]), start), Ok(()));
        assert_eq!(rates.take(ip, start + Duration::from_millis(201)), Ok(()));
    }

    #[test]
    fn a_prefix_of_64_bits_is_one_address() {
        let mut rates = Rates::default();
        let start = Instant::now();
        for host in 0..BURST as u16 {
            let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host);
            assert_eq!(rates.take(ip.into(), start), Ok(()));
        }
        let same = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 9, 9, 9, 9);
        assert!(rates.take(same.into(), start).is_err());
        let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 9, 9, 9, 9);
        assert_eq!(rates.take(other.into(), start), Ok(()));
    }

    #[test]
    fn memory_is_bounded() {
        let mut rates = Rates::default();
        let start = Instant::now();
        for n in 0..MAX_ADDRESSES as u32 + 100 {
            let _ = rates.take(IpAddr::from(n.to_be_bytes()), start);
        }
        assert!(rates.buckets.len() <= MAX_ADDRESSES);
    }
}

//! Slows down clients that guess tokens, by address: responses to wrong tokens are delayed. The right
//! token is never delayed, because one address can be a proxy with many callers behind it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::listen::owner;

/// Wrong tokens of an address that are answered at once.
const AT_ONCE: u32 = 20;
/// How long a wrong token is counted.
const COUNTED_FOR: Duration = Duration::from_secs(1);
/// The longest that an answer waits.
const LONGEST: Duration = Duration::from_secs(5);
/// Answers to one address that wait, each with a connection; more do not.
const MOST_WAITING: usize = 64;
/// Most addresses that are counted. The one that is forgotten first makes room.
const MOST_ADDRESSES: usize = 4096;

/// The wrong tokens of the last seconds, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Guesses(Arc<Mutex<HashMap<IpAddr, Guesser>>>);

#[derive(Debug)]
struct Guesser {
    /// When all of its guesses are forgotten: each of them moves this by [`COUNTED_FOR`].
    forgotten: Instant,
    waiting: usize,
}

/// An answer that waits. It is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) time: Duration,
    guesses: Guesses,
    address: IpAddr,
}

impl Guesses {
    /// Counts a wrong token, and says how long its answer waits, if it does.
    pub(super) fn note(&self, address: IpAddr, now: Instant) -> Option<Wait> {
        let address = owner(address);
        let mut guesses = self.lock();
        if !guesses.contains_key(&address) {
            make_room(&mut guesses, now);
        }
        let guesser = guesses.entry(address).or_insert(Guesser {
            forgotten: now,
            waiting: 0,
        });
        guesser.forgotten = now.max(guesser.forgotten) + COUNTED_FOR;
        let counted = guesser.forgotten - now;
        let time = LONGEST.min(counted.saturating_sub(COUNTED_FOR * AT_ONCE));
        if time.is_zero() || guesser.waiting >= MOST_WAITING {
            return None;
        }
        guesser.waiting += 1;
        Some(Wait {
            time,
            guesses: self.clone(),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Guesser>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(guesser) = self.guesses.lock().get_mut(&self.address) {
            guesser.waiting = guesser.waiting.saturating_sub(1);
        }
    }
}

fn make_room(guesses: &mut HashMap<IpAddr, Guesser>, now: Instant) {
    if guesses.len() < MOST_ADDRESSES {
        return;
    }
    guesses.retain(|_, guesser| guesser.forgotten > now);
    if guesses.len() < MOST_ADDRESSES {
        return;
    }
    let first = guesses.iter().min_by_key(|(_, guesser)| guesser.forgotten);
    if let Some(address) = first.map(|(address, _)| *address) {
        guesses.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Guesses without a pause, and gives how long the last answer waits.
    fn guess(guesses: &Guesses, address: IpAddr, times: u32, now: Instant) -> Duration {
        let mut last = None;
        for _ in 0..times {
            last = guesses.note(address, now);
        }
        last.map(|wait| wait.time).unwrap_or_default()
    }

    #[test]
    fn a_few_guesses_are_answered_at_once_and_more_wait_longer_and_longer() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(address);
        assert_eq!(guess(&guesses, one, AT_ONCE, now), Duration::ZERO);
        assert_eq!(guess(&guesses, one, 1, now), Duration::from_secs(1));
        assert_eq!(guess(&guesses, one, 1, now), Duration::from_secs(2));
        assert_eq!(guess(&guesses, one, 100, now), LONGEST);
        assert_eq!(guess(&guesses, other, 1, now), Duration::ZERO);
        let later = now + COUNTED_FOR * 200;
        assert_eq!(guess(&guesses, one, 1, later), Duration::ZERO);
    }

    #[test]
    fn addresses_of_one_network_are_one_and_mapped_ones_are_what_they_stand_for() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        guess(&guesses, address("2001:db8::1"), 100, now);
        let waits = |text: &str| guess(&guesses, address(text), 1, now) > Duration::ZERO;
        assert!(waits("2001:db8::ffff"));
        assert!(!waits("2001:db8:0:1::1"));
        guess(&guesses, address("192.0.2.1"), 100, now);
        assert!(waits("::ffff:192.0.2.1"));
    }

    #[test]
    fn few_answers_wait_at_once() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let one = address("192.0.2.1");
        let waits: Vec<Wait> = (0..1000).filter_map(|_| guesses.note(one, now)).collect();
        assert_eq!(waits.len(), MOST_WAITING);
        drop(waits);
        assert!(guesses.note(one, now).is_some());
    }

    #[test]
    fn addresses_without_end_take_bounded_memory() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let guesser = address("192.0.2.1");
        guess(&guesses, guesser, 100, now);
        for number in 0..20_000_u32 {
            guesses.note(IpAddr::from(number.to_be_bytes()), now);
        }
        assert_eq!(guesses.lock().len(), MOST_ADDRESSES);
        // Who guesses most is forgotten last.
        assert_eq!(guess(&guesses, guesser, 1, now), LONGEST);
    }
}

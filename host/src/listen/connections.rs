//! Tracks open connections, and decides which idle one to close for a new one.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::measure;

/// Connections beyond the limits, for health checks.
const RESERVE: usize = 64;

/// The limits for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub most: usize,
    /// Per address, or per /64 network for IPv6.
    pub most_per_address: usize,
}

/// The allowed use of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Regular,
    /// Only health checks.
    Reserve,
}

/// The open connections.
pub(super) struct Connections {
    limits: Limits,
    table: Mutex<Table>,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: Mutex::default(),
        }
    }

    /// Makes room for a connection, if necessary by closing an idle one. None if there is no room.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let evicted = CancellationToken::new();
        let (number, room) = self
            .table()
            .admit(owner(address), evicted.clone(), self.limits)?;
        Some(Place {
            connections: self.clone(),
            number,
            room,
            evicted,
        })
    }

    /// Closes the connection that has been idle for the longest time.
    pub(super) fn close_oldest(&self) {
        self.table().evict(|_| true);
    }

    /// Closes all idle connections.
    pub(super) fn close_waiting(&self) {
        while self.table().evict(|_| true) {}
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of a connection, which is released when this is dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    room: Room,
    evicted: CancellationToken,
}

impl Place {
    pub(super) fn room(&self) -> Room {
        self.room
    }

    /// Returns when the connection has to be closed.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Whether a request was ever received.
    pub(super) fn has_begun(&self) -> bool {
        let table = self.connections.table();
        table
            .entries
            .get(&self.number)
            .is_some_and(|entry| entry.has_begun)
    }

    /// Records a request. The connection is busy until the returned guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.connections.table().begin(self.number);
        Busy(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table().remove(self.number);
    }
}

/// A connection that is processing a request.
pub(super) struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.connections.table().finish(self.0.number);
    }
}

/// Whose address it is: in IPv6 everybody has a /64 network of them.
pub fn owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// The order in which idle connections are closed: first those that never sent a request, then the
/// oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    has_begun: bool,
    number: u64,
}

struct Entry {
    owner: IpAddr,
    room: Room,
    has_begun: bool,
    /// The number of requests in progress.
    requests: usize,
    /// Set while the connection is idle.
    waits: Option<Turn>,
    evicted: CancellationToken,
}

#[derive(Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    waiting: BTreeMap<Turn, u64>,
    owners: HashMap<IpAddr, usize>,
    in_reserve: usize,
    last_number: u64,
}

impl Table {
    fn admit(
        &mut self,
        owner: IpAddr,
        evicted: CancellationToken,
        limits: Limits,
    ) -> Option<(u64, Room)> {
        let room = self.room_for(owner, limits)?;
        let number = self.next_number();
        self.in_reserve += usize::from(room == Room::Reserve);
        *self.owners.entry(owner).or_default() += 1;
        let entry = Entry {
            owner,
            room,
            has_begun: false,
            requests: 0,
            waits: None,
            evicted,
        };
        self.entries.insert(number, entry);
        self.wait(number);
        measure::connections(self.entries.len());
        Some((number, room))
    }

    fn room_for(&mut self, owner: IpAddr, limits: Limits) -> Option<Room> {
        let of_owner = self.owners.get(&owner).copied().unwrap_or_default();
        let regular = self.entries.len() - self.in_reserve;
        let has_room = match (of_owner < limits.most_per_address, regular < limits.most) {
            (true, true) => true,
            (true, false) => self.evict(|entry| entry.room == Room::Regular),
            (false, _) => self.evict(|entry| entry.room == Room::Regular && entry.owner == owner),
        };
        if has_room {
            return Some(Room::Regular);
        }
        let has_reserve =
            self.in_reserve < RESERVE || self.evict(|entry| entry.room == Room::Reserve);
        has_reserve.then_some(Room::Reserve)
    }

    /// Closes the first eligible idle connection. False if there is none.
    fn evict(&mut self, may_go: impl Fn(&Entry) -> bool) -> bool {
        let mut waiting = self.waiting.values();
        let first = waiting.find(|number| self.entries.get(number).is_some_and(&may_go));
        let removed = first.copied().and_then(|number| self.remove(number));
        removed.map(|entry| entry.evicted.cancel()).is_some()
    }

    fn begin(&mut self, number: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.has_begun = true;
            entry.requests += 1;
            if let Some(turn) = entry.waits.take() {
                self.waiting.remove(&turn);
            }
        }
    }

    fn finish(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        entry.requests -= 1;
        if entry.requests == 0 {
            self.wait(number);
        }
    }

    fn wait(&mut self, number: u64) {
        let turn = self.next_number();
        if let Some(entry) = self.entries.get_mut(&number) {
            let turn = Turn {
                has_begun: entry.has_begun,
                number: turn,
            };
            entry.waits = Some(turn);
            self.waiting.insert(turn, number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        if let Some(turn) = entry.waits {
            self.waiting.remove(&turn);
        }
        self.in_reserve -= usize::from(entry.room == Room::Reserve);
        if let Some(count) = self.owners.get_mut(&entry.owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&entry.owner);
            }
        }
        measure::connections(self.entries.len());
        Some(entry)
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn connections(most: usize, most_per_address: usize) -> Arc<Connections> {
        Arc::new(Connections::new(Limits {
            most,
            most_per_address,
        }))
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn admit(connections: &Arc<Connections>, last: u8) -> Arc<Place> {
        Arc::new(connections.admit(address(last)).unwrap())
    }

    #[test]
    fn the_connection_that_has_waited_longest_gives_way() {
        let all = connections(3, 3);
        let [busy, first, second] = [1, 2, 3].map(|from| admit(&all, from));
        let _answer = busy.begin();
        let new = admit(&all, 4);
        assert!(first.evicted.is_cancelled() && !second.evicted.is_cancelled());
        assert!(!busy.evicted.is_cancelled() && new.room() == Room::Regular);
    }

    #[test]
    fn one_that_has_sent_a_request_gives_way_after_those_that_have_not() {
        let all = connections(2, 2);
        let kept = admit(&all, 1);
        drop(kept.begin());
        let silent = admit(&all, 2);
        admit(&all, 3);
        assert!(silent.evicted.is_cancelled() && !kept.evicted.is_cancelled());
    }

    #[test]
    fn an_address_with_many_gives_way_to_itself_and_not_to_others() {
        let all = connections(10, 2);
        let [first, second] = [1, 1].map(|from| admit(&all, from));
        let other = admit(&all, 2);
        let third = admit(&all, 1);
        assert!(first.evicted.is_cancelled() && !other.evicted.is_cancelled());
        let _answers = [second.begin(), third.begin()];
        assert_eq!(admit(&all, 1).room(), Room::Reserve);
        assert_eq!(admit(&all, 2).room(), Room::Regular);
    }

    #[test]
    fn when_all_are_busy_there_is_a_reserve_and_then_nothing() {
        let all = connections(2, 2);
        let regular = [1, 2].map(|from| admit(&all, from));
        let _answers = regular.each_ref().map(Place::begin);
        let reserve: Vec<_> = (0..RESERVE).map(|_| admit(&all, 3)).collect();
        assert!(reserve.iter().all(|place| place.room() == Room::Reserve));
        assert_eq!(admit(&all, 3).room(), Room::Reserve);
        assert!(reserve[0].evicted.is_cancelled());
        let _answers: Vec<_> = reserve.iter().map(Place::begin).collect();
        let last = admit(&all, 4);
        let _answer = last.begin();
        assert!(all.admit(address(4)).is_none());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let of = |text: &str| owner(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    proptest! {
        #[test]
        fn limits_hold_and_every_place_is_free_again(
            steps in proptest::collection::vec((0_u8..4, 0_usize..8, 0_u8..3), 1..200),
        ) {
            let all = connections(5, 3);
            let (mut places, mut answers) = (Vec::new(), Vec::new());
            for (from, which, step) in steps {
                match step {
                    0 => places.extend(all.admit(address(from)).map(Arc::new)),
                    1 if which < places.len() => answers.push(Place::begin(&places[which])),
                    2 if which < places.len() => drop(places.remove(which)),
                    _ => drop(answers.pop()),
                }
                let table = all.table();
                prop_assert!(table.entries.len() - table.in_reserve <= 5);
                prop_assert!(table.in_reserve <= RESERVE);
                prop_assert!(table.waiting.values().all(|n| table.entries.contains_key(n)));
            }
            drop((places, answers));
            let table = all.table();
            prop_assert!(table.entries.is_empty() && table.waiting.is_empty());
            prop_assert!(table.owners.is_empty() && table.in_reserve == 0);
        }
    }
}
